"""Which output of a file is which output of the model: by what the user says, by name, by shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput, UsageFailed, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.model.kinds import Architecture

USUAL_NAMES = {
    "last_hidden_state": "tokens",
    "hidden_state": "tokens",
    "pooler_output": "embedding",
    "pooled_output": "embedding",
    "image_embedding": "image_embeds",
    "image_features": "image_embeds",
    "scores": "logits",
}
"""What others call the outputs that we have, where the shape fits: transformers' and OpenCLIP's names."""


@dataclass(frozen=True)
class Found:
    """An output as the file gives it at batch 1.

    Attributes:
        name: in the file; its place where it has none.
        dtype: numpy's name.
        shape: with the batch first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'})"


def match_outputs(
    found: Sequence[Found], config: Architecture, given: Mapping[str, str]
) -> tuple[dict[str, str], list[Found]]:
    """Our name of each output that the model has too, by its name in the file; and the others.

    Args:
        found: the file's outputs.
        config: of the model.
        given: what the user says.

    Raises:
        UsageFailed: for a name that is not there, or a choice that the user has to make.
        HostileInput: when no output is one of the model's.
    """
    shapes = {
        entry.name: entry.at_batch(1)
        for name in config.output_names
        for entry in config.io_spec((name,)).outputs
    }
    _check_given(found, shapes, given)
    matched = dict(given)
    for output in found:
        if output.name in matched:
            continue
        free = [
            name for name, shape in shapes.items() if shape == output.shape and name not in matched.values()
        ]
        usual = USUAL_NAMES.get(output.name, output.name)
        if usual in free:
            matched[output.name] = usual
        elif len(free) == 1 and sum(other.shape == output.shape for other in found) == 1:
            matched[output.name] = free[0]
        elif free:
            raise UsageFailed(
                f"the candidate's output {output} may be {' or '.join(free)}",
                expected="to be told which",
                next_command=f"--candidate-output {output.name}={free[0]}",
            )
    if not matched:
        told = ", ".join(f"{name} ({'x'.join(map(str, shape))})" for name, shape in shapes.items())
        raise HostileInput(
            f"the candidate gives {', '.join(map(str, found)) or 'nothing'} at batch 1",
            expected=f"one or more of {told}",
            next_command="check that the file was exported from this model",
        )
    return matched, [output for output in found if output.name not in matched]


def _check_given(
    found: Sequence[Found], shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, str]
) -> None:
    for theirs, ours in given.items():
        if theirs not in {output.name for output in found}:
            raise unknown_name("output of the candidate", theirs, [output.name for output in found])
        if ours not in shapes:
            raise unknown_name("output of this model", ours, shapes)
    if len(set(given.values())) != len(given):
        raise UsageFailed(
            f"two outputs of the candidate are named {max(given.values(), key=list(given.values()).count)}",
            expected="each of the model's outputs once",
        )
