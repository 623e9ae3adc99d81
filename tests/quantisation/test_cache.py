"""Observations kept on the disk: what comes back, what is another entry, and what is no entry at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vit_deploy.exporters.onnx import build_graph
from vit_deploy.model.config import ViTConfig
from vit_deploy.quantisation import cache as module
from vit_deploy.quantisation.cache import CalibrationCache, calibration_key, observe_once
from vit_deploy.quantisation.observe import Observed, _Counter
from vit_deploy.quantisation.samples import choose_samples
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.weights.imported import Model

NAME = "ab" * 32
CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=8, embed_dim=30, depth=1, num_heads=3, mlp_dim=40, num_classes=5
)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIG, "tiny", seed=3)


@pytest.fixture(scope="module")
def graph(model: Model) -> ir.Model:
    return build_graph(model, model.config.io_spec(), 23)


def _seen(*, means: bool = True) -> dict[str, Observed]:
    generator = np.random.default_rng(0)
    counters = {name: _Counter(name, means=means) for name in ("a", "b.c", "d")}
    for channels, counter in zip((3, 7, 1), counters.values(), strict=True):
        counter.add(generator.normal(1.0, channels, (50, channels)).astype(np.float32))
    return {name: counter.observed() for name, counter in counters.items()}


def _same(one: dict[str, Observed], other: dict[str, Observed]) -> bool:
    return list(one) == list(other) and all(
        (a.name, a.low, a.high, a.bin_width) == (b.name, b.low, b.high, b.bin_width)
        and np.array_equal(a.histogram, b.histogram)
        and np.array_equal(a.channel_max, b.channel_max)
        and a.channel_max.dtype == b.channel_max.dtype
        and (np.array_equal(a.mean, b.mean) if a.mean is not None and b.mean is not None else a.mean is b.mean)
        for a, b in zip(one.values(), other.values(), strict=True)
    )


@pytest.mark.parametrize("means", [True, False])
def test_what_is_put_comes_back(tmp_path: Path, means: bool):
    cache = CalibrationCache(tmp_path / "new" / "folder")
    assert cache.get(NAME) is None
    seen = _seen(means=means)
    cache.put(NAME, seen)
    found = cache.get(NAME)
    assert found is not None
    assert _same(found, seen)
    assert [path.name for path in cache.folder.iterdir()] == [f"{NAME}.npz"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"PK nonsense",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-10],
        lambda data: data[:400] + bytes([data[400] ^ 0xFF]) + data[401:],
        lambda data: data[: len(data) // 2] + b"\0" * 8 + data[len(data) // 2 + 8 :],
    ],
)
def test_an_entry_that_was_changed_is_not_there(tmp_path: Path, spoil: Callable[[bytes], bytes]):
    cache = CalibrationCache(tmp_path)
    cache.put(NAME, _seen())
    (path,) = tmp_path.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    assert cache.get(NAME) is None
    cache.put(NAME, _seen())
    assert cache.get(NAME) is not None


def test_an_entry_under_another_name_is_not_there(tmp_path: Path):
    cache = CalibrationCache(tmp_path)
    cache.put(NAME, _seen())
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"{'cd' * 32}.npz")
    assert cache.get("cd" * 32) is None


def test_arrays_that_do_not_fit_together_are_not_there(tmp_path: Path):
    arrays = module._packed(NAME, _seen())
    arrays["histograms"] = arrays["histograms"][:, :100]
    np.savez_compressed(tmp_path / f"{NAME}.npz", **arrays)
    assert CalibrationCache(tmp_path).get(NAME) is None


def test_pickled_objects_are_never_opened(tmp_path: Path):
    arrays = {**module._packed(NAME, _seen()), "means": np.array([{}], dtype=object)}
    np.savez_compressed(tmp_path / f"{NAME}.npz", **arrays)
    assert CalibrationCache(tmp_path).get(NAME) is None


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    cache = CalibrationCache(tmp_path / "file" / "folder")
    cache.put(NAME, _seen())
    assert cache.get(NAME) is None


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    CalibrationCache(tmp_path).put(NAME, _seen())
    assert list(tmp_path.iterdir()) == []


def test_the_longest_unused_go_first(tmp_path: Path):
    import os

    cache = CalibrationCache(tmp_path)
    names = [f"{index:064x}" for index in range(4)]
    for age, name in enumerate(names[:3]):
        cache.put(name, _seen())
        os.utime(tmp_path / f"{name}.npz", (1000 + age, 1000 + age))
    assert cache.get(names[0]) is not None  # and is the last used now
    cache.limit = int(3.5 * (tmp_path / f"{names[0]}.npz").stat().st_size)
    cache.put(names[3], _seen())
    assert cache.get(names[1]) is None
    assert all(cache.get(name) is not None for name in (names[0], names[2], names[3]))


def test_the_name_depends_on_all_that_the_numbers_do(graph: ir.Model, model: Model):
    samples = choose_samples(model, "", 16)

    def key(**changed: object) -> str:
        given = {
            "graph": graph,
            "model": model,
            "samples": samples,
            "tensors": ["gelu"],
            "settings": {"smooth": 0.5},
        }
        return calibration_key(**{**given, **changed})  # type: ignore[arg-type]

    rewired = graph.clone()
    next(node for node in rewired.graph if node.op_type == "Gelu").op_type = "Relu"
    others = {
        "weights": key(model=random_model(CONFIG, "tiny", seed=4)),
        "preprocessing": key(
            model=replace(model, preprocessing=replace(model.known_preprocessing, mean=(0.1, 0.2, 0.3)))
        ),
        "pictures": key(samples=choose_samples(model, "", 17)),
        "tensors": key(tensors=["logits"]),
        "settings": key(settings={"smooth": 0.6}),
        "graph": key(graph=rewired),
    }
    assert key() == key() == key(graph=build_graph(model, model.config.io_spec(), 23))
    assert len({key(), *others.values()}) == 1 + len(others)


def test_the_second_time_nothing_is_run(
    graph: ir.Model, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def once(settings: dict[str, object]) -> dict[str, Observed]:
        return observe_once(
            graph,
            model,
            model.config.io_spec(),
            choose_samples(model, "", 16),
            ["gelu", "logits"],
            settings=settings,
            means=True,
            cache=CalibrationCache(tmp_path),
        )

    first = once({})
    monkeypatch.setattr(module, "observe", None)
    assert _same(once({}), first)
    with pytest.raises(TypeError):
        once({"smooth": 1.0})


def test_the_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path))
    CalibrationCache().put(NAME, _seen())
    assert (tmp_path / "calibration" / f"{NAME}.npz").is_file()


def test_without_sources_nothing_is_kept(
    graph: ir.Model, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_code_version", lambda: "")
    samples = choose_samples(model, "", 16)
    cache = CalibrationCache(tmp_path)
    observe_once(graph, model, model.config.io_spec(), samples, ["logits"], settings={}, cache=cache)
    assert list(tmp_path.iterdir()) == []
