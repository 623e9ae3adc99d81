"""What describes a model: a :class:`ViTConfig` for our own ViT, a :class:`ModuleConfig` for any other module.

Whatever does not look inside the model (bundles, verification, benchmarks) asks for no more than an
:class:`Architecture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.spec import BatchRange, IOSpec, SizeRange

Kind = Literal["vit", "module"]
"""What a manifest calls the two kinds of description."""


@runtime_checkable
class Architecture(Protocol):
    """What every model says of itself, whatever it is made of."""

    kind: ClassVar[Kind]

    @property
    def depth(self) -> int:
        """Blocks that stand one behind the other: what rounding errors add up over."""

    @property
    def num_classes(self) -> int:
        """Classes that the model scores; 0 where it is not known to score any."""

    @property
    def in_channels(self) -> int:
        """Channels of its one picture; 0 where it does not take just one picture."""

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of its one picture; zeros where it does not take just one picture."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that it can give."""

    @property
    def default_outputs(self) -> tuple[str, ...]:
        """The outputs that it gives unless others are asked for."""

    def io_spec(
        self,
        outputs: tuple[str, ...] = (),
        batch: BatchRange | None = None,
        dtype: str = "float32",
        sizes: SizeRange | None = None,
    ) -> IOSpec:
        """Inputs and outputs by name.

        Args:
            outputs: the outputs asked for, in order; ``default_outputs`` when empty.
            batch: the batch sizes to be made for.
            dtype: numpy dtype name of inputs and outputs.
            sizes: the image sizes to be made for; its own alone when ``None``.

        Raises:
            UsageFailed: for an unknown output, or a batch or size that the model cannot take.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a manifest."""


def architecture_from(kind: Kind, data: Mapping[str, Any]) -> Architecture:
    """The inverse of :meth:`Architecture.to_dict`.

    Raises:
        ImportFailed: for a field that is unknown, missing or of another type.
        TypeError: for a ViT's field of another type.
    """
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.module_config import ModuleConfig

    return ModuleConfig.from_dict(data) if kind == "module" else ViTConfig.from_dict(data)
