"""What an artefact declares, what it gives, and at which batch sizes it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.model.contract import network_is_dynamic, with_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import BatchRange, IOSpec


class Fault(Exception):
    """The artefact is wrong in a way that no ratio describes.

    Args:
        told: what is wrong.
        output: of which output; empty where it is of none.
        slot: of the batch.
    """

    def __init__(self, told: str, output: str = "", slot: int = 0) -> None:
        super().__init__(told)
        self.output = output
        self.slot = slot


def spec_fault(spec: IOSpec, config: Architecture) -> str:
    """What is wrong with the inputs and outputs that an artefact declares, or nothing.

    Every input in order, and every output by its name, must have the shape that the model gives them, over
    the whole range of batch sizes.
    """
    sizes = spec.sizes if network_is_dynamic(spec) else None
    known = {
        entry.name: entry
        for name in config.output_names
        for entry in config.io_spec((name,), spec.batch, sizes=sizes).outputs
    }
    plain = config.io_spec((), spec.batch, sizes=sizes)
    expected = with_inputs(plain, spec.contract, spec.sizes).inputs
    taken, right = ([entry.name for entry in inputs] for inputs in (spec.inputs, expected))
    if taken != right:
        return f"it takes {', '.join(taken) or 'nothing'}, not {', '.join(right)}"
    if not spec.outputs or len(set(spec.output_names)) != len(spec.outputs):
        return f"it declares the outputs {', '.join(spec.output_names) or 'none'}, not each of them once"
    unknown = [name for name in spec.output_names if name not in known]
    if unknown:
        return f"it declares the output {unknown[0]!r}, which is none of {', '.join(known)}"
    wanted = (*expected, *(known[name] for name in spec.output_names))
    for declared, meant in zip((*spec.inputs, *spec.outputs), wanted, strict=True):
        for free in _corners(spec):
            if declared.at(free) != meant.at(free):
                return f"it declares {declared.name} of shape {declared.shape}, not {meant.shape}"
        right_dtypes = ("uint8",) if meant.dtype == "uint8" else ("float32", "float16")
        if declared.dtype not in right_dtypes:
            return f"it declares {declared.name} as {declared.dtype}, not {' or '.join(right_dtypes)}"
    return ""


def _corners(spec: IOSpec) -> list[dict[str, int]]:
    """The free sizes at the ends of the ranges."""
    sizes = (spec.sizes.minimum, spec.sizes.maximum) if spec.sizes else (None,)
    return [spec.free_at(batch, size) for batch in (spec.batch.minimum, spec.batch.maximum) for size in sizes]


def batch_sizes(batch: BatchRange) -> list[int]:
    """The batch sizes that are judged: 1 and 2 where the range holds them, its least and its largest."""
    small = {size for size in (1, 2) if batch.minimum <= size <= batch.maximum}
    return sorted(small | {batch.minimum, batch.maximum})


def rounds(count: int, batch_size: int) -> Iterator[list[int]]:
    """Which samples stand in the slots, run by run, until each of ``count`` was judged.

    A batch larger than ``count`` repeats the samples one further on in each turn, so that a slot
    never holds the same sample as the slot ``count`` before it.
    """
    for start in range(0, count, batch_size):
        yield [(place + place // count) % count for place in range(start, start + batch_size)]


def check_outputs(
    outputs: Mapping[str, NDArray[Any]],
    spec: IOSpec,
    samples: Sequence[str],
    image_size: tuple[int, int] | None = None,
) -> None:
    """Refuse outputs that are not exactly those declared, or not finite.

    Args:
        outputs: what a session gave.
        spec: what the artefact declares.
        samples: the name of the sample in each slot.
        image_size: the size that they were given at, where it is free.

    Raises:
        Fault: saying which output, and where.
    """
    import numpy as np

    size = len(samples)
    free = spec.free_at(size, image_size)
    if set(outputs) != set(spec.output_names):
        raise Fault(
            f"it gives the outputs {', '.join(sorted(outputs)) or 'none'}, not {', '.join(spec.output_names)}"
        )
    for output in spec.outputs:
        array = outputs[output.name]
        if array.dtype.name != output.dtype or array.shape != output.at(free):
            raise Fault(
                f"{output.name} is {array.dtype.name} of shape {array.shape} at batch {size}, "
                f"not {output.dtype} of shape {output.at(free)}",
                output.name,
            )
        finite = np.isfinite(array).reshape(size, -1)
        if not finite.all():
            slot = int((~finite.all(axis=1)).argmax())
            raise Fault(
                f"{output.name} holds {int((~finite).sum())} NaN or Inf at batch {size}, the first of "
                f"them in slot {slot} ({samples[slot]!r})",
                output.name,
                slot,
            )
