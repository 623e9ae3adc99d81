from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.errors import UsageFailed
from vit_deploy.facts import Verdict
from vit_deploy.parity import reference_cache
from vit_deploy.parity.inputs import make_samples
from vit_deploy.parity.reference_cache import LIMIT_VARIABLE, ReferenceCache, Shelf, arithmetic
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.weights import hashes
from vit_deploy.weights.resize import resized
from vit_deploy.weights.tensors import Weights, WeightTensor, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vit_deploy.weights.imported import Model

VALUES = np.random.default_rng(0).standard_normal((4, 5, 3))


@pytest.fixture
def cache(tmp_path: Path) -> ReferenceCache:
    return ReferenceCache(tmp_path / "references")


@pytest.mark.parametrize("shape", [(), (3,), (4, 5, 3), (2, 0)])
def test_what_was_put_is_got(cache: ReferenceCache, shape: tuple[int, ...]) -> None:
    values = np.full(shape, np.pi)
    assert cache.get("a") is None
    cache.put("a", values)
    found = ReferenceCache(cache.folder).get("a")  # as another run would
    assert found is not None
    assert found.dtype == np.float64
    assert np.array_equal(found, values)
    assert found.shape == shape
    assert cache.get("b") is None
    assert cache.note == ""


def test_numbers_that_are_none_are_kept_too(cache: ReferenceCache) -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    cache.put("a", values)
    found = cache.get("a")
    assert found is not None
    assert found.tobytes() == values.tobytes()


def test_values_out_of_order_in_memory_are_kept_in_order(cache: ReferenceCache) -> None:
    cache.put("a", VALUES.transpose(2, 0, 1))
    assert np.array_equal(cache.get("a"), VALUES.transpose(2, 0, 1))  # type: ignore[arg-type]


def test_no_byte_can_be_changed_unseen(cache: ReferenceCache) -> None:
    cache.put("a", VALUES)
    (path,) = cache.folder.iterdir()
    good = path.read_bytes()
    for place in [*range(0, len(good), 7), len(good) - 1]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        found = cache.get("a")
        # What stands in the padding of the header says nothing.
        assert found is None or np.array_equal(found, VALUES), place


@pytest.mark.parametrize("length", [0, 4, 8, 100, 300, -1])
def test_an_entry_that_was_cut_off_is_replaced(cache: ReferenceCache, length: int) -> None:
    cache.put("a", VALUES)
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:length])
    assert cache.get("a") is None
    cache.put("a", VALUES)
    assert np.array_equal(cache.get("a"), VALUES)  # type: ignore[arg-type]
    assert [entry.name for entry in cache.folder.iterdir()] == [path.name]


def test_garbage_and_entries_of_another_name_are_not_there(cache: ReferenceCache) -> None:
    cache.put("a", VALUES)
    (path,) = cache.folder.iterdir()
    path.with_name("b.safetensors").write_bytes(path.read_bytes())
    path.with_name("c.safetensors").write_bytes(os.urandom(5000))
    with path.with_name("d.safetensors").open("wb") as file:
        tensor = WeightTensor("values", (3,), "float32", lambda: torch.ones(3))
        write_safetensors(Weights([tensor]), file)
    path.with_name("e.safetensors").mkdir()
    for name in "bcde":
        assert cache.get(name) is None, name
    assert cache.note == ""


def test_a_folder_that_cannot_be_made_costs_the_cache_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ReferenceCache(tmp_path / "file" / "references")
    cache.put("a", VALUES)
    assert cache.get("a") is None
    assert str(cache.folder) in cache.note
    assert "VIT_DEPLOY_CACHE" in cache.note
    told = cache.note
    cache.put("b", VALUES)
    assert cache.note == told


def test_a_folder_that_may_not_be_written_is_read_all_the_same() -> None:
    with tempfile.TemporaryDirectory() as place, as_another_user(place):
        cache = ReferenceCache(Path(place) / "references")
        cache.put("a", VALUES)
        cache.folder.chmod(0o500)
        cache.put("b", VALUES)
        assert "Permission denied" in cache.note
        assert np.array_equal(cache.get("a"), VALUES)  # type: ignore[arg-type]
        cache.folder.chmod(0o700)


@contextlib.contextmanager
def as_another_user(place: str) -> Iterator[None]:
    """Root may write anywhere, so it is nobody for a while."""
    if os.geteuid():
        yield
        return
    nobody = 65534
    os.chown(place, nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_disk_that_is_full_costs_the_cache_alone(cache: ReferenceCache) -> None:
    cache.put("a", VALUES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # Python ignores the signal; write() fails
    try:
        cache.put("b", np.zeros(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "not kept" in cache.note
    assert cache.get("b") is None
    assert np.array_equal(cache.get("a"), VALUES)  # type: ignore[arg-type]
    assert [entry.name for entry in cache.folder.iterdir()] == ["a.safetensors"]  # nothing is left behind


def test_an_entry_that_cannot_be_touched_is_read(
    cache: ReferenceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("read-only")

    cache.put("a", VALUES)
    monkeypatch.setattr(os, "utime", refuse)
    assert np.array_equal(cache.get("a"), VALUES)  # type: ignore[arg-type]


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, limit=3 * 9000)
    values = np.zeros(1000)  # 8 kB and a header
    for age, name in enumerate("abc"):
        cache.put(name, values)
        os.utime(tmp_path / f"{name}.safetensors", (1e9 + age, 1e9 + age))
    assert cache.get("a") is not None  # so it was used last
    cache.put("d", values)
    assert sorted(entry.stem for entry in tmp_path.iterdir()) == ["a", "c", "d"]
    assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) <= cache.limit


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, limit=9000)
    cache.put("a", np.zeros(1000))
    cache.put("b", np.zeros(2000))
    assert cache.get("a") is not None
    assert cache.get("b") is None
    assert cache.note == ""


def test_what_a_killed_process_left_behind_is_cleared(cache: ReferenceCache) -> None:
    cache.put("a", VALUES)
    old, new, foreign = (cache.folder / name for name in (".writing-old", ".writing-new", "notes.txt"))
    for path in (old, new, foreign):
        path.write_bytes(b"x")
    yesterday = time.time() - 86_400
    for path in (old, foreign):
        os.utime(path, (yesterday, yesterday))
    cache.put("b", VALUES)
    assert not old.exists()
    assert new.exists()  # somebody may be writing it
    assert foreign.exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Entries are written, read and removed all the time; what is read is always whole and right."""
    program = """
import sys, numpy as np
from pathlib import Path
from vit_deploy.parity.reference_cache import ReferenceCache
cache = ReferenceCache(Path(sys.argv[1]), limit=120_000)
hits = 0
for turn in range(120):
    number = turn * int(sys.argv[2]) % 7
    found = cache.get(str(number))
    assert found is None or (found == number).all(), number
    hits += found is not None
    cache.put(str(number), np.full(3000, float(number)))
assert not cache.note, cache.note
print(hits)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path)]
    running = [
        subprocess.Popen([*arguments, step], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for step in ("3", "5")
    ]
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert sum(int(out) for out, _ in ended) > 0
    assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) <= 120_000
    assert all(entry.suffix == ".safetensors" for entry in tmp_path.iterdir())


def test_the_users_own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path))
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert ReferenceCache.default().folder == tmp_path / "references"
    assert ReferenceCache.default().limit == 2_000_000_000
    monkeypatch.setenv(LIMIT_VARIABLE, "5000")
    assert ReferenceCache.default().limit == 5000
    monkeypatch.setenv(LIMIT_VARIABLE, "0")
    none = ReferenceCache.default()
    none.put("a", VALUES)
    assert none.get("a") is None
    assert not none.folder.exists()
    for wrong in ("2 GB", "-1", "many", "²"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(UsageFailed, match=LIMIT_VARIABLE):
            ReferenceCache.default()


def test_an_entry_is_named_by_all_that_it_depends_on(
    cache: ReferenceCache, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(model: Model = model, exact: Model | None = None, seed: int = 0, **what: Any) -> str:
        samples = make_samples(model.preprocessing, model.config, seed)[:2]
        return Shelf(cache, model, exact or model, samples)._name(what or {"kind": "exact"})

    def nudged(tensor: WeightTensor) -> WeightTensor:
        return replace(tensor, reader=lambda: torch.nextafter(tensor.read(), torch.tensor(9.0)))

    weights = list(model.weights.values())
    other = replace(model, weights=Weights([nudged(weights[0]), *weights[1:]]))
    recipe = model.known_preprocessing
    larger = resized(model, (48, 48))
    names = {
        "as it is": name(),
        "another weight": name(other),
        "another config": name(replace(model, config=replace(model.vit_config, norm_eps=1e-5))),
        "another recipe": name(replace(model, preprocessing=replace(recipe, rescale_factor=1 / 127))),
        "other inputs": name(seed=1),
        "another output": name(kind="exact", output="tokens"),
        "another precision": name(kind="errors", precision="bf16"),
        "another size": name(larger),
        "an exact one": name(larger, resized(model, (48, 48), exact=True)),
    }
    monkeypatch.setattr(reference_cache, "code_version", lambda: "of another release")
    names["another release"] = name()
    assert len(set(names.values())) == len(names), names
    monkeypatch.undo()
    assert name() == names["as it is"]


def test_float64_weights_are_not_those_that_a_bundle_rounds_them_to() -> None:
    values = torch.randn(5, dtype=torch.float64)

    def weights(tensor: torch.Tensor) -> Weights:
        return Weights([WeightTensor("a", (5,), str(tensor.dtype).removeprefix("torch."), lambda: tensor)])

    nudged = torch.nextafter(values, torch.tensor(9.0, dtype=torch.float64))
    assert weights(values).digest == weights(values.clone()).digest
    assert len({weights(kind).digest for kind in (values, nudged, values.float())}) == 3
    half = values.half()  # is exact in float32, as a bundle keeps it
    assert weights(half).digest == weights(half.float()).digest


def test_a_bundles_weights_are_known_by_the_manifest_and_not_hashed_again(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edit_bundle(tmp_path, model) as editor:
        staging = editor.stage("onnx-fp32")
        (staging / "model.onnx").write_bytes(b"graph")
        exported = ExportedFiles(("model.onnx",), model.config.io_spec())
        candidate = editor.candidate("onnx-fp32", "onnx", "fp32", exported)
        editor.accept(candidate, exported, NoOptions(), Verdict(passed=True))
        while_exported = editor.model.weights.digest
    bundle = Bundle.open(tmp_path)
    held = bundle.model()

    def refuse(*_: Any) -> str:
        raise AssertionError("hashed again")

    monkeypatch.setattr("vit_deploy.weights.tensors.digest_of", refuse)
    monkeypatch.setattr(hashes, "sha256_of", refuse)
    recorded = bundle.manifest.model.weights.sha256
    assert held.weights.digest == while_exported == recorded
    assert resized(held, (48, 48)).weights.digest != recorded  # named without a look at the file
    monkeypatch.undo()
    assert model.weights.digest == recorded  # and so is the checkpoint, which shares its references


def test_rounding_is_named_with_the_threads(model: Model) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = arithmetic()
        torch.set_num_threads(2)
        assert arithmetic() != one
    finally:
        torch.set_num_threads(threads)


def test_without_the_sources_nothing_is_kept(
    cache: ReferenceCache, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: Any) -> bytes:
        raise FileNotFoundError("no sources")

    reference_cache.code_version.cache_clear()
    monkeypatch.setattr("pathlib.Path.read_bytes", unreadable)
    shelf = Shelf(cache, model, model, ())
    monkeypatch.undo()
    reference_cache.code_version.cache_clear()
    shelf.put(VALUES, kind="exact")
    assert shelf.get(kind="exact") is None
    assert not cache.folder.exists()


def test_an_entry_that_goes_while_it_is_opened_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes room after safetensors looked at the file and before PyTorch maps it."""
    import safetensors

    cache = ReferenceCache(tmp_path, limit=1_000_000)
    cache.put("one", np.full(3000, 1.0))

    def gone_meanwhile(path: Path, **_: object) -> object:
        path.unlink()
        return torch.UntypedStorage.from_file(str(path), shared=False, nbytes=1)

    monkeypatch.setattr(safetensors, "safe_open", gone_meanwhile)
    assert cache.get("one") is None
    assert not cache.note
