"""Reads a picture from a file into 8-bit RGB or grey, whatever it holds, and refuses what is hostile.

What is done, so that nobody has to guess:

* EXIF orientation is applied.
* 16-bit grey is scaled to 8 bit (``65535`` becomes ``255``), never clipped.
* Transparent pixels are laid on white, as a page shows them; the colour that a file keeps under
  full transparency is arbitrary.
* CMYK, palettes, 1-bit and YCbCr are converted by Pillow; embedded colour profiles are not applied
  (torchvision, timm and transformers do not apply them either).
* Of an animation or a multi-page file, the first frame is taken.

Floating-point and 32-bit pictures have no agreed white and are refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput, ImportFailed

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485
"""The largest picture that is decoded: the size from which Pillow warns of a decompression bomb."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is read. Pillow knows more, but some of those start other programs (EPS) or are not pictures."""


def load_image(path: str | Path, channels: int = 3) -> Image:
    """The picture in a file, in Pillow's mode ``RGB`` or ``L``, upright.

    Args:
        path: the file.
        channels: 3 for RGB, 1 for grey.

    Raises:
        ImportFailed: when there is no such file, it cannot be read, or ``channels`` is neither 1 nor 3.
        HostileInput: when the file is empty, truncated, no picture, or unreasonably large.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    _require_file(path)
    try:
        # The filter is put back on leaving. Pillow's own limit is a module variable, left alone.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_known_formats()) as image:
                _require_size(image.size, path)
                return _upright(image, path, channels)
    except (HostileInput, ImportFailed):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(path, str(error)) from error
    except PermissionError as error:
        raise ImportFailed(
            f"the image {str(path)!r} may not be read: {error.strerror}", expected="a file that you may read"
        ) from error
    except UnidentifiedImageError as error:
        raise HostileInput(
            f"{str(path)!r} is no image, or of an unknown kind", expected=f"one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing stumbles on
        raise HostileInput(
            f"the image {str(path)!r} cannot be decoded: {error or type(error).__name__}",
            expected="a whole file",
            next_command="copy or download the image again",
        ) from error


def to_channels(image: Image, channels: int) -> Image:
    """Any Pillow picture as 8-bit ``RGB`` (3 channels) or ``L`` (1 channel).

    Raises:
        ImportFailed: for other numbers of channels, and for pictures without an agreed white.
    """
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise ImportFailed(
            f"the model takes {channels} channels", expected="a model of 1 or 3 channels, to be shown pictures"
        )
    if image.mode.startswith("I") or image.mode == "F":
        image = _sixteen_to_eight(image)
    if image.has_transparency_data:
        image = _on_white(image)
    return image if image.mode == mode else image.convert(mode)


def _require_file(path: Path) -> None:
    try:
        _require_content(path)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ImportFailed(
            f"the image {str(path)!r} cannot be reached: {error.strerror}", expected="a file that you may read"
        ) from error


def _require_content(path: Path) -> None:
    if not path.exists():
        raise ImportFailed(
            f"there is no image at {str(path)!r}", expected="a file", next_command=f"ls {str(path.parent)!r}"
        )
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ImportFailed(f"{str(path)!r} is {kind}", expected="an image file")
    if path.stat().st_size == 0:
        raise HostileInput(f"the image {str(path)!r} is empty", expected=f"one of {', '.join(FORMATS)}")


def _known_formats() -> list[str]:
    from PIL import Image, features

    # Asking Pillow for a format it was built without is a KeyError.
    optional = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
    Image.init()
    return [
        name
        for name in FORMATS
        if name in Image.OPEN and (name not in optional or features.check(optional[name]))
    ]


def _require_size(size: tuple[int, int], path: Path) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path, f"it says that it is {size[0]} by {size[1]} pixels")


def _too_large(path: Path, reason: str) -> HostileInput:
    return HostileInput(
        f"the image {str(path)!r} is too large to decode: {reason}",
        expected=f"at most {MAX_PIXELS:,} pixels",
        next_command="scale the image down first",
    )


def _upright(image: Image, path: Path, channels: int) -> Image:
    from PIL import ImageOps

    if image.mode == "I" and image.format not in {"PNG", "PPM"}:
        # Only these two promise that Pillow's 32-bit mode holds 16-bit numbers.
        raise ImportFailed(f"the image {str(path)!r} has 32 bits a pixel", expected="8 or 16 bits a channel")
    if image.mode.startswith("I;16") and image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (16,))
        if bits != (16,):
            raise ImportFailed(
                f"the image {str(path)!r} has {bits} bits a pixel", expected="8 or 16 bits a channel"
            )
    upright = ImageOps.exif_transpose(image)
    try:
        return to_channels(upright, channels)
    except ImportFailed as error:
        raise ImportFailed(
            f"the image {str(path)!r} cannot be used: {error.found}",
            expected=error.expected,
            next_command=error.next_command,
        ) from error


def _sixteen_to_eight(image: Image) -> Image:
    import numpy as np
    from PIL import Image as PillowImage

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImportFailed(
            f"the image is of Pillow's mode {image.mode!r}, whose white nobody has agreed on",
            expected="8 or 16 bits a channel",
            next_command="save it as an 8-bit PNG first",
        )
    # 257 = 65535 / 255, rounded to the nearest: an 8-bit picture stored in 16 bits comes back exactly.
    eight = (values.astype(np.uint32) + 128) // 257
    return PillowImage.fromarray(eight.astype(np.uint8))


def _on_white(image: Image) -> Image:
    from PIL import Image as PillowImage

    colours = image.convert("RGBA")
    white = PillowImage.new("RGBA", colours.size, "white")
    return PillowImage.alpha_composite(white, colours).convert("RGB")
