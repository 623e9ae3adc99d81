"""Modules as users write them: what ``py:tests.user_modules:…`` names in the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it


def stirred(module: nn.Module) -> nn.Module:
    """The module with no weight at its initial value: a norm of ones or a bias of zeros hides mistakes."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            kept = value if value.ndim > 1 else 0.5 + value.abs() if "var" in name else value
            value.copy_(kept + (0.3 * noise if "var" in name else 0.2 * (noise - 0.5)))
    return module


class CnnTransformer(nn.Module):
    """Convolutions, then an encoder; a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 2, 2)
        )
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        tokens = self.encoder(self.stem(pixels).flatten(2).transpose(1, 2))
        return {"logits": self.head(tokens.mean(1)), "tokens": tokens}


def cnn_transformer() -> nn.Module:
    return stirred(CnnTransformer())


cnn_transformer.example_inputs = torch.zeros(1, 3, 32, 32)
cnn_transformer.labels = ["ant", "bee", "cat", "dog", "elk"]
cnn_transformer.preprocessing = {
    "image_size": [32, 32],
    "resize": "exact",
    "resize_size": [32, 32],
    "interpolation": "bilinear",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.2],
    "rescale_factor": 1 / 255,
    "crop_rounding": "even",
    "origin": "checkpoint",
}


def resnet() -> nn.Module:
    """torchvision's ResNet of 18 layers' kind, one block a stage."""
    from torchvision.models.resnet import BasicBlock, ResNet

    return stirred(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=6))


def swin() -> nn.Module:
    """A tiny Swin of timm's, which is no ViT of ours; its input size stands in its pretrained_cfg."""
    import timm

    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=8,
        depths=(2,),
        num_heads=(2,),
        num_classes=5,
    )
    model.example_inputs = torch.zeros(1, 3, 32, 32)
    return stirred(model)


def convnext() -> nn.Module:
    """timm's, described by its own ``pretrained_cfg`` alone."""
    import timm

    cfg = {"input_size": (3, 32, 32), "crop_pct": 1.0}
    sizes = {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 8), "num_classes": 5}
    return stirred(timm.create_model("convnext_atto", pretrained_cfg_overlay=cfg, **sizes))


class Linear(nn.Module):
    """A layer around which the small cases are made."""

    example_inputs = torch.linspace(-1, 1, 6).reshape(1, 6)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class Dropping(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.layer(x))


class Counting(Linear):
    """Keeps a state from run to run."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.layer(x) * self.runs


class Baked(Linear):
    """Runs at any batch, and yet has the number in its graph."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.zeros(int(x.shape[0]), 4)


class OneAtATime(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(1, 6))


class Branching(Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if y.sum() > 0 else -y


class Floating32(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())


class Turned(Linear):
    """Turned around, then attended with tokens cut up on the way: what graph passes must leave alone."""

    example_inputs = torch.zeros(1, 4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        parts = self.qkv(torch.flip(x, [1])).chunk(3, -1)
        q, k, v = (part.reshape(b, 2 * n, 2, 2).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return mixed.transpose(1, 2).reshape(b, 2 * n, d // 2)


class InPlace(Linear):
    """Writes into a view, as our own model never would."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        y[:, 0] = 0
        y += 1
        return y, torch.relu(y)


class TwoInputs(nn.Module):
    example_inputs: ClassVar = {"image": torch.zeros(2, 3, 8, 8), "state": torch.zeros(2, 5)}

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.layer = nn.Linear(9, 4)

    def forward(self, image: Tensor, scale: float = 1.0, *, state: Tensor) -> Tensor:
        seen = self.convolution(image).relu().mean((2, 3))
        return scale * self.layer(torch.cat([seen, state], 1))


class Half(Linear):
    """Half precision and whole numbers among its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))
        self.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[:, self.order]


class Lazy(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(4)


class Meta(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.to("meta")


class Unsaid(nn.Module):
    """Says nothing of what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Parts:
    whole: Tensor
    nothing: None
    pieces: list[Tensor] = field(default_factory=list)


RETURNED = {
    "tensor": (lambda y: y, ["output"]),
    "tuple": (lambda y: (y, y + 1), ["output_0", "output_1"]),
    "dict": (lambda y: {"a": y, "b": None, "c": y + 1}, ["a", "c"]),
    "named tuple": (lambda y: Pair(y, y + 1), ["first", "second"]),
    "dataclass": (lambda y: Parts(y, None, [y + 1, y + 2]), ["whole", "pieces_0", "pieces_1"]),
    "nested": (lambda y: ({"a": y}, [y + 1]), ["output_0_a", "output_1_0"]),
}
"""What a forward returns, and the names that its tensors get."""


@dataclass
class Described:
    module: nn.Module
    output_names: list[str]
    example_inputs: Tensor


def described() -> Described:
    return Described(Linear(), ["scores"], torch.zeros(3, 6))


class Factories:
    nested = staticmethod(Linear)


module = Linear()
number = 3


def returns_nothing() -> None:
    return None


def needs(depth: int, width: int) -> nn.Module:
    return Linear()


def fails() -> nn.Module:
    raise RuntimeError("no weights at /data\nand more of it")


def chatty() -> nn.Module:
    print("a user's print")
    return Linear()


class Whole(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).argmax(-1)


class Scalar(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean()


class Words(Linear):
    def forward(self, x: Tensor) -> Any:
        return {"scores": self.layer(x), "kind": "linear"}


class Through(Linear):
    def forward(self, x: Tensor) -> Any:
        return self.layer(x), x


class Tokens(Linear):
    example_inputs = torch.zeros(1, 6, dtype=torch.int64)
