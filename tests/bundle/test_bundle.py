"""A bundle is whole or is not there; what it holds is checked before it is opened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.errors import HostileInput, ImportFailed, OutputFailed, UsageFailed
from vit_deploy.weights.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_what_goes_in_comes_out(bundle_path: Path, small_model: Model, add_artefact: Callable) -> None:
    add_artefact(bundle_path, small_model)
    bundle = Bundle.open(bundle_path)
    assert bundle.config == small_model.config
    assert bundle.preprocessing == small_model.preprocessing
    model = bundle.model()
    for name, tensor in small_model.weights.items():
        assert model.weights[name].read().equal(tensor.read())
    artefact = bundle.artefact("onnx-fp32")
    assert artefact.path.read_bytes() == b"content"
    assert artefact.spec == small_model.config.io_spec()
    assert bundle.records["onnx-fp32"].parity.worst_ratio == 1.235


def test_same_input_same_bytes(tmp_path: Path, small_model: Model, add_artefact: Callable) -> None:
    for name in ("a", "b"):
        add_artefact(tmp_path / name, small_model)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    add_artefact(tmp_path / "a", small_model)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    text = (tmp_path / "a" / "manifest.json").read_text()
    assert str(tmp_path) not in text


def test_a_bundle_that_gets_nothing_leaves_nothing(bundle_path: Path, small_model: Model) -> None:
    with edit_bundle(bundle_path, small_model) as editor:
        (editor.stage("x") / "file").write_bytes(b"1")
    assert not bundle_path.exists()


def test_an_error_in_between_leaves_the_old_bundle(
    bundle_path: Path, small_model: Model, add_artefact: Callable
) -> None:
    add_artefact(bundle_path, small_model)
    before = files_of(bundle_path)

    def interrupted() -> None:
        with edit_bundle(bundle_path, small_model) as editor:
            (editor.stage("onnx-fp32") / "model.onnx").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files_of(bundle_path) == before


def test_a_replaced_artefact_stays_for_readers_of_the_old_manifest(
    bundle_path: Path, small_model: Model, add_artefact: Callable
) -> None:
    add_artefact(bundle_path, small_model, b"old")
    reader = Bundle.open(bundle_path)
    add_artefact(bundle_path, small_model, b"new")
    assert reader.artefact("onnx-fp32").path.read_bytes() == b"old"
    assert Bundle.open(bundle_path).artefact("onnx-fp32").path.read_bytes() == b"new"
    add_artefact(bundle_path, small_model, b"newer")
    assert len(list((bundle_path / "artefacts").iterdir())) == 2  # the last one and the one before


@pytest.mark.parametrize("change", ["content", "length", "gone", "link"])
def test_a_changed_file_is_refused_before_it_is_opened(
    bundle_path: Path, small_model: Model, add_artefact: Callable, change: str
) -> None:
    add_artefact(bundle_path, small_model)
    path = Bundle.open(bundle_path).artefact("onnx-fp32").path
    if change == "content":
        path.write_bytes(b"c0ntent")
    elif change == "length":
        path.write_bytes(b"content and more")
    else:
        path.unlink()
        if change == "link":
            (bundle_path / "elsewhere").write_bytes(b"content")
            path.symlink_to(bundle_path / "elsewhere")
    with pytest.raises(HostileInput):
        Bundle.open(bundle_path).artefact("onnx-fp32")


def test_changed_weights_are_refused(bundle_path: Path, small_model: Model, add_artefact: Callable) -> None:
    add_artefact(bundle_path, small_model)
    weights = next(bundle_path.glob("weights-*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(HostileInput, match="was changed"):
        Bundle.open(bundle_path).model()


def test_a_damaged_artefact_is_made_again_under_another_name(
    bundle_path: Path, small_model: Model, add_artefact: Callable
) -> None:
    add_artefact(bundle_path, small_model)
    Bundle.open(bundle_path).artefact("onnx-fp32").path.write_bytes(b"damaged")
    add_artefact(bundle_path, small_model)
    assert Bundle.open(bundle_path).artefact("onnx-fp32").path.read_bytes() == b"content"


def edited(path: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "a\\..\\b"])
def test_a_manifest_cannot_point_outside(
    bundle_path: Path, small_model: Model, add_artefact: Callable, name: str
) -> None:
    add_artefact(bundle_path, small_model)
    edited(bundle_path, lambda data: data["artefacts"]["onnx-fp32"]["files"][0].update(name=name))
    with pytest.raises(HostileInput, match="does not stay inside"):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}', "\ufeff{}", "{}"])
def test_what_is_no_manifest_is_refused_and_kept(
    bundle_path: Path, small_model: Model, add_artefact: Callable, text: str
) -> None:
    add_artefact(bundle_path, small_model)
    (bundle_path / "manifest.json").write_text(text)
    before = files_of(bundle_path)
    with pytest.raises(HostileInput, match="no manifest"):
        Bundle.open(bundle_path)
    with pytest.raises(HostileInput), edit_bundle(bundle_path, small_model):
        pass
    assert files_of(bundle_path) == before


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="no bundle"):
        Bundle.open(tmp_path / "none")


def test_another_model_is_refused(bundle_path: Path, small_model: Model, add_artefact: Callable) -> None:
    add_artefact(bundle_path, small_model)
    other = replace(small_model, source=Source("random", "other", "0" * 64))
    with pytest.raises(UsageFailed, match="another model"), edit_bundle(bundle_path, other):
        pass


def test_a_folder_with_something_else_is_refused(tmp_path: Path, small_model: Model) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageFailed, match=r"thesis\.tex"), edit_bundle(tmp_path, small_model):
        pass
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(UsageFailed, match="is a file"), edit_bundle(tmp_path / "thesis.tex", small_model):
        pass


def test_a_full_disk_leaves_nothing(
    bundle_path: Path, small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(weights: object, target: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vit_deploy.bundle.editor.write_safetensors", full)
    with pytest.raises(OutputFailed, match="No space left"), edit_bundle(bundle_path, small_model):
        pass
    assert not bundle_path.exists()


KILLED = """
import sys, time
from pathlib import Path
from vit_deploy.bundle import edit_bundle
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights.random import random_model
config = ViTConfig(image_size=(32, 48), patch_size=8, embed_dim=60, depth=3, num_heads=5, mlp_dim=150,
                   num_classes=7)
with edit_bundle(Path(sys.argv[1]), random_model(config, "small", seed=1)) as editor:
    (editor.stage("onnx-fp32") / "model.onnx").write_bytes(b"half")
    print("staged", flush=True)
    time.sleep(60)
"""


def test_kill_9_leaves_the_old_bundle_and_no_lock(
    bundle_path: Path, small_model: Model, add_artefact: Callable
) -> None:
    add_artefact(bundle_path, small_model)
    before = files_of(bundle_path)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(bundle_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"staged\n"
        process.kill()
    assert Bundle.open(bundle_path).artefact("onnx-fp32").path.read_bytes() == b"content"
    add_artefact(bundle_path, small_model)
    assert files_of(bundle_path) == before


def test_two_writers_take_turns(
    bundle_path: Path, small_model: Model, add_artefact: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit_deploy.bundle.editor.LOCK_TIMEOUT_S", 0.3)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(bundle_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        with pytest.raises(OutputFailed, match="another process"):
            add_artefact(bundle_path, small_model)
        assert time.monotonic() - started >= 0.3
        process.kill()
    monkeypatch.undo()
    add_artefact(bundle_path, small_model)
    assert list(Bundle.open(bundle_path).records) == ["onnx-fp32"]


def test_files_that_are_not_ours_are_never_removed(
    tmp_path: Path, small_model: Model, add_artefact: Callable
) -> None:
    (tmp_path / "weights-best.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageFailed, match="weights-best"), edit_bundle(tmp_path, small_model):
        pass
    (tmp_path / "weights-best.safetensors").rename(tmp_path / "kept")
    (tmp_path / "b" / "artefacts" / "mine").mkdir(parents=True)
    with pytest.raises(UsageFailed, match="artefacts/mine"), edit_bundle(tmp_path / "b", small_model):
        pass
    (tmp_path / "b" / "artefacts" / "mine").rename(tmp_path / "mine")
    add_artefact(tmp_path / "b", small_model)
    (tmp_path / "mine").rename(tmp_path / "b" / "artefacts" / "mine")
    (tmp_path / "kept").rename(tmp_path / "b" / "weights-best.safetensors")
    add_artefact(tmp_path / "b", small_model, b"new")
    assert (tmp_path / "b" / "weights-best.safetensors").read_bytes() == b"mine"
    assert (tmp_path / "b" / "artefacts" / "mine").is_dir()


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_reference_weights_are_mended_from_the_model(
    bundle_path: Path, small_model: Model, add_artefact: Callable, change: str
) -> None:
    add_artefact(bundle_path, small_model)
    weights = next(bundle_path.glob("weights-*.safetensors"))
    whole = weights.read_bytes()
    weights.unlink()
    if change == "changed":
        weights.write_bytes(whole[:-1] + b"\xff")
    add_artefact(bundle_path, small_model)
    assert weights.read_bytes() == whole


def test_changed_weights_are_not_exported_again(
    bundle_path: Path, small_model: Model, add_artefact: Callable
) -> None:
    from vit_deploy.weights.random import random_model

    add_artefact(bundle_path, small_model)
    next(bundle_path.glob("weights-*.safetensors")).unlink()
    other = replace(random_model(small_model.config, "small", seed=2), source=small_model.source)
    before = files_of(bundle_path)
    with pytest.raises(HostileInput, match="weights are others"), edit_bundle(bundle_path, other):
        pass
    assert files_of(bundle_path) == before


def test_other_labels_are_another_model(bundle_path: Path, small_model: Model, add_artefact: Callable) -> None:
    add_artefact(bundle_path, small_model)
    with pytest.raises(UsageFailed, match="another model"):
        add_artefact(bundle_path, replace(small_model, labels=tuple("abcdefg")))


def _set(*path: str, value: object) -> Callable[[dict], None]:
    def change(data: dict) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


ONNX = ("artefacts", "onnx-fp32")


@pytest.mark.parametrize(
    "change",
    [
        _set("model", "config", "depth", value="7"),
        _set("model", "labels", value=["a"]),
        _set("model", "preprocessing", "mean", value="x"),
        _set(*ONNX, "inputs", value=[]),
        _set(*ONNX, "batch", value={"minimum": 9, "optimum": 9, "maximum": 8}),
        _set(*ONNX, "batch", "maximum", value=10**30),
        _set(*ONNX, "facts", "x", value=float("nan")),
        _set(*ONNX, "parity", "worst_ratio", value=float("inf")),
        _set(*ONNX, "name", value="other"),
    ],
    ids=["depth", "labels", "mean", "inputs", "order", "maximum", "nan", "inf", "name"],
)
def test_a_manifest_that_was_tampered_with_is_refused(
    bundle_path: Path, small_model: Model, add_artefact: Callable, change: Callable[[dict], None]
) -> None:
    add_artefact(bundle_path, small_model)
    edited(bundle_path, change)
    with pytest.raises(HostileInput):
        Bundle.open(bundle_path)
