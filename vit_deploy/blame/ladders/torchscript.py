"""TorchScript: the model, a fresh trace, the archive as it is written, its optimisations, its precision.

The interpreter without optimisations is the only definition that TorchScript has, so it stands for the
standard: what it computes wrongly is the archive's fault.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.stages import Fall, Walk, backend_rung, backend_rungs, eager_rung, in_fp32
from vit_deploy.blame.tensors import differences, first_tap, in_short, listed, rounded_to, weights_of
from vit_deploy.facts import Device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from vit_deploy.protocols import Arrays, Artefact

FRESH = "fresh"
"""The folder of the archive as this version makes it."""

NOT_OURS = "the archive is not what this version exports from these weights"


def climb(walk: Walk) -> Fall | None:
    """Try the rungs in order; gives the first that does not hold."""
    fall = eager_rung(walk)
    if fall is not None:
        return fall
    ours = is_ours(walk.artefact.path)
    return (_fresh_rung(walk) if ours else None) or _archive_rung(walk, ours=ours) or _backend(walk)


def is_ours(path: Path) -> bool:
    """Whether our exporter wrote an archive: it leaves out what torch itself puts beside the source."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return all(
        name.startswith("model/") and not name.endswith((".debug_pkl", "serialization_id")) for name in names
    )


def _fresh_rung(walk: Walk) -> Fall | None:
    from vit_deploy.exporters.torchscript import EXPORTER
    from vit_deploy.protocols import NoOptions

    folder = walk.folder / FRESH
    folder.mkdir()

    def run() -> Arrays:
        spec = walk.artefact.spec
        made = EXPORTER.export(walk.check.model, spec, NoOptions(), folder, walk.progress)
        return _interpreted(walk, in_fp32(replace(walk.artefact, path=folder / made.files[0])))

    because = "the trace of the model does not compute what the model computes"
    return walk.rung("export", "the archive as this version makes it", run, because=because)


def _interpreted(walk: Walk, artefact: Artefact) -> Arrays:
    """The outputs of an archive in TorchScript's own interpreter, whatever runtime it failed in."""
    from vit_deploy import registry
    from vit_deploy.protocols import SessionOptions

    own = registry.runtime("torchscript")
    with walk.opener(own, artefact, Device(), SessionOptions(optimise=False)) as session:
        return session.run(walk.feed(artefact))


def _archive_rung(walk: Walk, *, ours: bool) -> Fall | None:
    because = NOT_OURS if ours else "the archive does not compute what the model computes"
    fall = walk.rung(
        "export",
        "the archive, optimisations off",
        lambda: _interpreted(walk, walk.artefact),
        because=because,
        spec=walk.artefact.spec,
    )
    if fall is None:
        return None
    module = _loaded(walk.artefact.path)
    if module is None:
        return replace(fall, because="the archive cannot be read")
    if fall.broke:
        reading = replace(fall.reading, kind="runtime")
        walk.readings[-1] = reading
        because = "TorchScript does not run the archive, with its optimisations off too"
        return replace(fall, reading=reading, because=because)
    return _explained(walk, fall, module, ours=ours)


def _backend(walk: Walk) -> Fall | None:
    from vit_deploy import registry

    tried = walk.runtime is registry.runtime("torchscript") and walk.device.kind == "cpu"
    return backend_rung(walk) if tried else backend_rungs(walk)


def _loaded(path: Path) -> Any:
    """The archive as a module, or ``None`` where torch cannot read it; it has been run by now."""
    import torch

    from vit_deploy.exporters.torchscript import quiet_deprecation

    try:
        with quiet_deprecation():
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError):
        return None


def _explained(walk: Walk, fall: Fall, module: Any, *, ours: bool) -> Fall:
    """Which of the archive's weights are wrong, where its constants are those of a fresh trace by shape."""
    model, declared = walk.check.model, walk.artefact.precision
    held = {str(place): _reader(tensor) for place, tensor in enumerate(_constants(module))}
    weights = weights_of(model, walk.artefact.spec)
    word = rounded_to(held, weights)
    if word and word != declared:
        reading = replace(fall.reading, kind="precision")
        walk.readings[-1] = reading
        because = f"the archive's weights are {word} numbers, and it is declared as {declared}"
        return replace(fall, reading=reading, because=because)
    fresh = _named_constants(walk) if ours else []
    if not ours or [tensor.shape for _, tensor in fresh] != [tensor.shape for tensor in _constants(module)]:
        return fall
    found = differences(
        dict(zip([name for name, _ in fresh], held.values(), strict=True)),
        {name: _reader(tensor) for name, tensor in fresh},
        model.config,
        declared,
    )
    if not found:
        walk.notes.append("its weights are right: it is its code that is not")
        return fall
    walk.notes.append(listed(found))
    first = first_tap(model.config, [difference.name for difference in found])
    return replace(fall, because=f"{fall.because}: {in_short(found)}", where=first)


def _named_constants(walk: Walk) -> list[tuple[str, torch.Tensor]]:
    """The constants of the fresh archive in its order, each under the name of the weight that it is."""
    from vit_deploy.exporters.torchscript import ARCHIVE_NAME

    fresh = _loaded(walk.folder / FRESH / ARCHIVE_NAME)
    state = walk.check.model.loaded(walk.artefact.spec).state_dict()
    named = []
    for place, tensor in enumerate(_constants(fresh)):
        alike = (
            name for name, weight in state.items() if weight.shape == tensor.shape and weight.equal(tensor)
        )
        named.append((next(alike, f"constant {place}"), tensor))
        state.pop(named[-1][0], None)  # two weights may have the same values
    return named


def _constants(module: Any) -> Iterator[torch.Tensor]:
    """The floating tensors of a frozen graph, in its order: its weights."""
    for node in module.graph.nodes():
        if node.kind() == "prim::Constant" and node.output().type().kind() == "TensorType":
            tensor: torch.Tensor = node.t("value")
            if tensor.ndim and tensor.is_floating_point():
                yield tensor


def _reader(tensor: torch.Tensor) -> Callable[[], Any]:
    return lambda: tensor.detach().float().cpu().numpy()
