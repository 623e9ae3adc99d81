"""What fp16 needs in fp32: the names that come of the range watch, and that they are enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.graph.half_models import changed, error, evaluate, exact, lowered, pixels, tiny
from vit_deploy import registry
from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions
from vit_deploy.facts import Device
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.mixed import NEEDED, needed_in_fp32, overflow_told
from vit_deploy.parity.ranges import FP16_MAX, PLACES, RangeWatch, RangeWatcher
from vit_deploy.protocols import Artefact, Silent

if TYPE_CHECKING:
    import torch

    from vit_deploy.weights.imported import Model

QUIET = RangeWatch(dict.fromkeys(PLACES, (1.0, 1.0, 1.0)), 1)


def with_large(kind: str, value: float) -> RangeWatch:
    """Everything is 1 but one kind in block 1."""
    return replace(QUIET, maxima={**QUIET.maxima, kind: (1.0, value, 1.0)})


def test_nothing_is_needed_where_nothing_is_large() -> None:
    assert needed_in_fp32(QUIET, tiny().config) == ()
    assert needed_in_fp32(with_large("norm_square", 1e9), tiny().config) == ()  # norms are in fp32 anyway


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("residual", ("blocks.1.residual", "blocks.2.residual")),
        ("qkv", ("blocks.1.attn",)),
        ("scores", ("blocks.1.attn",)),
        ("mlp_hidden", ("blocks.1.mlp",)),
        ("mlp_activated", ("blocks.1.mlp",)),
        ("branch", ("blocks.1.attn.proj", "blocks.1.mlp.fc2", "blocks.1.residual", "blocks.2.residual")),
    ],
)
def test_the_layers_of_each_kind(kind: str, names: tuple[str, ...]) -> None:
    model = tiny()
    assert needed_in_fp32(with_large(kind, 2 * FP16_MAX), model.config) == names
    assert set(NEEDED) == {name for name, place in PLACES.items() if place.in_fp16}
    _, made = lowered(model, "fp16", keep_fp32=",".join(names))  # every name is one of the graph's
    assert made.facts["half"]["kept_fp32"] == list(names)


def test_a_branch_before_layer_scale_needs_no_stream_in_fp32() -> None:
    model = tiny(layer_scale=True)
    names = needed_in_fp32(with_large("branch", np.inf), model.config)
    assert names == ("blocks.1.attn.proj", "blocks.1.ls1", "blocks.1.ls2", "blocks.1.mlp.fc2")
    lowered(model, "fp16", keep_fp32=",".join(names))


def test_what_is_near_the_end_is_kept_but_scores_are_taken_as_seen() -> None:
    config, near = tiny().config, FP16_MAX / 2
    assert needed_in_fp32(with_large("qkv", near), config) == ("blocks.1.attn",)
    assert needed_in_fp32(with_large("qkv", near), config, safety=1) == ()
    assert needed_in_fp32(with_large("scores", near), config) == ()


def test_a_layer_inside_another_is_not_named_twice() -> None:
    maxima = {**QUIET.maxima, "branch": (1.0, 1e6, 1.0), "mlp_hidden": (1.0, 1e6, 1.0)}
    names = needed_in_fp32(replace(QUIET, maxima=maxima), tiny().config)
    assert "blocks.1.mlp" in names
    assert "blocks.1.mlp.fc2" not in names


def overflowing() -> Model:
    """A stream that grows to 100,000 in one channel, of parts that fp16 can hold each."""

    def raised(bias: torch.Tensor) -> torch.Tensor:
        bias[5] += 5e4
        return bias

    return changed(tiny(), {"blocks.1.attn.proj.bias": raised, "blocks.1.mlp.fc2.bias": raised})


def test_what_is_named_is_enough(tmp_path: Path) -> None:
    model, inputs = overflowing(), pixels()
    import torch

    module = model.eager(dtype=torch.float32)
    with torch.no_grad(), RangeWatcher(module) as watcher, watcher.rows([0, 1]):
        module(torch.from_numpy(inputs))
    names = needed_in_fp32(watcher.result(), model.config)
    assert names[-2:] == ("blocks.1.residual", "blocks.2.residual")
    # ONNX's reference evaluator rounds after each operator, and overflows where fp16 does.
    plain = evaluate(lowered(model, "fp16")[0], tmp_path, inputs)["logits"]
    assert not np.isfinite(plain).all()
    mixed = evaluate(lowered(model, "fp16", keep_fp32=",".join(names))[0], tmp_path, inputs)["logits"]
    assert np.isfinite(mixed).all()
    assert error(mixed, exact(model, inputs)) < 0.1


def test_fp16_that_must_overflow_fails_though_what_ran_in_fp32_agrees(backend: Any, declare: Any) -> None:
    model = overflowing()
    plain = declare(model.config, "fp16", outputs=("logits",))
    in_fp32 = backend(model.eager(outputs=("logits",)), precision="fp32")
    check = ParityCheck(model, threads=1)

    def judged(kept: list[str]) -> tuple[str, str]:
        verdict = check.judge(replace(plain, facts={"half": {"kept_fp32": kept}}), runtime=in_fp32)
        return verdict.word, verdict.reason

    word, reason = judged([])
    assert word == "failed"
    assert reason.startswith("the residual stream: up to 100,00")
    names = reason.partition("--keep-fp32 ")[2].partition(", or")[0]
    word, reason = judged(names.split(","))
    assert (word, "it agrees, but that says nothing of fp16" in reason) == ("unverified", True)


def test_an_overflow_that_a_backend_shows_is_told_with_what_to_keep(tmp_path: Path) -> None:
    model = overflowing()
    spec = model.config.io_spec()
    made = EXPORTER.export(model, spec, OnnxOptions(), tmp_path, Silent(), precision="fp16")
    path = tmp_path / made.files[0]
    artefact = Artefact("onnx-fp16", "onnx", "fp16", path, made.spec, model.config, made.facts)
    verdict = ParityCheck(model, threads=1).judge(
        artefact, runtime=registry.runtime("onnxruntime"), device=Device()
    )
    assert verdict.word == "failed"
    assert "add --keep-fp32 blocks.1.attn.proj,blocks.1.mlp.fc2,blocks.1.residual" in verdict.reason


def test_an_artefact_that_says_nothing_of_its_layers_is_left_alone() -> None:
    config = tiny().config
    artefact = Artefact("tensorrt-fp16", "tensorrt", "fp16", Path("x"), config.io_spec(), config, {})
    large = with_large("residual", 1e6)
    assert overflow_told(large, artefact) == ""
    told = replace(artefact, facts={"half": {"kept_fp32": []}})
    assert "--keep-fp32 blocks.1.residual,blocks.2.residual, or" in overflow_told(large, told)
    assert overflow_told(None, told) == ""
    assert overflow_told(large, replace(told, precision="bf16")) == ""
    assert overflow_told(with_large("scores", 1e6), told) == ""  # fused attention has them in fp32
    kept = {"half": {"kept_fp32": ["blocks.1", "blocks.2.residual"]}}
    assert overflow_told(large, replace(artefact, facts=kept)) == ""
