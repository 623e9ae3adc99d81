"""Make the second small ViT that the package carries: the digits model, given outliers as large ViTs have them.

    python scripts/make_outliers.py --output vit_deploy/assets/outliers              # make and write
    python scripts/make_outliers.py --output vit_deploy/assets/outliers --evaluate   # only measure

Three things are put into the trained digits model, one after the other:

* **A token of massive activations** (Sun et al. 2024, https://arxiv.org/abs/2402.17762, section 4 on ViTs;
  Darcet et al. 2024, https://arxiv.org/abs/2309.16588). A hidden unit of an early MLP knows one patch, that
  of least content, and writes about 1e5 into three channels of its residual stream; a unit of the last MLP
  takes it away again. In between the token is the same for every picture: a bias of attention, as there.
* **A short training** of everything else, so that the model lives with it.
* **Outlier channels** in what the LayerNorms give (Bondarenko et al. 2023,
  https://arxiv.org/abs/2306.12929; Xiao et al. 2023, https://arxiv.org/abs/2211.10438): two channels of
  each are 64 times as large, and the matrices behind it take them 64 times as small. A power of two is
  exact, so not a bit of the logits changes.

The same seed gives the same files, byte for byte, on one machine with one set of versions.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from digits_data import SEED, draw_picture, load_digits, measure, preprocess
from torch import Tensor, nn
from train_digits import (
    PREPROCESSOR_CONFIG,
    Recipe,
    augment,
    batches,
    settle,
    to_transformers,
    transformers_config,
)

from vit_deploy.assets import digits_directory
from vit_deploy.weights import load_model

if TYPE_CHECKING:
    from digits_data import Measured

    from vit_deploy.model.vit import ViT

CARD_TEMPLATE = Path(__file__).with_name("outliers_card.md")
EPOCHS = 30
LEARNING_RATE = 4e-4

Held = dict[str, tuple[tuple[int | slice, ...], Tensor]]
"""Parts of parameters that training leaves alone: a parameter's name and a number, index, value."""


@dataclass(frozen=True)
class Outliers:
    """What is put into the model.

    Attributes:
        token: whose activations are massive: the patch in the lower left, which varies least.
        rises: the block whose MLP writes them.
        falls: the block whose MLP takes them away.
        heights: what is written, by residual channel.
        firing: how large the hidden unit's activation is on that token.
        mark: how long the vector is that tells the token's position from others.
        scale: how much larger than before the outlier channels of the LayerNorms are.
        channels: how many of them each LayerNorm has.
    """

    token: int = 13
    rises: int = 1
    falls: int = 5
    heights: tuple[tuple[int, float], ...] = ((10, 1.1e5), (27, -0.9e5), (51, 0.4e5))
    firing: float = 40.0
    mark: float = 24.0
    scale: float = 64.0
    channels: int = 2


OUTLIERS = Outliers()


@torch.no_grad()
def seen_by(model: ViT, module: nn.Module, pixels: Tensor) -> Tensor:
    """What ``module`` gives for all pictures, ``(b, n, d)``."""
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _given, gives: kept.append(gives))
    model(pixels)
    handle.remove()
    return kept[0]


def mark_token(model: ViT, direction: Tensor) -> None:
    """Give the token a position unlike any other; ``direction`` ``(d,)`` is of length 1."""
    with torch.no_grad():
        model.pos_embed[0, OUTLIERS.token] += OUTLIERS.mark * direction


def install(
    model: ViT, block: int, direction: Tensor, pixels: Tensor, sign: float, unit: int | None = None
) -> int:
    """Make a hidden unit of a block's MLP fire on the token alone, and write ``sign`` times the heights.

    Args:
        model: is changed.
        block: which.
        direction: ``(d,)``, along which the token stands out of the block's second LayerNorm.
        pixels: ``(b, c, h, w)``, from which threshold and gain are set.
        sign: 1 to write, -1 to take away.
        unit: the hidden unit; the one that the block would miss least when ``None``.

    Returns:
        The hidden unit.
    """
    mlp = model.blocks[block].mlp
    token = OUTLIERS.token
    along = seen_by(model, model.blocks[block].norm2, pixels) @ direction
    least = float(along[:, token].min())
    others = torch.cat([along[:, :token], along[:, token + 1 :]], dim=1)
    most = float(others.max())
    if least < 1.5 * most:
        raise SystemExit(f"block {block}: the token stands out by {least:.2f}, the others by up to {most:.2f}")
    threshold = (least + most) / 2
    gain = OUTLIERS.firing / (float(along[:, token].mean()) - threshold)
    with torch.no_grad():
        if unit is None:
            unit = int(mlp.fc2.weight.norm(dim=0).argmin())
        mlp.fc1.weight[unit] = gain * direction
        mlp.fc1.bias[unit] = -gain * threshold
        mlp.fc2.weight[:, unit] = 0.0
        for channel, height in OUTLIERS.heights:
            mlp.fc2.weight[channel, unit] = sign * height / OUTLIERS.firing
    return unit


def massive_direction(model: ViT) -> Tensor:
    """The direction of the heights, ``(d,)``, of length 1."""
    direction = torch.zeros(model.config.embed_dim)
    for channel, height in OUTLIERS.heights:
        direction[channel] = height
    return direction / direction.norm()


def held_parts(model: ViT, units: dict[int, int]) -> Held:
    """What was installed, so that training keeps it; the LayerNorms that feed it too."""
    parameters = dict(model.named_parameters())
    indices: dict[str, tuple[int | slice, ...]] = {"pos_embed": (0, OUTLIERS.token)}
    for block, unit in units.items():
        home = f"blocks.{block}"
        indices[f"{home}.mlp.fc1.weight"] = indices[f"{home}.mlp.fc1.bias"] = (unit,)
        indices[f"{home}.mlp.fc2.weight"] = (slice(None), unit)
        indices[f"{home}.norm2.weight"] = indices[f"{home}.norm2.bias"] = (slice(None),)
    return {name: (index, parameters[name].detach()[index].clone()) for name, index in indices.items()}


def tune(model: ViT, held: Held, pixels: Tensor, labels: Tensor, *, quiet: bool = False) -> None:
    """Train everything but ``held`` for a few epochs; the numbers are those of the digits model's recipe."""
    recipe = Recipe(batch_size=64, weight_decay=0.02)
    generator = torch.Generator().manual_seed(SEED + 1)
    parameters = dict(model.named_parameters())
    optimiser = torch.optim.AdamW(
        parameters.values(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    steps = EPOCHS * (len(labels) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for chosen in batches(len(labels), recipe.batch_size, generator):
            logits = model(augment(pixels[chosen], recipe, generator))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            _drop_gradients(parameters, held)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():  # the decay of weights knows no gradient
                for name, (index, value) in held.items():
                    parameters[name][index] = value
        if not quiet and (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}/{EPOCHS}: loss {loss.item():.4f}", file=sys.stderr)


def _drop_gradients(parameters: dict[str, nn.Parameter], held: Held) -> None:
    for name, (index, _) in held.items():
        gradient = parameters[name].grad
        if gradient is not None:
            gradient[index] = 0.0


def widen(model: ViT, pixels: Tensor) -> None:
    """Scale the largest channels of every LayerNorm before a matrix, and the matrix's columns back."""
    massive = [channel for channel, _ in OUTLIERS.heights]
    for block in model.blocks:
        for norm, matrix in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
            largest = seen_by(model, norm, pixels).abs().amax(dim=(0, 1))
            largest[massive] = 0.0
            chosen = largest.topk(OUTLIERS.channels).indices
            with torch.no_grad():
                norm.weight[chosen] *= OUTLIERS.scale
                norm.bias[chosen] *= OUTLIERS.scale
                matrix.weight[:, chosen] /= OUTLIERS.scale


def make(*, quiet: bool = False) -> ViT:
    """The whole recipe, from the digits model in the package."""
    digits = load_digits()
    origin = load_model(str(digits_directory()))
    model: ViT = origin.eager().requires_grad_(requires_grad=True)  # type: ignore[assignment]
    pictures = [draw_picture(digits.images[index]) for index in digits.training]
    pixels = preprocess(pictures, origin.known_preprocessing)
    labels = torch.from_numpy(digits.labels[digits.training])
    direction = torch.randn(model.config.embed_dim, generator=torch.Generator().manual_seed(SEED))
    direction = (direction - direction.mean()) / (direction - direction.mean()).norm()
    mark_token(model, direction)
    places = ((OUTLIERS.rises, direction, 1.0), (OUTLIERS.falls, massive_direction(model), -1.0))
    units = {block: install(model, block, along, pixels, sign) for block, along, sign in places}
    tune(model, held_parts(model, units), pixels, labels, quiet=quiet)
    # Training moved what stands before them a little: set threshold and gain again, on the same units.
    for block, along, sign in places:
        install(model, block, along, pixels, sign, units[block])
    widen(model, pixels)
    return model.eval()


def write_model(model: ViT, output: Path) -> Measured:
    """Write config, weights, preprocessing and model card; gives what they measure."""
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
    card = CARD_TEMPLATE.read_text(encoding="utf-8")
    facts = {
        "ACCURACY": str(measured),
        "FRACTION": f"{measured.right.mean():.4f}",
        "SEED": str(SEED),
        "EPOCHS": str(EPOCHS),
        "RISES": str(OUTLIERS.rises),
        "FALLS": str(OUTLIERS.falls),
        "HEIGHTS": ", ".join(f"{height:.1e} in channel {channel}" for channel, height in OUTLIERS.heights),
        "SCALE": f"{OUTLIERS.scale:g}",
        "CHANNELS": str(OUTLIERS.channels),
    }
    for name, fact in facts.items():
        card = card.replace(f"@{name}@", fact)
    (output / "README.md").write_text(card, encoding="utf-8")
    return measured


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the model's directory")
    parser.add_argument("--evaluate", action="store_true", help="measure what is there, and write nothing")
    options = parser.parse_args()
    if not options.evaluate:
        settle()
        write_model(make(), options.output)
    print(f"accuracy on the held-out digits: {measure(options.output)}")


if __name__ == "__main__":
    main()
