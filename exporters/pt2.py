"""AOTInductor packages (``.pt2``): the model compiled to machine code by PyTorch, weights inside.

The successor of TorchScript: opened by PyTorch in Python or C++, without the model's code. A package is made
for one kind of processor and one version of PyTorch (:mod:`vit_deploy.pt2_target`), and **it is machine code**:
open one only from a bundle that you trust.

Limits: Linux on x86-64. On a CPU the weights are laid out as oneDNN wants them on the processor that compiles,
so that two kinds of processors give packages of different bytes for one level.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.exporters._pt2_compile import OLDEST_GCC, cancelled, compile_program, save_program
from vit_deploy.exporters._pt2_work import work_folder
from vit_deploy.facts import Availability
from vit_deploy.protocols import ExportedFiles, option
from vit_deploy.pt2_target import (
    LEVEL_NAMES,
    LEVELS,
    MACHINE,
    SYSTEM,
    Level,
    Target,
    best_level,
    cpu_flags,
    supported,
    torch_version,
)

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.protocols import Artefact, Progress
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

PACKAGE_NAME = "model.pt2"

_FLAG_NAMES = {
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16",
    "amx-int8": "amx_int8",
    "amx-fp16": "amx_fp16",
}
"""The kernel's names of instruction sets, where the compiler has others."""


@dataclass(frozen=True)
class Pt2Options:
    """What can be chosen about a package."""

    cpu_level: str = option(
        "auto",
        "Processors that a .pt2 is compiled for.  [default: the best level that this one has]",
        choices=("auto", *LEVEL_NAMES),
    )
    compile_for: str = option("cpu", "Device that a .pt2 is compiled for.", choices=("cpu", "cuda"))


class Pt2Exporter:
    """See the module."""

    format: ClassVar[str] = "pt2"
    description: ClassVar[str] = "AOTInductor package: machine code for one kind of processor, for PyTorch"
    Options: ClassVar[type] = Pt2Options
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16", "fp16"})
    needs: ClassVar[str] = ""

    def available(self) -> Availability:
        """See :class:`vit_deploy.protocols.Exporter`."""
        found = supported()
        home = find_spec("torch")
        if home is not None and home.origin and any(map(str.isspace, home.origin)):
            return Availability.no(
                "PyTorch lies in a folder with a space in its path, where its own linker commands fail",
                "install vit-deploy into an environment whose path has no space",
            )
        return found if not found.ok else _compiler(os.environ.get("CXX", "g++"))

    def export(
        self,
        model: Model,
        spec: IOSpec,
        options: Pt2Options,
        staging: Path,
        progress: Progress,
        source: Artefact | None = None,  # noqa: ARG002 - it is built from the model itself
        precision: Precision = "fp32",
    ) -> ExportedFiles:
        """See :class:`vit_deploy.protocols.Exporter`.

        Raises:
            BackendMissing: without a C++ compiler, or on a machine that packages are not made on.
            UsageFailed: for a level that this processor does not have, or a device without what it takes.
        """
        import torch

        from vit_deploy.exporters import _pt2_capture as capture

        found = self.available()
        if not found.ok:
            raise BackendMissing(found.reason, next_command=found.mend)
        level = _level(options.cpu_level)
        _check_device(options.compile_for, precision, spec)
        package = (staging / PACKAGE_NAME).absolute()
        with work_folder() as folder:
            _begin(progress, "Capturing the model")
            program = capture.capture_program(model, spec, precision, options.compile_for)
            facts = {**capture.describe(program), "layers": capture.count_layers(program, spec)}
            save_program(program, folder / "program.pt2")
            del program
            _begin(progress, "Compiling it to machine code: half a minute, or more")
            message = {"level": level.name, "bits": level.bits, "device": options.compile_for, "freeze": True}
            built = compile_program(folder, package, message, progress, level.packed_for)
        target = _target(level, built.pop("arch_flags"), options.compile_for)
        tools = {"torch": torch.__version__, "compiler": str(built.pop("compiler"))}
        return ExportedFiles((PACKAGE_NAME,), spec, {**facts, **built, "target": target.to_facts()}, tools)


@functools.cache
def _compiler(name: str) -> Availability:
    """Whether there is a C++ compiler that PyTorch can use."""
    mend = "apt-get install g++, or export CXX=COMPILER with one that is here"
    path = shutil.which(name)
    if path is None:
        return Availability.no(
            f"machine code needs a C++ compiler, and there is no {name!r}", mend, torch_version()
        )
    try:
        told = subprocess.run(
            [path, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, timeout=60, check=True
        )
        major = int(told.stdout.split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return Availability.no(f"the C++ compiler {name!r} does not run", mend, torch_version())
    if "clang" not in name and major < OLDEST_GCC:
        reason = f"{name} {told.stdout.strip()} has no C++20, which PyTorch's headers are written in"
        return Availability.no(reason, f"apt-get install g++, {OLDEST_GCC} or later", torch_version())
    return Availability.yes(torch_version())


def _level(name: str) -> Level:
    """The level to compile for.

    Raises:
        UsageFailed: for one that this processor does not have: what was compiled could not be verified.
    """
    best = best_level()
    if best is None:
        raise BackendMissing(supported().reason, next_command=supported().mend)
    if name == "auto":
        return best
    chosen = next((level for level in LEVELS if level.name == name), None)
    if chosen is None or not chosen.flags <= cpu_flags():
        raise UsageFailed(
            f"this processor does not have {name}",
            expected=f"--cpu-level {' or '.join(level.name for level in LEVELS if level.flags <= cpu_flags())}",
            next_command="leave --cpu-level out",
        )
    return chosen


def _check_device(device: str, precision: Precision, spec: IOSpec) -> None:
    """Refuse what a device has not, or what would be lost in the precision.

    Raises:
        BackendMissing: for a GPU where there is none.
        UsageFailed: for fp16 where it is slow, or where small weights would be rounded away.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendMissing(
            "a package for a GPU is compiled on one, and PyTorch finds no CUDA device",
            next_command="run this on a machine with an NVIDIA GPU, its driver and a CUDA build of torch; "
            "or leave --compile-for out",
        )
    if device == "cpu" and precision == "fp16" and "avx512_fp16" not in cpu_flags():
        raise UsageFailed(
            "this processor computes nothing in fp16: a package would convert to fp32 and back at each step",
            expected="--dtype bf16 or fp32 for a CPU, or a processor with AVX512-FP16",
            next_command="vit-deploy export --format pt2 --dtype bf16",
        )
    if precision == "fp16" and spec.contract != "pixel_values":
        raise UsageFailed(
            "the normalisation of 8-bit pictures makes the first weights too small for fp16",
            expected="--input pixel_values with --dtype fp16",
            next_command="vit-deploy export --format pt2 --dtype bf16, which has the range for them",
        )


def _begin(progress: Progress, phase: str) -> None:
    if progress.cancelled:
        raise cancelled()
    progress.phase(f"pt2: {phase}")


def _target(level: Level, arch_flags: list[str], device: str) -> Target:
    """What was compiled for, as the flags that the compiler was given say."""
    import torch

    words = (flag.removeprefix("-m") for flag in arch_flags)
    flags = level.flags | {_FLAG_NAMES.get(word, word) for word in words}
    on_gpu = device == "cuda"
    return Target(
        system=SYSTEM,
        machine=MACHINE,
        level=level.name,
        cpu_flags=tuple(sorted(flags)),
        torch=torch_version(),
        device=device,
        capability=".".join(map(str, torch.cuda.get_device_capability())) if on_gpu else "",
        cuda=str(torch.version.cuda) if on_gpu else "",
    )


EXPORTER = Pt2Exporter()
