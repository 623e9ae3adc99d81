"""Capturing: what has to be decomposed is, and what cannot be captured is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest
import torch
from torch import nn

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.capture import capture
from vit_deploy.graph.fold import fold_constants
from vit_deploy.graph.stream import write_model
from vit_deploy.spec import BatchRange, IOSpec, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = IOSpec(
    (TensorSpec("x", "float32", ("batch", 4, 4)),), (TensorSpec("y", "float32", ("batch", 4, 4)),), BatchRange()
)


class Inverse(nn.Module):
    """`torch.linalg.matrix_exp` has no translation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.matrix_exp(x)


class Decomposed(nn.Module):
    """`aten.square` is translated only once it is decomposed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.square(x) + 1


class Baked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len(x) if x.shape[0] == 2 else x


def test_an_operator_without_translation_is_decomposed(tmp_path: Path) -> None:
    graph = capture(Decomposed, SPEC)
    fold_constants(graph)
    write_model(graph, tmp_path / "m.onnx")
    x = torch.randn(3, 4, 4)
    found = ort.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": x.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), torch.square(x) + 1)


@pytest.mark.parametrize("module", [Inverse, Baked])
def test_what_cannot_be_captured_is_told(module: type[nn.Module]) -> None:
    with pytest.raises(ExportFailed, match="could not capture"):
        capture(module, SPEC)
