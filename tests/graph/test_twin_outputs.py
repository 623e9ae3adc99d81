"""Two outputs that are one value: each has its own name and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.deploy.export import export_model
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights.random import random_model

TOWER = ViTConfig(
    image_size=(16, 24),
    patch_size=8,
    embed_dim=32,
    depth=1,
    num_heads=4,
    mlp_dim=40,
    num_classes=0,
    class_token=False,
    pool="map",
)


@pytest.mark.parametrize(
    "outputs", [("embedding", "image_embeds"), ("image_embeds", "tokens", "embedding"), ("image_embeds",)]
)
@pytest.mark.parametrize("opset", [17, 23])
def test_each_output_has_its_name(outputs, opset, tmp_path):
    model = random_model(TOWER, "tower", seed=1)
    (outcome,) = export_model(model, tmp_path / "out", ["onnx"], outputs=outputs, options={"opset": opset})
    assert outcome.error is None
    assert outcome.verdict.passed
    import onnxruntime

    session = onnxruntime.InferenceSession(next((tmp_path / "out").rglob("*.onnx")))
    assert [entry.name for entry in session.get_outputs()] == list(outputs)
    pixels = np.random.default_rng(1).normal(size=(2, 3, 16, 24)).astype("float32")
    found = dict(zip(outputs, session.run(None, {"pixel_values": pixels}), strict=True))
    if "embedding" in found:
        assert np.array_equal(found["embedding"], found["image_embeds"])
