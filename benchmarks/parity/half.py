"""Half-precision artefacts for PyTorch's own runtimes, which compute them as they are declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.parity.case import Case
from vit_deploy.protocols import Artefact
from vit_deploy.spec import artefact_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from benchmarks.parity.subjects import Subject
    from benchmarks.parity.workbench import Workbench
    from vit_deploy.spec import Precision


def half_torchscript(
    bench: Workbench, subject: Subject, precision: Precision, change: Callable[[Any], None] = lambda _: None
) -> Case:
    """A TorchScript archive in float16 or bfloat16, traced from the export layout.

    Args:
        bench: gives the folder.
        subject: the model.
        precision: ``fp16`` or ``bf16``.
        change: works on the module before it is traced.
    """
    import torch

    from vit_deploy.exporters.torchscript import quiet_deprecation

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    spec = bench.spec(subject.model)
    module = subject.model.loaded(spec, dtype=dtype)
    change(module)
    example = torch.zeros(spec.inputs[0].at_batch(2), dtype=dtype)
    path = bench.folder() / "model.pt"
    with torch.no_grad(), quiet_deprecation():
        traced = torch.jit.trace(module, (example,), check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), str(path))
    name = artefact_name("torchscript", precision)
    return Case(subject, Artefact(name, "torchscript", precision, path, spec, subject.model.config))


def layer_norm_in_half(vit: Any) -> None:
    """Every LayerNorm as its single steps, each in the dtype of the tokens."""
    from torch import nn

    for module in vit.modules():
        if isinstance(module, nn.LayerNorm):
            module.forward = _steps(module)


def _steps(norm: Any) -> Callable[[Tensor], Tensor]:
    def forward(tensor: Tensor) -> Tensor:
        centred = tensor - tensor.mean(-1, keepdim=True)
        squared = (centred * centred).mean(-1, keepdim=True)
        return centred / (squared + norm.eps).sqrt() * norm.weight + norm.bias

    return forward
