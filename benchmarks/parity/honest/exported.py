"""Our own exporters: every family, format, opset, input contract and kind of shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.parity.case import Case, Honest
from benchmarks.parity.subjects import CONFIGS
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from benchmarks.parity.workbench import Workbench
    from vit_deploy.spec import Contract


def _plain(family: str, format: str, *outputs: str, **options: Any) -> Honest:
    def make(bench: Workbench) -> Case:
        if format == "onnx":
            return bench.honest(family, *outputs, **options)
        subject = bench.subject(family)
        return Case(subject, bench.export(subject.model, format, bench.spec(subject.model, outputs)))

    told = "".join(f", {name} {value}" for name, value in options.items())
    return Honest(f"{family}, {format}{told}{', every output' if outputs else ''}", family, make)


def _contract(family: str, contract: Contract, format: str) -> Honest:
    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model, contract=contract)
        return Case(subject, bench.export(subject.model, format, spec))

    return Honest(f"{family}, {format}, --input {contract}", family, make)


def _any_size(family: str, format: str) -> Honest:
    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model, any_size=True)
        return Case(subject, bench.export(subject.model, format, spec))

    return Honest(f"{family}, {format}, any image size", family, make)


def _fixed_batch(family: str, size: int) -> Honest:
    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        spec = bench.spec(subject.model, batch=BatchRange(size, size, size))
        return Case(subject, bench.export(subject.model, "onnx", spec))

    return Honest(f"{family}, onnx, a fixed batch of {size}", family, make)


_OPSETS = (17, 18, 19, 20, 21, 22)

HONEST: tuple[Honest, ...] = (
    *(_plain(family, format) for family in CONFIGS for format in ("onnx", "torchscript")),
    *(_plain("vit", "onnx", opset=opset) for opset in _OPSETS),
    _plain("beit", "onnx", opset=17),
    _plain("eva02", "onnx", opset=17),
    _plain("gap", "onnx", external_data=True),
    _plain("vit", "onnx", "logits", "embedding", "tokens"),
    _plain("clip", "onnx", "embedding", "tokens", "image_embeds"),
    _plain("massive", "onnx"),
    _plain("resampled", "onnx"),
    _plain("digits", "onnx"),
    *(_contract(family, "uint8", "onnx") for family in ("vit", "clip")),
    *(_contract(family, "image", "onnx") for family in ("dinov2", "beit")),
    _contract("gap", "image", "torchscript"),
    _any_size("dinov2", "onnx"),
    _any_size("dinov3", "torchscript"),
    _fixed_batch("vit", 3),
)
