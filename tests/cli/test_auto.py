from __future__ import annotations

import pytest

from vit_deploy.assets import digits_directory, outliers_directory


def test_the_command_tells_each_rung(tmp_path, invoke):
    ran = invoke("export", "-m", digits_directory(), "--dtype", "auto", "--json", "-o", tmp_path / "ü b")
    assert ran.code == 0, ran.err
    assert [(step["format"], step["rung"], step["held"]) for step in ran.json["rungs"]] == [
        ("onnx", "int8", True)
    ]
    (artefact,) = ran.json["artefacts"]
    assert (artefact["name"], artefact["passed"]) == ("onnx-int8", True)


@pytest.mark.slow
def test_on_outliers_each_format_gets_what_holds_and_the_table_says_why(tmp_path, invoke, rtx):
    ran = invoke(
        *("export", "-m", outliers_directory(), "--dtype", "auto", "--format", "onnx,openvino,tensorrt"),
        *("-o", tmp_path / "bundle"),
    )
    assert ran.code == 0, ran.err
    assert "tensorrt fp16: blocks 1-5: the residual stream: overflows fp16" in ran.out
    assert "tensorrt mixed: unverified" in ran.out
    assert "onnx int8: passed" in ran.out
