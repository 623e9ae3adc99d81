"""How a picture becomes the model's input, as plain data: resize, centre crop, rescale, normalise.

The arithmetic is that of torchvision's transforms on PIL images (which timm uses) and of the PIL
backend of transformers' image processors. transformers' *torchvision* backend, its default, resizes
tensors instead of PIL images and so differs by up to a grey level or so before normalisation; the
models were trained with PIL, and so are these numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.errors import HostileInput, ImportFailed
from vit_deploy.model.fields import Fields
from vit_deploy.model.images import MAX_PIXELS, to_channels
from vit_deploy.model.preprocess_checks import MAX_SIDE, check_preprocessing, unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.kinds import Architecture

Resize = Literal["exact", "shortest_edge", "cover"]
CropRounding = Literal["even", "down"]


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, rescale and normalise, as plain data.

    Attributes:
        image_size: ``(height, width)`` of what comes out.
        resize: ``exact`` to ``resize_size``, aspect ratio ignored; ``shortest_edge`` to the one
            number of ``resize_size``; ``cover`` scales until both sides are at least ``resize_size``.
        resize_size: ``(height, width)``; never smaller than ``image_size``, so nothing is padded.
        interpolation: Pillow's name of the filter, in lower case.
        crop_rounding: how half a pixel is rounded when the crop is centred: to ``even`` as
            torchvision does, ``down`` as transformers does.
        rescale_factor: what a pixel of 0 to 255 is multiplied by.
        mean: one number per channel, subtracted after rescaling.
        std: one number per channel, divided by after that.
        origin: ``checkpoint``, or ``default`` where the checkpoint said nothing.
        crop_pct: the share of a side that the crop takes, where that is what the source tells (timm),
            and the size before the crop follows from it at any image size.
    """

    image_size: tuple[int, int]
    resize: Resize
    resize_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale_factor: float = 1 / 255
    crop_rounding: CropRounding = "even"
    origin: Literal["checkpoint", "default"] = "checkpoint"
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        # JSON gives lists; the fields are tuples wherever they come from.
        for name in ("image_size", "resize_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_preprocessing(self)

    @property
    def channels(self) -> int:
        """Channels of what comes out."""
        return len(self.mean)

    def __call__(self, image: Image) -> NDArray[np.float32]:
        """A picture of any size and mode as float32 ``(c, h, w)``, contiguous.

        Raises:
            ImportFailed: for a picture without an agreed white, or a model of neither 1 nor 3 channels.
            HostileInput: for a picture so narrow that its resized form would be unreasonably long.
        """
        import numpy as np

        return self.normalise(np.asarray(self.cut(image)))

    def cut(self, image: Image, *, rows_first: bool = False) -> Image:
        """The picture resized and cropped to ``image_size``, in mode ``RGB`` or ``L``.

        Args:
            image: of any size and mode.
            rows_first: resize along the rows and then along the columns, as every Pillow before 13 did and
                artefacts do. Pillow 13 begins with the columns where a picture shrinks much more in height,
                which changes levels by the rounding between the two passes.
        """
        from PIL.Image import Resampling

        image = to_channels(image, self.channels)
        height, width = self.resized(image.height, image.width)
        if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
            raise HostileInput(
                f"an image of {image.height}x{image.width} pixels would be resized to {height}x{width}",
                expected=f"sides of at most {MAX_SIDE}, and at most {MAX_PIXELS:,} pixels after resizing",
                next_command="crop the image first",
            )
        resample = Resampling[self.interpolation.upper()]
        if rows_first:
            image = image.resize((width, image.height), resample)
        resized = image.resize((width, height), resample)
        top, left = (
            self.offset(outer - inner) for outer, inner in zip((height, width), self.image_size, strict=True)
        )
        return resized.crop((left, top, left + self.image_size[1], top + self.image_size[0]))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Rescale and normalise ``(h, w, c)`` (or ``(h, w)`` of grey) into float32 ``(c, h, w)``.

        Raises:
            ImportFailed: when the pixels are not uint8, or of another number of channels.
        """
        import numpy as np

        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != self.channels:
            raise ImportFailed(
                f"the pixels are {pixels.dtype.name} of shape {pixels.shape}",
                expected=f"uint8 of shape (h, w, {self.channels})",
            )
        # A pixel has 256 values, so each channel is a table: float64 rescaling, then float32.
        scaled = (np.arange(256, dtype=np.float64) * self.rescale_factor).astype(np.float32)
        tables = (scaled - np.float32(mean) for mean in self.mean)
        planes = [
            (table / np.float32(std))[pixels[:, :, channel]]
            for channel, (table, std) in enumerate(zip(tables, self.std, strict=True))
        ]
        stacked: NDArray[np.float32] = np.stack(planes)
        return stacked

    def framed(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture that resizing leaves as it is, and of which the crop takes just ``pixels``.

        Args:
            pixels: ``(h, w, c)`` of ``image_size``.

        Returns:
            ``(H, W, c)`` of ``resize_size``. Around ``pixels`` they go on from their opposite edge, so that
            a crop elsewhere takes another picture.
        """
        import numpy as np

        spare = [outer - inner for outer, inner in zip(self.resize_size, self.image_size, strict=True)]
        before = [self.offset(pixels_left) for pixels_left in spare]
        margins = [(start, left - start) for start, left in zip(before, spare, strict=True)]
        return np.pad(pixels, (*margins, (0, 0)), mode="wrap")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size of a picture of ``height`` and ``width`` after resizing, before the crop."""
        if self.resize == "exact":
            return self.resize_size
        if self.resize == "cover":
            # As timm.data.transforms.ResizeKeepRatio.
            ratio = min(height / self.resize_size[0], width / self.resize_size[1])
            return round(height / ratio), round(width / ratio)
        # As torchvision's Resize with one number: the longer side is cut off, not rounded.
        edge = self.resize_size[0]
        if height <= width:
            return edge, int(edge * width / height)
        return int(edge * height / width), edge

    def offset(self, spare: int) -> int:
        """Where the crop starts, of ``spare`` rows or columns that it leaves."""
        return round(spare / 2) if self.crop_rounding == "even" else spare // 2

    def at_size(self, image_size: tuple[int, int]) -> Preprocessing:
        """The same for a model of another ``(height, width)``: as much is cropped as before.

        timm's share of a side stays what it is; otherwise the size before the crop keeps its ratio to the
        crop. A crop that is not square cannot be cut of a shortest edge: both sides are covered then,
        which is the same for a square.
        """
        if image_size == self.image_size:
            return self
        if self.crop_pct is not None:
            mode = "squash" if self.resize == "exact" else "center"
            return replace(self, image_size=image_size, **resize_of_crop_pct(mode, image_size, self.crop_pct))
        native = (max(self.image_size),) * 2 if self.resize == "shortest_edge" else self.image_size
        sides = [
            max(new, round(new * outer / inner))
            for new, outer, inner in zip(image_size, self.resize_size, native, strict=True)
        ]
        square = image_size[0] == image_size[1]
        resize: Resize = "cover" if self.resize == "shortest_edge" and not square else self.resize
        return replace(self, image_size=image_size, resize=resize, resize_size=(sides[0], sides[1]))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a manifest."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_dict`.

        Raises:
            ImportFailed: for a field that is missing, unknown, or of another type.
        """
        entries = Fields(data, "the preprocessing")
        known = [entry.name for entry in fields(cls)]
        extra = sorted(set(data) - set(known))
        if extra:
            raise ImportFailed(
                f"the preprocessing has fields that this version does not know: {', '.join(extra)}",
                expected=f"only {', '.join(known)}",
                next_command="pip install --upgrade vit-deploy",
            )
        return cls(
            image_size=entries.pair("image_size"),
            resize=entries.text("resize"),  # type: ignore[arg-type]
            resize_size=entries.pair("resize_size"),
            interpolation=entries.text("interpolation"),
            mean=entries.numbers("mean"),
            std=entries.numbers("std"),
            rescale_factor=entries.number("rescale_factor"),
            crop_rounding=entries.text("crop_rounding"),  # type: ignore[arg-type]
            origin=entries.text("origin"),  # type: ignore[arg-type]
            crop_pct=entries.number("crop_pct") if data.get("crop_pct") is not None else None,
        )

    @classmethod
    def default(cls, config: Architecture) -> Preprocessing:
        """timm's for its ViTs: bicubic, 90 % centre crop, pixels into −1 to 1."""
        halves = (0.5,) * config.in_channels
        return cls(
            **resize_of_crop_pct("center", config.image_size, 0.9),
            image_size=config.image_size,
            interpolation="bicubic",
            mean=halves,
            std=halves,
            origin="default",
        )

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any], config: Architecture) -> Preprocessing:
        """What timm's ``create_transform(**resolve_data_config(...))`` does at evaluation.

        Raises:
            ImportFailed: for a setting that has no like here, such as ``crop_mode: border``.
        """
        from vit_deploy.model.timm_transform import preprocessing_from_timm

        return preprocessing_from_timm(pretrained_cfg, config)

    @classmethod
    def from_transformers(cls, preprocessor_config: Mapping[str, Any], config: ViTConfig) -> Preprocessing:
        """What transformers' image processor of a ``preprocessor_config.json`` does (PIL backend).

        Raises:
            ImportFailed: for a setting that has no like here, such as ``do_pad``, and for a
                picture size other than the model's.
        """
        from vit_deploy.model.hf_processor import preprocessing_from_transformers

        return preprocessing_from_transformers(preprocessor_config, config)


def resize_of_crop_pct(mode: str, image_size: tuple[int, int], crop_pct: float) -> dict[str, Any]:
    """The fields of a recipe whose crop takes a share of a side, as timm has it.

    Args:
        mode: timm's ``crop_mode``: ``squash`` ignores the aspect ratio, ``center`` keeps it.
        image_size: ``(height, width)`` after the crop.
        crop_pct: the share, more than 0 and at most 1.

    Raises:
        ImportFailed: for a share so small that no picture could be resized to it.
    """
    # Of a crop_pct next to 0 the quotient is infinite, which has no whole part.
    if max(image_size) / crop_pct > MAX_SIDE:
        raise unsupported("crop_pct", crop_pct, f"sides of at most {MAX_SIDE} pixels before the crop")
    height, width = (math.floor(side / crop_pct) for side in image_size)
    how = "exact" if mode == "squash" else "shortest_edge" if height == width else "cover"
    return {"resize": how, "resize_size": (height, width), "crop_pct": crop_pct}
