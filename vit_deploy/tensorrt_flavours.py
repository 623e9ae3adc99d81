"""The two TensorRT packages: what each is, whether it can be used here, and the header of their plans.

``tensorrt`` is NVIDIA's package for the data centre: it times kernels on the GPU it builds for.
``tensorrt_rtx`` is the one for PCs and workstations: it builds without a GPU, for a range of them,
and finishes the engine on the user's machine. Their Python interfaces are nearly one; what differs
stands in the :class:`Flavour` table here, and is used by both the exporter and the runtime.

Limits: the first 32 bytes of a plan are not documented as a format. They are written down when a
plan is built and compared when it is opened, so nothing here depends on what they mean.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendMissing, RunFailed, unknown_name
from vit_deploy.facts import Availability

if TYPE_CHECKING:
    from pathlib import Path

LOGGER = logging.getLogger("vit_deploy.tensorrt")
# Without a handler of its own, Python's last resort would print TensorRT's warnings to stderr.
LOGGER.addHandler(logging.NullHandler())

GPU_MEND = (
    "run this on a machine with an NVIDIA GPU of compute capability 8.0 or later and its driver; "
    "`vit-deploy doctor` shows what this machine has"
)


@dataclass(frozen=True)
class Flavour:
    """One of the two packages, and what it can do that the other cannot.

    Attributes:
        name: as in ``--trt-flavour`` and in an artefact's facts.
        module: its import name.
        title: its name for people.
        extra: our extra that installs it.
        needs_gpu_to_build: whether kernels are timed on the GPU while building.
        keeps_timing_cache: whether those timings can be kept in a file.
        picks_compute_capabilities: whether the GPUs to build for can be named.
        carries_on: whether an engine can be built to run on later versions, or on other GPUs.
    """

    name: str
    module: str
    title: str
    extra: str
    needs_gpu_to_build: bool
    keeps_timing_cache: bool
    picks_compute_capabilities: bool
    carries_on: bool

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'vit-deploy[{self.extra}]'"

    def load(self) -> Any:
        """Its module.

        Raises:
            BackendMissing: when it is not installed, or its libraries do not load.
        """
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise BackendMissing(f"{self.title} is not installed", next_command=self.install) from error
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendMissing(
                f"{self.title} is installed but does not load: {error}", next_command=self.install
            ) from error

    def installed(self) -> Availability:
        """Whether its module loads."""
        try:
            return Availability.yes(self.load().__version__)
        except BackendMissing as error:
            return Availability.no(error.found, error.next_command)

    def can_build(self) -> Availability:
        """Whether engines can be built here."""
        found = self.installed()
        gpus = find_gpus()
        if found.ok and self.needs_gpu_to_build and not gpus.capabilities:
            reason = f"{self.title} builds on the GPU it builds for, and {gpus.reason}"
            return Availability.no(
                reason, f"{FLAVOURS['rtx'].install}, which builds without a GPU; or {GPU_MEND}", found.version
            )
        return found


FLAVOURS: dict[str, Flavour] = {
    "tensorrt": Flavour(
        name="tensorrt",
        module="tensorrt",
        title="TensorRT",
        extra="gpu",
        needs_gpu_to_build=True,
        keeps_timing_cache=True,
        picks_compute_capabilities=False,
        carries_on=True,
    ),
    "rtx": Flavour(
        name="rtx",
        module="tensorrt_rtx",
        title="TensorRT-RTX",
        extra="rtx",
        needs_gpu_to_build=False,
        keeps_timing_cache=False,
        picks_compute_capabilities=True,
        carries_on=False,
    ),
}
"""Both flavours by name, the one that ``auto`` prefers first."""


def choose_flavour(name: str) -> Flavour:
    """The flavour to build with.

    Args:
        name: ``tensorrt``, ``rtx``, or ``auto`` for the first that can build here.

    Raises:
        UsageFailed: for an unknown name.
        BackendMissing: when it cannot build here, or none can.
    """
    if name != "auto":
        if name not in FLAVOURS:
            raise unknown_name("TensorRT flavour", name, ["auto", *FLAVOURS], "vit-deploy export --help")
        found = FLAVOURS[name].can_build()
        if not found.ok:
            raise BackendMissing(found.reason, next_command=found.mend)
        return FLAVOURS[name]
    for flavour in FLAVOURS.values():
        if flavour.can_build().ok:
            return flavour
    found = best_availability([flavour.can_build() for flavour in FLAVOURS.values()])
    raise BackendMissing(found.reason, next_command=found.mend)


def best_availability(found: list[Availability]) -> Availability:
    """The first that is available; failing that, all the reasons and all that mends them."""
    for availability in found:
        if availability.ok:
            return availability
    mends = dict.fromkeys(entry.mend for entry in found)
    return Availability.no("; ".join(entry.reason for entry in found), ", or ".join(mends))


@dataclass(frozen=True)
class Gpus:
    """The GPUs that the driver shows to this process.

    Attributes:
        capabilities: the compute capability of each, as ``"8.9"``, in the driver's order.
        reason: why there are none, as half a sentence.
    """

    capabilities: tuple[str, ...] = ()
    reason: str = ""


@functools.cache
def find_gpus() -> Gpus:
    """Ask the CUDA driver itself, so that a CPU build of PyTorch does not hide a GPU.

    The driver is initialised, which makes no context and takes no memory, once per process.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return Gpus(reason=f"no NVIDIA driver was found ({name} does not load)")
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return Gpus(reason=f"the NVIDIA driver found no usable GPU (CUDA error {status})")
    if count.value == 0:
        return Gpus(reason="the NVIDIA driver shows no GPU to this process")
    return Gpus(tuple(_capability(driver, index) for index in range(count.value)))


def _capability(driver: Any, index: int) -> str:
    device, value, parts = ctypes.c_int(0), ctypes.c_int(0), []
    driver.cuDeviceGet(ctypes.byref(device), index)
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return ".".join(parts)


class Messages:
    """What TensorRT said: passed on to Python's logging, warnings and errors kept.

    TensorRT sends errors of severity ``INTERNAL_ERROR`` also where all goes well, so whether a call
    failed is read from its result, never from here.
    """

    LEVELS = (logging.ERROR, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
    """Python's level for each of TensorRT's severities, in their order."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def add(self, severity: int, text: str) -> None:
        """One message of a TensorRT severity."""
        level = self.LEVELS[min(severity, len(self.LEVELS) - 1)]
        LOGGER.log(level, "%s", text)
        kept = {logging.ERROR: self.errors, logging.WARNING: self.warnings}.get(level)
        if kept is not None and text not in kept:
            kept.append(text)

    def reason(self) -> str:
        """The errors in one line, the last one first: it is nearest to the failure."""
        return "; ".join(" ".join(text.split()) for text in reversed(self.errors)) or "TensorRT gave no reason"

    def clear(self) -> None:
        """Forget what was kept, before a new build."""
        self.errors.clear()
        self.warnings.clear()


@functools.cache
def logger_of(flavour: Flavour) -> tuple[Any, Messages]:
    """The one logger of a flavour in this process, and where its messages end up.

    TensorRT holds on to the first logger it is given and ignores later ones while any of its
    objects is alive, so there is one, and it is never freed.
    """
    trt: Any = flavour.load()
    messages = Messages()

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            messages.add(int(severity), text)

    return Logger(), messages


def plan_header(path: Path) -> dict[str, Any]:
    """The first words of a plan: its magic, the version that wrote it, its size.

    The place of the version is NVIDIA's answer in https://github.com/NVIDIA/TensorRT/issues/3073.

    Raises:
        RunFailed: when the file is too short to be a plan.
    """
    with path.open("rb") as file:
        start = file.read(32)
    if len(start) < 32:
        raise RunFailed(
            f"{path.name} holds {len(start)} bytes", expected="a TensorRT plan", next_command=_REBUILD
        )
    magic, *version = struct.unpack_from("<4s20x4B", start)
    return {
        "magic": magic.decode("ascii", "backslashreplace"),
        "version": ".".join(map(str, version)),
        "bytes": path.stat().st_size,
    }


_REBUILD = "vit-deploy export --format tensorrt, to build it again here"


def check_plan(path: Path, recorded: dict[str, Any]) -> None:
    """Refuse a file that is not the plan that was built, before TensorRT reads any of it.

    This catches a truncated or foreign file early and in plain words. It is no protection against
    tampering: that is the bundle's hash, which is checked first.

    Raises:
        RunFailed: when the header or the size is not what was recorded.
    """
    found = plan_header(path)
    if found != recorded:
        raise RunFailed(
            f"{path.name} is not the plan that was built: {_words(found)}",
            expected=_words(recorded),
            next_command=_REBUILD,
        )


def _words(header: dict[str, Any]) -> str:
    return f"magic {header.get('magic')!r}, version {header.get('version')}, {header.get('bytes')} bytes"


def check_version(flavour: Flavour, installed: str, built: str, *, later_is_fine: bool) -> None:
    """Refuse an engine of another version of its flavour.

    Args:
        flavour: the engine's flavour.
        installed: the version here.
        built: the version that built the engine.
        later_is_fine: whether the engine was built to run on later versions.

    Raises:
        BackendMissing: naming the version to install.
    """
    if installed == built or (later_is_fine and _numbers(installed) >= _numbers(built)):
        return
    raise BackendMissing(
        f"the engine was built by {flavour.title} {built}, and {installed} is installed",
        expected=f"{flavour.title} {built}" + (" or later" if later_is_fine else ", exactly"),
        next_command=f"pip install '{flavour.module}=={built}', or {_REBUILD}",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
