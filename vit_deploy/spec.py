"""What goes into an artefact and comes out of it, as plain frozen data: tensors, ranges of sizes.

Nothing here imports anything heavy, and nothing here acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vit_deploy.errors import UsageFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""The dtype of the bulk of an artefact's arithmetic, as it is declared."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")

EAGER_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""Those that eager PyTorch computes in, too; see :func:`vit_deploy.model.precision.eager_dtype`."""

AUTO = "auto"
"""In place of a precision: the fastest that holds; see :mod:`vit_deploy.deploy.ladder`."""

Dim = int | str
"""A dimension: a size, or the name of a size that is free (``"batch"``)."""

BATCH: str = "batch"
"""The name of the one free dimension that every dynamic artefact has."""

HEIGHT: str = "height"
WIDTH: str = "width"
TOKENS: str = "tokens"
"""The names of the dimensions that are free where the image size is."""

Contract = Literal["pixel_values", "uint8", "image"]
"""What an artefact takes: normalised float pixels ``(b, c, h, w)``; RGB ``uint8`` pixels ``(b, h, w, c)``
of the model's size; or RGB ``uint8`` pictures of any size, which it resizes and crops itself."""

CONTRACTS: tuple[Contract, ...] = ("pixel_values", "uint8", "image")


def artefact_name(format: str, precision: Precision, contract: Contract = "pixel_values") -> str:
    """``<format>-<precision>``, and ``-<contract>`` where it takes anything but ``pixel_values``.

    So that artefacts of one format and precision lie side by side in a bundle, one for each contract.
    """
    return "-".join((format, precision) if contract == "pixel_values" else (format, precision, contract))


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output: its numpy dtype name and its shape."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def at(self, free: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape where each free dimension has the size that ``free`` says.

        Args:
            free: sizes by name, as :meth:`IOSpec.free_at` gives them.
        """
        return tuple(free[dim] if isinstance(dim, str) else dim for dim in self.shape)

    def at_batch(self, batch_size: int) -> tuple[int, ...]:
        """The concrete shape at ``batch_size``, where nothing but the batch is free."""
        return self.at({BATCH: batch_size})


MAX_BATCH = 2**16
"""No artefact is made for a larger batch."""


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes an artefact is made for, as in trtexec's min, opt and max shapes.

    ``minimum == maximum`` fixes the batch; otherwise it is free. Only TensorRT is bound
    by the range: the other formats take any batch, and are verified inside it.
    """

    minimum: int = 1
    optimum: int = 1
    maximum: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum <= MAX_BATCH:
            raise UsageFailed(
                f"the batch range is min {self.minimum}, opt {self.optimum}, max {self.maximum}",
                expected=f"1 <= min <= opt <= max <= {MAX_BATCH}",
                next_command="give --minShapes, --optShapes and --maxShapes in that order of size",
            )

    @property
    def is_fixed(self) -> bool:
        """Whether just one batch size is allowed."""
        return self.minimum == self.maximum

    @property
    def dim(self) -> Dim:
        """The batch dimension as it stands in a shape."""
        return self.minimum if self.is_fixed else BATCH


@dataclass(frozen=True)
class SizeRange:
    """The image sizes an artefact is made for, each ``(height, width)``; both sides are free.

    Only TensorRT is bound by the range: the other formats take any size that ``step`` divides, and
    are verified inside it.

    Attributes:
        minimum: the least height and the least width.
        optimum: the size to be fastest at.
        maximum: the largest height and the largest width.
        patch_size: side of the square patches in pixels.
        step: what height and width are multiples of: the patch, or 1 where the pixels beyond the last
            whole patch are left out.
        num_prefix_tokens: tokens that stand before those of the patches.
    """

    minimum: tuple[int, int]
    optimum: tuple[int, int]
    maximum: tuple[int, int]
    patch_size: int
    step: int
    num_prefix_tokens: int

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.step not in (1, self.patch_size) or self.num_prefix_tokens < 0:
            raise UsageFailed(
                f"sizes in steps of {self.step} are asked of patches of {self.patch_size}",
                expected=f"steps of 1 or of {self.patch_size}",
            )
        sizes = (self.minimum, self.optimum, self.maximum)
        ordered = all(low <= best <= high for low, best, high in zip(*sizes, strict=True))
        if not ordered or not all(self.fits(size) for size in sizes):
            raise UsageFailed(
                f"the range of image sizes is {', '.join(map(size_text, sizes))} (min, opt, max)",
                expected=f"heights and widths that rise in that order, of {self.patch_size} pixels at least"
                + (f" and multiples of {self.step}" if self.step > 1 else ""),
                next_command="give --minShapes, --optShapes and --maxShapes in that order of size",
            )

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether patches can be cut of a picture of ``(height, width)``."""
        return min(size) >= self.patch_size and not any(side % self.step for side in size)

    def holds(self, size: tuple[int, int]) -> bool:
        """Whether a size lies inside the range, both its sides."""
        bounds = zip(self.minimum, size, self.maximum, strict=True)
        return self.fits(size) and all(low <= side <= high for low, side, high in bounds)

    def tokens(self, size: tuple[int, int]) -> int:
        """How many tokens a picture of ``(height, width)`` gives."""
        return self.num_prefix_tokens + (size[0] // self.patch_size) * (size[1] // self.patch_size)


def size_text(size: tuple[int, int]) -> str:
    """An image size as it is written everywhere: ``224x448``, height first."""
    return f"{size[0]}x{size[1]}"


@dataclass(frozen=True)
class IOSpec:
    """What goes in and what comes out, by name and in order.

    Attributes:
        inputs: one for a ViT.
        outputs: those asked for.
        batch: the batch sizes.
        sizes: the image sizes; ``None`` where there is but one.
        contract: what the input means.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: BatchRange = field(default_factory=BatchRange)
    sizes: SizeRange | None = None
    contract: Contract = "pixel_values"

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(output.name for output in self.outputs)

    def free_at(self, batch_size: int, image_size: tuple[int, int] | None = None) -> dict[str, int]:
        """The size of each free dimension, for :meth:`TensorSpec.at`.

        Args:
            batch_size: images in one inference.
            image_size: ``(height, width)``; needed only where the image size is free.
        """
        free = {BATCH: batch_size}
        if image_size is not None:
            free |= {HEIGHT: image_size[0], WIDTH: image_size[1]}
            if self.sizes is not None:
                free[TOKENS] = self.sizes.tokens(image_size)
        return free

    def free_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """The size of each free dimension, read off the shapes of the inputs by name."""
        found = {
            dim: size
            for entry in self.inputs
            for dim, size in zip(entry.shape, shapes[entry.name], strict=True)
            if isinstance(dim, str)
        }
        size = (found[HEIGHT], found[WIDTH]) if HEIGHT in found else None
        fixed = self.batch.minimum  # a fixed batch has no name to be read under
        return self.free_at(found.get(BATCH, fixed), size)
