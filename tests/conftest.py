"""Set-up shared by all tests."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")

from pathlib import Path

import pytest
import torch

from vit_deploy.model.config import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vit_deploy.weights.imported import Model

REPOSITORY = Path(__file__).parents[1]


def _mend_torchvision() -> None:
    """Declare the two operators that torchvision's Python code expects of its compiled part.

    A CPU build of torch cannot load a CUDA build's compiled operators, and without the two schemas
    `import torchvision`, and so `import timm`, fails.
    """
    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_TORCHVISION_SCHEMAS"] = library  # the schemas live as long as this object


_mend_torchvision()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs is kept for these tests alone, in their subprocesses too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def small_config() -> ViTConfig:
    """A ViT that runs in milliseconds, with every dimension different from every other."""
    return ViTConfig(
        image_size=(32, 48),
        patch_size=8,
        embed_dim=60,
        depth=3,
        num_heads=5,
        mlp_dim=150,
        num_classes=7,
    )


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with ``tests/golden/<name>``, or write it there when `make golden` runs the test."""

    def compare(name: str, text: str) -> None:
        path = REPOSITORY / "tests" / "golden" / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"there is no {path.name} yet: run `make golden`"
        assert text == path.read_text(encoding="utf-8"), f"{name} changed: run `make golden`, read the diff"

    return compare


@pytest.fixture
def small_model(small_config: ViTConfig) -> Model:
    """The small ViT with seeded random weights that stand away from their initial values."""
    from vit_deploy.weights.random import random_model

    return random_model(small_config, "small", seed=1)


@pytest.fixture(scope="session")
def wide_model() -> Model:
    """A small ViT with heads of 16: TensorRT's fused attention in fp16 wants a multiple of 8."""
    from vit_deploy.weights.random import random_model

    config = ViTConfig(
        image_size=(32, 48), patch_size=8, embed_dim=64, depth=3, num_heads=4, mlp_dim=150, num_classes=7
    )
    return random_model(config, "wide", seed=1)


@pytest.fixture(scope="session")
def rtx() -> None:
    """Leave out a test that builds an engine where nothing can build one."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: pip install 'vit-deploy[rtx]'")
