"""Taps are the same places in every model, every format and everybody's graphs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

from tests.blame.conftest import write_onnx, write_torchscript
from tests.model.parts import PARTS
from vit_deploy.blame.formats import found_taps, tapped
from vit_deploy.blame.taps import depth_at, in_words, stream_taps, tap_names
from vit_deploy.blame.watching import watched
from vit_deploy.errors import HostileInput, RunFailed
from vit_deploy.graph.light import read_light
from vit_deploy.graph.taps import Step, find_stream, steps_of
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.module_config import ModuleConfig
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model

SMALL = ViTConfig(
    image_size=(32, 48), patch_size=8, embed_dim=60, depth=2, num_heads=5, mlp_dim=50, num_classes=7
)


def test_the_names_stand_in_the_order_of_computation() -> None:
    config = replace(SMALL, projection_dim=5)
    assert tap_names(config) == (
        "embed",
        "blocks.0.attn",
        "blocks.0.mlp",
        "blocks.1.attn",
        "blocks.1.mlp",
        "tokens",
        "embedding",
        "logits",
        "image_embeds",
    )
    assert [depth_at(tap, 2) for tap in tap_names(config)] == [1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_every_tap_has_its_words() -> None:
    assert in_words("blocks.7.attn") == "block 7's attention"
    assert in_words("blocks.10.mlp") == "block 10's MLP"
    assert in_words("embed") == "the embedding (patches and positions)"
    assert in_words("tokens") == "the final norm"
    assert in_words("logits") == "the head"
    assert in_words("scores") == "the output 'scores'"


@pytest.mark.parametrize("name", PARTS)
def test_hooks_read_the_stream_of_every_kind_of_vit(name: str) -> None:
    model = random_model(replace(SMALL, **PARTS[name]), name, seed=2)
    module: Any = model.eager()
    pixels = torch.randn(2, model.config.in_channels, *model.config.image_size)
    seen: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        with watched(module, lambda tap, stream: seen.update({tap: stream})):
            module(pixels)
        assert tuple(seen) == stream_taps(2)
        assert torch.equal(seen["embed"], module.embed(pixels))
        assert torch.equal(module.norm(seen["blocks.1.mlp"]), module.encode(pixels))
        block = module.blocks[1]
        added = block.ls2(block.mlp(block.norm2(seen["blocks.1.attn"])))
        assert torch.equal(seen["blocks.1.attn"] + added, seen["blocks.1.mlp"])
        count = len(seen)
        module(pixels)  # the hooks are gone
    assert len(seen) == count


@pytest.mark.parametrize("name", PARTS)
def test_taps_are_found_in_the_trace_of_every_kind_of_vit(name: str, tmp_path: Path) -> None:
    model = random_model(replace(SMALL, **PARTS[name]), name, seed=2)
    artefact = write_torchscript(model, tmp_path, outputs=tuple(model.config.default_outputs))
    outputs, truth = _tapped_torchscript(model, artefact, tmp_path / "tapped")
    for tap in stream_taps(2):
        np.testing.assert_array_equal(outputs[tap], truth[tap].numpy())


def _tapped_torchscript(model: Model, artefact: Artefact, folder: Path) -> tuple[Any, Any]:
    from vit_deploy.facts import Device
    from vit_deploy.protocols import SessionOptions
    from vit_deploy.runtimes.torchscript import RUNTIME

    pixels = torch.randn(2, model.config.in_channels, *model.config.image_size)
    with_taps = tapped(artefact, stream_taps(2), folder)
    with RUNTIME.open(with_taps, Device(), SessionOptions(threads=1)) as session:
        outputs = session.run({"pixel_values": pixels.numpy()})
    truth: dict[str, torch.Tensor] = {}
    module: Any = model.eager()
    with torch.inference_mode(), watched(module, lambda tap, stream: truth.update({tap: stream})):
        module(pixels)
    return outputs, truth


@pytest.mark.parametrize(("name", "opset"), [("relative positions", 17), ("rotary", 23)])
def test_taps_are_found_at_every_opset(name: str, opset: int, tmp_path: Path) -> None:
    model = random_model(replace(SMALL, **PARTS[name]), name, seed=2)
    artefact = write_onnx(model, tmp_path, tuple(model.config.default_outputs), opset=opset)
    outputs, truth = _tapped_onnx(model, artefact, tmp_path / "tapped")
    for tap in stream_taps(2):
        np.testing.assert_allclose(outputs[tap], truth[tap].numpy(), atol=2e-5)


def _tapped_onnx(model: Model, artefact: Artefact, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import onnxruntime as ort

    pixels = torch.randn(1, model.config.in_channels, *model.config.image_size)
    with_taps = tapped(artefact, stream_taps(2), folder)
    session = ort.InferenceSession(str(with_taps.path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == list(with_taps.spec.output_names)
    outputs = dict(zip(names, session.run(None, {session.get_inputs()[0].name: pixels.numpy()}), strict=True))
    truth: dict[str, Any] = {}
    module: Any = model.eager()
    with torch.inference_mode(), watched(module, lambda tap, stream: truth.update({tap: stream})):
        module(pixels)
    return outputs, truth


def test_positions_made_in_the_graph_are_no_link_of_the_stream(tmp_path: Path) -> None:
    from vit_deploy.model.sizes import size_range
    from vit_deploy.spec import BatchRange

    model = random_model(SMALL, "small", seed=2)
    spec = SMALL.io_spec(("logits",), BatchRange(1, 1, 3), sizes=size_range(SMALL))
    artefact = write_onnx(model, tmp_path, spec=spec)
    outputs, truth = _tapped_onnx(model, artefact, tmp_path / "tapped")
    np.testing.assert_allclose(outputs["embed"], truth["embed"].numpy(), atol=1e-5)
    assert tapped(artefact, ("embed",), tmp_path / "more").spec.outputs[-1].shape == ("batch", "tokens", 60)


def _timm_twin(model: Model) -> Any:
    """timm's own module with the weights of a plain model of ours."""
    timm = pytest.importorskip("timm", reason="pip install 'vit-deploy[timm]'")
    twin = timm.create_model(
        "vit_tiny_patch16_224", img_size=SMALL.image_size, patch_size=8, embed_dim=60, depth=2, num_heads=5,
        mlp_ratio=50 / 60, num_classes=7,
    )  # fmt: skip
    twin.load_state_dict(model.eager().state_dict())
    return twin.eval()


@pytest.mark.parametrize(
    "how",
    [{"dynamo": False, "opset_version": 17}, {"dynamo": False, "opset_version": 14}, {"dynamo": True}],
    ids=["legacy 17", "legacy 14", "dynamo"],
)
def test_taps_are_found_in_graphs_that_timm_users_export(how: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(SMALL, "small", seed=2)
    artefact = _foreign(_timm_twin(model), model, tmp_path, **how)
    outputs, truth = _tapped_onnx(model, artefact, tmp_path / "tapped")
    for tap in stream_taps(2):
        np.testing.assert_allclose(outputs[tap], truth[tap].numpy(), atol=2e-5)


def _foreign(module: Any, model: Model, folder: Path, **how: Any) -> Artefact:
    from vit_deploy.protocols import Artefact
    from vit_deploy.spec import BatchRange

    path = folder / "foreign.onnx"
    pixels = torch.randn(1, 3, *model.config.image_size)
    more = {"verbose": False, "external_data": True} if how["dynamo"] else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (pixels,), str(path), output_names=["logits"], **how, **more)
    spec = model.config.io_spec(("logits",), BatchRange(1, 1, 1))
    return Artefact("onnx-fp32", "onnx", "fp32", path, spec, model.config)


def test_taps_are_found_in_a_graph_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'vit-deploy[hf]'")
    import onnxruntime as ort

    config = transformers.ViTConfig(
        hidden_size=60, num_hidden_layers=2, num_attention_heads=5, intermediate_size=50, image_size=32,
        patch_size=8, attn_implementation="eager",
    )  # fmt: skip
    module = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model = random_model(replace(SMALL, image_size=(32, 32)), "small")
    artefact = _foreign(module, model, tmp_path, dynamo=True, opset_version=18)
    with_taps = tapped(artefact, stream_taps(2), tmp_path / "tapped")
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        hidden = module(pixels, output_hidden_states=True).hidden_states
    session = ort.InferenceSession(str(with_taps.path), providers=["CPUExecutionProvider"])
    taps = session.run(["embed", "blocks.0.mlp"], {session.get_inputs()[0].name: pixels.numpy()})
    for found, wanted in zip(taps, hidden, strict=False):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_one_copy_of_the_weights_serves_every_tapped_graph(honest_onnx: Artefact, tmp_path: Path) -> None:
    before = honest_onnx.path.read_bytes()
    first = tapped(honest_onnx, ("embed",), tmp_path)
    (weights,) = tmp_path.glob("*.weights")
    written = weights.stat().st_mtime_ns, weights.stat().st_ino
    second = tapped(honest_onnx, ("blocks.1.attn", "blocks.1.mlp"), tmp_path)
    assert first.path != second.path
    assert (weights.stat().st_mtime_ns, weights.stat().st_ino) == written
    assert max(first.path.stat().st_size, second.path.stat().st_size) < len(before) / 4
    assert honest_onnx.path.read_bytes() == before


def test_weights_beside_the_graph_are_linked(deep_model: Model, tmp_path: Path) -> None:
    import onnxruntime as ort

    artefact = write_onnx(deep_model, tmp_path / "one", external_data=True)
    with_taps = tapped(artefact, ("embed",), tmp_path / "two")
    (linked,) = (tmp_path / "two").glob("*.data")
    assert linked.samefile(tmp_path / "one" / "model.onnx.data")
    inputs = {"pixel_values": np.ones((1, 3, 32, 32), np.float32)}
    logits = [
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["logits"], inputs)[0]
        for path in (artefact.path, with_taps.path)
    ]
    np.testing.assert_array_equal(*logits)


def test_weights_outside_the_graphs_folder_are_refused(deep_model: Model, tmp_path: Path) -> None:
    artefact = write_onnx(deep_model, tmp_path / "one", external_data=True)
    proto = onnx.load(artefact.path, load_external_data=False)
    for entry in proto.graph.initializer:
        for item in entry.external_data:
            if item.key == "location":
                item.value = "../elsewhere.data"
    artefact.path.write_bytes(proto.SerializeToString())
    with pytest.raises(HostileInput, match="outside its own folder"):
        tapped(artefact, ("embed",), tmp_path / "two")


def test_no_weight_is_read_to_find_taps(honest_onnx: Artefact) -> None:
    proto = read_light(honest_onnx.path).proto
    assert sum(len(entry.raw_data) for entry in proto.graph.initializer) < 20_000
    assert found_taps(honest_onnx) == (*stream_taps(5), "tokens")


def test_a_value_that_is_called_as_a_tap_is_renamed(honest_onnx: Artefact, tmp_path: Path) -> None:
    proto = onnx.load(honest_onnx.path)
    first = proto.graph.node[1].output[0]
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == first:
                    names[index] = "embed"
    onnx.save(proto, tmp_path / "renamed.onnx")
    with_taps = tapped(replace(honest_onnx, path=tmp_path / "renamed.onnx"), ("embed",), tmp_path / "tapped")
    onnx.checker.check_model(str(with_taps.path))


def _residual(count: int, name: str = "x", start: str = "x") -> list[Step]:
    steps, stream = [], start
    for index in range(count):
        steps.append(Step("other", "MatMul", (stream,), (f"{name}.branch{index}",)))
        steps.append(Step("add", "Add", (stream, f"{name}.branch{index}"), (f"{name}.{index}",)))
        stream = f"{name}.{index}"
    return steps


PATCHES = Step("other", "Conv", ("pixels", "weight"), ("x",))


def test_casts_and_rounding_do_not_part_the_stream() -> None:
    steps = [PATCHES, *_residual(4)]
    cast = [
        replace(step, inputs=tuple("x.1c" if name == "x.1" else name for name in step.inputs)) for step in steps
    ]
    position = next(index for index, step in enumerate(cast) if step.outputs == ("x.1",))
    cast.insert(position + 1, Step("same", "Cast", ("x.1",), ("x.1c",)))
    stream = find_stream(cast, 2)
    assert stream.links == ("x.0", "x.1", "x.2", "x.3")
    assert stream.start == "x"


def test_an_addition_of_what_is_made_from_sizes_is_no_link() -> None:
    made = [
        PATCHES,
        Step("sizes", "Shape", ("x",), ("shape",)),
        Step("other", "Resize", ("table", "shape"), ("positions",)),
        Step("add", "Add", ("x", "positions"), ("placed",)),
    ]
    stream = find_stream([*made, *_residual(4, "y", "placed")], 2)
    assert stream.start == "placed"


def test_two_towers_are_not_mistaken_for_one() -> None:
    steps = [PATCHES, *_residual(4), replace(PATCHES, outputs=("z",)), *_residual(4, "z", "z")]
    with pytest.raises(RunFailed, match="2 chains of 4 residual additions"):
        find_stream(steps, 2)


def test_fused_norms_are_named() -> None:
    steps = [PATCHES, *_residual(1), Step("other", "SkipLayerNormalization", ("x.0",), ("normed",))]
    with pytest.raises(RunFailed, match=r"chain of residual additions has 1 .*SkipLayerNormalization") as error:
        find_stream(steps, 2)
    assert "one chain of 4" in error.value.expected


def test_a_graph_that_onnx_runtime_has_fused_is_refused(honest_onnx: Artefact, tmp_path: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(str(honest_onnx.path), options, providers=["CPUExecutionProvider"])
    with pytest.raises(RunFailed, match="SkipLayerNormalization"):
        found_taps(replace(honest_onnx, path=tmp_path / "fused.onnx"))


@pytest.mark.parametrize("format", ["tensorrt", "pt2", "a.b", "__init__x"])
def test_formats_without_taps_say_so(format: str, honest_onnx: Artefact) -> None:
    with pytest.raises(RunFailed, match="cannot be looked into"):
        found_taps(replace(honest_onnx, format=format))


def test_a_users_own_module_says_so(honest_onnx: Artefact) -> None:
    config = object.__new__(ModuleConfig)
    with pytest.raises(RunFailed, match="nothing is known of its inside"):
        found_taps(replace(honest_onnx, config=config))


def test_steps_leave_out_operands_that_are_not_there(honest_onnx: Artefact) -> None:
    import onnx_ir as ir

    steps = steps_of(ir.serde.deserialize_model(read_light(honest_onnx.path).proto))
    assert all(all(step.inputs) for step in steps)
    assert sum(step.kind == "norm" for step in steps) == 11
