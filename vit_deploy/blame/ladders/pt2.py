"""Compiled packages: the model, the program captured of it, a package compiled anew, the package itself.

A package is its optimisations, so nothing can be tried without them, and it cannot be looked into. In its place
the captured program is run by eager PyTorch, operator by operator: where that holds and a package that is
compiled of it anew does not, the compiler is at fault; where that holds too, the package is not what this
version makes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.blame.stages import Unable, backend_rung, eager_rung, in_fp32, run_module
from vit_deploy.errors import ExportFailed, VitDeployError

if TYPE_CHECKING:
    from vit_deploy.blame.stages import Fall, Walk
    from vit_deploy.protocols import Arrays, Artefact


def climb(walk: Walk) -> Fall | None:
    """Try the rungs in order; gives the first that does not hold."""
    fall = eager_rung(walk) or _program_rung(walk)
    if fall is not None:
        return fall
    rebuilt = _rebuilt(walk)
    if rebuilt is None:
        return backend_rung(walk)
    return _fresh_rung(walk, rebuilt) or _own_rung(walk)


def _program_rung(walk: Walk) -> Fall | None:
    """The program as torch.export captures it in float32, run by eager PyTorch."""
    from vit_deploy.exporters._pt2_capture import capture_program

    plain = in_fp32(walk.artefact).spec

    def run() -> Arrays:
        try:
            program = capture_program(walk.check.model, plain, "fp32", "cpu")
        except ExportFailed as error:
            raise Unable(error.found) from error
        return run_module(program.module(check_guards=False), walk.feed(), plain)

    because = "the program that torch.export captures does not compute what the model computes"
    return walk.rung("export", "the captured program, in eager PyTorch", run, because=because)


def _rebuilt(walk: Walk) -> Artefact | None:
    """A package in float32 as this version compiles it; ``None`` where none can be compiled here."""
    from vit_deploy.exporters.pt2 import EXPORTER, Pt2Options

    walk.progress.phase(f"{walk.artefact.name}: compiling it anew in fp32")
    plain = in_fp32(walk.artefact)
    folder = walk.folder / "package"
    folder.mkdir()
    options = Pt2Options(compile_for=walk.device.kind)
    try:
        made = EXPORTER.export(walk.check.model, plain.spec, options, folder, walk.progress)
    except VitDeployError as error:
        walk.notes.append(f"no package could be compiled to compare with: {error.found}")
        return None
    return replace(plain, path=folder / made.files[0], facts=made.facts)


def _fresh_rung(walk: Walk, rebuilt: Artefact) -> Fall | None:
    fall = backend_rung(walk, rebuilt)
    reading = replace(walk.readings[-1], name=f"{walk.runtime.name}, a package compiled anew in fp32")
    walk.readings[-1] = reading
    because = "AOTInductor makes wrong code of a program that holds, in fp32 too"
    return replace(fall, reading=reading, because=because) if fall is not None else None


def _own_rung(walk: Walk) -> Fall | None:
    if walk.artefact.precision != "fp32":
        return backend_rung(walk, kind="precision")
    fall = backend_rung(walk)
    reading = replace(walk.readings[-1], kind="export", name="the package itself")
    walk.readings[-1] = reading
    because = "the package is not what this version compiles from these weights: one compiled anew holds"
    return replace(fall, reading=reading, because=because) if fall is not None else None
