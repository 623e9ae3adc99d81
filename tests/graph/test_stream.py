"""The streamed file is the file that onnx itself would have written, and reads back whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from vit_deploy.errors import HostileInput
from vit_deploy.exporters.onnx import build_graph
from vit_deploy.graph import stream
from vit_deploy.graph.scan import count_weights
from vit_deploy.graph.stream import write_model

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


@pytest.fixture
def graph(small_model: Model):
    return build_graph(small_model, small_model.config.io_spec(), 23)


def weights_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {entry.name: onnx.numpy_helper.to_array(entry) for entry in proto.graph.initializer}


def test_weights_inside_and_beside_are_the_same(graph, small_model: Model, tmp_path: Path) -> None:
    assert write_model(graph, tmp_path / "a.onnx") == ("a.onnx",)
    assert write_model(graph, tmp_path / "b.onnx", external_data=True) == ("b.onnx", "b.onnx.data")
    inside = weights_of(onnx.load(tmp_path / "a.onnx"))
    beside = weights_of(onnx.load(tmp_path / "b.onnx"))
    assert set(inside) == set(beside)
    for name, array in inside.items():
        assert np.array_equal(array, beside[name])
    assert np.array_equal(inside["pos_embed"], small_model.weights["pos_embed"].read().numpy())
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    onnx.checker.check_model(str(tmp_path / "b.onnx"), full_check=True)


def test_a_protobuf_library_writes_the_same_message(graph, tmp_path: Path) -> None:
    write_model(graph, tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    again = onnx.ModelProto.FromString(data)
    assert onnx.ModelProto.FromString(again.SerializeToString()) == again
    assert len(again.SerializeToString()) == len(data)


def test_past_the_limit_of_a_message_the_weights_go_beside(
    graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PROTOBUF_LIMIT", 10_000)
    assert write_model(graph, tmp_path / "a.onnx") == ("a.onnx", "a.onnx.data")
    entry = next(
        entry
        for entry in onnx.load(tmp_path / "a.onnx", load_external_data=False).graph.initializer
        if entry.name == "pos_embed"
    )
    offset = next(int(field.value) for field in entry.external_data if field.key == "offset")
    assert offset % stream.ALIGNMENT == 0


def test_same_graph_same_bytes(small_model: Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        graph = build_graph(small_model, small_model.config.io_spec(), 23)
        write_model(graph, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_graph_is_whole_after_it_was_written(graph, tmp_path: Path) -> None:
    names = set(graph.graph.initializers)
    write_model(graph, tmp_path / "a.onnx")
    assert set(graph.graph.initializers) == names
    assert [value.name for value in graph.graph.inputs] == ["pixel_values"]


def test_weights_are_counted_without_being_read(graph, small_model: Model, tmp_path: Path) -> None:
    for external in (False, True):
        write_model(graph, tmp_path / "a.onnx", external_data=external)
        census = count_weights(tmp_path / "a.onnx")
        assert census.precision == "fp32"
        assert census.elements["FLOAT"] == sum(tensor.numel for tensor in small_model.weights.values())


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 5000, -1])
def test_a_truncated_file_is_refused(graph, tmp_path: Path, kept: int) -> None:
    write_model(graph, tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:kept])
    with pytest.raises(HostileInput, match="no whole ONNX file"):
        count_weights(tmp_path / "a.onnx")
