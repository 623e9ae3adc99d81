from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from vit_deploy.parity.declared import batch_sizes, rounds, spec_fault
from vit_deploy.spec import BatchRange, TensorSpec

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.parity import ParityCheck
    from vit_deploy.weights.imported import Model

NAMES = ("logits", "embedding", "tokens")


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (BatchRange(1, 1, 8), [1, 2, 8]),
        (BatchRange(1, 1, 2), [1, 2]),
        (BatchRange(4, 4, 4), [4]),
        (BatchRange(1, 1, 1), [1]),
        (BatchRange(4, 8, 16), [4, 16]),
        (BatchRange(2, 4, 8), [2, 8]),
    ],
)
def test_the_batch_sizes_that_are_judged(batch: BatchRange, sizes: list[int]) -> None:
    assert batch_sizes(batch) == sizes


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 17, 40])
def test_every_sample_is_judged_and_neighbours_differ(size: int) -> None:
    plan = list(rounds(16, size))
    assert {index for indices in plan for index in indices} == set(range(16))
    for indices in plan:
        assert len(indices) == size
        assert all(one != other for one, other in pairwise(indices))
        assert all(one != other for one, other in zip(indices, indices[16:], strict=False))


def _spec_with(config: ViTConfig, position: int, **changes: Any) -> Any:
    spec = config.io_spec(("logits",), BatchRange(1, 1, 8))
    tensors = [*spec.inputs, *spec.outputs]
    tensors[position] = replace(tensors[position], **changes)
    return replace(spec, inputs=tuple(tensors[:1]), outputs=tuple(tensors[1:]))


def test_what_an_artefact_declares_is_compared_with_the_model(model: Model) -> None:
    config = model.config
    assert spec_fault(config.io_spec(NAMES), config) == ""  # type: ignore[arg-type]
    assert spec_fault(config.io_spec(("logits",), BatchRange(3, 3, 3)), config) == ""
    wrong = {
        "takes images": _spec_with(config, 0, name="images"),
        "pixel_values of shape": _spec_with(config, 0, shape=("batch", 3, 48, 32)),
        "'probabilities'": _spec_with(config, 1, name="probabilities"),
        "logits of shape ('batch', 8)": _spec_with(config, 1, shape=("batch", 8)),
        "logits of shape (1, 7)": _spec_with(config, 1, shape=(1, 7)),
        "logits as int64": _spec_with(config, 1, dtype="int64"),
        "outputs none": replace(config.io_spec(), outputs=()),
        "outputs logits, logits": replace(config.io_spec(), outputs=config.io_spec().outputs * 2),
        "pixel_values, mask": replace(
            config.io_spec(), inputs=(*config.io_spec().inputs, TensorSpec("mask", "float32", (1,)))
        ),
    }
    for told, spec in wrong.items():
        assert told in spec_fault(spec, config)


def test_a_wrong_declaration_fails_without_opening_anything(
    check: ParityCheck, model: Model, backend: Any, declare: Any
) -> None:
    runtime = backend()
    artefact = replace(declare(model.config), spec=_spec_with(model.config, 1, shape=("batch", 8)))
    verdict = check.judge(artefact, runtime=runtime)
    assert verdict.passed is False
    assert not runtime.opened
