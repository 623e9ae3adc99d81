"""The ranking of layers and the search for a budget, on graphs whose worst layers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from vit_deploy.errors import BudgetUnmet, UsageFailed
from vit_deploy.quantisation.outcome import drop_of, moved
from vit_deploy.quantisation.sensitivity import RANKED_ON, Trials, hold_budget, rank_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vit_deploy.protocols import Arrays

LAYERS = tuple(f"layer{index}" for index in range(8))
WIDTH = 12
COARSE = {"layer2": 3.0, "layer5": 9.0}
"""Codes to each side: so few ruin a layer; all others have 127."""


def _lazy(name: str, values: np.ndarray) -> ir.Value:
    tensor = ir.LazyTensor(
        lambda: ir.tensor(values, name=name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(values.shape),
        name=name,
    )
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


def _weight(layer: str) -> np.ndarray:
    generator = np.random.default_rng([7, LAYERS.index(layer)])
    return (np.eye(WIDTH) + 0.3 * generator.standard_normal((WIDTH, WIDTH))).astype(np.float32)


def _rounded(layer: str) -> np.ndarray:
    weight = _weight(layer)
    step = np.abs(weight).max() / COARSE.get(layer, 127.0)
    return (np.rint(weight / step) * step).astype(np.float32)


def _graph(keep: frozenset[str] | None) -> ir.Model:
    """A chain of layers; those not kept have rounded weights of another name. All are exact for ``None``."""
    taken = ir.Value(name="x", shape=ir.Shape(["batch", WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, weights, value = [], [], taken
    for layer in LAYERS:
        exact = keep is None or layer in keep
        weight = _lazy(layer if exact else f"{layer}.rounded", _weight(layer) if exact else _rounded(layer))
        product = ir.node("MatMul", [value, weight], name=layer)
        bent = ir.node("Tanh", [product.outputs[0]], name=f"{layer}.tanh")
        nodes += [product, bent]
        weights.append(weight)
        value = bent.outputs[0]
    value.name, value.shape, value.type = "logits", ir.Shape(["batch", WIDTH]), taken.type
    graph = ir.Graph([taken], [value], nodes=nodes, initializers=weights, opset_imports={"": 21}, name="chain")
    return ir.Model(graph, ir_version=10)


def _feed(count: int = 40) -> Iterator[Arrays]:
    generator = np.random.default_rng(11)
    for start in range(0, count, 8):
        yield {"x": generator.standard_normal((min(8, count - start), WIDTH)).astype(np.float32)}


@pytest.fixture
def trials() -> Iterator[Trials]:
    with Trials(_graph(None), _graph, _feed) as opened:
        yield opened


@pytest.mark.parametrize("alone", [False, True])
def test_the_coarsest_layers_come_first(trials: Trials, alone: bool):
    effects = rank_layers(trials, LAYERS, alone=alone)
    assert {entry.name for entry in effects} == set(LAYERS)
    assert [entry.name for entry in effects[:2]] == ["layer2", "layer5"]
    assert effects[0].effect > 3 * effects[1].effect > 0


def test_what_is_kept_anyway_is_not_ranked(trials: Trials):
    effects = rank_layers(trials, LAYERS, keep=frozenset({"layer2"}))
    assert len(effects) == 7
    assert effects[0].name == "layer5"


def test_a_layers_error_is_that_of_the_outputs(trials: Trials):
    (effect,) = (entry for entry in rank_layers(trials, LAYERS, alone=True) if entry.name == "layer2")
    inputs = next(iter(_feed()))["x"]
    assert len(inputs) == RANKED_ON

    def run(rounded: str) -> np.ndarray:
        value = inputs.astype(float)
        for layer in LAYERS:
            value = np.tanh(value @ (_rounded(layer) if layer == rounded else _weight(layer)))
        return value

    right, wrong = run(""), run("layer2")
    expected = (((wrong - right) ** 2).sum(axis=1) / (right**2).sum(axis=1)).mean()
    assert effect.error == pytest.approx(expected, rel=1e-3)


def test_a_budget_that_holds_at_once_ranks_nothing(trials: Trials):
    held = hold_budget(trials, LAYERS, 100.0)
    assert held.holds
    assert held.best.kept == ()
    assert held.effects == ()
    assert len(held.trials) == 1
    held.require()


def test_as_few_layers_are_kept_as_hold_the_budget(trials: Trials):
    whole, _ = trials.drop(())
    without_worst, _ = trials.drop(("layer2",))
    without_both, _ = trials.drop(("layer2", "layer5"))
    assert whole > without_worst > without_both
    held = hold_budget(trials, LAYERS, (without_worst + whole) / 2)
    assert held.best.kept == ("layer2",)
    assert held.best.drop == without_worst
    held = hold_budget(trials, LAYERS, without_both)
    assert held.best.kept == ("layer2", "layer5")
    assert held.holds
    assert held.pictures == 40
    assert held.facts()["kept"] == ["layer2", "layer5"]
    assert [trial["kept"] for trial in held.facts()["trials"]] == [0, 1, 2]


def test_layers_that_are_kept_anyway_stay_kept(trials: Trials):
    whole, _ = trials.drop(("layer0",))
    held = hold_budget(trials, LAYERS, whole - 1e-6, keep=frozenset({"layer0"}))
    assert held.best.kept[0] == "layer0"
    assert len(held.best.kept) > 1


def test_the_least_number_is_found_by_halving():
    """Eight layers, all as bad: the budget asks for three, which no doubling tries."""

    class Fake(Trials):
        @property
        def pictures(self) -> int:
            return 100

        def drop(self, keep: Sequence[str]) -> tuple[float, str]:  # type: ignore[override]
            return 5.0 - len(tuple(keep)), "points"

        def error(self, keep: Sequence[str]) -> float:  # type: ignore[override]
            return 1.0 - sum(0.1 / (1 + LAYERS.index(name)) for name in keep)

    with Fake(_graph(None), _graph, _feed) as trials:
        held = hold_budget(trials, LAYERS, 2.0)
        assert held.best.kept == LAYERS[:3]
        assert [len(trial.kept) for trial in held.trials] == [0, 1, 2, 4, 3]
        unmet = hold_budget(trials, LAYERS, 0.5)
    assert not unmet.holds
    assert len(unmet.best.kept) == 4  # half of the layers, and no more
    with pytest.raises(BudgetUnmet, match=r"drops 1\.00 points of points on 100 pictures") as raised:
        unmet.require()
    assert "--max-drop 1.00" in raised.value.next_command


@pytest.mark.parametrize("budget", [-0.1, 101.0, float("nan")])
def test_a_budget_must_be_points(trials: Trials, budget: float):
    with pytest.raises(UsageFailed, match="--max-drop"):
        hold_budget(trials, LAYERS, budget)


def test_a_weight_is_written_once_for_all_graphs(trials: Trials):
    trials.drop(())
    size = trials._store._data.stat().st_size
    trials.drop(("layer1",))
    trials.drop(("layer1", "layer3"))
    assert trials._store._data.stat().st_size == size  # the exact ones were there, as the reference's


def test_nothing_stays_when_the_trials_end(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Trials(_graph(None), _graph, _feed) as trials:
        trials.drop(())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_with_labels_accuracy_counts():
    reference = {"logits": np.eye(4)}
    found = {"logits": np.eye(4)[[0, 2, 2, 0]]}
    assert drop_of(reference, found) == (50.0, "top-1 agreement with fp32")
    assert drop_of(reference, found, [0, 1, 2, 3]) == (50.0, "top-1 accuracy")
    # What the fp32 graph had wrong and the other has right makes up for what it lost.
    assert drop_of(reference, found, [0, 2, 2, 3])[0] == 0.0


def test_labels_must_be_as_many_as_pictures():
    with (
        Trials(_graph(None), _graph, _feed, labels=[1, 2, 3]) as trials,
        pytest.raises(UsageFailed, match="3 labels"),
    ):
        trials.drop(())


def test_nan_agrees_with_nothing():
    reference = {"logits": np.array([[1.0, 0.0], [1.0, 0.0]])}
    found = {"logits": np.array([[np.nan, np.nan], [1.0, 0.0]])}
    assert drop_of(reference, found)[0] == 50.0
    assert drop_of(reference, found, [0, 0])[0] == 50.0
    assert moved(reference, found) == float("inf")


def test_embeddings_are_held_by_their_cosine():
    reference = {"embedding": np.array([[1.0, 0.0], [0.0, 2.0]])}
    found = {"embedding": np.array([[1.0, 1.0], [0.0, 5.0]])}
    points, measure = drop_of(reference, found)
    assert points == pytest.approx(100 * (1 - (0.5**0.5 + 1) / 2))
    assert measure == "cosine of embedding"
