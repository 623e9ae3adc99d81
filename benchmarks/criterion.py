"""The figures behind the parity criterion: how wrong its anchor is, what rounding to 8 bits does, false alarms.

Three measurements, each with seeded random weights that stand away from their initial values, and the
rounding on the digits model that comes with the package, which is trained, too:

* anchor: eager PyTorch in float64 against the same ViT written out in 80-bit numbers (64 bits of mantissa);
* rounding: weights and activations of every linear layer rounded to int8 (a scale for each channel of the
  weights, one for the activations) or to fp8 E4M3, the rest in float64: the error at the end over the root of
  the depth, least cosine, mean divergence, decisions;
* alarms: how often an honest variant of a random ViT (its patches projected by a product, its attention
  written out) fails at each precision.

    python benchmarks/criterion.py --output benchmarks/results/amd-epyc-2-cores/criterion.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vit_deploy.assets import digits_directory
from vit_deploy.environment import environment
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.vit import ViT
from vit_deploy.parity.criterion import reference_lengths, relative_errors, yardsticks
from vit_deploy.parity.decisions import Decisions
from vit_deploy.parity.embeddings import cosines
from vit_deploy.parity.inputs import make_samples
from vit_deploy.parity.limits import LIMITS
from vit_deploy.parity.plan import Run
from vit_deploy.parity.references import References
from vit_deploy.parity.scores import Scores
from vit_deploy.parity.truth import Truth
from vit_deploy.protocols import Silent
from vit_deploy.spec import EAGER_PRECISIONS
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model

ANCHOR_ARCHS = ("vit_tiny_patch16_224",)
ROUNDING_ARCHS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OUTPUTS = ("logits", "embedding", "tokens")
CLASSES = (2, 3, 10, 100)


# --- anchor ---------------------------------------------------------------------------------------------


def long_erf(values: np.ndarray) -> np.ndarray:
    """The error function by a series without cancellation (Abramowitz and Stegun 7.1.6)."""
    x = np.abs(np.clip(values, -6.6, 6.6))
    term, total = x.copy(), x.copy()
    for n in range(1, 200):
        term = term * (2 * x * x) / (2 * n + 1)
        total = total + term
    pi = np.longdouble("3.14159265358979323846264338327950288")
    return np.sign(values) * np.minimum(total * 2 / np.sqrt(pi) * np.exp(-x * x), 1)


def long_norm(x: np.ndarray, state: dict[str, np.ndarray], name: str, eps: float) -> np.ndarray:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.longdouble(eps))
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def long_linear(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A product and a bias."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def long_attention(x: np.ndarray, state: dict[str, np.ndarray], name: str, heads: int) -> np.ndarray:
    """Softmax attention over tokens, ``(n, d)`` to the same."""
    count, dim = x.shape
    split = long_linear(x, state, f"{name}.qkv").reshape(count, 3, heads, dim // heads)
    query, key, value = split.transpose(1, 2, 0, 3)
    weights = query @ key.transpose(0, 2, 1) / np.sqrt(np.longdouble(dim // heads))
    weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
    return long_linear(mixed.transpose(1, 0, 2).reshape(count, dim), state, f"{name}.proj")


def long_vit(config: ViTConfig, weights: dict[str, torch.Tensor], pixels: np.ndarray) -> np.ndarray:
    """The logits of a plain ViT on one picture ``(c, h, w)``, in numpy's longest floating-point numbers."""
    state = {name: value.numpy().astype(np.longdouble) for name, value in weights.items()}
    patch, eps = config.patch_size, config.norm_eps
    rows, columns = config.grid_size
    cut = pixels.astype(np.longdouble).reshape(config.in_channels, rows, patch, columns, patch)
    kernel = state["patch_embed.proj.weight"].reshape(config.embed_dim, -1)
    patches = cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1) @ kernel.T
    x = (
        np.concatenate([state["cls_token"][0], patches + state["patch_embed.proj.bias"]])
        + state["pos_embed"][0]
    )
    for index in range(config.depth):
        name = f"blocks.{index}"
        x = x + long_attention(
            long_norm(x, state, f"{name}.norm1", eps), state, f"{name}.attn", config.num_heads
        )
        wide = long_linear(long_norm(x, state, f"{name}.norm2", eps), state, f"{name}.mlp.fc1")
        wide = wide * (1 + long_erf(wide / np.sqrt(np.longdouble(2)))) / 2
        x = x + long_linear(wide, state, f"{name}.mlp.fc2")
    return long_linear(long_norm(x, state, "norm", eps)[0], state, "head")


def measure_anchor(arch: str, count: int) -> dict[str, Any]:
    """The relative error of eager in float64, and of eager in float32, on the logits."""
    if np.finfo(np.longdouble).nmant < 63:
        return {"arch": arch, "skipped": "numpy has no longer floating-point numbers than float64 here"}
    model = load_model(arch)
    samples = make_samples(model.preprocessing, model.config)[:count]
    weights = model.weights.state_dict()
    exact = np.stack([long_vit(model.config, weights, sample.pixel_values) for sample in samples])
    pixels = torch.from_numpy(np.stack([sample.pixel_values for sample in samples]))
    errors = {}
    for dtype in (torch.float64, torch.float32):
        with torch.inference_mode():
            found = model.eager(dtype=dtype)(pixels.to(dtype)).numpy()
        distance = np.linalg.norm((found.astype(np.longdouble) - exact).astype(float), axis=-1)
        errors[str(dtype)] = float((distance / np.linalg.norm(exact.astype(float), axis=-1)).max())
    return {
        "arch": arch,
        "samples": count,
        "float64_error": errors["torch.float64"],
        "float32_error": errors["torch.float32"],
        "part_of_the_yardstick": errors["torch.float64"] / errors["torch.float32"],
    }


# --- rounding -------------------------------------------------------------------------------------------


def rounded_int8(values: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """To the nearest of 255 levels between ``-largest`` and ``largest``."""
    scale = largest.clamp_min(1e-30) / 127
    return (values / scale).round().clamp(-127, 127) * scale


def rounded_fp8(values: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """To E4M3, scaled so that its largest number, 448, is ``largest``."""
    scale = largest.clamp_min(1e-30) / 448
    return (values / scale).float().to(torch.float8_e4m3fn).to(values.dtype) * scale


ROUNDINGS = {"int8": rounded_int8, "fp8": rounded_fp8}


def round_layers(module: nn.Module, rounding: Any) -> None:
    """Round weights and inputs of every linear layer and of the patch projection."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight = layer.weight
            largest = weight.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
            weight.copy_(rounding(weight, largest))
            layer.register_forward_pre_hook(lambda _, args: (rounding(args[0], args[0].abs().max()),))


def measure_rounding(name: str, precision: str) -> dict[str, Any]:
    """What rounding to 8 bits does to the outputs of one model."""
    model = load_model(name)
    samples = make_samples(model.preprocessing, model.config)
    pixels = torch.from_numpy(np.stack([sample.pixel_values for sample in samples])).double()
    with torch.inference_mode():
        module = model.eager(dtype=torch.float64, outputs=OUTPUTS)
        exact = dict(zip(OUTPUTS, (tensor.numpy() for tensor in module(pixels)), strict=True))
        round_layers(module, ROUNDINGS[precision])
        found = dict(zip(OUTPUTS, (tensor.numpy() for tensor in module(pixels)), strict=True))
    limits, root = LIMITS[precision], model.config.depth**0.5
    granted = np.full(len(samples), limits.floor(model.config.depth))
    decisions = Decisions(Truth(exact["logits"], granted), [sample.name for sample in samples])
    decisions.add(range(len(samples)), found["logits"])
    errors = {output: relative_errors(found[output], exact[output]) / root for output in OUTPUTS}
    details = decisions.details(limits)
    return {
        "model": Path(name).name,
        "precision": precision,
        "error_by_root_of_depth": {
            output: {"median": float(np.median(values)), "largest": float(values.max())}
            for output, values in errors.items()
        },
        "least_cosine": {output: float(cosines(found[output], exact[output]).min()) for output in OUTPUTS},
        "kl_mean": details["kl"]["mean"],
        "top1": decisions.top1(),
    }


# --- alarms ---------------------------------------------------------------------------------------------


def written_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
    """Attention as three steps, each rounded to the dtype."""
    scale = options.get("scale") or query.shape[-1] ** -0.5
    return nn.functional.softmax((query * scale) @ key.transpose(-1, -2), dim=-1) @ value


def measure_alarms(precision: str, classes: int, count: int) -> dict[str, Any]:
    """How often an honest variant of a random ViT fails, and what it reaches."""
    dtype, limits = DTYPES[precision], LIMITS[precision]
    failed, worst, p95, flips = 0, [], [], 0
    for seed in range(count):
        config = ViTConfig(
            image_size=(32, 32),
            patch_size=8,
            embed_dim=64,
            depth=2 + seed % 5,
            num_heads=4,
            mlp_dim=128,
            num_classes=classes,
        )
        model = random_model(config, "alarms", seed=seed)
        samples = make_samples(model.preprocessing, config, seed)
        references = References(model, samples)
        exact = references.exact(OUTPUTS, Silent())
        errors = references.eager_errors(precision, OUTPUTS, Silent())
        truths = {
            name: Truth(values, yardsticks(errors[name], reference_lengths(values), limits, config.depth))
            for name, values in exact.items()
        }
        scores = Scores(samples, truths, limits, "logits")
        scores.add(Run(tuple(range(len(samples)))), honest_variant(model, samples, dtype))
        found = scores.findings()
        failed += bool(found.broken)
        flips += any("another first class" in told for told in found.broken)
        worst.append(scores.worst_ratio())
        p95.append(scores.p95_ratio())
    return {
        "precision": precision,
        "classes": classes,
        "models": count,
        "failed": failed,
        "failed_by_another_first_class": flips,
        "worst_ratio": {"median": float(np.median(worst)), "largest": max(worst)},
        "p95_ratio": {"median": float(np.median(p95)), "largest": max(p95)},
    }


def honest_variant(model: Any, samples: Any, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """The outputs of the same model with other orders of the same sums."""
    twin = ViT(model.config, patch_form="linear", outputs=OUTPUTS).eval()
    twin.load_state_dict(model.weights.state_dict())
    twin = twin.to(dtype)
    pixels = torch.from_numpy(np.stack([sample.pixel_values for sample in samples])).to(dtype)
    usual = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = written_out
    try:
        with torch.inference_mode():
            found = twin(pixels)
    finally:
        nn.functional.scaled_dot_product_attention = usual
    return dict(zip(OUTPUTS, (tensor.float().numpy() for tensor in found), strict=True))


def main() -> None:
    """Measure all of it, print it, and record it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--models", type=int, default=50, help="random models for the false alarms")
    arguments = parser.parse_args()
    models = (*ROUNDING_ARCHS, digits_directory())
    parts: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "anchor": [partial(measure_anchor, arch, 3) for arch in ANCHOR_ARCHS],
        "rounding": [partial(measure_rounding, str(name), kind) for kind in ROUNDINGS for name in models],
        "alarms": [
            partial(measure_alarms, precision, classes, arguments.models)
            for precision in EAGER_PRECISIONS
            for classes in CLASSES
        ],
    }
    document: dict[str, Any] = {
        "schema": "vit-deploy/benchmark-criterion/1",
        "environment": environment(),
        **{part: [] for part in parts},
    }
    for part, measurements in parts.items():
        for measure in measurements:
            document[part].append(measure())
            print(part, json.dumps(document[part][-1]), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
