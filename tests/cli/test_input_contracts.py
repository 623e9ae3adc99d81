"""``export --input``, and what the other commands make of such artefacts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from vit_deploy.assets import digits_directory, sample_images
from vit_deploy.cli._shapes import picture_ranges
from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import PICTURE_SIZES
from vit_deploy.spec import CONTRACTS, BatchRange

NAMES = {"pixel_values": "onnx-fp32", "uint8": "onnx-fp32-uint8", "image": "onnx-fp32-image"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The digits model in ONNX, once for each contract, side by side."""
    from vit_deploy.deploy.export import export_model
    from vit_deploy.weights import load_model

    path, model = tmp_path_factory.mktemp("digits") / "bundle", load_model(str(digits_directory()))
    for contract in CONTRACTS:
        (outcome,) = export_model(model, path, ["onnx"], contract=contract)
        assert outcome.error is None, outcome.error
        assert (outcome.name, outcome.contract) == (NAMES[contract], contract)
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Of several sizes and modes, so that no two fit into one batch."""
    folder = tmp_path_factory.mktemp("photographs")
    coffee = Image.fromarray(skimage.data.coffee())
    coffee.save(folder / "coffee.png")
    coffee.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(skimage.data.chelsea()).convert("L").save(folder / "grey.png")
    see_through = Image.fromarray(skimage.data.rocket()).convert("RGBA")
    see_through.putalpha(120)
    see_through.save(folder / "alpha.png")
    return sorted(folder.iterdir())


def test_the_manifest_says_what_each_takes(bundle):
    artefacts = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["artefacts"]
    assert {name: record["contract"] for name, record in artefacts.items()} == {
        name: contract for contract, name in NAMES.items()
    }
    assert artefacts["onnx-fp32-uint8"]["inputs"][0]["shape"] == ["batch", 32, 32, 3]
    assert artefacts["onnx-fp32-uint8"]["sizes"] is None
    assert artefacts["onnx-fp32-image"]["sizes"]["maximum"] == list(PICTURE_SIZES.maximum)
    assert "resizing" in artefacts["onnx-fp32-image"]["parity"]["details"]


def test_verify_judges_every_contract(bundle, invoke):
    result = invoke("verify", bundle, "--format", "onnx", "--json")
    assert result.code == 0
    assert {entry["name"] for entry in result.json["artefacts"]} == set(NAMES.values())
    assert all(entry["passed"] for entry in result.json["artefacts"])


def test_predict_gives_the_same_labels_whatever_the_contract(bundle, photographs, invoke):
    images = [*sample_images(), *photographs]
    documents = {}
    for contract, name in NAMES.items():
        result = invoke("predict", bundle, *images, "--artefact", name, "--json")
        assert result.code == 0
        assert result.json["input"] == contract
        documents[contract] = result.json["images"]
    tops = {
        contract: [(image["file"], image["top"][0]["label"]) for image in entries]
        for contract, entries in documents.items()
    }
    assert len(tops["image"]) == len(images)
    assert tops["uint8"] == tops["image"] == tops["pixel_values"]
    scores = {
        contract: np.array([guess["score"] for image in entries for guess in image["top"]])
        for contract, entries in documents.items()
    }
    assert np.allclose(scores["uint8"], scores["pixel_values"], atol=1e-5)
    assert np.allclose(scores["image"], scores["pixel_values"], atol=0.02)


@pytest.mark.parametrize(("contract", "word"), [("uint8", "normalises"), ("image", "resizes")])
def test_predict_says_what_it_feeds(bundle, invoke, contract, word):
    result = invoke("predict", bundle, sample_images()[0], "--artefact", NAMES[contract])
    assert word in result.err


def test_plain_pixel_values_are_chosen_unless_another_is_named(bundle, invoke):
    assert (
        invoke("predict", bundle, sample_images()[0], "--backend", "ort", "--json").json["artefact"]
        == "onnx-fp32"
    )


def test_bench_measures_every_contract(bundle, invoke):
    result = invoke(
        "bench", bundle, "--backend", "ort", "--duration", "0.2", "--rounds", "1", "--threads", "1", "--json"
    )
    assert result.code == 0, result.err
    assert {row["artefact"] for row in result.json["rows"] if row["ok"]} == set(NAMES.values())


def test_export_says_what_was_taken(invoke, tmp_path):
    result = invoke(
        "export", "-m", digits_directory(), "--input", "uint8", "--no-verify", "-o", tmp_path / "b", "--json"
    )
    assert result.code == 0, result.err
    (entry,) = result.json["artefacts"]
    assert (entry["name"], entry["input"]) == ("onnx-fp32-uint8", "uint8")


def test_an_unknown_contract_is_a_usage_error(invoke):
    result = invoke("export", "--input", "jpeg")
    assert result.code == 2
    assert "uint8" in result.err


def test_a_shape_of_the_wrong_order_is_refused(invoke, tmp_path):
    result = invoke(
        "export", "-m", digits_directory(), "--input", "uint8", "--maxShapes", "4x3x32x32", "-o", tmp_path / "b"
    )
    assert result.code == 2
    assert "images:Bx32x32x3" in result.err


def test_shapes_name_batches_and_sizes(small_config):
    batch, sizes = picture_ranges(small_config, "image", "1x8x9x3", "images:2x100x120x3", "images:4x300x400x3")
    assert batch == BatchRange(1, 2, 4)
    assert (sizes.minimum, sizes.optimum, sizes.maximum) == ((8, 9), (100, 120), (300, 400))
    assert picture_ranges(small_config, "uint8", "", "", "16x32x48x3") == (BatchRange(1, 1, 16), None)


def test_sizes_that_are_not_named_make_room_for_those_that_are(small_config):
    _, large = picture_ranges(small_config, "image", "", "1x3000x100x3", "")
    assert (large.minimum, large.optimum, large.maximum) == ((1, 1), (3000, 100), (3000, 2048))
    _, small = picture_ranges(small_config, "image", "", "", "1x64x64x3")
    assert (small.optimum, small.maximum) == ((64, 64), (64, 64))
    _, wide = picture_ranges(small_config, "image", "1x10x4000x3", "", "")
    assert (wide.minimum, wide.optimum, wide.maximum) == ((10, 4000), (480, 4000), (2048, 4000))
    _, plain = picture_ranges(small_config, "image", "", "", "")
    assert plain == PICTURE_SIZES


@pytest.mark.parametrize("text", ["4x32x32x3", "1x32x48x1", "x", "1x32x48", "pixel_values:1x32x48x3"])
def test_shapes_that_are_not_the_models_are_refused(small_config, text):
    with pytest.raises(UsageFailed, match="--maxShapes"):
        picture_ranges(small_config, "uint8", "", "", text)
