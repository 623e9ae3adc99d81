"""Checkpoints as timm and transformers write them, with weights away from their initial values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model


@torch.no_grad()
def _move_weights(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        parameter.copy_(1 + 0.3 * noise if norm else noise * (0.3 if parameter.ndim == 1 else 0.15))
    return module.eval()


@pytest.fixture
def move_weights() -> Callable[[torch.nn.Module, int], torch.nn.Module]:
    """Give every parameter of a module seeded random values; evaluation mode."""
    return _move_weights


@pytest.fixture
def save_timm(tmp_path: Path) -> Callable[..., tuple[Path, torch.nn.Module]]:
    """Make a small timm model, save it as timm does, and give its directory and itself."""
    import timm
    from timm.models import save_for_hf

    def save(
        name: str = "vit_tiny_patch16_224",
        *,
        safe: bool = True,
        model_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Path, torch.nn.Module]:
        sizes = {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8, "num_classes": 7}
        module = _move_weights(timm.create_model(name, **{**sizes, **kwargs}), seed=3)
        directory = tmp_path / name
        save_for_hf(module, directory, model_config=model_config, safe_serialization=safe)
        return directory, module

    return save


@pytest.fixture
def save_transformers(tmp_path: Path) -> Callable[..., tuple[Path, torch.nn.Module]]:
    """Make a small transformers model, save it as transformers does, and give directory and model."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    def save(
        name: str, *, options: dict[str, Any] | None = None, shard: str = "1GB", **kwargs: Any
    ) -> tuple[Path, torch.nn.Module]:
        sizes = {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 100,
            "image_size": 32,
            "patch_size": 8,
            "num_labels": 7,
        }
        config = (transformers.DeiTConfig if name.startswith("DeiT") else transformers.ViTConfig)(
            **{**sizes, **kwargs}
        )
        module = _move_weights(getattr(transformers, name)(config, **(options or {})), seed=5)
        module.save_pretrained(tmp_path / name, max_shard_size=shard)
        return tmp_path / name, module

    return save


_SMALL = ViTConfig(
    image_size=(32, 32), patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_dim=100, num_classes=7
)


@pytest.fixture
def small_arch(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an architecture of the sizes that ``save_transformers`` has."""
    monkeypatch.setitem(NAMED_CONFIGS, "small_test", _SMALL)
    return "small_test"


@pytest.fixture
def small_distilled_arch(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a distilled architecture of the sizes that ``save_timm`` has."""
    config = replace(_SMALL, mlp_dim=192, distillation_token=True, distillation_head=True)
    monkeypatch.setitem(NAMED_CONFIGS, "small_distilled_test", config)
    return "small_distilled_test"


@pytest.fixture
def relative_error() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """The norm of the difference over the norm of what is expected."""

    def compute(found: torch.Tensor, expected: torch.Tensor) -> float:
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype == torch.float64
        return float((found - expected).norm() / expected.norm())

    return compute


@pytest.fixture
def run64() -> Callable[..., dict[str, torch.Tensor]]:
    """Every output of an imported model in float64, by name."""

    def run(model: Model, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        names = ("embedding", "tokens", *(("logits",) if model.config.num_classes else ()))
        module = model.eager(dtype=torch.float64, outputs=names)  # type: ignore[arg-type]
        with torch.inference_mode():
            return dict(zip(names, module(pixels), strict=True))

    return run


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Change fields of a JSON file; ``None`` takes a field away."""

    def edit(path: Path, **changes: Any) -> None:
        data = json.loads(path.read_text())
        data.update(changes)
        path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))

    return edit
