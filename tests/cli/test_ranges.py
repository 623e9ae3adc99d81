from __future__ import annotations

from dataclasses import replace

import pytest

from vit_deploy.cli._ranges import print_ranges
from vit_deploy.model.config import ViTConfig
from vit_deploy.parity.inputs import make_samples
from vit_deploy.parity.ranges import PLACES, RangeWatch
from vit_deploy.parity.references import References
from vit_deploy.protocols import Silent
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import Weights


def test_a_row_for_each_block(invoke):
    result = invoke("inspect", "vit_tiny_patch16_224", "--ranges")
    assert result.code == 0
    assert "largest magnitudes on 6 natural inputs; fp16 ends at 65,504" in result.out
    table = result.out[result.out.index("largest magnitudes") :]
    assert [line.split()[0] for line in table.splitlines() if line.startswith("blocks.")] == [
        f"blocks.{block}" for block in range(12)
    ]
    assert all(name in table for name in PLACES)
    assert "every block fits into fp16" in result.err


def test_the_same_for_machines(invoke):
    result = invoke("inspect", "vit_tiny_patch16_224", "--ranges", "--json")
    ranges = result.json["ranges"]
    assert {len(values) for values in ranges["maxima"].values()} == {12}
    assert ranges["warnings"] == []
    assert invoke("inspect", "vit_tiny_patch16_224", "--json").json["ranges"] is None


def test_what_does_not_fit_is_a_warning(capsys: pytest.CaptureFixture[str]):
    config = ViTConfig(image_size=(32, 32), patch_size=8, embed_dim=64, depth=2, num_heads=4, mlp_dim=96)
    model = random_model(config, "small", seed=1)
    weights = Weights(
        replace(tensor, reader=lambda tensor=tensor: tensor.read() * 1e5)
        if tensor.name == "blocks.1.mlp.fc1.weight"
        else tensor
        for tensor in model.weights.values()
    )
    model = replace(model, weights=weights)
    watch = References(model, make_samples(model.preprocessing, config)).ranges(Silent())
    assert isinstance(watch, RangeWatch)
    print_ranges(watch)
    told = capsys.readouterr().err
    assert "warning: block 1: the MLP before its activation: overflows fp16" in told
    assert "every block fits" not in told


def test_a_bundle_is_told_where_its_ranges_are(invoke, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    result = invoke("inspect", tmp_path, "--ranges")
    assert result.code == 2
    assert f"vit-deploy verify {tmp_path} --json" in result.err


def test_pictures_are_for_something(invoke, tmp_path):
    result = invoke("inspect", "vit_tiny_patch16_224", "--images", tmp_path)
    assert result.code == 2
    assert "--prove or --ranges" in result.err
