"""Eager PyTorch itself: the model, its weights in the runtime in float32, and the declared precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.blame.stages import backend_rung, eager_rung, in_fp32

if TYPE_CHECKING:
    from vit_deploy.blame.stages import Fall, Walk


def climb(walk: Walk) -> Fall | None:
    """Try the rungs in order; gives the first that does not hold."""
    from vit_deploy.model.layout import EINOPS

    fall = eager_rung(walk, layout=EINOPS)
    if fall is not None or walk.artefact.precision == "fp32":
        return fall or backend_rung(walk)
    return backend_rung(walk, in_fp32(walk.artefact)) or backend_rung(walk, kind="precision")
