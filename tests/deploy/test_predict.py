from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vit_deploy import registry
from vit_deploy.deploy.choose import REFERENCE, choose
from vit_deploy.deploy.predict import require_logits, softmax
from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.facts import Availability, Device


def bundle(**artefacts: tuple[str, bool | None]) -> SimpleNamespace:
    """A bundle of artefacts by name, each with its format and verdict."""
    records = {
        name.replace("_", "-"): SimpleNamespace(
            name=name.replace("_", "-"),
            format=format,
            precision=name.split("_")[1],
            parity=SimpleNamespace(passed=passed),
            contract="pixel_values",
        )
        for name, (format, passed) in artefacts.items()
    }
    return SimpleNamespace(records=records, path=Path("b"), manifest=SimpleNamespace(default=None))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Say which backends this machine can run."""

    def only(*names: str) -> None:
        for name in registry.backends():
            runtime = registry.runtime(name)
            state = Availability.yes("1") if name in names else Availability.no("no GPU", "buy one")
            monkeypatch.setattr(type(runtime), "available", lambda self, device=None, state=state: state)
            monkeypatch.setattr(type(runtime), "devices", lambda self: (Device("cpu"),))

    return only


def test_the_first_that_passed_and_runs_is_chosen(machine):
    machine("eager", "onnxruntime", "torchscript")
    found = choose(
        bundle(
            tensorrt_fp32=("tensorrt", True), onnx_fp32=("onnx", None), torchscript_fp32=("torchscript", True)
        )
    )
    assert (found.name, found.runtime.name, found.verified) == ("torchscript-fp32", "torchscript", True)


def test_eager_stands_in_where_nothing_proven_runs(machine):
    machine("eager", "onnxruntime")
    found = choose(bundle(tensorrt_fp32=("tensorrt", True), onnx_fp32=("onnx", None)))
    assert (found.name, found.runtime.name, found.verified) == (REFERENCE, "eager", True)
    assert choose(bundle()).name == REFERENCE


def test_an_unverified_artefact_is_run_when_it_is_asked_for(machine):
    machine("eager", "onnxruntime")
    there = bundle(onnx_fp32=("onnx", None))
    for asked in ({"backend": "ort"}, {"artefact": "onnx-fp32"}):
        found = choose(there, **asked)
        assert (found.name, found.runtime.name, found.verified) == ("onnx-fp32", "onnxruntime", False)


def test_with_a_backend_what_passed_comes_first(machine):
    machine("onnxruntime")
    there = bundle(onnx_bf16=("onnx", None), onnx_fp32=("onnx", True))
    assert choose(there, backend="onnxruntime").name == "onnx-fp32"
    assert choose(there, backend="onnxruntime", artefact="onnx-bf16").name == "onnx-bf16"


def test_eager_runs_the_reference(machine):
    machine("eager")
    there = bundle(onnx_fp32=("onnx", True))
    assert choose(there, backend="eager").name == REFERENCE
    assert choose(there, artefact=REFERENCE).runtime.name == "eager"


def test_a_backend_that_opens_nothing_here_is_a_usage_error(machine):
    machine("torchscript", "eager")
    with pytest.raises(UsageFailed, match="torchscript opens torchscript only; given: onnx-fp32"):
        choose(bundle(onnx_fp32=("onnx", True)), backend="torchscript")
    with pytest.raises(UsageFailed):
        choose(bundle(onnx_fp32=("onnx", True)), backend="eager", artefact="onnx-fp32")


def test_a_backend_that_cannot_run_here_says_why(machine):
    machine("eager")
    there = bundle(tensorrt_fp32=("tensorrt", None))
    for asked in ({"backend": "trt"}, {"artefact": "tensorrt-fp32"}):
        with pytest.raises(BackendMissing, match="no GPU") as caught:
            choose(there, **asked)
        assert caught.value.next_command == "buy one"


def test_unknown_names_give_the_nearest(machine):
    machine("eager", "onnxruntime")
    there = bundle(onnx_fp32=("onnx", True))
    with pytest.raises(UsageFailed, match="did you mean 'onnx-fp32'"):
        choose(there, artefact="onnx-fp3")
    with pytest.raises(UsageFailed, match="did you mean 'torchscript'"):
        choose(there, backend="torchscrpt")
    with pytest.raises(UsageFailed, match="device"):
        choose(there, device="gpu")


def test_an_artefact_without_logits_classifies_nothing(small_config):
    require_logits(small_config.io_spec(), "onnx-fp32")
    with pytest.raises(UsageFailed, match="its outputs are embedding, tokens"):
        require_logits(small_config.io_spec(("embedding", "tokens")), "onnx-fp32")


def test_softmax_survives_large_logits():
    found = softmax(np.array([1000.0, 1000.0, -1000.0], dtype=np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0.5, 0.5, 0.0], atol=1e-12)


def test_what_a_backend_computes_in_another_precision_is_not_chosen(machine) -> None:
    machine("onnxruntime")
    there = bundle(onnx_fp16=("onnx", True), onnx_int8=("onnx", True))
    assert choose(there).name == "onnx-int8"
    assert choose(there, backend="onnxruntime").name == "onnx-int8"
