"""The model with outliers is what its card says: right in fp32, and ruined by recipes that do not look."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vit_deploy.assets import digits_directory, outliers_directory
from vit_deploy.weights import load_model

if TYPE_CHECKING:
    from vit_deploy.weights.imported import Model

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "precision" / "outliers.md"


@pytest.fixture(scope="module")
def scripts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        import make_outliers
        import naive_recipes

        yield type("Scripts", (), {"make": make_outliers, "naive": naive_recipes})
        for name in ("make_outliers", "naive_recipes", "digits_data", "train_digits"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(str(outliers_directory()))


@pytest.fixture(scope="module")
def split(scripts: Any, model: Model) -> Any:
    return scripts.naive.split(model)


def cell(recipe: str) -> str:
    """What the page says of a recipe on this model."""
    row = re.search(
        rf"^\| {re.escape(recipe)} \| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert row is not None, recipe
    return row[2]


def test_the_directory_is_whole_and_small():
    files = {path.name: path.stat().st_size for path in outliers_directory().iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert sum(files.values()) < 1_000_000


def test_it_looks_like_any_checkpoint_of_its_kind(model: Model):
    assert model.config == load_model(str(digits_directory())).config
    assert model.notes == ()


def test_its_accuracy_is_high_and_what_card_and_page_say(scripts: Any, model: Model, split: Any):
    _, held_out, labels = split
    logits = scripts.naive.in_pytorch(model, held_out, torch.float32)
    right = scripts.naive.right(logits, labels)
    told = f"{100 * right / len(labels):.2f} % ({right} of {len(labels)})"
    assert right / len(labels) >= 0.97
    assert told in (outliers_directory() / "README.md").read_text(encoding="utf-8")
    assert cell("fp32") == told


def test_massive_activations_stand_on_one_token_from_an_early_block_to_the_last(
    scripts: Any, model: Model, split: Any
):
    network, (_, held_out, _), made = model.eager(), split, scripts.make.OUTLIERS
    for place, block in enumerate(network.blocks):
        seen = scripts.make.seen_by(network, block, held_out).abs()
        others = torch.cat([seen[:, : made.token], seen[:, made.token + 1 :]], dim=1)
        assert others.max() < 30
        if made.rises <= place < made.falls:
            assert (seen[:, made.token].amax(dim=1) > torch.finfo(torch.float16).max).all()
            assert {*seen[0, made.token].topk(3).indices.tolist()} == {channel for channel, _ in made.heights}


def test_every_norm_has_outlier_channels_of_fifty_times_the_median(scripts: Any, model: Model, split: Any):
    network = model.eager()
    for block in network.blocks:
        for norm in (block.norm1, block.norm2):
            largest = scripts.make.seen_by(network, norm, split[1]).abs().amax(dim=(0, 1))
            ratios = (largest / largest.median()).sort().values
            assert ratios[-2] > 40
            assert ratios[-3] < 10


def test_plain_fp16_gives_nothing_finite_and_bf16_holds(scripts: Any, model: Model, split: Any):
    _, held_out, labels = split
    naive = scripts.naive
    half = naive.in_pytorch(model, held_out[:64], torch.float16)
    assert not half.isfinite().all(dim=1).any()
    brain = naive.in_pytorch(model, held_out, torch.bfloat16)
    assert naive.right(brain, labels) / len(labels) >= 0.97


# PyTorch's exporter copies what PyTorch itself has deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_plain_int8_loses_points(scripts: Any, model: Model, split: Any, tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="pip install 'vit-deploy[cpu]'")
    seen, held_out, labels = split
    naive = scripts.naive
    naive.export(model, tmp_path / "plain.onnx")
    lost = {}
    for place, (name, told) in enumerate(naive.INT8.items()):
        naive.quantise(tmp_path / "plain.onnx", tmp_path / f"{place}.onnx", seen, told)
        lost[name] = 1 - naive.right(naive.in_onnxruntime(tmp_path / f"{place}.onnx", held_out), labels) / len(
            labels
        )
    assert min(lost.values()) > 0.05
    assert lost["int8, min-max, per tensor, every operator"] > 0.8


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_again(scripts: Any, model: Model):
    """Another CPU or another torch may round otherwise, so what is asked for is closeness."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        scripts.make.settle()
        again = scripts.make.to_transformers(scripts.make.make(quiet=True).state_dict())
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
    kept = scripts.make.to_transformers(model.eager().state_dict())
    for name, tensor in kept.items():
        torch.testing.assert_close(again[name], tensor, rtol=0.05, atol=0.05 * float(tensor.abs().max()))
