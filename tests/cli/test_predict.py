from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vit_deploy import registry
from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.facts import Verdict
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.images import load_image
from vit_deploy.protocols import Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model

CONFIG = ViTConfig(
    image_size=(32, 32), patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_dim=64, num_classes=7
)
LABELS = ("zero", "one", "two", "three", "four", "five", "six")


def make_bundle(path, config=CONFIG, labels=LABELS, batch=None, passed=True):
    """A bundle with a real TorchScript artefact, as `export` makes it."""
    model = replace(random_model(config, "tiny"), labels=labels)
    exporter = registry.exporter("torchscript")
    spec = config.io_spec(batch=batch or BatchRange(1, 1, 2))
    with edit_bundle(path, model) as editor:
        staging = editor.stage("torchscript-fp32")
        exported = exporter.export(editor.model, spec, exporter.Options(), staging, Silent())
        candidate = editor.candidate("torchscript-fp32", "torchscript", "fp32", exported)
        editor.accept(candidate, exported, exporter.Options(), Verdict(passed=passed))
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    return make_bundle(tmp_path_factory.mktemp("with space") / "ein Bündel")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    paths = []
    for index in range(5):
        path = folder / f"ünï {index}.png"
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def expected_scores(bundle_path, picture) -> np.ndarray:
    """From first principles: the model in float64 on the preprocessed picture."""
    model = Bundle.open(bundle_path).model()
    pixels = torch.from_numpy(model.preprocessing(load_image(picture)))[None].double()
    with torch.inference_mode():
        return model.eager(dtype=torch.float64)(pixels).softmax(-1)[0].numpy()


def test_predictions_are_those_of_the_model(invoke, bundle, pictures):
    document = invoke("predict", bundle, *pictures, "--top-k", 3, "--json").json
    assert (document["artefact"], document["backend"]) == ("torchscript-fp32", "torchscript")
    assert [entry["file"] for entry in document["images"]] == [str(path) for path in pictures]
    for path, entry in zip(pictures, document["images"], strict=True):
        scores = expected_scores(bundle, path)
        order = np.argsort(-scores)[:3]
        assert [guess["index"] for guess in entry["top"]] == order.tolist()
        assert [guess["label"] for guess in entry["top"]] == [LABELS[index] for index in order]
        np.testing.assert_allclose([guess["score"] for guess in entry["top"]], scores[order], rtol=1e-4)


def test_eager_gives_the_same(invoke, bundle, pictures):
    first = invoke("predict", bundle, pictures[0], "--json").json["images"]
    second = invoke("predict", bundle, pictures[0], "--backend", "eager", "--json").json["images"]
    assert [guess["index"] for guess in first[0]["top"]] == [guess["index"] for guess in second[0]["top"]]


def test_the_table_and_the_next_command(invoke, bundle, pictures):
    result = invoke("predict", bundle, pictures[0])
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["image", "label", "score"]
    assert len(lines) == 2 + 5
    assert "torchscript-fp32 on torchscript (cpu)" in result.err
    assert f"next: vit-deploy bench '{bundle}' --backend eager,torchscript" in result.err


def test_top_k_beyond_the_classes_shows_all_and_says_so(invoke, bundle, pictures):
    result = invoke("predict", bundle, pictures[0], "--top-k", 100, "--json")
    top = result.json["images"][0]["top"]
    assert len(top) == 7
    assert sum(guess["score"] for guess in top) == pytest.approx(1.0)
    assert "the model has 7 classes, and all of them are shown" in result.err


def test_a_bad_picture_does_not_disturb_the_others(invoke, bundle, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"this is no picture")
    result = invoke("predict", bundle, pictures[0], bad, pictures[1], tmp_path / "none.png", "--json")
    assert result.code == 6
    document = json.loads(result.out)
    assert [entry["file"] for entry in document["images"]] == [str(pictures[0]), str(pictures[1])]
    assert "bad.png" in result.err
    assert "none.png" in result.err
    assert "2 of 4 images could not be read" in result.err
    assert "next:" not in result.out


def test_one_bad_picture_alone_gives_its_own_error(invoke, bundle, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    result = invoke("predict", bundle, bad)
    assert result.code == 6
    assert "is empty" in result.err
    assert result.out == ""


def test_a_model_without_labels_gives_indices(invoke, pictures, tmp_path):
    path = make_bundle(tmp_path / "b", labels=())
    top = invoke("predict", path, pictures[0], "--json").json["images"][0]["top"]
    assert [guess["label"] for guess in top] == [str(guess["index"]) for guess in top]


def test_a_model_without_a_head_classifies_nothing(invoke, pictures, tmp_path):
    path = make_bundle(tmp_path / "b", config=replace(CONFIG, num_classes=0), labels=())
    for backend in ("eager", "torchscript"):
        result = invoke("predict", path, pictures[0], "--backend", backend)
        assert result.code == 2
        assert "has no logits, so it classifies nothing" in result.err


def test_a_fixed_batch_is_filled_up_and_the_filling_dropped(invoke, bundle, pictures, tmp_path):
    fixed = make_bundle(tmp_path / "b", batch=BatchRange(4, 4, 4))
    got = invoke("predict", fixed, *pictures, "--json").json["images"]
    wanted = invoke("predict", bundle, *pictures, "--json").json["images"]
    assert len(got) == 5
    for one, other in zip(got, wanted, strict=True):
        assert [guess["index"] for guess in one["top"]] == [guess["index"] for guess in other["top"]]


def test_an_unverified_artefact_warns(invoke, pictures, tmp_path):
    path = make_bundle(tmp_path / "b", passed=None)
    assert "never verified" not in invoke("predict", path, pictures[0]).err  # eager is taken
    result = invoke("predict", path, pictures[0], "--artefact", "torchscript-fp32")
    assert result.code == 0
    assert "torchscript-fp32 was never verified; run: vit-deploy verify" in result.err


def test_a_changed_artefact_is_never_opened(invoke, pictures, tmp_path):
    path = make_bundle(tmp_path / "b")
    file = next((path / "artefacts").rglob("*.pt"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    result = invoke("predict", path, pictures[0])
    assert result.code == 6
    assert "SHA-256" in result.err
    assert result.out == ""


def test_no_bundle_is_bad_input(invoke, pictures, tmp_path):
    result = invoke("predict", tmp_path / "none", pictures[0])
    assert result.code == 6
    assert "there is no bundle" in result.err
