from __future__ import annotations

import pytest

from vit_deploy import registry
from vit_deploy.facts import Availability


def test_every_exporter_and_every_backend_is_listed(invoke):
    document = invoke("formats", "--json").json
    assert [row["name"] for row in document["formats"]] == registry.formats()
    assert [row["name"] for row in document["backends"]] == registry.backends()
    eager = next(row for row in document["backends"] if row["name"] == "eager")
    assert eager["available"]
    assert "cpu" in eager["devices"]


def test_a_format_says_who_opens_it(invoke):
    rows = {row["name"]: row for row in invoke("formats", "--json").json["formats"]}
    assert rows["onnx"]["backends"] == ["onnxruntime", "openvino"]
    assert rows["tensorrt"]["needs"] == "onnx"
    assert set(rows["tensorrt"]["precisions"]) == {"fp32", "fp16", "bf16", "int8", "fp8"}


def test_what_is_missing_is_listed_with_its_mend(invoke, monkeypatch: pytest.MonkeyPatch):
    gone = Availability.no("its library is not here", "pip install 'vit-deploy[cpu]'")
    monkeypatch.setattr(type(registry.runtime("onnxruntime")), "available", lambda self, device=None: gone)
    result = invoke("formats")
    assert result.code == 0
    assert "onnxruntime: its library is not here; mend: pip install 'vit-deploy[cpu]'" in result.err
    row = next(line for line in result.out.splitlines() if line.startswith("onnxruntime"))
    assert row.split()[1] == "no"


def test_the_next_command_exports_what_can_be_exported(invoke, monkeypatch: pytest.MonkeyPatch):
    for name in registry.formats():
        state = Availability.yes("1") if name == "onnx" else Availability.no("not here", "mend it")
        monkeypatch.setattr(type(registry.exporter(name)), "available", lambda self, state=state: state)
    assert invoke("formats").err.endswith("next: vit-deploy export --format onnx\n")
