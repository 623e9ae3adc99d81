"""A runtime that does what its artefact, a JSON file, says: sleep, fail, crash, hang."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from vit_deploy.errors import RunFailed
from vit_deploy.facts import Availability, Device, RuntimeFacts
from vit_deploy.protocols import BaseSession


class FakeStep:
    def __init__(self, told):
        self.told = told
        self.count = 0

    def __call__(self):
        self.count += 1
        if "trace" in self.told:
            with Path(self.told["trace"]).open("a") as trace:
                trace.write(f"{os.getpid()}\n")
        if self.count == self.told.get("crash_after"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.count == self.told.get("exit_after"):
            print("the library gave up", file=sys.stderr, flush=True)
            os._exit(3)
        if self.count == self.told.get("raise_after"):
            raise RuntimeError("out of tensors")
        if self.count == self.told.get("hang_after"):
            time.sleep(3600)
        slow = self.count <= self.told.get("slow_until", 0)
        time.sleep(self.told.get("slow_us" if slow else "step_us", 200) / 1e6)

    def synchronize(self):
        pass


class FakeSession(BaseSession):
    def __init__(self, artefact, told, facts):
        super().__init__(artefact)
        self.told = told
        self.facts = facts

    def _run(self, inputs):
        raise RunFailed("the fake computes nothing")

    def stage(self, inputs):
        assert all(array.shape[0] for array in inputs.values())
        return FakeStep(self.told)


class FakeRuntime:
    name = "fake"
    description = "does as it is told"
    formats = frozenset({"fake"})

    def available(self, device=None):
        if device and device.kind == "cuda":
            return Availability.no("the fake has no GPU", "buy one")
        return Availability.yes("1.0")

    def devices(self):
        return (Device("cpu"),)

    def open(self, artefact, device, options):
        print("a library writes to stdout as it likes", flush=True)
        told = json.loads(artefact.path.read_text())
        if "refuse" in told:
            raise RunFailed(told["refuse"], expected="a better artefact", next_command="vit-deploy demo")
        facts = RuntimeFacts(
            backend="fake",
            version="1.0",
            device=told.get("device", str(device)),
            precision=told.get("precision", artefact.precision),
            threads=told.get("threads", options.threads),
            streams=told.get("streams", options.streams),
        )
        return FakeSession(artefact, told, facts)


RUNTIME = FakeRuntime()
