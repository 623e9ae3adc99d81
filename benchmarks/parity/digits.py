"""The digits that our trained model has not seen, as picture files: what int8 is judged and calibrated on."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).parents[2] / "scripts" / "digits_data.py"


def _data() -> dict[str, Any]:
    return runpy.run_path(str(_SCRIPT), run_name="digits_data")


def held_out_pictures(folder: Path) -> tuple[Path, ...]:
    """The held-out digits, drawn as the model's card says, as PNG files in ``folder``."""
    return _write("held_out", folder)


def training_pictures(folder: Path, count: int) -> tuple[Path, ...]:
    """The first ``count`` digits that the model was trained on, likewise."""
    return _write("training", folder, count)


def _write(part: str, folder: Path, count: int | None = None) -> tuple[Path, ...]:
    script = _data()
    digits = script["load_digits"]()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in getattr(digits, part)[:count]:
        path = folder / f"digit-{index:04d}.png"
        script["draw_picture"](digits.images[index]).save(path)
        paths.append(path)
    return tuple(paths)
