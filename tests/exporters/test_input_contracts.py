"""Artefacts that take 8-bit pictures, in every format: what they declare, hold and give."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import onnx
import pytest
import skimage.data
import torch
from PIL import Image

from vit_deploy.errors import UsageFailed
from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters import tensorrt as tensorrt_exporter
from vit_deploy.exporters import torchscript as torchscript_exporter
from vit_deploy.facts import Device
from vit_deploy.model.contract import contracted
from vit_deploy.protocols import Artefact, NoOptions, SessionOptions, Silent
from vit_deploy.registry import runtime
from vit_deploy.spec import BatchRange, SizeRange, artefact_name
from vit_deploy.weights.random import random_model

CONTRACTS = ("uint8", "image")
PHOTOGRAPHS = ("astronaut", "chelsea", "rocket")
RESIZES = {"exact": (37, 55), "shortest_edge": (52, 52), "cover": (37, 55)}


@pytest.fixture(scope="module")
def make(wide_model, tmp_path_factory):
    """Export a small model for a contract, once for each set of arguments; gives the model and the artefact."""

    @functools.cache
    def once(contract, format, resize, opset, biased):
        config = replace(wide_model.config, patch_bias=biased, depth=1)
        model, folder = random_model(config, "small", seed=1), tmp_path_factory.mktemp(contract)
        preprocessing = replace(
            model.preprocessing, resize=resize, resize_size=RESIZES[resize], interpolation="bicubic"
        )
        chosen = replace(model, preprocessing=preprocessing)
        spec = contracted(
            chosen.config.io_spec((), BatchRange(1, 1, 4)), contract, chosen.config, preprocessing
        )
        exporter, options = {
            "onnx": (onnx_exporter.EXPORTER, onnx_exporter.OnnxOptions(opset=opset)),
            "torchscript": (torchscript_exporter.EXPORTER, NoOptions()),
        }[format]
        exported = exporter.export(chosen, spec, options, folder, Silent())
        name = artefact_name(format, "fp32", contract)
        path = folder / exported.files[0]
        return chosen, Artefact(name, format, "fp32", path, spec, chosen.config, exported.facts)

    def run(contract, format="onnx", resize="exact", opset=23, biased=True):
        return once(contract, format, resize, opset, biased)

    return run


def outputs_of(artefact, backend, *batches):
    with runtime(backend).open(artefact, Device(), SessionOptions(threads=1)) as session:
        return [session.run({"images": batch})["logits"] for batch in batches]


def error_on_photographs(model, artefact, backend):
    """How far the artefact is from eager in float64 on Pillow's pixels, rows first, relative."""
    eager = model.eager(dtype=torch.float64)
    batches, exact = [], []
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)())
        cut = np.asarray(model.preprocessing.cut(image, rows_first=True))
        batches.append(np.stack([cut if artefact.spec.contract == "uint8" else np.asarray(image)]))
        with torch.inference_mode():
            exact.append(eager(torch.from_numpy(model.preprocessing.normalise(cut))[None].double()).numpy())
    found = outputs_of(artefact, backend, *batches)
    return max(
        np.linalg.norm(have - want) / np.linalg.norm(want) for have, want in zip(found, exact, strict=True)
    )


@pytest.mark.parametrize("opset", [23, 17])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_onnx_gives_what_eager_gives_on_photographs(make, contract, opset):
    model, artefact = make(contract, opset=opset)
    assert error_on_photographs(model, artefact, "onnxruntime") < (1e-4 if contract == "image" else 3e-6)


@pytest.mark.parametrize("resize", ["shortest_edge", "cover"])
def test_onnx_resizes_every_way(make, resize):
    model, artefact = make("image", resize=resize)
    assert error_on_photographs(model, artefact, "onnxruntime") < 1e-4


@pytest.mark.parametrize("contract", CONTRACTS)
def test_torchscript_gives_what_eager_gives_on_photographs(make, contract):
    model, artefact = make(contract, format="torchscript", resize="cover")
    assert error_on_photographs(model, artefact, "torchscript") < (1e-4 if contract == "image" else 3e-6)


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_batches_and_sizes_are_free(make, format):
    _, artefact = make("image", format=format, resize="shortest_edge")
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (3, 71, 40, 3), dtype=np.uint8)
    backend = "onnxruntime" if format == "onnx" else format
    together, *alone = outputs_of(artefact, backend, pictures, *(picture[None] for picture in pictures))
    assert together.shape == (3, 7)
    assert np.allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-5)
    assert not np.allclose(together[0], together[1], rtol=1e-2)


def test_the_normalisation_costs_one_cast_one_transpose_and_one_subtraction(make, tmp_path):
    model, artefact = make("uint8")
    plain = onnx_exporter.EXPORTER.export(
        model, model.config.io_spec(), onnx_exporter.OnnxOptions(), tmp_path, Silent()
    )
    before, after = plain.facts["operators"], artefact.facts["operators"]
    added = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert added == {"Cast": 1, "Transpose": 1, "Sub": 1}


def test_the_onnx_input_says_what_it_is(make):
    _, artefact = make("image")
    (images,) = onnx.load(artefact.path, load_external_data=False).graph.input
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert dims == ["batch", "height", "width", 3]


def test_a_model_without_a_patch_bias_takes_pictures_too(make):
    model, artefact = make("uint8", biased=False)
    assert not model.config.patch_bias
    assert error_on_photographs(model, artefact, "onnxruntime") < 3e-6


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("contract", CONTRACTS)
def test_tensorrt_builds_an_engine(make, contract, tmp_path):
    model, source = make(contract, resize="shortest_edge" if contract == "image" else "exact")
    folder = tmp_path / "engine"
    folder.mkdir()
    options = tensorrt_exporter.TensorRTOptions(flavour="rtx")
    sizes = SizeRange((8, 8), (60, 80), (200, 300), patch_size=1, step=1, num_prefix_tokens=0)
    spec = replace(source.spec, sizes=sizes) if contract == "image" else source.spec
    exported = tensorrt_exporter.EXPORTER.export(model, spec, options, folder, Silent(), source)
    assert exported.facts["inputs"]["images"]["dtype"] == "UINT8"
    sides = [[8, 8], [60, 80], [200, 300]] if contract == "image" else [[32, 48]] * 3
    profile = [[batch, *side, 3] for batch, side in zip((1, 1, 4), sides, strict=True)]
    assert exported.facts["profile"]["images"] == profile


@pytest.mark.parametrize(("resize", "interpolation"), [("cover", "bicubic"), ("exact", "box")])
def test_tensorrt_refuses_a_resize_that_takes_float64(make, tmp_path, resize, interpolation):
    model, source = make("image", resize="cover")
    preprocessing = replace(model.preprocessing, resize=resize, interpolation=interpolation)
    model = replace(model, preprocessing=preprocessing)
    with pytest.raises(UsageFailed, match="float64") as caught:
        tensorrt_exporter.EXPORTER.export(
            model, source.spec, tensorrt_exporter.TensorRTOptions(), tmp_path, Silent(), source
        )
    assert "--input uint8" in caught.value.next_command
