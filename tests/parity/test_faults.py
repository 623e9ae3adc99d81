"""Faults that exports really have, each of which the criterion must catch; and what must pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.facts import Verdict
    from vit_deploy.model.vit import ViT
    from vit_deploy.parity import ParityCheck
    from vit_deploy.weights.imported import Model

    Judge = Callable[..., Verdict]


def tanh_gelu(vit: ViT) -> Any:
    for block in vit.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")
    return vit


def other_norm_eps(vit: ViT) -> Any:
    for module in vit.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    return vit


def dropped_bias(vit: ViT) -> Any:
    nn.init.zeros_(vit.blocks[1].mlp.fc2.bias)
    return vit


def swapped_query_and_key(vit: ViT) -> Any:
    attention = vit.blocks[0].attn.qkv
    for parameter in (attention.weight, attention.bias):
        query, key, value = parameter.data.chunk(3)
        parameter.data = torch.cat([key, query, value])
    return vit


def dead_head(vit: ViT) -> Any:
    width = vit.config.embed_dim // vit.config.num_heads
    vit.blocks[2].attn.proj.weight.data[:, width : 2 * width] = 0
    return vit


def class_token_last(vit: ViT) -> Any:
    def call(images: torch.Tensor) -> Any:
        logits, embedding, tokens = vit(images)
        return logits, embedding, torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)

    return call


def pooled_last_token(vit: ViT) -> Any:
    vit.pool = lambda tokens: tokens[:, -1]  # type: ignore[method-assign]
    return vit


def shifted_positions(vit: ViT) -> Any:
    vit.pos_embed.data[:, 1:] = vit.pos_embed.data[:, 1:].roll(1, dims=1)
    return vit


def transposed_patches(vit: ViT) -> Any:
    vit.patch_embed.proj.weight.data = vit.patch_embed.proj.weight.data.transpose(2, 3).contiguous()
    return vit


def blue_for_red(vit: ViT) -> Any:
    return lambda images: vit(images.flip(1))


def bf16_arithmetic(vit: ViT) -> Any:
    half = vit.bfloat16()
    return lambda images: half(images.bfloat16())


def bf16_weights(vit: ViT) -> Any:
    return vit.bfloat16().float()


def missing_scale(vit: ViT) -> Any:
    vit.blocks[0].attn.qkv.weight.data[: vit.config.embed_dim] *= 1.001
    return vit


FAULTS = [
    tanh_gelu,
    other_norm_eps,
    dropped_bias,
    swapped_query_and_key,
    dead_head,
    class_token_last,
    pooled_last_token,
    shifted_positions,
    transposed_patches,
    blue_for_red,
    bf16_arithmetic,
    bf16_weights,
    missing_scale,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_computation_fails(fault: Callable[[ViT], Any], vit: ViT, judge: Judge) -> None:
    verdict = judge(fault(vit))
    assert verdict.passed is False
    assert verdict.worst_ratio is not None
    assert verdict.worst_ratio > 10
    assert verdict.p95_ratio is not None
    assert verdict.p95_ratio > 4
    assert "times eager's own error" in verdict.reason


def test_eager_itself_passes(vit: ViT, judge: Judge) -> None:
    verdict = judge(vit)
    assert verdict.passed is True
    assert verdict.reason == ""
    assert verdict.worst_ratio is not None
    assert 0 < verdict.worst_ratio < 2
    assert verdict.p95_ratio is not None
    assert verdict.p95_ratio <= verdict.worst_ratio


def test_another_order_of_the_same_sums_passes(vit: ViT, model: Model, judge: Judge) -> None:
    from vit_deploy.model.vit import ViT

    twin = ViT(model.config, patch_form="linear", outputs=vit.outputs)  # type: ignore[arg-type]
    twin.load_state_dict(vit.state_dict())
    verdict = judge(twin.eval())
    assert verdict.passed is True
    assert verdict.worst_ratio is not None
    assert verdict.worst_ratio < 5


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_is_held_to_its_own_yardstick(
    precision: str, dtype: torch.dtype, vit: ViT, judge: Judge
) -> None:
    half = vit.to(dtype)
    verdict = judge(lambda images: half(images.to(dtype)), precision=precision)
    assert verdict.passed is True
    assert verdict.worst_ratio is not None
    assert 0.5 < verdict.worst_ratio < 2


def test_the_yardstick_of_one_half_precision_is_not_that_of_the_other(vit: ViT, judge: Judge) -> None:
    half = vit.bfloat16()
    verdict = judge(lambda images: half(images.bfloat16()), precision="fp16")
    assert verdict.passed is False


def _at_batches_above_one(change: Callable[[tuple[torch.Tensor, ...]], Any]) -> Callable[[ViT], Any]:
    def wrap(vit: ViT) -> Any:
        def call(images: torch.Tensor) -> Any:
            results = vit(images)
            return results if len(images) == 1 else change(results)

        return call

    return wrap


def _copied_neighbour(results: tuple[torch.Tensor, ...]) -> Any:
    return tuple(torch.cat([result[:1], result[:1], result[2:]]) for result in results)


def _swapped_slots(results: tuple[torch.Tensor, ...]) -> Any:
    return tuple(result.flip(0) for result in results)


def _last_slot_only(results: tuple[torch.Tensor, ...]) -> Any:
    for result in results:
        if len(result) == 5:
            result[-1] *= 1.001
    return results


@pytest.mark.parametrize("change", [_copied_neighbour, _swapped_slots])
def test_mixed_up_slots_fail(change: Any, vit: ViT, judge: Judge) -> None:
    verdict = judge(_at_batches_above_one(change)(vit))
    assert verdict.passed is False
    assert "batch 1 holds and batch 2 and 5 does not" in verdict.reason


def test_a_fault_in_the_last_slot_of_the_largest_batch_fails(vit: ViT, judge: Judge) -> None:
    verdict = judge(_at_batches_above_one(_last_slot_only)(vit))
    assert verdict.passed is False
    assert "slot 4 of batch 5" in verdict.reason
    assert "batch 1 and 2 holds and batch 5 does not" in verdict.reason


def _only(size: int, slot: int) -> Callable[[tuple[torch.Tensor, ...]], Any]:
    def change(results: tuple[torch.Tensor, ...]) -> Any:
        for result in results:
            if len(result) == size:
                result[slot] *= 1.00001
        return results

    return change


@pytest.mark.parametrize(
    ("size", "slot"), [(size, slot) for size in (1, 2, 5) for slot in range(size)], ids=lambda value: str(value)
)
def test_a_fault_in_one_slot_of_one_batch_size_fails(size: int, slot: int, vit: ViT, judge: Judge) -> None:
    change = _only(size, slot)
    verdict = judge(lambda images: change(vit(images)))
    assert verdict.passed is False
    assert f"in slot {slot} of batch {size}" in verdict.reason
    assert f"batch {size} does not" in verdict.reason
    run = verdict.evidence["worst_run"]
    assert (run["batch_size"], run["slot"], len(run["indices"])) == (size, slot, size)


def test_a_fault_on_one_sample_only_is_named(vit: ViT, judge: Judge, check: ParityCheck) -> None:
    spoiled = torch.from_numpy(check.samples[11].pixel_values)

    def call(images: torch.Tensor) -> Any:
        results = vit(images)
        for slot, image in enumerate(images):
            if torch.equal(image, spoiled):
                results[0][slot] *= 1.0001
        return results

    verdict = judge(call)
    assert verdict.passed is False
    assert verdict.evidence["worst_run"]["sample"] == check.samples[11].name
    worst = {entry["name"]: entry["worst_ratio"] for entry in verdict.evidence["samples"]}
    assert len(worst) == 16
    assert max(worst, key=worst.__getitem__) == check.samples[11].name
    assert sorted(worst.values())[-2] < 4


def test_a_batch_that_was_baked_in_fails(vit: ViT, judge: Judge) -> None:
    verdict = judge(lambda images: vit(images[:1]))
    assert verdict.passed is False
    assert "logits is float32 of shape (1, 7) at batch 2, not float32 of shape (2, 7)" in verdict.reason


def test_one_nan_token_fails(vit: ViT, judge: Judge) -> None:
    def call(images: torch.Tensor) -> Any:
        logits, embedding, tokens = vit(images)
        if len(images) == 2:
            tokens[1, 3] = torch.nan
        return logits, embedding, tokens

    verdict = judge(call)
    assert verdict.passed is False
    assert "tokens holds 60 NaN or Inf at batch 2, the first of them in slot 1" in verdict.reason


def test_an_infinite_logit_fails(vit: ViT, judge: Judge) -> None:
    def call(images: torch.Tensor) -> Any:
        results = vit(images)
        results[0][0, 2] = torch.inf
        return results

    verdict = judge(call)
    assert verdict.passed is False
    assert "logits holds 1 NaN or Inf at batch 1" in verdict.reason
    assert verdict.worst_ratio is None


def _arrays(vit: ViT, images: torch.Tensor) -> dict[str, Any]:
    return {name: result.numpy() for name, result in zip(vit.outputs, vit(images), strict=True)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda out: {**out, "extra": out["logits"]}, "embedding, extra, logits, tokens"),
        (lambda out: {"logits": out["logits"], "tokens": out["tokens"]}, "outputs logits, tokens, not"),
        (lambda out: {("scores" if k == "logits" else k): v for k, v in out.items()}, "scores"),
        (lambda out: {**out, "logits": out["logits"].astype(np.float64)}, "logits is float64"),
        (lambda out: {**out, "logits": out["logits"].astype(np.float16)}, "logits is float16"),
        (lambda out: {**out, "tokens": out["tokens"].swapaxes(1, 2)}, "tokens is float32 of shape (1, 60, 25)"),
        (lambda out: {**out, "logits": out["logits"][0]}, "logits is float32 of shape (7,)"),
        (lambda out: {**out, "logits": out["logits"][:, None]}, "logits is float32 of shape (1, 1, 7)"),
    ],
)
def test_other_outputs_than_declared_fail(change: Any, told: str, vit: ViT, judge: Judge) -> None:
    verdict = judge(lambda images: change(_arrays(vit, images)))
    assert verdict.passed is False
    assert told in verdict.reason


def test_an_output_whose_numbers_are_anothers_fails(vit: ViT, judge: Judge) -> None:
    def call(images: torch.Tensor) -> Any:
        arrays = _arrays(vit, images)
        return {**arrays, "embedding": arrays["tokens"][:, 1]}

    verdict = judge(call)
    assert verdict.passed is False
    assert verdict.reason.startswith("embedding: ")


@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_fixed_batch_is_judged_at_that_size_only(size: int, vit: ViT, judge: Judge) -> None:
    asked = []

    def call(images: torch.Tensor) -> Any:
        asked.append(len(images))
        return vit(images)

    verdict = judge(call, batch=BatchRange(size, size, size))
    assert verdict.passed is True
    assert set(asked) == {size}
    assert sum(asked) >= verdict.samples


@pytest.mark.parametrize("names", [("logits",), ("tokens",), ("embedding", "logits")])
def test_any_choice_of_outputs_is_judged(names: tuple[Any, ...], model: Model, judge: Judge) -> None:
    verdict = judge(model.eager(outputs=names), outputs=names)
    assert verdict.passed is True
    assert set(verdict.details["outputs"]) == set(names)
