"""Train the tiny ViT that the package carries: handwritten digits, in Hugging Face transformers' layout.

    python scripts/train_digits.py --output vit_deploy/assets/digits              # train and write
    python scripts/train_digits.py --output vit_deploy/assets/digits --evaluate   # only measure

The same seed gives the same files, byte for byte, on one machine with one set of versions; another
CPU or another torch may round differently.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from digits_data import SEED, Measured, draw_picture, load_digits, measure, preprocess
from torch import Tensor, nn

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.model.vit import ViT

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = tuple(str(digit) for digit in range(10))
CARD_TEMPLATE = Path(__file__).with_name("digits_card.md")

CONFIG = ViTConfig(
    image_size=(32, 32),
    patch_size=8,
    embed_dim=64,
    depth=6,
    num_heads=4,
    mlp_dim=128,
    num_classes=10,
)

PREPROCESSOR_CONFIG: dict[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": CONFIG.image_size[0], "width": CONFIG.image_size[1]},
}
"""transformers' settings; ``resample`` 3 is bicubic."""


@dataclass(frozen=True)
class Recipe:
    """How the model is trained."""

    epochs: int = 100
    warmup_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    average_decay: float = 0.995
    degrees: float = 12.0
    scale: float = 0.12
    shift: float = 0.12
    shear: float = 0.12
    noise: float = 0.08
    seed: int = SEED


def augment(pixels: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Turn, scale, shear and shift each of ``(b, c, h, w)`` a little, and add noise."""
    count = len(pixels)

    def draw(bound: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * bound

    angle, scale = draw(math.radians(recipe.degrees)), 1 + draw(recipe.scale)
    shear, across, down = draw(recipe.shear), draw(recipe.shift), draw(recipe.shift)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    first = torch.stack([cosine, -sine + shear, across], dim=1)
    second = torch.stack([sine, cosine, down], dim=1)
    grid = F.affine_grid(torch.stack([first, second], dim=1), list(pixels.shape), align_corners=False)
    # Outside the picture grid_sample gives 0; the background of a normalised digit is -1.
    warped = F.grid_sample(pixels + 1, grid, align_corners=False) - 1
    return warped + recipe.noise * torch.randn(warped.shape, generator=generator)


def initialise(model: ViT) -> None:
    """Xavier for the linear layers and small normal numbers for class token and positions, as in big_vision."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    nn.init.normal_(model.cls_token, std=0.02)
    nn.init.normal_(model.pos_embed, std=0.02)


def _parameter_groups(model: ViT, recipe: Recipe) -> list[dict[str, Any]]:
    matrices = [value for value in model.parameters() if value.ndim in (2, 4)]
    others = [value for value in model.parameters() if value.ndim not in (2, 4)]
    return [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The indices of one epoch in random order, ``size`` at a time; the rest is left out."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def train(pixels: Tensor, labels: Tensor, recipe: Recipe, *, quiet: bool = False) -> ViT:
    """Train ``CONFIG`` on ``(b, 3, 32, 32)`` and ``(b,)``; gives the moving average of the weights."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = ViT(CONFIG)
    initialise(model)
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.AdamW(_parameter_groups(model, recipe), lr=recipe.learning_rate, betas=(0.9, 0.98))
    steps = len(labels) // recipe.batch_size
    total, warmup = recipe.epochs * steps, recipe.warmup_epochs * steps

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    for epoch in range(recipe.epochs):
        mean_loss = 0.0
        for chosen in batches(len(labels), recipe.batch_size, generator):
            logits = model(augment(pixels[chosen], recipe, generator))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            mean_loss += loss.item() / steps
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), list(model.parameters()), 1 - recipe.average_decay)
        if not quiet and (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}/{recipe.epochs}: loss {mean_loss:.4f}", file=sys.stderr)
    model.load_state_dict(average)
    return model.eval()


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the names that ``ViTForImageClassification`` saves and loads."""
    named = {
        "vit.embeddings.cls_token": state["cls_token"],
        "vit.embeddings.position_embeddings": state["pos_embed"],
    }
    modules = {
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    for index in range(CONFIG.depth):
        ours, theirs = f"blocks.{index}", f"vit.encoder.layer.{index}"
        modules[f"{ours}.norm1"] = f"{theirs}.layernorm_before"
        modules[f"{ours}.norm2"] = f"{theirs}.layernorm_after"
        modules[f"{ours}.attn.proj"] = f"{theirs}.attention.output.dense"
        modules[f"{ours}.mlp.fc1"] = f"{theirs}.intermediate.dense"
        modules[f"{ours}.mlp.fc2"] = f"{theirs}.output.dense"
    for kind in ("weight", "bias"):
        named.update({f"{theirs}.{kind}": state[f"{ours}.{kind}"] for ours, theirs in modules.items()})
        for index in range(CONFIG.depth):
            parts = state[f"blocks.{index}.attn.qkv.{kind}"].chunk(3)
            for part, tensor in zip(("query", "key", "value"), parts, strict=True):
                named[f"vit.encoder.layer.{index}.attention.attention.{part}.{kind}"] = tensor
    return {name: tensor.detach().contiguous() for name, tensor in named.items()}


def transformers_config() -> dict[str, Any]:
    """What stands in ``config.json``."""
    return {
        "architectures": ["ViTForImageClassification"],
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": CONFIG.embed_dim,
        "id2label": {str(digit): name for digit, name in enumerate(LABELS)},
        "image_size": CONFIG.image_size[0],
        "initializer_range": 0.02,
        "intermediate_size": CONFIG.mlp_dim,
        "label2id": {name: digit for digit, name in enumerate(LABELS)},
        "layer_norm_eps": CONFIG.norm_eps,
        "model_type": "vit",
        "num_attention_heads": CONFIG.num_heads,
        "num_channels": CONFIG.in_channels,
        "num_hidden_layers": CONFIG.depth,
        "patch_size": CONFIG.patch_size,
        "qkv_bias": CONFIG.qkv_bias,
    }


def write_samples(measured: Measured, directory: Path) -> list[str]:
    """For each class the first held-out digit that is predicted right, as a PNG; gives the card's lines."""
    digits = load_digits()
    directory.mkdir(exist_ok=True)
    for stale in directory.glob("[0-9]_[0-9][0-9][0-9][0-9].png"):
        stale.unlink()
    lines = []
    for digit in range(10):
        position = np.flatnonzero((measured.labels == digit) & measured.right)[0]
        index = measured.indices[position]
        name = f"{digit}_{index:04d}.png"
        draw_picture(digits.images[index]).save(directory / name, optimize=True)
        lines.append(f"| `samples/{name}` | {LABELS[digit]} | {measured.scores[position, digit]:.4f} |")
    return lines


def describe_classes(measured: Measured) -> list[str]:
    """The card's lines on how each class fares, and what its members are mistaken for."""
    predicted = measured.scores.argmax(axis=1)
    lines = []
    for digit, name in enumerate(LABELS):
        members = measured.labels == digit
        wrong = predicted[members & ~measured.right]
        mistaken = ", ".join(f"{LABELS[other]} ({(wrong == other).sum()})" for other in np.unique(wrong))
        right, count = int((members & measured.right).sum()), int(members.sum())
        lines.append(f"| {name} | {right} of {count} | {mistaken or '–'} |")
    return lines


def write_model(model: ViT, output: Path) -> Measured:
    """Write config, weights, preprocessing, samples and model card; gives what they measure."""
    from safetensors.torch import save

    output.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("config.json", transformers_config()),
        ("preprocessor_config.json", PREPROCESSOR_CONFIG),
    ):
        (output / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    weights = save(to_transformers(model.state_dict()), metadata={"format": "pt"})
    (output / "model.safetensors").write_bytes(weights)
    measured = measure(output)
    samples = write_samples(measured, output / "samples")
    card = CARD_TEMPLATE.read_text(encoding="utf-8")
    facts = {
        "ACCURACY": str(measured),
        "FRACTION": f"{measured.right.mean():.4f}",
        "HELD_OUT": str(len(measured.labels)),
        "TRAINING": str(len(load_digits().training)),
        "PARAMETERS": f"{sum(value.numel() for value in model.parameters()):,}",
        "SEED": str(SEED),
        "CLASSES": "\n".join(describe_classes(measured)),
        "SAMPLES": "\n".join(samples),
    }
    for name, fact in facts.items():
        card = card.replace(f"@{name}@", fact)
    (output / "README.md").write_text(card, encoding="utf-8")
    return measured


def settle() -> None:
    """Make training repeatable: deterministic operators, and one thread, so that sums keep their order."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it is written; filling it would cost a seventh of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the model's directory")
    parser.add_argument("--evaluate", action="store_true", help="measure what is there, and write nothing")
    options = parser.parse_args()
    if not options.evaluate:
        settle()
        digits = load_digits()
        preprocessing = Preprocessing.from_transformers(PREPROCESSOR_CONFIG, CONFIG)
        pixels = preprocess([draw_picture(digits.images[index]) for index in digits.training], preprocessing)
        model = train(pixels, torch.from_numpy(digits.labels[digits.training]), Recipe())
        write_model(model, options.output)
    print(f"accuracy on the held-out digits: {measure(options.output)}")


if __name__ == "__main__":
    main()
