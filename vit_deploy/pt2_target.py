"""What a compiled ``.pt2`` package was made for, and whether that is what this machine is.

A package is machine code. Run on a processor without the instructions in it, the process dies by a signal;
loaded into another version of PyTorch, whose headers it was compiled with, it may do anything. So what it was
made for is written into the facts of the artefact, and compared before any of it is loaded.

The levels of x86-64 are those of the System V psABI (https://gitlab.com/x86-psABIs/x86-64-ABI, section 3.1.1),
as ``-march`` takes them.
"""

from __future__ import annotations

import functools
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendMissing, RunFailed
from vit_deploy.facts import Availability

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM, MACHINE = "linux", "x86_64"
"""What packages are made for and opened on."""

REBUILD = "vit-deploy export --format pt2, to compile it again here"


@dataclass(frozen=True)
class Level:
    """One level of x86-64.

    Attributes:
        name: as ``-march`` takes it.
        bits: width of its vectors.
        flags: what the kernel calls its instructions (``/proc/cpuinfo``); those that set it off from older
            levels are enough, and a processor that has them has the rest.
        packed_for: what oneDNN is told to lay the weights out for (``ONEDNN_MAX_CPU_ISA``); for the processor
            that compiles when empty.
    """

    name: str
    bits: int
    flags: frozenset[str]
    packed_for: str = ""


_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
LEVELS: tuple[Level, ...] = (
    Level("x86-64-v4", 512, _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    Level("x86-64-v3", 256, _V3, "AVX2"),
)
"""The levels that there are kernels for, the best first."""

LEVEL_NAMES: tuple[str, ...] = tuple(level.name for level in LEVELS)


@dataclass(frozen=True)
class Target:
    """What a package was compiled for.

    Attributes:
        system: ``linux``.
        machine: ``x86_64``.
        level: of x86-64, as in :data:`LEVELS`.
        cpu_flags: every instruction set that its code may use, as ``/proc/cpuinfo`` has them, sorted.
        torch: PyTorch's version, without what it was built for.
        device: ``cpu``, or ``cuda``.
        capability: the compute capability of the GPU, as ``9.0``; empty for a CPU.
        cuda: the version of CUDA; empty for a CPU.
    """

    system: str
    machine: str
    level: str
    cpu_flags: tuple[str, ...]
    torch: str
    device: str = "cpu"
    capability: str = ""
    cuda: str = ""

    def to_facts(self) -> dict[str, Any]:
        """As plain data for a manifest."""
        return {**asdict(self), "cpu_flags": list(self.cpu_flags)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], name: str) -> Target:
        """Read what :meth:`to_facts` wrote.

        Args:
            facts: of an artefact.
            name: of the artefact.

        Raises:
            RunFailed: when they do not say what the package was made for.
        """
        told = facts.get("target")
        try:
            target = cls(**{**told, "cpu_flags": tuple(told["cpu_flags"])})  # type: ignore[dict-item, index]
            texts = [getattr(target, key) for key in asdict(target) if key != "cpu_flags"]
            if not all(isinstance(text, str) for text in [*texts, *target.cpu_flags]):
                raise TypeError("a value is no text")
        except (TypeError, KeyError) as error:
            raise RunFailed(
                f"nothing says what machine {name} was compiled for",
                expected="a package from a bundle, whose manifest has it under facts.target",
                next_command=REBUILD,
            ) from error
        return target


def supported() -> Availability:
    """Whether packages are made and opened on this kind of machine at all."""
    if sys.platform != SYSTEM or platform.machine() != MACHINE:
        return Availability.no(
            f"compiled packages are made and run on {SYSTEM} {MACHINE}, and this is {sys.platform} "
            f"{platform.machine()}",
            "vit-deploy export --format onnx",
            torch_version(),
        )
    if best_level() is None:
        return Availability.no(
            f"this processor is below {LEVELS[-1].name}: it has no AVX2",
            "vit-deploy export --format onnx",
            torch_version(),
        )
    return Availability.yes(torch_version())


def torch_version() -> str:
    """PyTorch's version without its local part (``+cpu``): one source, whatever it was built for."""
    from importlib import metadata

    return metadata.version("torch").partition("+")[0]


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets that the kernel lets this processor use; none where it does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())


def best_level() -> Level | None:
    """The best level that this processor has, or ``None`` where it has none of them."""
    return next((level for level in LEVELS if level.flags <= cpu_flags()), None)


def check_target(target: Target, name: str) -> None:
    """Refuse a package that was made for another machine, before any of it is loaded.

    Args:
        target: of the package.
        name: of the artefact.

    Raises:
        BackendMissing: saying what is different, and what mends it.
    """
    here = (sys.platform, platform.machine())
    if (target.system, target.machine) != here:
        raise BackendMissing(
            f"{name} was compiled for {target.system} {target.machine}, and this is {' '.join(here)}",
            expected="the kind of machine that it was compiled for",
            next_command=REBUILD,
        )
    missing = sorted(set(target.cpu_flags) - cpu_flags())
    if missing:
        raise BackendMissing(
            f"{name} was compiled for {target.level}, and this processor has no {', '.join(missing)}",
            expected=f"a processor with {', '.join(target.cpu_flags)}",
            next_command=f"{REBUILD}; or --cpu-level {LEVEL_NAMES[-1]} where it is compiled",
        )
    if target.torch != torch_version():
        raise BackendMissing(
            f"{name} was compiled for torch {target.torch}, and this is torch {torch_version()}",
            expected=f"torch {target.torch}, whose headers are in its code",
            next_command=f"{REBUILD}; or pip install torch=={target.torch}",
        )
    if target.device == "cuda":
        _check_gpu(target, name)


def _check_gpu(target: Target, name: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise BackendMissing(
            f"{name} was compiled for a GPU, and PyTorch finds no CUDA device",
            expected=f"a GPU of compute capability {target.capability}",
            next_command="run it on a machine with such a GPU, its driver and a CUDA build of torch",
        )
    found = ".".join(map(str, torch.cuda.get_device_capability()))
    if found != target.capability:
        raise BackendMissing(
            f"{name} was compiled for compute capability {target.capability}, and this GPU has {found}",
            expected="the kind of GPU that its kernels were compiled and timed on",
            next_command=REBUILD,
        )
