"""Reports are written whole or not at all, and what cannot be written is told in words."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vit_deploy.errors import OutputFailed
from vit_deploy.report import writing
from vit_deploy.report.writing import require_writable, write_text


def test_a_text_is_written_and_replaced(tmp_path: Path):
    target = tmp_path / ("n" * 250)
    write_text(target, "größe")
    write_text(target, "anew")
    assert target.read_text(encoding="utf-8") == "anew"
    assert [*tmp_path.iterdir()] == [target]


def test_a_link_stays_one(tmp_path: Path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.xml"
    link.symlink_to(tmp_path / "there" / "real.xml")
    write_text(link, "x")
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.xml").read_text(encoding="utf-8") == "x"


def test_a_pipe_is_written_to(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert read == ["through"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["nowhere/report.xml", "folder", "file/report.xml"])
def test_what_is_no_place_for_a_file_is_refused(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputFailed, match="cannot be written") as caught:
        write_text(tmp_path / name, "x")
    assert caught.value.expected
    assert caught.value.next_command


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(writing.os, "access", lambda *_: False)  # as root every folder is writable
    with pytest.raises(OutputFailed, match="may not write"):
        require_writable(tmp_path / "report.xml")


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch):
    target = tmp_path / "report.xml"
    target.write_text("old", encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(OutputFailed, match="No space left"):
        write_text(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert [*tmp_path.iterdir()] == [target]
