"""An IR is read without OpenVINO; one that is not whole, or reaches beyond its two files, is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vit_deploy.errors import HostileInput
from vit_deploy.graph import openvino_ir
from vit_deploy.graph.openvino_ir import read_ir
from vit_deploy.graph.openvino_ir_edit import copy_of, name_ends, weight_readers, write_ir
from vit_deploy.graph.openvino_layers import count_ir_layers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
HALF = np.array([0x3F80, 0xC000], np.uint16)  # 1.0 and -2.0 in bf16
XML = f"""<?xml version="1.0"?>
<net name="tiny" version="11">
  <layers>
    <layer id="0" name="x" type="Parameter" version="opset1">
      <data shape="?,3" element_type="f32" />
      <output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>3</dim></port></output>
    </layer>
    <layer id="1" name="w" type="Const" version="opset1">
      <data element_type="f32" shape="3, 4" offset="0" size="{WEIGHT.nbytes}" />
      <output><port id="0" precision="FP32"><dim>3</dim><dim>4</dim></port></output>
    </layer>
    <layer id="2" name="half" type="Const" version="opset1">
      <data element_type="bf16" shape="2" offset="{WEIGHT.nbytes}" size="4" />
      <output><port id="0" precision="BF16"><dim>2</dim></port></output>
    </layer>
    <layer id="3" name="product" type="MatMul" version="opset1">
      <data transpose_a="false" transpose_b="false" />
      <input><port id="0" precision="FP32" /><port id="1" precision="FP32" /></input>
      <output><port id="2" precision="FP32" names="y,z"><dim>-1</dim><dim>4</dim></port></output>
    </layer>
    <layer id="4" name="y/result" type="Result" version="opset1">
      <input><port id="0" precision="FP32"><dim>-1</dim><dim>4</dim></port></input>
    </layer>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="3" to-port="1" />
    <edge from-layer="0" from-port="0" to-layer="3" to-port="0" />
    <edge from-layer="3" from-port="2" to-layer="4" to-port="0" />
  </edges>
  <rt_info><framework><task value="none" /></framework></rt_info>
</net>
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def run(xml: str | bytes = XML, weights: bytes | None = WEIGHT.tobytes() + HALF.tobytes()) -> Path:
        path = tmp_path / "tiny model.xml"
        path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
        if weights is not None:
            path.with_suffix(".bin").write_bytes(weights)
        return path

    return run


def test_what_stands_in_it(write: Callable[..., Path]) -> None:
    graph = read_ir(write())
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in graph.inputs] == [
        ("x", "float32", (None, 3))
    ]
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in graph.outputs] == [
        ("y", "float32", (None, 4))
    ]
    assert graph.operators == {"MatMul": 1}
    assert graph.elements == {"f32": 12, "bf16": 2}
    assert graph.precision == "fp32"
    assert graph.layers["3"].sources == (("0", "0"), ("1", "0"))
    assert count_ir_layers(graph) == {"io": {"fp32": 2}, "linear": {"fp32": 1}}


def test_weights_are_read_one_by_one(write: Callable[..., Path]) -> None:
    readers = weight_readers(read_ir(write()))
    assert np.array_equal(readers["w"](), WEIGHT)
    assert readers["half"]().tolist() == [1.0, -2.0]


def test_names_are_changed_and_weights_are_linked(write: Callable[..., Path], tmp_path: Path) -> None:
    graph = read_ir(write())
    named = copy_of(graph)
    name_ends(named, {"0": "pixel_values", "4": "logits"})
    (tmp_path / "other").mkdir()
    target = tmp_path / "other" / "m.xml"
    write_ir(named, target)
    again = read_ir(target)
    assert (again.inputs[0].name, again.outputs[0].name) == ("pixel_values", "logits")
    assert again.weights.samefile(graph.weights)
    assert read_ir(graph.path).outputs[0].name == "y"


def test_a_name_that_stands_elsewhere_is_freed(write: Callable[..., Path]) -> None:
    graph = copy_of(read_ir(write(XML.replace('names="y,z"', 'names="pixel_values,z"'))))
    name_ends(graph, {"0": "pixel_values"})
    changed = copy_of(graph)  # what was read of the graph before it was changed is kept
    assert (changed.inputs[0].name, changed.outputs[0].name) == ("pixel_values", "z")


DOCTYPE = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
FILE = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("?>\n", f"?>\n{DOCTYPE}\n"), "declares a document type"),
        (("?>\n", f"?>\n{FILE}\n"), "declares a document type"),
        (("?>\n", "?>\n<!DOCTYPE net>\n"), "declares a document type"),
        (("</net>", ""), "is no whole XML"),
        (("tiny", "ti&undeclared;ny"), "is no whole XML"),
        (('offset="0"', 'offset="99"'), "constants up to byte 147"),
        (('offset="0"', 'offset="-8"'), "before the beginning"),
        (('offset="0"', 'offset="many"'), "is no whole OpenVINO IR"),
        ((' shape="3, 4"', ' shape="3, x"'), "is no whole OpenVINO IR"),
        ((' type="Result"', ""), "is no whole OpenVINO IR"),
        (('to-layer="4"', 'to-layer="9"'), "is no whole OpenVINO IR"),
        (('from-layer="3"', 'from-layer="7"'), "is no whole OpenVINO IR"),
        (("<net ", "<svg "), "is no whole XML"),
        (("<task ", '<__weights_path value="../../secret.bin" /><task '), "names a file of weights"),
        (("<layers>", "<lairs>"), "is no whole XML"),
    ],
)
def test_what_is_not_whole_or_reaches_elsewhere_is_refused(
    change: tuple[str, str], says: str, write: Callable[..., Path]
) -> None:
    assert change[0] in XML
    with pytest.raises(HostileInput, match=says) as raised:
        read_ir(write(XML.replace(*change, 1)))
    assert raised.value.exit_code == 6
    assert raised.value.next_command


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (b"", "is no whole XML"),
        (b"\x00" * 100, "is no whole XML"),
        (b"<svg/>", "no OpenVINO IR"),
        (b"<net/>", "no OpenVINO IR"),
        (XML.replace('version="1.0"', 'version="1.0" encoding="none"').encode(), "is no whole XML"),
        (('<?xml version="1.0" encoding="utf-16"?>' + DOCTYPE + "<net/>").encode("utf-16"), "document type"),
    ],
)
def test_what_is_no_ir_is_refused(xml: bytes, says: str, write: Callable[..., Path]) -> None:
    with pytest.raises(HostileInput, match=says):
        read_ir(write(xml))


def test_truncated_and_missing_weights_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(HostileInput, match="which ends at 51"):
        read_ir(write(weights=(WEIGHT.tobytes() + HALF.tobytes())[:-1]))
    (tmp_path / "tiny model.bin").unlink()
    with pytest.raises(HostileInput, match=r"has no 'tiny model\.bin' beside it"):
        read_ir(write(weights=None))


def test_a_graph_that_is_too_large_is_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_ir, "GRAPH_LIMIT", 2**10)
    with pytest.raises(HostileInput, match="has more than"):
        read_ir(write())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostileInput, match="cannot be read"):
        read_ir(tmp_path / "none.xml")
