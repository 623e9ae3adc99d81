from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vit_deploy.errors import BackendMissing, HostileInput, RunFailed
from vit_deploy.facts import Availability, Device, Verdict
from vit_deploy.parity import Limits, ParityCheck
from vit_deploy.parity.reference_cache import ReferenceCache
from vit_deploy.protocols import Artefact
from vit_deploy.runtimes.eager import RUNTIME as EAGER
from vit_deploy.weights.tensors import Weights, WeightTensor, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.model.vit import ViT
    from vit_deploy.weights.imported import Model

NAMES = ("logits", "embedding", "tokens")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_reference_weights_pass_in_the_eager_runtime(
    precision: Any, model: Model, check: ParityCheck, tmp_path: Path
) -> None:
    path = tmp_path / "weights of größe.safetensors"
    with path.open("wb") as file:
        write_safetensors(model.weights, file)
    spec = model.config.io_spec()
    artefact = Artefact(f"pytorch-{precision}", "pytorch", precision, path, spec, model.config)
    verdict = check.judge(artefact, runtime=EAGER)
    assert verdict.passed is True, verdict.reason
    assert verdict.backend == "eager"
    assert verdict.details["precision"] == precision
    assert check.judge(artefact) == verdict  # the registry finds the same runtime, with the same result


def test_what_a_verdict_tells(check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    verdict = check.judge(declare(model.config), runtime=backend(vit))
    assert (verdict.word, verdict.backend, verdict.samples) == ("passed", "function", 16)
    details = json.loads(json.dumps(verdict.details, allow_nan=False))
    assert details["limits"] == {"worst": 10.0, "p95": 4.0, "epsilon": 2.0**-23, "flips": 0, "confidence": 0.95}
    assert details["batch_sizes"] == [1, 2, 5]
    assert set(details["outputs"]) == set(NAMES)
    assert set(details["outputs"]["tokens"]["by_batch_size"]) == {"1", "2", "5"}
    assert set(details["families"]) == {sample.family for sample in check.samples}
    assert max(details["families"].values()) == verdict.worst_ratio
    assert max(entry["p95_ratio"] for entry in details["outputs"].values()) == verdict.p95_ratio
    top1 = details["top1"]  # over samples, however many runs each was part of
    assert top1["agreed"] == top1["of"] == 16 - top1["near_ties"]
    assert top1["near_ties"] < 4


def test_a_wrong_class_is_counted(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    def reversed_logits(images: torch.Tensor) -> Any:
        logits, embedding, tokens = vit(images)
        return -logits, embedding, tokens

    verdict = check.judge(declare(model.config), runtime=backend(reversed_logits))
    assert verdict.passed is False
    assert verdict.details["top1"]["agreed"] == 0


def test_a_failing_artefact_still_has_a_plain_verdict(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    vit.norm.weight.data *= 1e30
    verdict = check.judge(declare(model.config), runtime=backend(vit))
    assert verdict.passed is False
    json.dumps(verdict.details, allow_nan=False)


@pytest.mark.parametrize(
    ("refusal", "passed", "reason"),
    [
        (RunFailed("the file is of another opset"), False, "the file is of another opset"),
        (HostileInput("the file is torn"), False, "the file is torn"),
        (
            BackendMissing("no GPU", next_command="run it elsewhere"),
            None,
            "function: no GPU; run it elsewhere",
        ),
    ],
)
def test_a_backend_that_refuses(
    refusal: Exception,
    passed: bool | None,
    reason: str,
    check: ParityCheck,
    model: Model,
    backend: Any,
    declare: Any,
) -> None:
    verdict = check.judge(declare(model.config), runtime=backend(refusal=refusal))
    assert (verdict.passed, verdict.reason) == (passed, reason)
    assert verdict.worst_ratio is None


def test_a_backend_that_breaks_down_on_the_way(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    def call(images: torch.Tensor) -> Any:
        if len(images) == 5:
            raise RunFailed("out of memory")
        return vit(images)

    verdict = check.judge(declare(model.config), runtime=backend(call))
    assert verdict.passed is False
    assert verdict.reason == "at batch 5: out of memory"
    assert verdict.worst_ratio is not None


def test_a_backend_that_is_not_there(check: ParityCheck, model: Model, backend: Any, declare: Any) -> None:
    runtime = backend(availability=Availability.no("it is not installed", "pip install it"))
    verdict = check.judge(declare(model.config), runtime=runtime)
    assert verdict.passed is None
    assert verdict.reason == "function: it is not installed; pip install it"
    assert verdict.backend == ""
    assert not runtime.opened


def test_no_backend_for_a_format(check: ParityCheck, model: Model, declare: Any) -> None:
    verdict = check.judge(declare(model.config))
    assert (verdict.passed, verdict.reason) == (None, "no backend opens function; vit-deploy formats")


def test_a_backend_for_another_format(check: ParityCheck, model: Model, declare: Any) -> None:
    verdict = check.judge(declare(model.config), runtime=EAGER)
    assert verdict.passed is None
    assert verdict.reason.startswith("eager: it opens pytorch, not function")


def test_the_device_and_threads_asked_for_are_used(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    runtime, before = backend(vit), torch.get_num_threads()
    ParityCheck(model, threads=1).judge(declare(model.config), runtime=runtime, device=Device("cuda", 1))
    ((device, options),) = runtime.opened
    assert (str(device), options.threads) == ("cuda:1", 1)
    assert torch.get_num_threads() == before


def test_a_pass_in_fp32_says_nothing_of_fp16(
    check: ParityCheck, model: Model, backend: Any, declare: Any
) -> None:
    half = model.eager(dtype=torch.float16, outputs=NAMES)  # type: ignore[arg-type]
    widened = half.float()
    verdict = check.judge(declare(model.config, "fp16"), runtime=backend(widened))
    assert verdict.passed is None
    assert "computes in fp32 what is declared as fp16" in verdict.reason
    widened.head.weight.data *= 1.1
    assert check.judge(declare(model.config, "fp16"), runtime=backend(widened)).passed is False


def test_a_coarser_precision_than_declared_fails(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    verdict = check.judge(declare(model.config), runtime=backend(vit, precision="bf16"))
    assert verdict.passed is False
    assert verdict.reason == "function computes in bf16 what is declared as fp32"


def test_other_limits(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    strict = ParityCheck(model, limits=Limits(p95=1e-6, worst=1e-6, epsilon=2.0**-23), threads=1)
    verdict = strict.judge(declare(model.config), runtime=backend(vit))
    assert verdict.passed is False
    assert verdict.details["limits"]["worst"] == 1e-6


def test_eager_is_computed_once_for_all_artefacts(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    reads = []

    def counted(tensor: WeightTensor) -> WeightTensor:
        def read() -> torch.Tensor:
            reads.append(tensor.name)
            return tensor.read()

        return replace(tensor, reader=read)

    counting = replace(model, weights=Weights(map(counted, model.weights.values())))
    check = ParityCheck(counting, threads=1)
    assert reads == []
    for _ in range(2):
        assert check.judge(declare(model.config), runtime=backend(vit)).passed
        assert len(reads) == 2 * len(model.weights)  # in float64 and in float32
    half = model.eager(dtype=torch.bfloat16, outputs=NAMES)  # type: ignore[arg-type]
    artefact, runtime = (
        declare(model.config, "bf16"),
        backend(lambda x: half(x.bfloat16()), precision="bf16"),
    )
    assert check.judge(artefact, runtime=runtime).passed
    assert len(reads) == 3 * len(model.weights)


def test_a_model_of_nan_cannot_be_judged(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    def spoiled(tensor: WeightTensor) -> WeightTensor:
        return replace(tensor, reader=lambda: torch.full(tensor.shape, torch.nan))

    weights = Weights(
        spoiled(tensor) if name == "norm.bias" else tensor for name, tensor in model.weights.items()
    )
    check = ParityCheck(replace(model, weights=weights), threads=1)
    runtime = backend(vit)
    with pytest.raises(HostileInput, match=r"in float64: in logits, on 16 of 16 .* 'pink-0'") as told:
        check.judge(declare(model.config), runtime=runtime)
    assert told.value.exit_code == 6
    assert not runtime.opened  # it is known before anything is


def test_half_precision_that_overflows_is_told(model: Model, backend: Any, declare: Any) -> None:
    def enlarged(tensor: WeightTensor) -> WeightTensor:
        return replace(tensor, reader=lambda: tensor.read() * 1e6)

    weights = Weights(
        enlarged(tensor) if name == "head.weight" else tensor for name, tensor in model.weights.items()
    )
    large = replace(model, weights=weights)
    half = large.eager(dtype=torch.float16, outputs=NAMES)  # type: ignore[arg-type]
    runtime = backend(lambda images: half(images.half()), precision="fp16")
    verdict = ParityCheck(large, threads=1).judge(declare(model.config, "fp16"), runtime=runtime)
    assert verdict.passed is False
    assert "eager PyTorch in fp16 overflows too" in verdict.reason


def test_a_head_of_zeros_passes_as_long_as_the_logits_are_zero(
    model: Model, backend: Any, declare: Any
) -> None:
    def zero(tensor: WeightTensor) -> WeightTensor:
        return replace(tensor, reader=lambda: torch.zeros(tensor.shape))

    weights = Weights(
        zero(tensor) if name.startswith("head.") else tensor for name, tensor in model.weights.items()
    )
    silent = replace(model, weights=weights)
    check, vit = ParityCheck(silent, threads=1), silent.eager(outputs=NAMES)  # type: ignore[arg-type]
    assert check.judge(declare(model.config), runtime=backend(vit)).passed is True
    vit.head.bias.data[0] = 1e-4
    assert check.judge(declare(model.config), runtime=backend(vit)).passed is False


def test_progress_is_told(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    class Told:
        cancelled = False

        def __init__(self) -> None:
            self.phases: list[list[Any]] = []

        def phase(self, text: str, total: int | None = None) -> None:
            self.phases.append([text, total, 0])

        def advance(self, steps: int = 1) -> None:
            self.phases[-1][2] += steps

    told = Told()
    ParityCheck(model, threads=1).judge(declare(model.config), runtime=backend(vit), progress=told)
    assert [phase[0] for phase in told.phases] == [
        "reference in float64",
        "eager PyTorch in fp32",
        "function-fp32 on function",
    ]
    assert all(total == done for _, total, done in told.phases)


def test_a_float16_input_is_given_as_float16(
    check: ParityCheck, model: Model, backend: Any, declare: Any
) -> None:
    half = model.eager(dtype=torch.float16, outputs=NAMES)  # type: ignore[arg-type]
    seen = set()

    def call(images: torch.Tensor) -> Any:
        seen.add(images.numpy().dtype)
        return half(images)

    artefact = declare(model.config, "fp16")
    spec = replace(artefact.spec, inputs=(replace(artefact.spec.inputs[0], dtype="float16"),))
    verdict = check.judge(replace(artefact, spec=spec), runtime=backend(call, precision="fp16"))
    assert verdict.passed is True
    assert seen == {np.dtype("float16")}


def test_a_session_is_opened_as_it_is_told(model: Model, vit: ViT, backend: Any, declare: Any) -> None:
    asked = []

    def opener(runtime: Any, artefact: Artefact, device: Device, options: Any) -> Any:
        asked.append((runtime.name, artefact.name, str(device), options.threads))
        return runtime.open(artefact, device, options)

    check = ParityCheck(model, threads=1, open_session=opener)
    assert check.judge(declare(model.config), runtime=backend(vit)).passed
    assert asked == [("function", "function-fp32", "cpu", 1)]


def test_the_worst_run_can_be_done_again(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    artefact = declare(model.config)
    vit.blocks[1].mlp.fc2.bias.data[0] += 0.5
    verdict = check.judge(artefact, runtime=backend(vit))
    case = check.case(artefact, verdict)
    assert check.samples[case.indices[case.slot]].name == verdict.evidence["worst_run"]["sample"]
    (pixels,) = check.feed(artefact, case).values()
    assert pixels.shape == (case.batch_size, 3, 32, 48)
    with torch.inference_mode():
        results = vit(torch.from_numpy(pixels))
        honest = model.eager(outputs=NAMES)(torch.from_numpy(pixels))  # type: ignore[arg-type]
    outputs = {name: result.numpy() for name, result in zip(NAMES, results, strict=True)}
    ratio = check.ratio(artefact, outputs, case)
    assert ratio == pytest.approx(verdict.worst_ratio, rel=0.05)
    assert ratio > check.limit(artefact, verdict) == 10
    same = {name: result.numpy() for name, result in zip(NAMES, honest, strict=True)}
    assert check.ratio(artefact, {**same, "blocks.0.attn": np.zeros(1)}, case) < 3
    assert check.ratio(artefact, {**same, "logits": same["logits"][:, :1]}, case) == np.inf
    assert check.ratio(artefact, {"logits": same["logits"]}, case) == np.inf
    assert check.ratio(artefact, {**same, "logits": same["logits"] * np.nan}, case) == np.inf


def test_the_run_in_which_an_output_was_not_finite_is_the_worst(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    def call(images: torch.Tensor) -> Any:
        logits, embedding, tokens = vit(images)
        if len(images) == 2:
            tokens[1, 3] = torch.nan
        return logits, embedding, tokens

    artefact = declare(model.config)
    verdict = check.judge(artefact, runtime=backend(call))
    case = check.case(artefact, verdict)
    assert (case.batch_size, case.slot) == (2, 1)
    assert verdict.evidence["worst_run"]["output"] == "tokens"
    assert check.limit(artefact, verdict) == 10
    nothing = check.judge(artefact, runtime=backend(refusal=RunFailed("broken")))
    assert nothing.evidence == {}
    assert check.case(artefact, nothing).indices == (0,)


def test_the_limit_that_was_broken(check: ParityCheck, model: Model, declare: Any) -> None:
    artefact, int8 = declare(model.config), declare(model.config, "int8")
    for worst, p95, limit in ((11.0, 5.0, 10.0), (8.0, 5.0, 4.0), (11.0, 1.0, 10.0), (None, None, 10.0)):
        assert check.limit(artefact, Verdict(False, worst_ratio=worst, p95_ratio=p95)) == limit
    assert check.limit(int8, Verdict(False, worst_ratio=50.0, p95_ratio=50.0)) == 4


def test_the_evidence_is_plain_data(
    check: ParityCheck, model: Model, vit: ViT, backend: Any, declare: Any
) -> None:
    verdict = check.judge(declare(model.config), runtime=backend(vit))
    evidence = json.loads(json.dumps(verdict.evidence, allow_nan=False))
    assert [entry["name"] for entry in evidence["samples"]] == [sample.name for sample in check.samples]
    assert max(entry["worst_ratio"] for entry in evidence["samples"]) == verdict.worst_ratio
    first = evidence["samples"][0]["top1"]
    assert first["eager"][0] == first["artefact"][0]
    assert first["eager"][1] == pytest.approx(first["artefact"][1], abs=1e-5)
    for name, histogram in evidence["histograms"].items():
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert sum(histogram["counts"]) == (16 + 4 + 8 + 8) * (25 if name == "tokens" else 1)


def test_a_cache_spares_eager_the_next_time(
    model: Model, vit: ViT, backend: Any, declare: Any, tmp_path: Path
) -> None:
    cache = ReferenceCache(tmp_path)
    first, again = (ParityCheck(model, threads=1, cache=cache) for _ in range(2))
    verdict = first.judge(declare(model.config), runtime=backend(vit))
    assert verdict.passed
    assert any(tmp_path.rglob("*"))
    again._ground._references._eager = _never  # type: ignore[method-assign, assignment]
    assert again.judge(declare(model.config), runtime=backend(vit)) == verdict
    assert verdict.details["range_watch"]["maxima"]


def _never(*_: Any) -> Any:
    raise AssertionError("eager ran although the cache knows what it gives")
