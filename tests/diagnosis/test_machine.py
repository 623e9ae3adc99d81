from __future__ import annotations

from pathlib import Path

import pytest

from vit_deploy.diagnosis import machine


def test_bf16_is_told_where_the_processor_has_it():
    fact = machine.describe_processor("EPYC", {"avx2", "avx512_bf16", "sse"})
    assert fact.startswith("EPYC: avx2, avx512_bf16;")
    assert "INFERENCE_PRECISION_HINT" in fact
    assert machine.describe_processor("Old", {"avx2"}) == "Old: avx2"


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("nonsense", None)]
)
def test_the_quota_is_read_from_the_control_group(tmp_path: Path, text: str, quota: float | None):
    (tmp_path / "cpu.max").write_text(text)
    assert machine.cpu_quota(tmp_path) == quota


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.cpu_quota(tmp_path) == 0.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert machine.cpu_quota(tmp_path) is None
    assert machine.cpu_quota(tmp_path / "none") is None


def test_a_quota_below_the_cores_warns_with_the_flag():
    found = machine.judge_cores(8, 16, 2.5)
    assert found.verdict == "warn"
    assert "--threads 2" in found.mend
    assert machine.judge_cores(8, 16, 8.0).verdict == "ok"
    assert machine.judge_cores(8, 16, None).fact == "8 of 16 cores may be used"


def test_little_memory_warns(tmp_path: Path):
    assert machine.judge_memory(1.9e9, 16e9).verdict == "warn"
    assert machine.judge_memory(8e9, 16e9).fact == "8.0 GB available of 16.0 GB"
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("4000000000\n")
    assert machine.memory_limit(tmp_path) == 4_000_000_000


def test_a_folder_that_is_not_there_yet_is_tried_at_its_parent(tmp_path: Path):
    problem, free = machine.try_folder(tmp_path / "a" / "b")
    assert problem == ""
    assert free > 0
    assert list(tmp_path.iterdir()) == []  # nothing was left, and nothing was made


def test_a_folder_that_is_a_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(file / "cache"))
    found = machine.check_cache_folder()
    assert found.verdict == "warn"
    assert "is a file" in found.fact


def test_a_full_disk_warns():
    assert machine.judge_room("/x", 10**8, "mend").verdict == "warn"
    assert machine.judge_room("/x", 10**11, "mend").fact == "/x: writable, 100.0 GB free"


def test_variables():
    known = ["VIT_DEPLOY_CACHE", "VIT_DEPLOY_EXPORT_DTYPE"]
    assert machine.judge_variables({"HOME": "/"}, known).fact == "no VIT_DEPLOY_ variable is set"
    assert machine.judge_variables({"VIT_DEPLOY_CACHE": "x"}, known).verdict == "ok"
    found = machine.judge_variables({"VIT_DEPLOY_CASHE": "x"}, known)
    assert found.mend == "unset VIT_DEPLOY_CASHE, or name it VIT_DEPLOY_CACHE"
