"""The user's own pictures, found in a folder."""

from __future__ import annotations

from pathlib import Path

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)
"""Names that count as pictures; anything else in the folder is passed over."""

MAX_IMAGES = 32
"""How many pictures are used: each costs one eager inference in float64 (0.8 s for ViT-B on two cores)."""


def find_pictures(directory: str | Path) -> tuple[Path, ...]:
    """Every picture in a folder and its subfolders, in order of name.

    Raises:
        ImportFailed: when there is no such folder, or it may not be read.
        HostileInput: when it holds no pictures.
    """
    folder = Path(directory)
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "not there"
        raise ImportFailed(
            f"the image folder {str(directory)!r} is {kind}",
            expected="a folder of pictures",
            next_command="--images with the folder that holds them",
        )
    try:
        found = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise ImportFailed(
            f"the image folder {str(directory)!r} cannot be read: {error.strerror or error}",
            expected="a folder that you may read",
        ) from error
    if not found:
        raise HostileInput(
            f"the image folder {str(directory)!r} holds no pictures",
            expected=f"files that end in {', '.join(sorted(SUFFIXES))}",
            next_command="--images with the folder that holds them, or leave it out",
        )
    return tuple(found)


def spread(paths: tuple[Path, ...], limit: int = MAX_IMAGES) -> tuple[Path, ...]:
    """At most ``limit`` of the paths, evenly spread, so that a folder for each class is not one class.

    Raises:
        UsageFailed: for a limit below 1.
    """
    if limit < 1:
        raise UsageFailed(f"{limit} images were asked for", expected="1 or more")
    if len(paths) <= limit:
        return paths
    return tuple(paths[index * len(paths) // limit] for index in range(limit))


def pictures_in(directory: str | Path, limit: int = MAX_IMAGES) -> tuple[Path, ...]:
    """The pictures in a folder and its subfolders: all, or ``limit`` that are evenly spread.

    Raises:
        ImportFailed: when there is no such folder, or it may not be read.
        HostileInput: when it holds no pictures.
    """
    return spread(find_pictures(directory), limit)
