"""What can be compiled: precisions, 8-bit pictures, free image sizes, a user's own module: each a compile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.image_sizes import FAMILIES
from vit_deploy.exporters.pt2 import EXPORTER, Pt2Options
from vit_deploy.facts import Device
from vit_deploy.model.contract import contracted
from vit_deploy.model.sizes import size_range
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.pt2_target import LEVEL_NAMES
from vit_deploy.runtimes.pt2 import RUNTIME
from vit_deploy.spec import BatchRange
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model
from vit_deploy.weights.resize import resized

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not EXPORTER.available().ok, reason=f"{EXPORTER.available().reason}: {EXPORTER.available().mend}"
    ),
]


def export(
    model: Model,
    folder: Path,
    spec: IOSpec,
    precision: Precision = "fp32",
    options: Pt2Options | None = None,
) -> Artefact:
    made = EXPORTER.export(model, spec, options or Pt2Options(), folder, Silent(), None, precision)
    path = folder / made.files[0]
    return Artefact(f"pt2-{precision}", "pt2", precision, path, made.spec, model.config, made.facts)


def outputs(artefact: Artefact, **inputs: Any) -> dict[str, Any]:
    with RUNTIME.open(artefact, Device(), SessionOptions(threads=1)) as session:
        return dict(session.run(inputs))


def distance(have: Any, want: Any) -> float:
    return float(np.linalg.norm(have - want) / np.linalg.norm(want))


def pixels(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def test_bf16_computes_in_bf16_and_takes_and_gives_float32(small_model: Model, tmp_path: Path) -> None:
    artefact = export(small_model, tmp_path, small_model.config.io_spec(("logits", "tokens")), "bf16")
    images = pixels(3, 3, 32, 48)
    found = outputs(artefact, pixel_values=images)
    with RUNTIME.open(artefact, Device(), SessionOptions(threads=1)) as session:
        facts = session.facts
    assert facts.precision == "bf16"
    assert set(facts.details["weights"]) == {"bfloat16"}
    assert facts.dtypes["linear"] == {"bf16": 14}
    assert facts.dtypes["io"] == {"fp32": 3}
    for name, dtype in (("logits", torch.float64), ("tokens", torch.float64)):
        with torch.inference_mode():
            exact = small_model.eager(dtype=dtype, outputs=(name,))(torch.from_numpy(images).to(dtype)).numpy()
            half = small_model.eager(dtype=torch.bfloat16, outputs=(name,))(torch.from_numpy(images).bfloat16())
        assert found[name].dtype == np.float32
        assert 1e-5 < distance(found[name], exact) < 2 * distance(half.float().numpy(), exact)


@pytest.mark.parametrize("contract", ["uint8", "image"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_8_bit_pictures(small_model: Model, tmp_path: Path, contract: Any, precision: Precision) -> None:
    recipe = small_model.known_preprocessing
    plain = small_model.config.io_spec((), BatchRange(1, 1, 4))
    spec = contracted(plain, contract, small_model.config, recipe)
    artefact = export(small_model, tmp_path, spec, precision)
    sizes = [(32, 48)] if contract == "uint8" else [(32, 48), (61, 97), (200, 150)]
    module = small_model.loaded(spec)
    for height, width in sizes:
        pictures = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = module(torch.from_numpy(pictures)).numpy()
        found = outputs(artefact, images=pictures)["logits"]
        assert distance(found, expected) < (2e-6 if precision == "fp32" else 0.03), (height, width)


@pytest.mark.parametrize("family", ["learned", "rotary with a reference grid"])
def test_free_image_sizes(family: str, tmp_path: Path) -> None:
    model = random_model(FAMILIES[family], family, 1)
    spec = model.vit_config.io_spec((), sizes=size_range(model.vit_config))
    artefact = export(model, tmp_path, spec)
    patch = model.vit_config.patch_size
    for rows, columns in ((3, 4), (5, 2), (7, 7)):
        size = (rows * patch, columns * patch)
        images = pixels(2, 3, *size)
        with torch.inference_mode():
            expected = resized(model, size).eager()(torch.from_numpy(images)).numpy()
        assert distance(outputs(artefact, pixel_values=images)["logits"], expected) < 5e-6, size


def test_a_user_s_own_module(tmp_path: Path) -> None:
    model = load_model("py:tests.user_modules:cnn_transformer")
    spec = model.config.io_spec()
    artefact = export(model, tmp_path, spec)
    for batch in (1, 2, 5):
        images = pixels(batch, *spec.inputs[0].at_batch(batch)[1:])
        with torch.inference_mode():
            results = model.eager()(torch.from_numpy(images))
        found = outputs(artefact, **{spec.inputs[0].name: images})
        assert tuple(found) == spec.output_names
        for have, want in zip(found.values(), results, strict=True):
            assert distance(have, want.numpy()) < 2e-6


def test_the_lower_level_runs_here_too_and_asks_for_less(small_model: Model, tmp_path: Path) -> None:
    level = LEVEL_NAMES[-1]
    artefact = export(small_model, tmp_path, small_model.config.io_spec(), options=Pt2Options(cpu_level=level))
    assert artefact.facts["target"]["level"] == level
    assert not [flag for flag in artefact.facts["target"]["cpu_flags"] if flag.startswith("avx512")]
    assert artefact.facts["packed_for"] == "AVX2"
    images = pixels(2, 3, 32, 48)
    with torch.inference_mode():
        expected = small_model.eager()(torch.from_numpy(images)).numpy()
    assert distance(outputs(artefact, pixel_values=images)["logits"], expected) < 2e-6


def test_a_fixed_batch_and_one_output(small_model: Model, tmp_path: Path) -> None:
    spec = small_model.config.io_spec(("embedding",), BatchRange(3, 3, 3))
    artefact = export(small_model, tmp_path, spec)
    assert outputs(artefact, pixel_values=pixels(3, 3, 32, 48))["embedding"].shape == (3, 60)


def test_weights_that_differ_give_packages_that_differ_in_weights(small_model: Model, tmp_path: Path) -> None:
    spec = small_model.config.io_spec()
    other = random_model(small_model.vit_config, "other", seed=2)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first, second = (
        export(model, folder, spec) for model, folder in zip((small_model, other), folders, strict=True)
    )
    images = pixels(2, 3, 32, 48)
    with (
        RUNTIME.open(first, Device(), SessionOptions(threads=1)) as one,
        RUNTIME.open(second, Device(), SessionOptions(threads=1)) as two,  # open at once, and told apart
    ):
        found = [session.run({"pixel_values": images})["logits"] for session in (one, two)]
    for have, model in zip(found, (small_model, other), strict=True):
        with torch.inference_mode():
            expected = model.eager()(torch.from_numpy(images)).numpy()
        assert distance(have, expected) < 2e-6
