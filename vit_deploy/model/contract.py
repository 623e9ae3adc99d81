"""What an artefact takes, as inputs: the three contracts, and what each asks of a model.

``pixel_values``
    ``pixel_values``, float ``(b, c, h, w)``: resized, cropped and normalised already.
``uint8``
    ``images``, ``(b, h, w, c)`` of the model's own size: resized and cropped already, as a picture
    library holds them. The artefact normalises.
``image``
    ``images``, ``(b, height, width, c)`` of any size, the same for all pictures of one batch. The
    artefact resizes, crops and normalises.

Channels are R, G, B; a model of one channel takes grey.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.spec import HEIGHT, WIDTH, SizeRange, TensorSpec

if TYPE_CHECKING:
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.spec import Contract, IOSpec

IMAGES = "images"
"""The name of the input that takes 8-bit pictures."""

PICTURE_SIZES = SizeRange(
    minimum=(1, 1), optimum=(480, 640), maximum=(2048, 2048), patch_size=1, step=1, num_prefix_tokens=0
)
"""The sizes of pictures that an artefact is made for unless others are asked for. Only TensorRT is
bound by them, and sets memory aside for the largest."""


def contracted(
    spec: IOSpec,
    contract: Contract,
    config: Architecture,
    preprocessing: Preprocessing | None,
    sizes: SizeRange | None = None,
) -> IOSpec:
    """``spec``, which takes ``pixel_values``, with the inputs of a contract in their place.

    Args:
        spec: as :meth:`Architecture.io_spec` gives it.
        contract: what the artefact is to take.
        config: of the model.
        preprocessing: of the model.
        sizes: of the pictures, for ``image``; :data:`PICTURE_SIZES` when ``None``.

    Raises:
        UsageFailed: when the model's preprocessing cannot be put into an artefact.
    """
    if contract == "pixel_values":
        return spec
    if not isinstance(config, ViTConfig) or preprocessing is None:
        raise UsageFailed(
            f"--input {contract} puts the preprocessing into the artefact, and this model is a module of its "
            "own, of whose preprocessing nothing is known",
            expected="--input pixel_values",
            next_command="leave --input out, or normalise in the module itself",
        )
    if contract == "image":
        if spec.sizes is not None:
            raise UsageFailed(
                "--input image resizes every picture to the model's one size, which is not free then",
                expected="--input image, or --dynamic-image-size",
                next_command="leave one of the two out, or take --input uint8",
            )
        check_resizable(preprocessing)
    return with_inputs(spec, contract, sizes)


def with_inputs(spec: IOSpec, contract: Contract, sizes: SizeRange | None = None) -> IOSpec:
    """``spec``, which takes ``pixel_values``, with the inputs of a contract; nothing is checked."""
    if contract == "pixel_values":
        return spec
    (taken,) = spec.inputs
    batch, channels, height, width = taken.shape
    if contract == "image":
        height, width = HEIGHT, WIDTH
        spec = replace(spec, sizes=sizes or PICTURE_SIZES)
    images = TensorSpec(IMAGES, "uint8", (batch, height, width, channels))
    return replace(spec, inputs=(images,), contract=contract)


RESIZABLE = ("bicubic", "bilinear", "lanczos", "hamming", "box")
"""The filters of Pillow that a graph can follow."""


def check_resizable(preprocessing: Preprocessing) -> None:
    """Refuse a preprocessing whose resize a graph cannot follow.

    Raises:
        UsageFailed: naming the filter, and why.
    """
    if preprocessing.interpolation not in RESIZABLE:
        raise UsageFailed(
            f"the model's pictures are resized with {preprocessing.interpolation!r}, which no artefact can do: "
            "Pillow adds up float64 steps for it, and which pixel it takes follows their rounding",
            expected=f"one of {', '.join(RESIZABLE)}",
            next_command="vit-deploy export --input uint8, and resize with Pillow",
        )


def resizes_in_float64(preprocessing: Preprocessing) -> bool:
    """Whether the resize follows Python's or Pillow's own float64 steps, which not every runtime has.

    Those are the size of ``cover``, which Python rounds, and the edges of ``box``.
    """
    return preprocessing.resize == "cover" or preprocessing.interpolation == "box"


def network_is_dynamic(spec: IOSpec) -> bool:
    """Whether the network itself takes several sizes; with ``image`` it is the pictures that do."""
    return spec.sizes is not None and spec.contract != "image"
