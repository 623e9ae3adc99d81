"""Executing, against a stand-in for TensorRT's context."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vit_deploy import tensorrt_flavours
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device
from vit_deploy.runtimes import _tensorrt_execution as execution


def images(batch_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch_size)
    return {"pixel_values": rng.standard_normal((batch_size, 3, 32, 48)).astype(np.float32)}


class FakeEngine:
    """One input, one output, both named by :class:`ICudaEngine`'s methods."""

    num_io_tensors = 2
    names = ("pixel_values", "logits")

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "pixel_values" else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return "half" if name == "pixel_values" else "float"


class FakeContext:
    """Copies the sum of its input to its output, from and to the addresses it is given."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.calls: list[str] = []
        self.accepts = True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.calls.append("shape")
        self.shapes[name] = shape
        return self.accepts

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shapes["pixel_values"][0], 7)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.calls.append("address")
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.calls.append(f"execute {stream}")
        return self.accepts


@pytest.fixture
def executor() -> execution.Executor:
    trt = SimpleNamespace(
        DataType=SimpleNamespace(FLOAT="float", HALF="half", BF16="bf16", UINT8="uint8"),
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
    )
    stream = SimpleNamespace(cuda_stream=42)
    return execution.Executor(trt, FakeEngine(), FakeContext(), stream, tensorrt_flavours.Messages())


def test_buffers_have_the_engines_own_types(executor):
    buffers = executor.allocate(images(3), Device())
    assert buffers.inputs["pixel_values"].dtype == torch.float16
    assert buffers.outputs["logits"].dtype == torch.float32
    assert tuple(buffers.outputs["logits"].shape) == (3, 7)


def test_binding_happens_only_when_buffers_change(executor):
    one, two = executor.allocate(images(1), Device()), executor.allocate(images(2), Device())
    context = executor.context
    for buffers in (one, two, one):
        context.calls.clear()
        executor.bind(buffers)
        executor.bind(buffers)
        executor.enqueue()
        assert context.calls == ["shape", "address", "address", "execute 42"]
        assert context.shapes["pixel_values"] == tuple(buffers.inputs["pixel_values"].shape)
        assert context.addresses == {
            "pixel_values": buffers.inputs["pixel_values"].data_ptr(),
            "logits": buffers.outputs["logits"].data_ptr(),
        }


def test_allocating_unbinds(executor):
    one = executor.allocate(images(1), Device())
    executor.bind(one)
    executor.allocate(images(2), Device())
    executor.context.calls.clear()
    executor.bind(one)
    assert executor.context.calls == ["shape", "address", "address"]
    assert executor.context.shapes["pixel_values"][0] == 1


def test_what_the_context_refuses_is_an_error_in_its_own_words(executor):
    buffers = executor.allocate(images(1), Device())
    executor.context.accepts = False
    executor.messages.add(1, "the profile does not hold it")
    with pytest.raises(RunFailed, match="could not start an inference: the profile does not hold it"):
        executor.enqueue()
    with pytest.raises(RunFailed, match="refused 'pixel_values' of shape"):
        executor.bind(buffers)


def test_an_integer_input_is_refused():
    known = SimpleNamespace(DataType=SimpleNamespace(FLOAT="float", HALF="half", BF16="bf16", UINT8="uint8"))
    with pytest.raises(RunFailed, match="of type int8"):
        execution.torch_dtype(known, "int8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"Layers": ["{ForeignNode[a...b]}", "reformat"], "Bindings": []}', {"fused_regions": 1}),
        ('{"Layers": [{"Name": "{ForeignNode[a]}"}, {"Name": "x"}]}', {"fused_regions": 1}),
        ("", {}),
        ("[]", {}),
    ],
)
def test_inspector(text, expected):
    assert execution.fused_regions(text) == expected
