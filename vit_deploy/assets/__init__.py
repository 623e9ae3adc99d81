"""What travels with the package: a tiny trained ViT for handwritten digits, its sample pictures, and suites."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vit_deploy.errors import ImportFailed

__all__ = ["digits_directory", "sample_images", "suites_directory"]


def digits_directory() -> Path:
    """The directory of the digits model, in Hugging Face transformers' layout.

    Raises:
        ImportFailed: when the installed package lacks it, or lies in a zip file.
    """
    found = files("vit_deploy.assets") / "digits"
    directory = Path(str(found))
    if not (directory / "config.json").is_file():
        raise ImportFailed(
            f"the digits model is not at {str(directory)!r}",
            expected="the folder vit_deploy/assets/digits, unpacked, as the wheel installs it",
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
