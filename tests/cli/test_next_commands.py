"""What a new user meets: next commands that work as typed, and messages that say what is the matter."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import vit_deploy
from tests.specimens import by_id
from vit_deploy.cli import main
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights.random import random_model

BUNDLES = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "fakes" / "bundles.py"))
HEADLESS = ViTConfig(
    image_size=(32, 32), patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_dim=64, num_classes=0
)


def test_what_classifies_nothing_is_not_sent_to_predict(invoke, tmp_path, monkeypatch):
    BUNDLES["know_the_fake"](monkeypatch)
    path = BUNDLES["make_bundle"](tmp_path / "ein Bündel", random_model(HEADLESS, "tiny"), a={}).path
    done = invoke("bench", path, "--backend", "fake", "--duration", "0.1", "--rounds", "2", "--threads", "1")
    assert done.code == 0
    assert done.err.splitlines()[-1] == f"next: vit-deploy verify '{path}'"


def test_a_bundle_of_another_image_size_is_told_by_its_config(invoke, tmp_path):
    digits = str(Path(vit_deploy.__file__).parent / "assets" / "digits")
    path = tmp_path / "ein Bündel"
    words = ("export", "-m", digits, "--format", "torchscript", "-o", path, "--no-verify")
    assert invoke(*words).code == 0
    again = invoke(*words, "--image-size", "48")
    assert again.code == 2
    assert "holds another model, by its config and preprocessing: " in again.err
    assert "32x32 pixels" in again.err


def test_an_output_that_is_named_twice_is_one_output(invoke, tmp_path):
    digits = str(Path(vit_deploy.__file__).parent / "assets" / "digits")
    words = ("export", "-m", digits, "--format", "torchscript", "-o", tmp_path / "b", "--no-verify")
    assert invoke(*words, "--outputs", "logits,logits").code == 0


def test_a_proof_loads_without_the_source_librarys_progress_bar(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    shown, load = [], transformers.ViTForImageClassification.from_pretrained

    def watched(*given, **options):
        shown.append(transformers.utils.logging.is_progress_bar_enabled())
        return load(*given, **options)

    monkeypatch.setattr(transformers.ViTForImageClassification, "from_pretrained", watched)
    directory = by_id("transformers/ViTForImageClassification").save(tmp_path / "ein Modell")["reference"]
    transformers.utils.logging.enable_progress_bar()  # which the saving of a specimen switched off
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(directory), "--prove"])
    assert ended.value.code == 0
    assert shown == [False]
    assert transformers.utils.logging.is_progress_bar_enabled()
