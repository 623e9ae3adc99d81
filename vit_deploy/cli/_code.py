"""What the commands share about a user's own code: who named it, and which shapes it takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.errors import UsageFailed
from vit_deploy.model.module_config import PREFIX, ModuleConfig, shapes_text
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.bundle import Bundle

input_shape_option: Callable[[Any], Any] = click.option(
    "--input-shape",
    default="",
    metavar="CxHxW",
    help="What a py: module takes, without the batch: 3x224x224, or image:3x224x224,state:8.  "
    "[default: its example_inputs]",
)

_trust_option: Callable[[Any], Any] = click.option(
    "--trust-code",
    is_flag=True,
    help="Import the code that a bundle of a py: module names, to compare with eager PyTorch.",
)

_model_option: Callable[[Any], Any] = click.option(
    "-m",
    "--model",
    default="",
    metavar="py:CODE",
    help="The code that the bundle was made from, py:package.module:factory, where it was made from any.",
)


def trust_option(command: Any) -> Any:
    """Offer ``--trust-code``, in a command that has a ``--model`` of its own."""
    return _trust_option(command)


def code_options(command: Any) -> Any:
    """Offer the two ways in which a user names the code of a bundle."""
    return _model_option(_trust_option(command))


def named_code(bundle: Bundle, model: str, trust: bool) -> str:
    """The ``package.module:factory`` that the user has named; empty where it was not, or is not needed.

    Raises:
        UsageFailed: for code that the bundle was not made from.
    """
    config = bundle.config
    if not isinstance(config, ModuleConfig):
        if model:
            raise UsageFailed(
                f"the bundle was made from {bundle.manifest.model.source.name}, and {model!r} was named",
                expected="no -m: the bundle holds its model",
                next_command="leave -m out",
            )
        return ""
    if model and model.removeprefix(PREFIX) != config.factory:
        raise UsageFailed(
            f"the bundle was made from {PREFIX}{config.factory}, not from {model}",
            expected=f"-m {PREFIX}{config.factory}",
        )
    return config.factory if model or trust else ""


def module_batch_range(config: ModuleConfig, smallest: str, best: str, largest: str) -> BatchRange | None:
    """The batch sizes that trtexec's shapes name for a module; ``None`` where none is named.

    Raises:
        UsageFailed: for shapes that are not the module's.
    """
    flags = (("--minShapes", smallest), ("--optShapes", best), ("--maxShapes", largest))
    low, middle, high = (_batch_of(flag, text, config) for flag, text in flags)
    if not low and not middle and not high:
        return None if config.fixed_batch == 0 else BatchRange()
    low = low or 1
    high = high or max(BatchRange().maximum, low, middle)
    return BatchRange(low, middle or max(low, min(BatchRange().optimum, high)), high)


def _batch_of(flag: str, text: str, config: ModuleConfig) -> int:
    if not text:
        return 0
    wanted = {port.name: port.shape for port in config.inputs}
    batches = set()
    for word in text.split(","):
        name, _, shape = word.strip().rpartition(":")
        name = name or (config.inputs[0].name if len(wanted) == 1 else "")
        sizes = tuple(map(int, shape.split("x"))) if re.fullmatch(r"\d{1,9}(x\d{1,9})*", shape) else ()
        if wanted.pop(name, None) != sizes[1:] or not sizes:
            wanted["?"] = ()
            break
        batches.add(sizes[0])
    if wanted or len(batches) != 1:
        shapes = shapes_text(config.inputs, 1)
        raise UsageFailed(f"{flag} is {text!r}", expected=f"{shapes}, with one batch size for the 1")
    return batches.pop()
