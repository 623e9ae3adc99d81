"""What files of every format have in common: one input of pictures, a trial run, and our names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendMissing, HostileInput, RunFailed, UsageFailed
from vit_deploy.model.contract import with_inputs
from vit_deploy.parity.candidates.matching import Found
from vit_deploy.protocols import Artefact, SessionOptions
from vit_deploy.spec import BatchRange, IOSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.facts import Device
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.parity.check import Opener
    from vit_deploy.protocols import Runtime, Session
    from vit_deploy.spec import Contract
    from vit_deploy.weights.imported import Model


@dataclass(frozen=True)
class Taken:
    """The file's one picture: its own name, what it means, and the batches it takes."""

    name: str
    dtype: str
    contract: Contract
    batch: BatchRange


def taken_input(inputs: Sequence[tuple[str, str, Sequence[int | None]]], config: Architecture) -> Taken:
    """The one input of a file.

    Args:
        inputs: name, numpy's name of the dtype (empty where it is not known) and dimensions of each, ``None``
            where one is free.
        config: of the model.

    Raises:
        UsageFailed: when it takes anything but a batch of pictures of the model's size.
    """
    pictures = [entry for entry in inputs if len(entry[2]) == 4 and entry[1]]
    if len(inputs) != 1 or not pictures:
        names = ", ".join(name or "?" for name, _, _ in inputs)
        raise UsageFailed(
            f"the candidate takes {names or 'nothing'}",
            expected="one input of four dimensions: a batch of pictures",
        )
    ((name, dtype, dims),) = pictures
    height, width = config.image_size
    right: dict[Contract, list[int | None]] = {
        "pixel_values": [config.in_channels, height, width],
        "uint8": [height, width, config.in_channels],
    }
    contract: Contract = "uint8" if dtype == "uint8" else "pixel_values"
    if dtype not in ("uint8", "float32", "float16") or any(
        have not in (None, want) for have, want in zip(dims[1:], right[contract], strict=True)
    ):
        shown = "x".join(str(dim or "?") for dim in dims)
        raise UsageFailed(
            f"the candidate takes {name} as {dtype} of shape {shown}",
            expected=f"float32 or float16 of shape ?x{'x'.join(map(str, right['pixel_values']))}, "
            f"or uint8 of shape ?x{'x'.join(map(str, right['uint8']))}",
            next_command="--image-size, where the file was made for another one",
        )
    batch = BatchRange(dims[0], dims[0], dims[0]) if dims[0] else BatchRange()
    return Taken(name, dtype, contract, batch)


def try_candidate(candidate: Artefact, taken: Taken, open_session: Opener | None) -> list[Found]:
    """What a file gives for one batch of black pictures: its shapes as they are, not as declared.

    Args:
        candidate: the file; of its spec the outputs alone are taken, all of them where it names none.
        taken: its input.
        open_session: see :class:`vit_deploy.parity.candidates.Asked`.

    Raises:
        BackendMissing: when nothing here can run it.
        HostileInput: when it does not run.
    """
    import numpy as np

    runtime = _runtime(candidate.format)
    config = candidate.config
    height, width, channels = *config.image_size, config.in_channels
    sides = (height, width, channels) if taken.contract == "uint8" else (channels, height, width)
    batch = taken.batch.minimum
    inputs = (TensorSpec(taken.name, taken.dtype, (taken.batch.dim, *sides)),)
    artefact = replace(candidate, spec=IOSpec(inputs, candidate.spec.outputs, taken.batch))
    try:
        opened = (open_session or _open_here)(runtime, artefact, runtime.devices()[0], SessionOptions())
        with opened as session:
            outputs = session.run({taken.name: np.zeros((batch, *sides), taken.dtype)})
    except RunFailed as error:
        raise HostileInput(f"the candidate {candidate.path.name!r} does not run: {error.found}") from error
    return [
        Found(name, array.dtype.name, (1, *array.shape[1:]) if array.shape[:1] == (batch,) else array.shape)
        for name, array in outputs.items()
    ]


def _runtime(format: str) -> Runtime:
    from vit_deploy import registry

    for runtime in registry.runtimes_for(format):
        found = runtime.available()
        if found.ok:
            return runtime
    raise BackendMissing(f"nothing here runs {format}: {found.reason}", next_command=found.mend)


def _open_here(runtime: Runtime, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
    return runtime.open(artefact, device, options)


def adopted_spec(model: Model, taken: Taken, dtypes: Mapping[str, str]) -> IOSpec:
    """The inputs and outputs of a file under our names.

    Args:
        model: as its owner says.
        taken: the file's input.
        dtypes: numpy's name of the dtype of each output that is judged, by our name, in order.
    """
    names: Any = tuple(dtypes)
    plain = model.config.io_spec(names, taken.batch)
    spec = with_inputs(plain, taken.contract)
    inputs = spec.inputs if taken.contract != "pixel_values" else (replace(spec.inputs[0], dtype=taken.dtype),)
    outputs = tuple(replace(output, dtype=dtypes[output.name]) for output in spec.outputs)
    return replace(spec, inputs=inputs, outputs=outputs)


def notes_of(taken: Taken, spec: IOSpec, matched: Mapping[str, str], others: Sequence[Found]) -> list[str]:
    """What is not judged, and what was taken for what."""
    notes = [f"not judged: its output {output}, which the model has not" for output in others]
    pairs = [(taken.name, spec.inputs[0].name), *matched.items()]
    return notes + [f"its {theirs!r} is taken for {ours}" for theirs, ours in pairs if theirs != ours]


def bears_our_names(taken: Taken, spec: IOSpec, matched: Mapping[str, str], others: Sequence[Found]) -> bool:
    """Whether the file can be judged as it is."""
    return taken.name == spec.inputs[0].name and not others and all(a == b for a, b in matched.items())
