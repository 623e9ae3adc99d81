"""Faults of the preprocessing inside an artefact: it takes 8-bit pictures, and prepares them wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.parity import edits
from benchmarks.parity.case import Case, Fault
from benchmarks.parity.mutations import defined_otherwise, with_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from benchmarks.parity.workbench import Workbench
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.spec import Contract

    Recipe = Callable[[Preprocessing], Preprocessing]


def _recipe(name: str, contract: Contract, change: Recipe, family: str = "dinov2") -> Fault:
    """An artefact made by another recipe than the checkpoint's."""

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        wrong = replace(subject.model, preprocessing=change(subject.model.known_preprocessing))
        spec = bench.spec(subject.model, contract=contract)
        return Case(subject, bench.export(wrong, "onnx", spec))

    return Fault(name, "preprocessing", family, "export", "embed", make)


def _stage(name: str, contract: Contract, change: Callable[[Any], None], family: str = "dinov2") -> Fault:
    """An artefact whose input stage computes something else."""

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model, contract=contract)
        return Case(subject, bench.written(defined_otherwise(subject.model, change), spec))

    return Fault(name, "preprocessing", family, "export", "embed", make)


def _bgr(bench: Workbench) -> Case:
    """The channels of the kernel are in the order of OpenCV's pictures."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].flip(1)

    subject = bench.subject("vit")
    wrong = replace(
        with_weights(subject.model, change), preprocessing=_reversed(subject.model.known_preprocessing)
    )
    return Case(subject, bench.export(wrong, "onnx", bench.spec(subject.model, contract="uint8")))


def _reversed(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, mean=recipe.mean[::-1], std=recipe.std[::-1])


def _swapped_mean_and_std(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, mean=recipe.std, std=recipe.mean)


def _halves(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _out_of_256(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, rescale_factor=1 / 256)


def _not_rescaled(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, rescale_factor=1.0)


def _other_rounding(recipe: Preprocessing) -> Preprocessing:
    """Half a pixel goes the other way: transformers' rounding for torchvision's."""
    return replace(recipe, crop_rounding="down")


def _bilinear(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, interpolation="bilinear")


def _squashed(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, resize="exact", resize_size=recipe.image_size)


def _truncated(vit: Any) -> None:
    """Levels are cut off between and after the two passes, not rounded."""
    resize = vit.input_stage.resize

    def forward(levels: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(levels.shape[2], device=levels.device)
        columns = torch.arange(levels.shape[3], device=levels.device)
        height, width = rows[-1:] + 1, columns[-1:] + 1
        new_height, new_width = resize.resized(height, width)
        crop_height, crop_width = resize.preprocessing.image_size
        across = resize.matrix(columns, width, new_width, crop_width, levels.dtype)
        down = resize.matrix(rows, height, new_height, crop_height, levels.dtype)
        cut = torch.clamp(torch.floor(levels @ across.transpose(0, 1)), 0, 255)
        return torch.clamp(torch.floor(down @ cut), 0, 255)

    resize.forward = forward


def _not_widened(bench: Workbench) -> Case:
    """The filter stays as narrow where the picture shrinks: no antialiasing, as OpenCV resizes."""
    from vit_deploy.model import picture_resize

    subject = bench.subject("dinov2")
    spec = bench.spec(subject.model, contract="image")

    def change(vit: Any) -> None:
        resize = vit.input_stage.resize

        def matrix(samples: Any, old: Any, new: Any, crop: int, dtype: torch.dtype) -> torch.Tensor:
            start = picture_resize.offset(new - crop, resize.preprocessing.crop_rounding)
            positions = (torch.arange(crop, device=samples.device) + start).unsqueeze(1)
            distances = (2 * samples + 1) * new - (2 * positions + 1) * old
            weights = picture_resize.FILTERS["bicubic"](distances.to(dtype) / (2 * new).to(dtype))
            return weights / weights.sum(dim=1, keepdim=True)

        resize.matrix = matrix

    return Case(subject, bench.written(defined_otherwise(subject.model, change), spec))


def _transposed_picture(bench: Workbench) -> Case:
    """Width before height, in the one transposition that an 8-bit picture goes through."""

    def change(graph: ir.Model) -> None:
        node = next(
            n for n in edits.nodes(graph, "Transpose") if list(n.attributes["perm"].value) == [0, 3, 1, 2]
        )
        edits.set_attribute(node, "perm", [0, 3, 2, 1])

    return bench.edited(bench.honest("vit", contract="uint8"), change)


def _not_centred(bench: Workbench) -> Case:
    """The 128 is subtracted as 127: every level is off by one."""

    def change(graph: ir.Model) -> None:
        for name, value in graph.graph.initializers.items():
            tensor = value.const_value
            if tensor is not None and tensor.size == 1 and float(tensor.numpy().reshape(())) == 128.0:
                edits.set_weight(graph, name, tensor.numpy() - 1)

    return bench.edited(bench.honest("vit", contract="uint8"), change)


def _made(name: str, family: str, make: Callable[[Workbench], Case]) -> Fault:
    return Fault(name, "preprocessing", family, "export", "embed", make)


FAULTS: tuple[Fault, ...] = (
    _made("RGB for BGR", "vit", _bgr),
    _recipe("mean and std swapped", "uint8", _swapped_mean_and_std),
    _recipe("mean and std of one half for ImageNet's", "uint8", _halves),
    _recipe("levels over 256, not 255", "uint8", _out_of_256),
    _recipe("levels not rescaled", "uint8", _not_rescaled),
    _made("height and width transposed", "vit", _transposed_picture),
    _made("every level off by one", "vit", _not_centred),
    _recipe("crop off by one", "image", _other_rounding),
    _recipe("bilinear for bicubic", "image", _bilinear),
    _recipe("squashed, not cropped", "image", _squashed),
    _made("resized without antialiasing", "dinov2", _not_widened),
    _stage("levels cut off, not rounded", "image", _truncated),
)
