"""Faults of the weights: what a converter or a stale file gets wrong. The graph is right.

A model with other weights goes through the real exporter, and is judged against the true one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.parity.case import Case, Fault
from benchmarks.parity.mutations import with_weights
from benchmarks.parity.subjects import SEED
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from benchmarks.parity.workbench import Workbench
    from vit_deploy.blame.record import StageKind

    Tensors = dict[str, Tensor]
    Change = Callable[[Tensors], None]


def _fault(
    name: str,
    family: str,
    where: str,
    change: Change,
    *outputs: str,
    format: str = "onnx",
    stage: StageKind = "export",
) -> Fault:
    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model, outputs)
        return Case(subject, bench.export(with_weights(subject.model, change), format, spec))

    return Fault(name, "weights", family, stage, where, make)


def _swapped_query_and_key(weights: Tensors) -> None:
    for part in ("weight", "bias"):
        name = f"blocks.5.attn.qkv.{part}"
        query, key, value = weights[name].chunk(3)
        weights[name] = torch.cat([key, query, value])


def _dead_head(block: int, head: int, width: int) -> Change:
    """What a head gives is multiplied by 0 in the projection behind it."""

    def change(weights: Tensors) -> None:
        weights[f"blocks.{block}.attn.proj.weight"][:, head * width : (head + 1) * width] = 0

    return change


def _another_seed(weights: Tensors) -> None:
    from benchmarks.parity.subjects import CONFIGS

    other = random_model(CONFIGS["vit"], "vit", seed=SEED + 1).weights
    for name in weights:
        if name.startswith("blocks.3."):
            weights[name] = other[name].read()


def _shifted_positions(weights: Tensors) -> None:
    weights["pos_embed"] = weights["pos_embed"].roll(1, dims=1)


def _other_kernel(bench: Workbench) -> Case:
    """Positions resampled with Keys' a of -0.5 (Pillow, OpenCV's and TensorFlow's) for PyTorch's -0.75."""
    from vit_deploy.model import resample

    subject, native = bench.subject("resampled"), bench.subject("dinov2").model
    right = resample.cubic
    with_patch = {"cubic": lambda a: right(-0.5 if a == -0.75 else a)}

    def change(weights: Tensors) -> None:
        learned = native.weights["pos_embed"].read()
        old, new = native.vit_config.grid_size, subject.model.vit_config.grid_size
        patches = resample.resample_grid(learned[0, 1:].double(), old, new, "bicubic")
        weights["pos_embed"] = torch.cat([learned[:, :1], patches.float().unsqueeze(0)], dim=1)

    bench.patch(resample, "cubic", with_patch["cubic"])
    wrong = with_weights(subject.model, change)
    bench.done()
    return Case(subject, bench.export(wrong))


def _scale_one_percent_off(weights: Tensors) -> None:
    weights["blocks.2.ls2.gamma"] *= 1.01


def _through_bf16(weights: Tensors) -> None:
    for name, tensor in weights.items():
        weights[name] = tensor.bfloat16().float()


def _through_fp16(weights: Tensors) -> None:
    for name, tensor in weights.items():
        weights[name] = tensor.half().float()


def _eight_bits(weights: Tensors) -> None:
    """One matrix rounded to 8 bits, a scale for each row: as a quantiser leaves it that was half undone."""
    name = "blocks.4.mlp.fc1.weight"
    scale = weights[name].abs().amax(dim=1, keepdim=True) / 127
    weights[name] = (weights[name] / scale).round() * scale


def _lost_bias(weights: Tensors) -> None:
    weights["blocks.5.attn.qkv.bias"].zero_()


def _added_key_bias(weights: Tensors) -> None:
    width = weights["blocks.1.attn.qkv.bias"].shape[0] // 3
    generator = torch.Generator().manual_seed(SEED)
    weights["blocks.1.attn.qkv.bias"][width : 2 * width] += 0.1 * torch.randn(width, generator=generator)


def _transposed_patches(weights: Tensors) -> None:
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].transpose(2, 3).contiguous()


def _swapped_blocks(weights: Tensors) -> None:
    pairs = [(name, name.replace("blocks.4.", "blocks.5.", 1)) for name in weights if "blocks.4." in name]
    for first, second in pairs:
        weights[first], weights[second] = weights[second], weights[first]


def _swapped_norms(weights: Tensors) -> None:
    for part in ("weight", "bias"):
        first, second = f"blocks.6.norm1.{part}", f"blocks.6.norm2.{part}"
        weights[first], weights[second] = weights[second], weights[first]


def _swapped_classes(weights: Tensors) -> None:
    for part in ("weight", "bias"):
        weights[f"head.{part}"][[-2, -1]] = weights[f"head.{part}"][[-1, -2]]


def _flipped_bit(weights: Tensors) -> None:
    """The highest bit of one number's fraction, of 147,456 numbers in one matrix of 24."""
    numbers = weights["blocks.6.mlp.fc1.weight"].view(torch.int32)
    numbers[100, 50] ^= 1 << 22


def _scrambled_token(weights: Tensors) -> None:
    weights["cls_token"] += weights["pos_embed"][
        :, :1
    ]  # added twice: once in the checkpoint, once in the graph


def _stale_external_data(bench: Workbench) -> Case:
    """The weights beside the graph are those of the export before: same names, sizes and offsets."""
    subject = bench.subject("gap")
    stale = random_model(subject.model.vit_config, "gap", seed=SEED + 1)
    artefact = bench.export(subject.model, external_data=True)
    older = bench.export(stale, external_data=True)
    (data,) = (path for path in artefact.path.parent.iterdir() if path != artefact.path)
    data.write_bytes((older.path.parent / data.name).read_bytes())
    return Case(subject, replace(artefact))


def _table(*entries: Any) -> tuple[Fault, ...]:
    return tuple(_fault(*entry) for entry in entries)


FAULTS: tuple[Fault, ...] = (
    *_table(
        ("q and k swapped in one block", "vit", "blocks.5.attn", _swapped_query_and_key),
        ("one dead head in block 7", "vit", "blocks.7.attn", _dead_head(7, 1, 64)),
        ("weights of another seed in one block", "vit", "blocks.3.attn", _another_seed),
        ("positions shifted by one", "vit", "embed", _shifted_positions),
        ("LayerScale gamma 1 % off in one block", "dinov2", "blocks.2.mlp", _scale_one_percent_off),
        ("one matrix rounded to 8 bits", "vit", "blocks.4.mlp", _eight_bits),
        ("one q/k/v bias lost", "vit", "blocks.5.attn", _lost_bias),
        ("a bias given to k, which has none", "eva02", "blocks.1.attn", _added_key_bias),
        ("rows and columns of patches transposed", "vit", "embed", _transposed_patches),
        ("two blocks swapped", "vit", "blocks.4.attn", _swapped_blocks),
        ("the two norms of a block swapped", "vit", "blocks.6.attn", _swapped_norms),
        ("the last two classes swapped", "vit", "logits", _swapped_classes),
        ("one bit of one weight flipped", "vit", "blocks.6.mlp", _flipped_bit),
        ("position of the class token added twice", "vit", "embed", _scrambled_token),
    ),
    _fault("weights rounded to bf16", "vit", "embed", _through_bf16, stage="precision"),
    _fault("weights rounded to fp16", "vit", "embed", _through_fp16, stage="precision"),
    _fault("one dead head, TorchScript", "dinov2", "blocks.1.attn", _dead_head(1, 2, 32), format="torchscript"),
    Fault(
        "positions resampled with a cubic coefficient of -0.5 for -0.75",
        "weights",
        "resampled",
        "export",
        "embed",
        _other_kernel,
    ),
    Fault("stale file of external weights", "weights", "gap", "export", "embed", _stale_external_data),
)
