"""A headless Chromium with no network, driven over the DevTools protocol's pipe (file descriptors 3 and 4).

https://chromedevtools.github.io/devtools-protocol/; messages are JSON that ends in a NUL byte.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "apt-get install -y --no-install-recommends chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",  # they take 15 pixels of the page's width; on a phone they take none
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name leads anywhere
    "--remote-debugging-pipe",
)
TIMEOUT_S = 60.0


def find() -> str | None:
    """The path of a browser that can be driven."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page, and everything it said and asked for since it was opened."""

    def __init__(self, pipe: _Pipe, session: str) -> None:
        self._pipe = pipe
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.send("Network.emulateNetworkConditions", **offline)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._pipe.call(method, params, self._session)

    def goto(self, path: Path) -> None:
        self._pipe.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        self._pipe.wait("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def show(self, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """Lay the page out anew."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.send("Page.printToPDF")["data"])

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and what the browser refused."""
        told = []
        for event in self._pipe.events:
            params = event["params"]
            if event["method"] == "Log.entryAdded":
                told.append(params["entry"]["text"])
            elif event["method"] == "Runtime.exceptionThrown":
                told.append(str(params["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled":
                told.append(str(params["args"]))
        return told

    @property
    def requests(self) -> list[str]:
        """Every address that was asked for, the page's own first."""
        methods = "Network.requestWillBeSent"
        return [event["params"]["request"]["url"] for event in self._pipe.events if event["method"] == methods]


class _Pipe:
    """Commands and answers, and the events between them."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._rest = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "the browser gave no answer" if not ready else "the browser ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are neither 3 nor 4, which the browser's have to be."""
    ends = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return read, write


@contextlib.contextmanager
def opened(program: str, profile: Path) -> Iterator[Page]:
    """A fresh browser with one blank page.

    Args:
        program: of :func:`find`.
        profile: an empty folder for it.
    """
    command_read, command_write = _pipe()
    answer_read, answer_write = _pipe()
    flags = (*FLAGS, f"--user-data-dir={profile}", "about:blank")
    # The protocol wants the pipes as 3 and 4; bash, as not every sh can redirect from two digits.
    redirect = f'exec "$@" 3<&{command_read} 4>&{answer_write}'
    process = subprocess.Popen(
        ["bash", "-c", redirect, "bash", program, *flags],
        pass_fds=(command_read, answer_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    os.close(command_read)
    os.close(answer_write)
    try:
        pipe = _Pipe(answer_read, command_write)
        target = pipe.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = pipe.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        yield Page(pipe, session)
        with contextlib.suppress(AssertionError, BrokenPipeError):
            pipe.call("Browser.close", {})
    finally:
        os.close(command_write)
        os.close(answer_read)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
