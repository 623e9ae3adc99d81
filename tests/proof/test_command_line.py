from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.specimens import by_id
from vit_deploy import weights
from vit_deploy.bundle import Bundle
from vit_deploy.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Ran = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return int(ended.value.code or 0), told.out, told.err

    return call


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    by_id("timm/vit_tiny_patch16_224").save(tmp_path / "my-vit")
    return tmp_path / "my-vit"


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An importer that takes another epsilon."""
    honest = weights.load_model

    def load(*arguments: Any, **options: Any) -> Any:
        model = honest(*arguments, **options)
        return replace(model, config=replace(model.config, norm_eps=1e-5))

    monkeypatch.setattr(weights, "load_model", load)


def test_inspect_prints_a_line_for_each_stage(run, checkpoint):
    code, out, err = run("inspect", checkpoint, "--prove", "--depth", 0)
    assert code == 0
    table = out[out.index("against timm") :]
    for stage in ("embed", "blocks.0", "blocks.1", "tokens", "embedding", "logits"):
        assert any(line.startswith(stage) and "agrees" in line for line in table.splitlines())
    assert "every stage agrees with timm" in err
    assert "--prove" in err[err.index("next: ") :]


def test_the_document_has_the_proof(run, checkpoint):
    code, out, _ = run("inspect", checkpoint, "--prove", "--json")
    proof = json.loads(out)["proof"]
    assert code == 0
    assert proof["passed"] is True
    assert proof["errors"]["blocks.1"] < 1e-13
    assert json.loads(run("inspect", checkpoint, "--json")[1])["proof"] is None


def test_an_import_that_differs_is_exit_code_3(run, checkpoint, faulty):
    code, out, err = run("inspect", checkpoint, "--prove", "--depth", 0)
    assert code == 3
    assert "differs first" in next(line for line in out.splitlines() if line.startswith("blocks.0"))
    assert "blocks.0 differs first" in err
    code, out, _ = run("inspect", checkpoint, "--prove", "--json")
    assert code == 3
    assert json.loads(out)["proof"]["passed"] is False


def test_export_keeps_the_proof(run, checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    words = ("export", "-m", checkpoint, "--format", "onnx", "--no-verify", "-o", bundle)
    assert run(*words)[0] == 0
    assert Bundle.open(bundle).manifest.model.proof is None
    assert json.loads(run("inspect", bundle, "--json")[1])["proof"] is None

    code, out, err = run(*words, "--prove", "--json")
    assert code == 0, err
    assert json.loads(out)["proof"]["passed"] is True
    kept = Bundle.open(bundle).manifest.model.proof
    assert kept is not None
    assert kept.passed
    assert kept.checkpoint_sha256 == Bundle.open(bundle).manifest.model.source.sha256

    assert run(*words)[0] == 0  # without --prove, what is kept stays
    assert Bundle.open(bundle).manifest.model.proof == kept
    code, out, _ = run("inspect", bundle)
    assert code == 0
    assert "proof    passed: 6 stages against timm" in out
    assert json.loads(run("inspect", bundle, "--json")[1])["proof"]["library"] == "timm"


def test_export_refuses_what_fails(run, checkpoint, tmp_path, faulty):
    bundle = tmp_path / "bundle"
    code, _, err = run("export", "-m", checkpoint, "--format", "onnx", "--prove", "-o", bundle)
    assert code == 3
    assert "blocks.0 differs first" in err
    assert not bundle.exists()


def test_a_bundle_holds_no_checkpoint_to_prove(run, checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    assert run("export", "-m", checkpoint, "--no-verify", "--prove", "-o", bundle)[0] == 0
    code, _, err = run("inspect", bundle, "--prove")
    assert code == 2
    assert "not the checkpoint" in err
    assert f"vit-deploy inspect {bundle}" in err
    code, _, err = run("export", "-m", bundle, "--prove", "--no-verify", "-o", tmp_path / "other")
    assert code == 2
    assert "not the checkpoint" in err


def test_random_weights_are_nothing_to_prove(run):
    code, _, err = run("inspect", "vit_tiny_patch16_224", "--prove")
    assert code == 2
    assert "nothing was imported" in err


def test_images_go_with_prove(run, checkpoint, tmp_path):
    assert run("inspect", checkpoint, "--images", tmp_path)[0] == 2


def test_a_proof_of_another_checkpoint_is_no_manifest(run, checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    assert run("export", "-m", checkpoint, "--no-verify", "--prove", "-o", bundle)[0] == 0
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["proof"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    code, _, err = run("inspect", bundle)
    assert code == 6
    assert "another checkpoint" in err
