"""What OpenVINO compiled is kept: taken again where nothing changed, and never where anything did."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vit_deploy.environment import cache_folder
from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters.openvino import EXPORTER
from vit_deploy.facts import Device
from vit_deploy.protocols import Artefact, NoOptions, SessionOptions, Silent
from vit_deploy.runtimes import _openvino_cache as cache
from vit_deploy.runtimes.openvino import RUNTIME

if TYPE_CHECKING:
    from vit_deploy.weights.imported import Model

if not RUNTIME.available().ok:
    pytest.skip(f"OpenVINO is missing: {RUNTIME.available().mend}", allow_module_level=True)

PIXELS = {"pixel_values": np.random.default_rng(0).standard_normal((2, 3, 32, 48), np.float32)}


@pytest.fixture(scope="module")
def made(wide_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder, spec = tmp_path_factory.mktemp("made"), wide_model.config.io_spec()
    onnx = onnx_exporter.EXPORTER.export(wide_model, spec, onnx_exporter.OnnxOptions(), folder, Silent())
    source = Artefact("onnx-fp32", "onnx", "fp32", folder / onnx.files[0], spec, wide_model.config)
    ir = EXPORTER.export(wide_model, spec, NoOptions(), folder, Silent(), source)
    return replace(source, name="openvino-fp32", format="openvino", path=folder / ir.files[0])


@pytest.fixture
def artefact(made: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artefact:
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    for suffix in (".xml", ".bin"):
        shutil.copyfile(made.path.with_suffix(suffix), tmp_path / f"model{suffix}")
    return replace(made, path=tmp_path / "model.xml")


def opened(artefact: Artefact, **options: Any) -> tuple[str, np.ndarray]:
    """Whether it came from the cache, and what it gives."""
    told = SessionOptions(**{"threads": 1, "cache": True, **options})
    with RUNTIME.open(artefact, Device(), told) as session:
        return session.facts.details["model_cache"], session.run(PIXELS)["logits"]


def entries() -> list[Path]:
    return sorted((cache_folder() / "openvino").iterdir())


def folder(kept: cache.Kept) -> Path:
    return Path(kept.settings["CACHE_DIR"])


def blob() -> Path:
    (entry,) = entries()
    (found,) = entry.glob("*.blob")
    return found


def test_the_second_opening_is_a_hit_and_computes_the_same(artefact: Artefact) -> None:
    first, logits = opened(artefact)
    second, again = opened(artefact)
    assert (first, second) == ("miss", "hit")
    assert np.array_equal(logits, again)
    assert sum(file.stat().st_size for file in entries()[0].iterdir()) < 2**20


def test_facts_are_the_same_from_the_cache(artefact: Artefact) -> None:
    told = SessionOptions(threads=1, cache=True)
    facts = []
    for _ in range(2):
        with RUNTIME.open(artefact, Device(), told) as session:
            facts.append(session.facts)
    first, second = facts
    assert (first.details.pop("model_cache"), second.details.pop("model_cache")) == ("miss", "hit")  # type: ignore[attr-defined]
    assert second == first
    assert (second.precision_hint, second.threads, second.streams) == ("f32", 1, 1)


def test_it_is_off_unless_asked_for(artefact: Artefact) -> None:
    assert opened(artefact, cache=False)[0] == "off"
    assert not (cache_folder() / "openvino").exists()


@pytest.mark.parametrize("word", ["0", "no", "OFF"])
def test_it_can_be_switched_off(artefact: Artefact, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SWITCH, word)
    assert opened(artefact)[0] == "off"


def test_other_settings_are_another_entry(artefact: Artefact) -> None:
    assert opened(artefact)[0] == "miss"
    assert opened(artefact, threads=2, streams=2)[0] == "miss"
    assert opened(artefact)[0] == "hit"
    assert len(entries()) == 2


def test_swapped_weights_are_never_taken_for_the_old_ones(artefact: Artefact) -> None:
    """OpenVINO looks at the .xml alone, which is the same."""
    opened(artefact)
    weights = artefact.path.with_suffix(".bin")
    before = weights.stat()
    data = np.fromfile(weights, np.uint8)
    start = len(data) // 2 // 4 * 4
    data[start : start + 4096].view(np.float32)[:] *= -1.0
    data.tofile(weights)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    state, logits = opened(artefact)
    assert state == "miss"
    assert np.array_equal(logits, opened(artefact, cache=False)[1])


@pytest.mark.parametrize("damage", ["cut", "empty", "middle", "gone", "sums", "origins", "stranger"])
def test_a_damaged_entry_is_a_miss_and_is_made_anew(artefact: Artefact, damage: str) -> None:
    logits = opened(artefact)[1]
    file = blob()
    file.chmod(0o600)
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage in ("sums", "origins"):
        (file.parent / f"{damage}.json").write_text("{")
    elif damage == "stranger":
        (file.parent / "another.blob").write_bytes(data)
    else:
        middle = data[:5000] + bytes(200) + data[5200:]
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "middle": middle}[damage])
    state, again = opened(artefact)
    assert (state, np.array_equal(logits, again)) == ("miss", True)
    assert opened(artefact)[0] == "hit"


def test_what_was_not_used_for_longest_goes_first(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(artefact)
    (first,) = entries()
    os.utime(first, (1, 1))
    opened(artefact, threads=2)
    (second,) = set(entries()) - {first}
    os.utime(second, (2, 2))
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(cache, "LIMIT", int(2.5 * size))
    assert opened(artefact)[0] == "hit"  # which makes it the last one used
    opened(artefact, threads=2, streams=2)
    assert first in entries()
    assert second not in entries()
    assert len(entries()) == 2


def test_a_folder_that_cannot_be_had_is_no_error(artefact: Artefact) -> None:
    cache_folder().mkdir()
    (cache_folder() / "openvino").write_text("a file")
    assert opened(artefact)[0] == "off"


def test_nothing_is_kept_of_a_model_that_cannot_be_opened(artefact: Artefact) -> None:
    with contextlib.suppress(ValueError), cache.ModelCache(artefact.path, {}, "1") as kept:
        folder(kept).joinpath("part.blob").write_bytes(b"half")
        raise ValueError
    assert entries() == []


def test_a_quicker_process_wins(artefact: Artefact) -> None:
    mine, theirs = (cache.ModelCache(artefact.path, {}, "1") for _ in range(2))
    with mine as kept:
        with theirs as other:
            (folder(other) / "a.blob").write_bytes(b"theirs")
        (folder(kept) / "a.blob").write_bytes(b"mine")
    assert blob().read_bytes() == b"theirs"
    with cache.ModelCache(artefact.path, {}, "1") as kept:
        assert folder(kept) == mine.entry


def test_onnx_files_are_not_kept(artefact: Artefact, made: Artefact) -> None:
    """OpenVINO would keep a copy of all their weights."""
    onnx = replace(made, format="onnx", path=made.path.with_name("model.onnx"))
    assert opened(onnx)[0] == "off"
    assert not (cache_folder() / "openvino").exists()
