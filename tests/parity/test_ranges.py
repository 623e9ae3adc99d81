from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.parity import ranges
from vit_deploy.parity.inputs import make_samples, stacked
from vit_deploy.parity.ranges import FP16_MAX, PLACES, SAFETY, RangeWatch, RangeWatcher, natural
from vit_deploy.parity.references import References
from vit_deploy.protocols import Silent
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.imported import Model

SMALL: dict[str, Any] = {
    "image_size": (32, 48),
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 4,
    "mlp_dim": 96,
    "num_classes": 7,
}
CONFIGS = {
    "plain": ViTConfig(**SMALL),
    "gated, with every norm and layer scale": ViTConfig(
        **SMALL, gated_mlp=True, qk_norm=True, attn_norm=True, mlp_norm=True, layer_scale=True, pre_norm=True
    ),
    "rotary": ViTConfig(**SMALL, rotary=RotaryConfig(), positions="none"),
    "a bias on the scores": ViTConfig(**SMALL, relative_positions="block"),
    "attention pooling": ViTConfig(**SMALL, pool="map", class_token=False),
}


def changed(model: Model, changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]) -> Model:
    """The model with some of its weights changed."""

    def tensor(old: WeightTensor) -> WeightTensor:
        change = changes.get(old.name)
        return old if change is None else replace(old, reader=lambda: change(old.read()).contiguous())

    assert set(changes) <= set(model.weights)
    return replace(model, weights=Weights(tensor(old) for old in model.weights.values()))


def watched(model: Model) -> RangeWatch:
    samples = make_samples(model.preprocessing, model.config)
    watch = References(model, samples).ranges(Silent())
    assert watch is not None
    assert watch.samples == len(natural(samples))
    return watch


def by_hand(module: ViT, values: torch.Tensor) -> dict[str, list[float]]:
    """The same maxima, each computed from the parts of the model by other means."""
    found: dict[str, list[float]] = {name: [] for name in PLACES}
    tokens = module.embed(values)
    rotations = module.rope(*module.grid_of(values), tokens) if module.rope else [None] * len(module.blocks)
    index = module.rel_pos_index(tokens) if module.rel_pos_index is not None else None
    for place, block in enumerate(module.blocks):
        rotation = list(rotations)[place]
        attn, mlp = block.attn, block.mlp
        normed = block.norm1(tokens)
        qkv = attn.qkv(normed)
        query, key, value = attn.split_heads(qkv)
        squares = [tokens]
        if not isinstance(attn.q_norm, torch.nn.Identity):
            squares += [query, key]
        query, key = attn.q_norm(query), attn.k_norm(key)
        if rotation is not None:
            query, key = attn.rotate(query, rotation), attn.rotate(key, rotation)
        scores = torch.einsum("bhid,bhjd->bhij", query, key) / math.sqrt(query.shape[-1])
        bias = 0 if attn.rel_pos is None else attn.rel_pos(index)
        mixed = attn.merge_heads((scores + bias).softmax(-1) @ value)
        if not isinstance(attn.norm, torch.nn.Identity):
            squares.append(mixed)
        attended = attn.proj(attn.norm(mixed))
        middle = tokens + block.ls1(attended)
        hidden = mlp.fc1(block.norm2(middle))
        gate, factor = hidden.chunk(2, dim=-1) if mlp.gated else (hidden, torch.ones(1))
        activated = mlp.act(gate) * factor
        if not isinstance(mlp.norm, torch.nn.Identity):
            squares.append(activated)
        given = mlp.fc2(mlp.norm(activated))
        after = middle + block.ls2(given)
        squares.append(middle)
        found["residual"].append(max(map(size, [tokens] * (place == 0) + [middle, after])))
        found["qkv"].append(size(qkv))
        found["scores"].append(size(scores))
        found["mlp_hidden"].append(size(hidden))
        found["mlp_activated"].append(size(activated))
        found["branch"].append(max(size(attended), size(given)))
        found["norm_square"].append(max(size(part - part.mean(-1, keepdim=True)) ** 2 for part in squares))
        tokens = after
    return found


def size(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("piece", [ranges._PIECE, 100])
def test_the_maxima_are_those_of_the_model(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_PIECE", piece)
    model = random_model(CONFIGS[name], "small", seed=3)
    samples = make_samples(model.preprocessing, model.config)
    chosen = [samples[index] for index in natural(samples)]
    assert {sample.family for sample in chosen} == {"pink"}
    watch = watched(model)
    with torch.inference_mode():
        expected = by_hand(model.eager(dtype=torch.float64), torch.from_numpy(stacked(chosen)[0]).double())
    for place, values in expected.items():
        assert watch.maxima[place] == pytest.approx(values, rel=1e-5), place


def test_only_the_rows_asked_for_are_watched(model: Model) -> None:
    module = model.eager()
    values = torch.randn(4, 3, *model.config.image_size)
    values[[0, 3]] *= 1000
    with RangeWatcher(module) as watcher, torch.inference_mode():
        with watcher.rows([1, 2]):
            seen = module(values)
        with watcher.rows([]):
            module(values)
        found = watcher.result()
    with RangeWatcher(module) as alone, torch.inference_mode(), alone.rows([0, 1]):
        module(values[1:3])
    assert found.samples == 2
    for name, expected in alone.result().maxima.items():
        assert found.maxima[name] == pytest.approx(expected, rel=1e-4)
    with torch.inference_mode():
        assert torch.equal(module(values), seen)  # to watch changes nothing, and the watchers are gone
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_plain_model_fits_into_fp16(model: Model) -> None:
    watch = watched(model)
    assert watch.warnings() == []
    assert watch.notes() == []


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_block_whose_mlp_overflows_is_named(block: int, model: Model) -> None:
    mlp = f"blocks.{block}.mlp"
    watch = watched(
        changed(
            model,
            {
                f"{mlp}.fc1.weight": lambda weight: weight * 60_000,
                f"{mlp}.fc2.weight": lambda weight: weight / 60_000,
            },
        )
    )
    hidden, activated = watch.warnings()
    for text, title in ((hidden, "before its activation"), (activated, "after its activation")):
        assert text.startswith(f"block {block}: the MLP {title}: overflows fp16: up to ")
        assert "--dtype bf16" in text
        assert f"keep block {block} in fp32" in text


def test_an_overflow_is_told_before_it_happens(model: Model) -> None:
    here = watched(model).maxima["mlp_hidden"][1]
    for reach, told in ((0.9 / SAFETY, 0), (1.1 / SAFETY, 1), (0.9, 1), (1.1, 1)):
        factor = reach * FP16_MAX / here
        # The bias may stand against the product; so it grows with it.
        grown = {
            f"blocks.1.mlp.fc1.{kind}": lambda old, factor=factor: old * factor for kind in ("weight", "bias")
        }
        shrunk = {"blocks.1.mlp.fc2.weight": lambda old, factor=factor: old / factor}
        texts = [text for text in watched(changed(model, grown | shrunk)).warnings() if "before" in text]
        assert len(texts) == told
        if texts:
            assert ("overflows fp16" in texts[0]) == (reach > 1)
            assert "block 1" in texts[0]


def test_scores_that_overflow_where_queries_and_keys_do_not(model: Model) -> None:
    def grow(weight: torch.Tensor) -> torch.Tensor:
        changed = weight.clone()
        changed[: 2 * model.vit_config.embed_dim] *= 400  # q and k
        return changed

    watch = watched(changed(model, {f"blocks.2.attn.qkv.{kind}": grow for kind in ("weight", "bias")}))
    (text,) = watch.warnings()
    assert text.startswith("block 2: attention scores")


def test_the_squares_inside_layer_norm_are_told_and_not_warned_of(model: Model) -> None:
    grown = changed(model, {"pos_embed": lambda positions: positions * 3000})
    watch = watched(grown)
    assert max(watch.maxima["residual"]) < FP16_MAX / SAFETY
    assert watch.warnings() == []
    (text,) = watch.notes()
    assert text.startswith("blocks 0-2: the squares inside LayerNorm")
    assert "no danger" in text


def test_neighbouring_blocks_are_told_together(model: Model) -> None:
    # What overflows the stream in block 1 stays in it.
    watch = watched(changed(model, {"blocks.1.mlp.fc2.bias": lambda bias: bias + 1e6}))
    texts = [text for text in watch.warnings() if "residual" in text]
    assert texts[0].startswith("blocks 1-2: the residual stream")
    assert ranges._blocks([0, 1, 2, 5, 7, 8]) == "blocks 0-2, 5, 7-8"


def test_the_plain_data_is_json_whatever_was_seen(model: Model) -> None:
    watch = watched(changed(model, {"blocks.1.mlp.fc1.bias": lambda bias: bias * float("nan")}))
    assert watch.maxima["mlp_hidden"][1] == math.inf
    data = json.loads(json.dumps(watch.to_dict(), allow_nan=False))
    assert data["maxima"]["mlp_hidden"][1] is None
    assert data["maxima"]["mlp_hidden"][0] == pytest.approx(watch.maxima["mlp_hidden"][0], rel=1e-3)
    assert list(data["maxima"]) == list(PLACES)
    assert data["warnings"] == watch.warnings()
    assert len(json.dumps(data["maxima"])) < 80 * len(PLACES)


def test_an_array_and_back(model: Model) -> None:
    watch = watched(model)
    assert RangeWatch.from_array(watch.to_array(), watch.samples) == watch
