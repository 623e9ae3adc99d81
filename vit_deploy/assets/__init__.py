"""What travels with the package: tiny trained ViTs for handwritten digits, sample pictures, and suites."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vit_deploy.errors import ImportFailed

__all__ = ["digits_directory", "outliers_directory", "sample_images", "suites_directory"]


def digits_directory() -> Path:
    """The directory of the digits model, in Hugging Face transformers' layout.

    Raises:
        ImportFailed: when the installed package lacks it, or lies in a zip file.
    """
    return _model_directory("digits")


def outliers_directory() -> Path:
    """The same for the digits model with outliers, which plain fp16 and plain int8 ruin.

    Raises:
        ImportFailed: when the installed package lacks it, or lies in a zip file.
    """
    return _model_directory("outliers")


def _model_directory(name: str) -> Path:
    directory = Path(str(files("vit_deploy.assets") / name))
    if not (directory / "config.json").is_file():
        raise ImportFailed(
            f"the {name} model is not at {str(directory)!r}",
            expected=f"the folder vit_deploy/assets/{name}, unpacked, as the wheel installs it",
            next_command="pip install --force-reinstall --no-deps vit-deploy",
        )
    return directory


def sample_images() -> list[Path]:
    """The sample pictures, by name: ``3_0045.png`` shows a 3, number 45 of scikit-learn's digits.

    Raises:
        ImportFailed: when the installed package lacks the model.
    """
    return sorted((digits_directory() / "samples").glob("*.png"))


def suites_directory() -> Path:
    """The directory of the built-in benchmark suites; `benchmarks/suites` is a link to it.

    Raises:
        ImportFailed: when the installed package lacks it, or lies in a zip file.
    """
    directory = Path(str(files("vit_deploy.assets") / "suites"))
    if not directory.is_dir():
        raise ImportFailed(
            f"the benchmark suites are not at {str(directory)!r}",
            expected="the folder vit_deploy/assets/suites, unpacked, as the wheel installs it",
            next_command="pip install --force-reinstall --no-deps vit-deploy",
        )
    return directory
