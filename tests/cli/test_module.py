"""``-m py:package.module:factory``: every command, as a user types it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from vit_deploy.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Invoke = Callable[..., Any]

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

CODE = "py:tests.user_modules:cnn_transformer"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vit_deploy.deploy.export import export_model
    from vit_deploy.weights import load_model

    path = tmp_path_factory.mktemp("cli") / "bundle"
    (outcome,) = export_model(load_model(CODE), path, ["onnx"])
    assert outcome.error is None
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_export_prints_and_proves_it(invoke: Invoke, tmp_path: Path):
    result = invoke("export", "-m", "py:tests.user_modules:chatty", "-o", tmp_path / "bundle", "--json")
    (artefact,) = result.json["artefacts"]
    assert (artefact["name"], artefact["passed"]) == ("onnx-fp32", True)
    assert "a user's print" in result.err
    assert "random" not in result.err, "nobody knows whether its weights are"


def test_a_shape_is_asked_for_where_none_is_said(invoke: Invoke, tmp_path: Path):
    command = ("export", "-m", "py:tests.user_modules:Unsaid", "-o", tmp_path / "bundle")
    result = invoke(*command)
    assert result.code == 6
    assert "next: -m py:tests.user_modules:Unsaid --input-shape 3x224x224" in result.err
    assert invoke(*command, "--input-shape", "3x2x2").code == 0
    again = invoke(*command, "--input-shape", "12")
    assert again.code == 2
    assert "holds another model, by its " in again.err


def test_the_batch_is_fixed_by_shapes(invoke: Invoke, tmp_path: Path):
    command = ("export", "-m", "py:tests.user_modules:OneAtATime", "-o", tmp_path / "bundle")
    refused = invoke(*command)
    assert refused.code == 2
    flags = "--minShapes 1x6 --optShapes 1x6 --maxShapes 1x6"
    assert f"next: {flags}" in refused.err
    assert invoke(*command, *flags.split()).code == 0
    assert Bundle.open(tmp_path / "bundle").artefact("onnx-fp32").spec.batch.maximum == 1
    wrong = invoke(*command, "--maxShapes", "1x7")
    assert wrong.code == 2
    assert "--maxShapes is '1x7'" in wrong.err


def test_shapes_of_several_inputs_are_named(invoke: Invoke, tmp_path: Path):
    command = ("export", "-m", "py:tests.user_modules:TwoInputs", "-o", tmp_path / "bundle", "--no-verify")
    assert invoke(*command, "--maxShapes", "image:4x3x8x8,state:4x5").code == 0
    assert Bundle.open(tmp_path / "bundle").artefact("onnx-fp32").spec.batch.maximum == 4
    for text in ("image:4x3x8x8", "image:4x3x8x8,state:2x5", "4x3x8x8,4x5", "image:4x3x8x8,state:4x5,x:4"):
        result = invoke(*command, "--maxShapes", text)
        assert result.code == 2, text
        assert "expected: image:1x3x8x8,state:1x5" in result.err


def test_verify_needs_the_code_named_again(invoke: Invoke, bundle: Path):
    refused = invoke("verify", bundle)
    assert refused.code == 2
    assert f"next: the same command with -m {CODE}, or with --trust-code" in refused.err
    other = invoke("verify", bundle, "-m", "py:tests.user_modules:resnet")
    assert other.code == 2
    assert f"expected: -m {CODE}" in other.err
    for said in (("-m", CODE), ("--trust-code",)):
        result = invoke("verify", bundle, *said, "--json")
        assert result.code == 0
        assert result.json["artefacts"][0]["passed"] is True
        assert result.err.endswith(f"-m {CODE}\n")


def test_predict_needs_the_code_only_for_eager(invoke: Invoke, bundle: Path, picture: Path):
    with_onnx = invoke("predict", bundle, picture, "--top-k", 2, "--json").json
    assert with_onnx["artefact"] == "onnx-fp32"
    refused = invoke("predict", bundle, picture, "--backend", "eager")
    assert refused.code == 2
    assert "imports nothing" in refused.err
    with_eager = invoke(
        "predict", bundle, picture, "--backend", "eager", "-m", CODE, "--top-k", 2, "--json"
    ).json
    ours, theirs = (document["images"][0]["top"] for document in (with_onnx, with_eager))
    assert [guess["label"] for guess in ours] == [guess["label"] for guess in theirs]
    assert ours[0]["label"] in {"ant", "bee", "cat", "dog", "elk"}
    assert ours[0]["score"] == pytest.approx(theirs[0]["score"], abs=1e-6)


def test_bench_leaves_eager_out_unless_the_code_is_named(invoke: Invoke, bundle: Path):
    quick = ("--duration", "0.05", "--rounds", "1")
    named = invoke("bench", bundle, "--backend", "eager", *quick)
    assert named.code == 2
    assert "imports nothing" in named.err
    document = invoke("bench", bundle, "--backend", "eager,ort", "-m", CODE, *quick, "--json").json
    rows = {row["backend"]: row for row in document["rows"]}
    assert rows["eager"]["ok"], rows["eager"]["error"]
    assert rows["onnxruntime"]["ok"]


def test_no_code_is_named_for_a_bundle_that_needs_none(invoke: Invoke, tmp_path: Path):
    from vit_deploy.assets import digits_directory

    invoke("export", "-m", digits_directory(), "-o", tmp_path / "bundle", "--no-verify")
    result = invoke("verify", tmp_path / "bundle", "-m", CODE)
    assert result.code == 2
    assert "no -m: the bundle holds its model" in result.err


def test_inspect_shows_what_it_is_made_of(invoke: Invoke, bundle: Path):
    result = invoke("inspect", CODE)
    assert result.code == 0
    for line in (
        "inputs         pixels batchx3x32x32",
        "outputs        logits batchx5, tokens batchx16x16 (5 ",
    ):
        assert line in result.out
    assert "MultiheadAttention" in result.out
    document = invoke("inspect", bundle, "--json").json
    assert document["source"]["kind"] == "module"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"]["kind"] == "module"
    assert manifest["model"]["config"]["factory"] == "tests.user_modules:cnn_transformer"


def test_a_proof_of_import_means_nothing_for_it(invoke: Invoke, tmp_path: Path):
    result = invoke("inspect", CODE, "--prove")
    assert result.code in {2, 6}
    assert "Traceback" not in result.err
