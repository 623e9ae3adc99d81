"""Faults of a runtime: the file is right, and what comes out of it is not.

Most stand around a real session of ONNX Runtime; one is an option that ONNX Runtime really has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.parity.case import Case, Fault
from benchmarks.parity.runtimes import Around, ConfiguredOnnxRuntime, TorchRuntime
from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.parity.runtimes import Alter, Outputs
    from benchmarks.parity.workbench import Workbench


def _fault(name: str, family: str, alter: Callable[[], Alter], *outputs: str) -> Fault:
    """A fault around ONNX Runtime; ``alter`` makes a new one for each session."""

    def make(bench: Workbench) -> Case:
        case = bench.honest(family, *outputs)
        return Case(case.subject, case.artefact, Around("onnxruntime", alter))

    return Fault(name, "runtime", family, "runtime", "", make)


def _nan_token() -> Alter:
    def alter(outputs: Outputs, _: int) -> Outputs:
        if len(outputs["tokens"]) == 2:
            outputs["tokens"][1, 9] = np.nan
        return outputs

    return alter


def _copied_neighbour() -> Alter:
    def alter(outputs: Outputs, _: int) -> Outputs:
        for array in outputs.values():
            if len(array) > 1:
                array[1] = array[0]
        return outputs

    return alter


def _swapped_slots() -> Alter:
    def alter(outputs: Outputs, _: int) -> Outputs:
        return {name: array[::-1].copy() for name, array in outputs.items()}

    return alter


def _last_slot() -> Alter:
    """A kernel's remainder loop: only the last image of the largest batch is off, by a thousandth."""

    def alter(outputs: Outputs, _: int) -> Outputs:
        for array in outputs.values():
            if len(array) == 5:
                array[-1] *= 1.001
        return outputs

    return alter


def _stale_buffer() -> Alter:
    """At batch 1, what the run before gave: a buffer that is read before it is written."""
    kept: dict[int, Outputs] = {}

    def alter(outputs: Outputs, _: int) -> Outputs:
        size = len(next(iter(outputs.values())))
        given = kept.get(size, outputs) if size == 1 else outputs
        kept[size] = outputs
        return given

    return alter


def _race() -> Alter:
    """Every seventh run, one number of the output is another."""

    def alter(outputs: Outputs, count: int) -> Outputs:
        if count % 7 == 6:
            for array in outputs.values():
                array.reshape(-1)[3] *= 1.01
        return outputs

    return alter


def _noise() -> Alter:
    """Sums in a random order, of numbers with too few bits: never the same twice."""
    generator = np.random.default_rng(5)

    def alter(outputs: Outputs, _: int) -> Outputs:
        return {
            name: (array * (1 + 1e-4 * generator.standard_normal(array.shape))).astype(array.dtype)
            for name, array in outputs.items()
        }

    return alter


def _half_outputs() -> Alter:
    def alter(outputs: Outputs, _: int) -> Outputs:
        return {name: array.astype(np.float16).astype(np.float32) for name, array in outputs.items()}

    return alter


def _crash_at_the_largest() -> Alter:
    def alter(outputs: Outputs, _: int) -> Outputs:
        if len(next(iter(outputs.values()))) == 5:
            raise RunFailed("out of memory at batch 5")
        return outputs

    return alter


def _fast_gelu(bench: Workbench) -> Case:
    """ONNX Runtime's own option to compute GELU in its tanh form."""
    case = bench.honest("vit", opset=17)
    runtime = ConfiguredOnnxRuntime(entries={"optimization.enable_gelu_approximation": "1"})
    return Case(case.subject, case.artefact, runtime)


def _computed_in_bf16(bench: Workbench) -> Case:
    """A backend that computes in bfloat16 what is declared as float32, and says float32 of itself."""
    import torch

    subject = bench.subject("vit")
    case = bench.honest("vit")
    module = subject.model.eager(dtype=torch.bfloat16)
    return Case(subject, case.artefact, TorchRuntime(lambda pixels: module(pixels.bfloat16()).float()))


def _tf32(bench: Workbench) -> Case:
    """Factors of every product rounded to TF32's 10 bits of fraction, as Ampere's tensor cores do unasked."""
    import torch
    from torch import nn

    def rounded(tensor: Any) -> Any:
        bits = tensor.contiguous().view(torch.int32)
        return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)

    subject = bench.subject("vit")
    module = subject.model.eager()
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = rounded(layer.weight.data)
            layer.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))
    return Case(subject, bench.honest("vit").artefact, TorchRuntime(module))


def _made(name: str, stage: Any, make: Callable[[Workbench], Case]) -> Fault:
    return Fault(name, "runtime", "vit", stage, "", make)


FAULTS: tuple[Fault, ...] = (
    _fault("one NaN token", "dinov2", _nan_token, "tokens"),
    _fault("one sample of a batch copied from its neighbour", "vit", _copied_neighbour),
    _fault("slots of a batch in reverse", "vit", _swapped_slots),
    _fault("last slot of the largest batch off by a thousandth", "vit", _last_slot),
    _fault("what the run before gave", "vit", _stale_buffer),
    _fault("one number wrong every seventh run", "vit", _race),
    _fault("noise of 1e-4 in each run", "vit", _noise),
    _fault("outputs rounded to fp16", "vit", _half_outputs),
    _fault("failure at the largest batch", "vit", _crash_at_the_largest),
    _made("ONNX Runtime's approximate GELU", "runtime", _fast_gelu),
    _made("computed in bf16 where fp32 was declared", "precision", _computed_in_bf16),
    _made("products in TF32", "precision", _tf32),
)
