"""What is seen of a graph's tensors: against numpy, whatever the batches, and how little memory it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from vit_deploy.errors import ExportFailed, OutputFailed
from vit_deploy.exporters.onnx import build_graph
from vit_deploy.quantisation import observe as module
from vit_deploy.quantisation import session
from vit_deploy.quantisation.observe import BINS, Observed, observe
from vit_deploy.quantisation.samples import choose_samples
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vit_deploy.protocols import Arrays
    from vit_deploy.weights.imported import Model

TENSORS = ("pixel_values", "gelu", "linear", "val_16", "logits")
"""The input, results of nodes with a type and without one, an output."""


@pytest.fixture(scope="module")
def model() -> Model:
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(
        image_size=(32, 48), patch_size=8, embed_dim=60, depth=1, num_heads=5, mlp_dim=150, num_classes=7
    )
    return random_model(config, "tiny", seed=2)


@pytest.fixture(scope="module")
def graph(model: Model) -> ir.Model:
    return build_graph(model, model.config.io_spec(), 23)


def _observed(graph: ir.Model, model: Model, batch_size: int, count: int = 16) -> dict[str, Observed]:
    spec = model.config.io_spec()
    batches = choose_samples(model, "", count).batches(model, spec, batch_size)
    return observe(graph, spec, TENSORS, batches, means=True)


def _values(graph: ir.Model, model: Model) -> dict[str, np.ndarray]:
    spec = model.config.io_spec()
    with session.opened(graph, TENSORS) as opened:
        found = [opened.run(batch) for batch in choose_samples(model, "", 16).batches(model, spec, 8)]
    return {name: np.concatenate([batch[name] for batch in found]) for name in TENSORS}


def test_it_is_what_numpy_makes_of_all_values_at_once(graph: ir.Model, model: Model):
    seen = _observed(graph, model, 8)
    assert list(seen) == list(TENSORS)
    for name, values in _values(graph, model).items():
        found = seen[name]
        assert (found.low, found.high) == (pytest.approx(values.min()), pytest.approx(values.max()))
        reach = found.bin_width * BINS
        assert reach / 2 <= found.absolute_max < reach
        expected, _ = np.histogram(np.abs(values), BINS, (0, reach))
        # Another batch rounds the products otherwise, so that a value on an edge may change its bin.
        assert np.abs(np.cumsum(found.histogram - expected)).max() <= 4
        assert found.count == values.size
        rows = values.reshape(-1, values.shape[-1])
        assert found.channel_max == pytest.approx(np.abs(rows).max(axis=0), rel=1e-5)
        assert found.mean == pytest.approx(rows.mean(axis=0, dtype=float), abs=1e-5)


def test_the_graph_is_as_it_was(graph: ir.Model, model: Model):
    from vit_deploy.graph.stream import skeleton

    before = skeleton(graph).SerializeToString(deterministic=True)
    _observed(graph, model, 4)
    assert skeleton(graph).SerializeToString(deterministic=True) == before


def test_a_known_tensor_gives_the_same_for_any_batches_and_order():
    generator = np.random.default_rng(5)
    values = generator.standard_t(2, (40, 6)).astype(np.float32)
    values[17] *= 1000  # comes late, and widens the range many times
    counted = [_count(order) for order in (np.split(values, 40), [values], np.split(values[::-1], 8))]
    for other in counted[1:]:
        assert np.array_equal(counted[0].histogram, other.histogram)
        assert np.array_equal(counted[0].channel_max, other.channel_max)
        assert (counted[0].low, counted[0].high) == (other.low, other.high)
        assert counted[0].bin_width == other.bin_width
    expected, _ = np.histogram(np.abs(values), BINS, (0, counted[0].bin_width * BINS))
    assert np.array_equal(counted[0].histogram, expected)


def _count(batches: Iterable[np.ndarray]) -> Observed:
    counter = module._Counter("x", means=False)
    for batch in batches:
        counter.add(batch)
    return counter.observed()


def test_powers_of_two_and_zeros_have_bins_of_their_own():
    seen = _count([np.zeros((2, 3)), np.array([[1.0, -1.0, 0.5]]), np.array([[2.0, 0.0, -4.0]])])
    assert seen.bin_width == 8 / BINS
    assert {int(index): int(seen.histogram[index]) for index in np.flatnonzero(seen.histogram)} == {
        0: 7,
        BINS // 16: 1,
        BINS // 8: 2,
        BINS // 4: 1,
        BINS // 2: 1,
    }


def test_a_tensor_of_zeros_is_seen():
    seen = _count([np.zeros((4, 3), dtype=np.float32)])
    assert seen.absolute_max == 0
    assert seen.histogram[0] == seen.count == 12


def test_a_number_without_axes_is_one_channel():
    assert _count([np.array(-3.0, dtype=np.float32)]).channel_max == pytest.approx([3.0])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(broken: float):
    with pytest.raises(ExportFailed, match=r"'x' has values that are not finite"):
        _count([np.array([[1.0, broken]])])


def test_a_batch_is_cut_to_what_there_is_room_for(
    graph: ir.Model, model: Model, monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    run = session.GraphSession.run

    def recorded(self: session.GraphSession, inputs: Arrays) -> dict[str, np.ndarray]:
        sizes.append(len(inputs["pixel_values"]))
        return run(self, inputs)

    monkeypatch.setattr(session.GraphSession, "run", recorded)
    _observed(graph, model, 8)
    assert sizes == [1, 7, 8]
    sizes.clear()
    of_one = 4 * (3 * 32 * 48 + 25 * 150 + 2 * 25 * 180 + 7)
    monkeypatch.setattr(module, "ROOM", 3 * of_one)
    _observed(graph, model, 8)
    assert sizes == [1, 3, 3, 1, 3, 3, 2]


def test_a_fixed_batch_is_never_cut(graph: ir.Model, model: Model, monkeypatch: pytest.MonkeyPatch):
    spec = model.config.io_spec(batch=BatchRange(4, 4, 4))
    fixed = graph.clone()  # the fixture's batch is free: only the first axis has to be told
    for value in (*fixed.graph.inputs, *fixed.graph.outputs):
        value.shape = ir.Shape([4, *value.shape[1:]])
    monkeypatch.setattr(module, "ROOM", 1)
    seen = observe(fixed, spec, ["logits"], choose_samples(model, "", 18).batches(model, spec, 9))
    assert seen["logits"].count == 20 * 7  # the last batch is filled up


def test_an_unknown_tensor_is_named(graph: ir.Model, model: Model):
    with pytest.raises(ExportFailed, match="no tensor 'gone'"):
        observe(graph, model.config.io_spec(), ["gelu", "gone"], [])


def test_no_picture_is_no_calibration(graph: ir.Model, model: Model):
    with pytest.raises(ExportFailed, match="no picture"):
        observe(graph, model.config.io_spec(), ["gelu"], iter(()))


def test_a_graph_that_onnxruntime_cannot_open_is_refused(graph: ir.Model, model: Model):
    changed = graph.clone()
    node = next(node for node in changed.graph if node.op_type == "Gelu")
    node.op_type = "Gelatine"
    with pytest.raises(ExportFailed, match="cannot open the graph"):
        observe(changed, model.config.io_spec(), ["logits"], [])


def test_a_batch_of_another_shape_is_refused(graph: ir.Model, model: Model):
    batch = {"pixel_values": np.zeros((1, 3, 8, 8), dtype=np.float32)}
    with pytest.raises(ExportFailed, match="cannot run the graph"):
        observe(graph, model.config.io_spec(), ["logits"], [batch])


def test_no_room_for_the_weights_names_another_folder(
    graph: ir.Model, model: Model, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vit_deploy.graph.stream.write_model", full)
    with pytest.raises(OutputFailed, match="No space left") as raised:
        observe(graph, model.config.io_spec(), ["logits"], [])
    assert "TMPDIR" in raised.value.next_command


def test_nothing_stays_in_the_temporary_folder(
    graph: ir.Model, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _observed(graph, model, 8)
    assert list(tmp_path.iterdir()) == []


def test_batches_are_taken_one_at_a_time(graph: ir.Model, model: Model):
    alive = 0
    most = 0

    class Batch(dict):  # type: ignore[type-arg]
        def __init__(self, values: Arrays) -> None:
            nonlocal alive, most
            super().__init__(values)
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    spec = model.config.io_spec()

    def batches() -> Iterator[Arrays]:
        for batch in choose_samples(model, "", 64).batches(model, spec, 4):
            yield Batch(batch)

    observe(graph, spec, ["logits"], batches())
    assert most <= 3  # one that is run, one that is being made
