"""``--image-size`` and ``--dynamic-image-size`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vit_deploy.bundle import Bundle
from vit_deploy.cli._sizes import dynamic_ranges
from vit_deploy.errors import UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = Path(__file__).parents[2] / "vit_deploy" / "assets" / "digits"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pictures that are not square."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for index in range(2):
        levels = np.random.default_rng(index).integers(0, 256, (40, 70, 3), dtype=np.uint8)
        made.append(folder / f"{index}.png")
        Image.fromarray(levels).save(made[-1])
    return made


def test_a_size_is_taken_and_kept(invoke: Callable[..., Any], tmp_path: Path, pictures: list[Path]) -> None:
    folder = tmp_path / "bundle"
    done = invoke(
        "export", "-m", DIGITS, "--image-size", "48x64", "--format", "torchscript", "-o", folder, "--json"
    )
    assert done.code == 0, done.err
    assert done.json["artefacts"][0]["passed"] is True
    assert "resampled from 32x32 to 48x64 pixels" in done.err
    bundle = Bundle.open(folder)
    assert bundle.config.image_size == bundle.preprocessing.image_size == (48, 64)
    (record,) = bundle.records.values()
    assert record.inputs[0].shape == ["batch", 3, 48, 64]
    guessed = invoke("predict", folder, *pictures, "--json")
    assert guessed.code == 0, guessed.err
    assert len(guessed.json["images"]) == 2
    again = invoke("export", "-m", folder, "--image-size", 32, "--format", "onnx", "-o", tmp_path / "other")
    assert again.code == 2
    assert "--image-size 32x32" in again.err


def test_a_free_size_is_verified_at_several(
    invoke: Callable[..., Any], tmp_path: Path, pictures: list[Path]
) -> None:
    folder = tmp_path / "bundle"
    words = ["export", "-m", DIGITS, "--dynamic-image-size", "--format", "torchscript", "-o", folder]
    done = invoke(*words, "--maxShapes", "3x3x48x64", "--outputs", "logits,tokens", "--json")
    assert done.code == 0, done.err
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    record = manifest["artefacts"]["torchscript-fp32"]
    assert record["inputs"][0]["shape"] == ["batch", 3, "height", "width"]
    assert [entry["shape"][1:] for entry in record["outputs"]] == [[10], ["tokens", 64]]
    assert (record["sizes"]["minimum"], record["sizes"]["maximum"]) == ([16, 16], [48, 64])
    assert record["batch"]["maximum"] == 3
    assert set(record["parity"]["details"]["image_sizes"]) == {"32x32", "16x16", "48x64", "24x48"}
    assert invoke("verify", folder).code == 0
    guessed = invoke("predict", folder, *pictures, "--json")
    assert guessed.code == 0, guessed.err
    assert "16x16 to 48x64" in invoke("inspect", folder).err


def test_inspect_shows_a_model_at_a_size(invoke: Callable[..., Any]) -> None:
    shown = invoke("inspect", DIGITS, "--image-size", "64", "--json").json
    native = invoke("inspect", DIGITS, "--json").json
    assert shown["config"]["image_size"] == [64, 64]
    assert shown["gmacs"] > 3 * native["gmacs"]
    assert (
        invoke("inspect", DIGITS, "--image-size", "64")
        .err.rstrip()
        .endswith("--image-size 64x64 --format onnx")
    )


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--image-size", "65"], 2, "--image-size 64x64 or --image-size 72x72"),
        (["--image-size", "64x"], 2, "224x448 for height x width"),
        (["--image-size", "-64"], 2, "no image size"),
        (["--image-size", "0"], 2, "no image size"),
        (["--image-size", "64", "--dynamic-image-size"], 2, "--image-size 32x32 --dynamic-image-size"),
        (["--dynamic-image-size", "--maxShapes", "8x3x60x64"], 2, "multiples of 8"),
        (["--dynamic-image-size", "--maxShapes", "8x64x64x3"], 2, "pixel_values:Bx3xHxW"),
        (["--dynamic-image-size", "--maxShapes", "8x3x24x24"], 2, "min, opt, max"),
        (["--dynamic-image-size", "--minShapes", "1x3x40x40", "--optShapes", "1x3x40x40"], 2, "leave out"),
        (["--dynamic-image-size", "--input", "image"], 2, "--input image, or --dynamic-image-size"),
        (["--maxShapes", "8x3x64x64"], 2, "--maxShapes is '8x3x64x64'"),
        (["--outputs", "tokens,image_embeds"], 2, "unknown output of this model 'image_embeds'"),
    ],
)
def test_what_does_not_fit_is_refused(
    words: list[str], code: int, found: str, invoke: Callable[..., Any], tmp_path: Path
) -> None:
    done = invoke("export", "-m", DIGITS, "--format", "onnx", "-o", tmp_path / "bundle", *words)
    assert (done.code, found in done.err) == (code, True), done.err
    assert not (tmp_path / "bundle").exists()


def test_a_table_of_distances_has_one_size(invoke: Callable[..., Any], tmp_path: Path) -> None:
    done = invoke("export", "-m", "beit_base_patch16_224", "--dynamic-image-size", "-o", tmp_path / "bundle")
    assert done.code == 2
    assert "no entries for others" in done.err
    assert "once for each --image-size" in done.err


def test_shapes_name_batches_and_sizes() -> None:
    config = ViTConfig()
    batch, sizes = dynamic_ranges(
        config, "pixel_values", "2x3x112x160", "4x3x224x224", "pixel_values:6x3x448x640"
    )
    assert batch == BatchRange(2, 4, 6)
    assert (sizes.minimum, sizes.optimum, sizes.maximum) == ((112, 160), (224, 224), (448, 640))
    batch, sizes = dynamic_ranges(config, "uint8", "", "", "images:6x448x640x3")
    assert (batch.maximum, sizes.maximum) == (6, (448, 640))
    with pytest.raises(UsageFailed, match="--minShapes is '1x3x112x160'"):
        dynamic_ranges(config, "uint8", "1x3x112x160", "", "")
