"""What the commands that import a checkpoint share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.weights.imported import Model

use_ema_option: Callable[[Any], Any] = click.option(
    "--use-ema", is_flag=True, help="Take the moving average (EMA) of a training checkpoint's weights."
)


def tell_notes(model: Model) -> None:
    """What was left out or taken for granted when a model was imported, on stderr."""
    for text in model.notes:
        warn(text)
