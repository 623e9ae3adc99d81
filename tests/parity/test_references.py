from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vit_deploy.errors import RunFailed
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.criterion import relative_errors
from vit_deploy.parity.inputs import make_samples, stacked
from vit_deploy.parity.ranges import natural
from vit_deploy.parity.reference_cache import ReferenceCache
from vit_deploy.parity.references import CHUNK, References
from vit_deploy.protocols import Silent
from vit_deploy.weights.imported import Model
from vit_deploy.weights.resize import resized

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vit_deploy.parity.inputs import Sample

NAMES = ("logits", "tokens")
QUIET = Silent()


class Calls(list[tuple[torch.dtype, int]]):
    """The dtype and the number of samples of each run of eager PyTorch."""

    def forwards(self, dtype: torch.dtype) -> int:
        return sum(count for kind, count in self if kind == dtype)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    counted = Calls()
    eager = Model.eager

    def counting(self: Model, **options: Any) -> Any:
        module = eager(self, **options)
        module.register_forward_pre_hook(lambda _, inputs: counted.append((inputs[0].dtype, len(inputs[0]))))
        return module

    monkeypatch.setattr(Model, "eager", counting)
    return counted


@pytest.fixture(scope="module")
def samples(model: Model) -> tuple[Sample, ...]:
    return make_samples(model.preprocessing, model.config)[: CHUNK + 3]  # a chunk that is not full


@pytest.fixture
def cache(tmp_path: Path) -> ReferenceCache:
    return ReferenceCache(tmp_path / "references")


def by_hand(model: Model, samples: Any, dtype: torch.dtype) -> dict[str, Any]:
    module = model.eager(dtype=dtype, outputs=NAMES)
    with torch.inference_mode():
        runs = [
            module(torch.from_numpy(stacked(samples[start : start + CHUNK])[0]).to(dtype))
            for start in range(0, len(samples), CHUNK)
        ]
    return {name: torch.cat([run[place] for run in runs]).double().numpy() for place, name in enumerate(NAMES)}


def test_the_truth_is_eager_in_float64_and_watching_does_not_touch_it(
    model: Model, samples: tuple[Sample, ...]
) -> None:
    found = References(model, samples).exact(NAMES, QUIET)
    for name, expected in by_hand(model, samples, torch.float64).items():
        assert found[name].dtype == np.float64
        assert np.array_equal(found[name], expected)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_errors_are_those_of_eager_at_that_precision(
    model: Model, samples: tuple[Sample, ...], precision: Any, dtype: torch.dtype
) -> None:
    references = References(model, samples)
    found = references.eager_errors(precision, NAMES, QUIET)
    exact = references.exact(NAMES, QUIET)
    assert found["tokens"].shape == (len(samples), model.vit_config.num_tokens)
    for name, output in by_hand(model, samples, dtype).items():
        assert np.array_equal(found[name], relative_errors(output, exact[name]))


def test_eager_has_no_errors_at_precisions_that_it_does_not_have(
    model: Model, samples: tuple[Sample, ...]
) -> None:
    with pytest.raises(RunFailed, match="int8"):
        References(model, samples).eager_errors("int8", NAMES, QUIET)


def test_each_forward_is_done_once(model: Model, samples: tuple[Sample, ...], calls: Calls) -> None:
    references = References(model, samples)
    for _ in range(2):
        references.exact(["logits"], QUIET)
        references.eager_errors("fp32", ["logits"], QUIET)
        assert references.ranges(QUIET) is not None
    assert calls.forwards(torch.float64) == len(samples)
    assert calls.forwards(torch.float32) == len(samples)
    assert len(calls) == 2 * -(-len(samples) // CHUNK)


def test_ranges_alone_take_the_natural_samples_in_fp32(
    model: Model, samples: tuple[Sample, ...], calls: Calls
) -> None:
    alone = References(model, samples).ranges(QUIET)
    assert calls.forwards(torch.float64) == 0
    assert calls.forwards(torch.float32) == len(natural(samples)) == 4
    references = References(model, samples)
    references.exact(["logits"], QUIET)
    in_passing = references.ranges(QUIET)
    assert alone is not None
    assert in_passing is not None
    assert alone.samples == in_passing.samples
    assert in_passing.to_array() == pytest.approx(alone.to_array(), rel=1e-4)


def test_what_was_computed_once_is_computed_by_no_later_run(
    model: Model, samples: tuple[Sample, ...], calls: Calls, cache: ReferenceCache
) -> None:
    def everything() -> list[Any]:
        references = References(model, samples, cache=ReferenceCache(cache.folder))
        exact = references.exact(NAMES, QUIET)
        errors = references.eager_errors("fp16", NAMES, QUIET)
        watch = references.ranges(QUIET)
        assert watch is not None
        return [*exact.values(), *errors.values(), watch.to_array()]

    first = everything()
    assert calls
    calls.clear()
    second = everything()
    assert calls == []
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


def test_errors_are_known_without_the_truth(
    model: Model, samples: tuple[Sample, ...], calls: Calls, cache: ReferenceCache
) -> None:
    errors = References(model, samples, cache=cache).eager_errors("fp32", ["logits"], QUIET)
    calls.clear()
    again = References(model, samples, cache=cache).eager_errors("fp32", ["logits"], QUIET)
    assert calls == []
    assert np.array_equal(errors["logits"], again["logits"])


def test_only_what_is_missing_is_computed(
    model: Model, samples: tuple[Sample, ...], calls: Calls, cache: ReferenceCache
) -> None:
    References(model, samples, cache=cache).eager_errors("fp32", ["logits"], QUIET)
    calls.clear()
    References(model, samples, cache=cache).eager_errors("bf16", ["logits"], QUIET)
    assert {kind for kind, _ in calls} == {torch.bfloat16}
    calls.clear()
    other = make_samples(model.preprocessing, model.config, seed=1)[: CHUNK + 3]
    References(model, other, cache=cache).exact(["logits"], QUIET)
    assert calls.forwards(torch.float64) == len(other)


def test_a_damaged_entry_is_computed_again_and_replaced(
    model: Model, samples: tuple[Sample, ...], calls: Calls, cache: ReferenceCache
) -> None:
    truth = References(model, samples, cache=cache).exact(["logits"], QUIET)["logits"]
    for path in cache.folder.iterdir():
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    for forwards in (len(samples), 0):
        calls.clear()
        found = References(model, samples, cache=cache).exact(["logits"], QUIET)["logits"]
        assert np.array_equal(found, truth)
        assert calls.forwards(torch.float64) == forwards


def test_a_cache_that_keeps_nothing_changes_nothing(
    model: Model, samples: tuple[Sample, ...], calls: Calls, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ReferenceCache(tmp_path / "file")
    for _ in range(2):
        found = References(model, samples, cache=cache).exact(["logits"], QUIET)["logits"]
        assert np.array_equal(found, by_hand(model, samples, torch.float64)["logits"])
    assert cache.note


def test_positions_resampled_in_float64_are_another_truth(
    model: Model, calls: Calls, cache: ReferenceCache
) -> None:
    size = (48, 64)
    other, exact = resized(model, size), resized(model, size, exact=True)
    samples = make_samples(other.preprocessing, other.config)[:2]
    found = [
        References(other, samples, twin, cache).exact(["logits"], QUIET)["logits"]
        for twin in (None, exact, None, exact)
    ]
    assert not np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[3])
    assert calls.forwards(torch.float64) == 2 * len(samples)
    # Other sizes than the model's own are judged, and not watched.
    assert References(other, samples, exact, cache).ranges(QUIET) is None


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    code = (
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))\n"
    )
    (tmp_path / "own_code_of_a_test.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "py:own_code_of_a_test:make"
    sys.modules.pop("own_code_of_a_test", None)


def test_nothing_is_kept_or_watched_of_a_users_own_module(own_module: str, cache: ReferenceCache) -> None:
    from vit_deploy.weights import load_model

    model = load_model(own_module, input_shape="3x2x2")
    samples = make_samples(model.preprocessing, model.config)
    references = References(model, samples, cache=cache)
    (name,) = model.config.output_names
    references.eager_errors("fp32", [name], QUIET)
    assert references.ranges(QUIET) is None
    assert not cache.folder.exists()


def test_the_module_is_gone_before_anything_else_is_done(
    model: Model, samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the weights must not wait for the garbage collector while an artefact is opened."""
    import gc
    import weakref

    made: list[Any] = []
    eager = Model.eager

    def remembering(self: Model, **options: Any) -> Any:
        module = eager(self, **options)
        made.append(weakref.ref(module))
        return module

    monkeypatch.setattr(Model, "eager", remembering)
    gc.disable()
    try:
        references = References(model, samples)
        references.exact(["logits"], QUIET)
        references.eager_errors("fp32", ["logits"], QUIET)
        assert len(made) == 2
        assert [module() for module in made] == [None, None]
    finally:
        gc.enable()


def test_the_weights_of_the_key_are_those_in_use(
    model: Model, samples: tuple[Sample, ...], cache: ReferenceCache
) -> None:
    # A source that claims the same checkpoint does not make its weights the same.
    from vit_deploy.weights.tensors import Weights

    tensors = [
        replace(tensor, reader=lambda tensor=tensor: tensor.read() * 2)
        if tensor.name == "head.weight"
        else tensor
        for tensor in model.weights.values()
    ]
    other = replace(model, weights=Weights(tensors))
    assert other.source == model.source
    one, two = (References(each, samples, cache=cache).exact(["logits"], QUIET) for each in (model, other))
    assert not np.array_equal(one["logits"], two["logits"])


def test_references_are_computed_before_an_artefact_is_opened_and_ranges_with_them(
    model: Model, calls: Calls, cache: ReferenceCache, backend: Any, declare: Any
) -> None:
    """So that float64 weights and a session are never in memory together."""
    at_open: list[int] = []

    class Opened(backend):  # type: ignore[misc]
        def open(self, *arguments: Any) -> Any:
            at_open.append(len(calls))
            return super().open(*arguments)

    module = model.eager(outputs=("logits",))
    calls.clear()
    for run in ("computed", "kept"):
        check = ParityCheck(model, threads=1, cache=cache)
        verdict = check.judge(declare(model.config, outputs=("logits",)), runtime=Opened(module))
        assert verdict.passed, verdict.reason
        assert len(verdict.details["range_watch"]["maxima"]["residual"]) == model.config.depth, run
    forwards = 2 * -(-len(check.samples) // CHUNK)
    assert at_open[0] == forwards
    # The artefact is a module of the same making; beside its own runs there are no others.
    assert calls.forwards(torch.float64) == len(check.samples)


def test_k_artefacts_share_one_reference(model: Model, calls: Calls, backend: Any, declare: Any) -> None:
    module = model.eager(outputs=("logits",))
    check = ParityCheck(model, threads=1)
    for _ in range(3):
        assert check.judge(declare(model.config, outputs=("logits",)), runtime=backend(module)).passed
    assert calls.forwards(torch.float64) == len(check.samples)
