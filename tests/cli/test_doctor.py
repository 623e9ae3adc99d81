from __future__ import annotations

import pytest

from vit_deploy import diagnosis
from vit_deploy.diagnosis import CHECKS, Check, Finding


def test_every_check_is_a_row(invoke):
    rows = invoke("doctor", "--json").json["checks"]
    assert [row["name"] for row in rows] == [*CHECKS, "variables"]
    for row in rows:
        assert row["fact"]
        assert row["verdict"] in {"ok", "warn", "bad"}
        assert row["mend"] or row["verdict"] == "ok"
    assert not [row for row in rows if "the check stopped" in row["fact"]]


def test_a_healthy_machine_exits_with_0(invoke, monkeypatch: pytest.MonkeyPatch):
    rows = [Check("one", "as it should be", "ok", ""), Check("two", "could be better", "warn", "do this")]
    monkeypatch.setattr(diagnosis, "diagnose", lambda more: rows)
    result = invoke("doctor")
    assert result.code == 0
    assert "could be better" in result.out
    assert "do this" in result.out
    assert result.err == "next: vit-deploy demo\n"


def test_a_broken_set_up_exits_with_4_after_it_printed_everything(invoke, monkeypatch: pytest.MonkeyPatch):
    rows = [Check("one", "all well", "ok", ""), Check("two", "it is broken", "bad", "mend it so")]
    monkeypatch.setattr(diagnosis, "diagnose", lambda more: rows)
    for arguments in (["doctor"], ["doctor", "--json"]):
        result = invoke(*arguments)
        assert result.code == 4
        assert "all well" in result.out
        assert "it is broken" in result.out
        assert "1 of 2 checks are bad: two" in result.err
        assert "next: mend it so" in result.err


def test_a_check_that_crashes_is_a_bad_row(invoke, monkeypatch: pytest.MonkeyPatch):
    def crash() -> Finding:
        raise RuntimeError("libfoo.so\n  is  gone")

    monkeypatch.setitem(CHECKS, "gpu", crash)
    result = invoke("doctor", "--json")
    row = next(row for row in result.json["checks"] if row["name"] == "gpu")
    assert row["verdict"] == "bad"
    assert row["fact"] == "the check stopped with RuntimeError: libfoo.so is gone"
    assert result.code == 4


def test_a_mistyped_variable_is_named_with_the_right_one(invoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIT_DEPLOY_EXPORT_DTYP", "fp16")
    monkeypatch.setenv("VIT_DEPLOY_CACHE", "/tmp")
    row = next(row for row in invoke("doctor", "--json").json["checks"] if row["name"] == "variables")
    assert row["verdict"] == "warn"
    assert row["fact"] == "nothing reads VIT_DEPLOY_EXPORT_DTYP"
    assert row["mend"].endswith("or name it VIT_DEPLOY_EXPORT_DTYPE")
