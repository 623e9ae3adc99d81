"""What ONNX Runtime's CPU kernels make of half precision: fp16 as fp32 behind casts, and nothing of bf16.

Such a run of an fp16 artefact shows that the graph is right, and nothing of fp16.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vit_deploy.errors import BackendMissing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.protocols import Artefact
    from vit_deploy.spec import Precision

_COMPUTED: Mapping[Precision, Precision | None] = {"fp16": "fp32", "bf16": None}
"""The precisions that are not computed as what they are."""


def computed_on_the_cpu(precision: Precision) -> Precision | None:
    """What an artefact of ``precision`` is computed in; ``None`` where there are no kernels."""
    return _COMPUTED.get(precision, precision)


def refuse_precision(artefact: Artefact, computed: Precision | None, *, native: bool) -> None:
    """Refuse what cannot be computed, and what would be in another precision where that is not wanted.

    Args:
        artefact: that is to be opened.
        computed: the precision that it would be computed in.
        native: whether another one than the artefact's own is refused.

    Raises:
        BackendMissing: naming the backends that can.
    """
    declared = artefact.precision
    if computed == declared or (computed is not None and not native):
        return
    told = (
        f"computes {declared} as {computed} behind casts on a CPU, slower than {computed} itself"
        if computed
        else f"has no {declared} kernels on a CPU"
    )
    raise BackendMissing(
        f"ONNX Runtime {told}: {artefact.name} is not for it",
        expected=f"{declared} in ONNX Runtime or TensorRT on an NVIDIA GPU; a CPU may have bf16, "
        "which OpenVINO computes in",
        next_command="use --backend openvino with a bf16 artefact, or an fp32 or int8 artefact, on this CPU",
    )


def on_the_cpu(dtypes: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Numbers of layers by what the kernels compute in: fp32 for fp16, but for the inputs and outputs."""
    computed: dict[str, dict[str, int]] = {}
    for kind, counts in dtypes.items():
        counted: Counter[str] = Counter()
        for dtype, count in counts.items():
            counted["fp32" if dtype == "fp16" and kind != "io" else dtype] += count
        computed[kind] = dict(counted)
    return computed
