"""Half precision where it is really computed on a CPU, int8, and OpenVINO where that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.parity.case import Case, Honest
from benchmarks.parity.half import half_torchscript
from benchmarks.parity.quantise import int8_digits
from vit_deploy import registry
from vit_deploy.protocols import Artefact
from vit_deploy.spec import artefact_name
from vit_deploy.weights.tensors import write_safetensors

if TYPE_CHECKING:
    from benchmarks.parity.workbench import Workbench
    from vit_deploy.spec import Precision


def _half(family: str, precision: Precision) -> Honest:
    def make(bench: Workbench) -> Case:
        return half_torchscript(bench, bench.subject(family), precision)

    return Honest(f"{family}, torchscript in {precision}", family, make)


def _eager(family: str, precision: Precision) -> Honest:
    """The reference weights, as a bundle has them, run by eager PyTorch."""

    def make(bench: Workbench) -> Case:
        subject = bench.subject(family)
        path = bench.folder() / "weights.safetensors"
        with path.open("wb") as file:
            write_safetensors(subject.model.weights, file)
        name = artefact_name("pytorch", precision)
        spec = bench.spec(subject.model)
        return Case(subject, Artefact(name, "pytorch", precision, path, spec, subject.model.config))

    return Honest(f"{family}, eager in {precision}", family, make)


def _openvino(family: str, precision: Precision) -> Honest:
    def make(bench: Workbench) -> Case:
        from dataclasses import replace

        case = bench.honest(family)
        name = artefact_name("onnx", precision)
        artefact = replace(case.artefact, name=name, precision=precision)
        return Case(case.subject, artefact, registry.runtime("openvino"))

    return Honest(f"{family}, OpenVINO in {precision}", family, make, needs="openvino")


HONEST: tuple[Honest, ...] = (
    *(_half(family, precision) for family in ("vit", "dinov2", "eva02") for precision in ("fp16", "bf16")),
    _half("massive", "fp16"),
    *(_eager(family, precision) for family in ("vit", "clip") for precision in ("fp32", "fp16", "bf16")),
    *(_openvino(family, "fp32") for family in ("vit", "dinov2", "eva02")),
    Honest("digits, int8 by ONNX Runtime", "digits", int8_digits),
)
