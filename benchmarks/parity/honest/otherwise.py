"""The same function computed in another way: other exporters, other sums, other settings of the runtime."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from benchmarks.parity.case import Case, Honest
from benchmarks.parity.mutations import defined_otherwise, with_weights
from benchmarks.parity.runtimes import Around, ConfiguredOnnxRuntime, TorchRuntime
from vit_deploy.protocols import Artefact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import nn

    from benchmarks.parity.workbench import Workbench
    from vit_deploy.spec import IOSpec


def _level(family: str, level: str, opset: int) -> Honest:
    def make(bench: Workbench) -> Case:
        case = bench.honest(family, opset=opset)
        return Case(case.subject, case.artefact, ConfiguredOnnxRuntime(level=level))

    word = level.removeprefix("ORT_").replace("_", " ").lower()
    return Honest(f"{family}, ONNX Runtime, opset {opset}, {word}", family, make)


def _threads(family: str, format: str, threads: int) -> Honest:
    def make(bench: Workbench) -> Case:
        case = bench.honest(family)
        if format != "onnx":
            case = Case(case.subject, bench.export(case.subject.model, format))
        runtime = {"onnx": "onnxruntime"}.get(format, format)
        return Case(case.subject, case.artefact, Around(runtime, threads=threads))

    return Honest(f"{family}, {format}, {threads} threads", family, make)


def _offline(family: str) -> Honest:
    """The file that ONNX Runtime writes once it has optimised a graph."""

    def make(bench: Workbench) -> Case:
        import onnxruntime as ort

        case = bench.honest(family, opset=17)
        path = bench.folder() / "model.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(str(case.artefact.path), options, providers=["CPUExecutionProvider"])
        return Case(case.subject, _at(case.artefact, path))

    return Honest(f"{family}, optimised and saved by ONNX Runtime", family, make)


def _at(artefact: Artefact, path: Path) -> Artefact:
    from dataclasses import replace

    return replace(artefact, path=path)


def _linear_patches(family: str) -> Honest:
    """Patches as a product over rearranged pixels: the same sums in another order."""

    def change(vit: Any) -> None:
        vit.patch_embed.form = "linear"

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        return Case(subject, bench.written(defined_otherwise(subject.model, change)))

    return Honest(f"{family}, patches as a linear layer", family, make)


def _written_out_attention(family: str) -> Honest:
    """Attention as product, softmax and product, the scale on the queries."""
    from benchmarks.parity.faults.model import _replaced

    def change(vit: Any) -> None:
        scale = (vit.config.embed_dim // vit.config.num_heads) ** -0.5
        for block in vit.blocks:
            _replaced(block.attn, lambda query, key: (query * scale) @ key.transpose(-1, -2))

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        return Case(subject, bench.written(defined_otherwise(subject.model, change)))

    return Honest(f"{family}, attention written out", family, make)


def _key_bias_lost(family: str) -> Honest:
    """Without positions inside attention, a bias of k adds the same to all scores of a query: softmax is blind
    to it, and an artefact that has lost it computes the same function."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        width = weights["blocks.5.attn.qkv.bias"].shape[0] // 3
        weights["blocks.5.attn.qkv.bias"][width : 2 * width] = 0

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        return Case(subject, bench.export(with_weights(subject.model, change)))

    return Honest(f"{family}, one bias of k dropped, which changes nothing", family, make)


def _by_torch(family: str, name: str, export: Callable[[nn.Module, IOSpec, Path], None]) -> Honest:
    """A file that PyTorch's own exporter makes of eager, with nothing of ours."""

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model)
        path = bench.folder() / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export(subject.model.eager(), spec, path)
        return Case(subject, Artefact("onnx-fp32", "onnx", "fp32", path, spec, subject.model.config))

    return Honest(f"{family}, {name}", family, make)


def _dynamo(module: nn.Module, spec: IOSpec, path: Path) -> None:
    import torch

    example = torch.zeros(spec.inputs[0].at_batch(2))
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=True,
        verbose=False,
        input_names=["pixel_values"],
        output_names=list(spec.output_names),
        dynamic_shapes=({0: torch.export.Dim("batch", max=64)},),
    )


def _legacy(module: nn.Module, spec: IOSpec, path: Path) -> None:
    import torch

    names = ["pixel_values", *spec.output_names]
    torch.onnx.export(
        module,
        (torch.zeros(spec.inputs[0].at_batch(2)),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=names[:1],
        output_names=names[1:],
        dynamic_axes={name: {0: "batch"} for name in names},
    )


def _compiled(family: str) -> Honest:
    """``torch.compile``: fused kernels in C++, made here."""

    def make(bench: Workbench) -> Case:
        import torch

        case = bench.honest(family)
        module = torch.compile(case.subject.model.eager(), dynamic=True)
        return Case(case.subject, case.artefact, TorchRuntime(module))

    return Honest(f"{family}, torch.compile", family, make, needs="g++")


def _eager(family: str, change: Callable[[Any], Any], name: str) -> Honest:
    def make(bench: Workbench) -> Case:
        case = bench.honest(family)
        module = change(case.subject.model.eager())
        return Case(case.subject, case.artefact, TorchRuntime(module))

    return Honest(f"{family}, {name}", family, make)


def _channels_last(module: Any) -> Any:
    import torch

    module = module.to(memory_format=torch.channels_last)
    return lambda pixels: module(pixels.to(memory_format=torch.channels_last))


def _one_by_one(module: Any) -> Any:
    import torch

    return lambda pixels: torch.cat([module(picture.unsqueeze(0)) for picture in pixels])


HONEST: tuple[Honest, ...] = (
    *(
        _level(family, level, 17)
        for family in ("vit", "beit")
        for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
    ),
    _level("vit", "ORT_DISABLE_ALL", 23),
    _level("dinov2", "ORT_DISABLE_ALL", 23),
    *(_threads("vit", format, threads) for format in ("onnx", "torchscript") for threads in (1, 2)),
    _offline("vit"),
    _linear_patches("vit"),
    _linear_patches("clip"),
    _written_out_attention("vit"),
    _key_bias_lost("vit"),
    _by_torch("vit", "torch.onnx.export", _dynamo),
    _by_torch("distilled", "torch.onnx.export", _dynamo),
    _by_torch("gap", "torch.onnx.export(dynamo=False)", _legacy),
    _compiled("gap"),
    _eager("vit", _channels_last, "eager, channels last"),
    _eager("vit", _one_by_one, "eager, a picture at a time"),
)
