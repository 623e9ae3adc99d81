"""What is found in a folder or a table, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed
from vit_deploy.evaluation.pictures import find_labelled


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_folders_are_classes_at_any_depth_in_order(tmp_path: Path):
    touch(
        tmp_path,
        "b/2.png",
        "b/deep/1.JPG",
        "a/1.png",
        "a/notes.txt",
        ".git/1.png",
        "a/.hidden.png",
        "ü ñ/1.png",
    )
    (tmp_path / "none").mkdir()
    found = find_labelled(tmp_path)
    assert [picture.name for picture in found.pictures] == ["a/1.png", "b/2.png", "b/deep/1.JPG", "ü ñ/1.png"]
    assert found.labels == ("a", "b", "ü ñ")
    assert (found.empty, found.passed_over, found.kind) == (("none",), 1, "folders")


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_table_beside_the_pictures(tmp_path: Path, given: str):
    touch(tmp_path, "images/1.png", "images/2.png")
    file = table(tmp_path, '\ufefflabel,extra,file\ncat,x,images/2.png\n"a, b",y,images/1.png\n')
    found = find_labelled(tmp_path if given == "folder" else file)
    assert [(picture.name, picture.label) for picture in found.pictures] == [
        ("images/2.png", "cat"),
        ("images/1.png", "a, b"),
    ]
    assert (found.kind, found.table) == ("table", "labels.csv")


def test_tabs_and_a_table_of_something_else(tmp_path: Path):
    touch(tmp_path, "a/1.png")
    table(tmp_path, "epoch,loss\n1,2\n", "log.csv")
    assert find_labelled(tmp_path).kind == "folders"
    assert find_labelled(table(tmp_path, "file\tlabel\na/1.png\tcat\n", "x.tsv")).pictures[0].label == "cat"
    assert find_labelled(tmp_path).kind == "table"
    table(tmp_path, "file,label\na/1.png,cat\n", "y.csv")
    with pytest.raises(UsageFailed, match="several tables"):
        find_labelled(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,label\n1.png,a\n", "the columns file and label"),
        ("file,label\n1.png\n", "line 2"),
        ("file,label\n,a\n", "line 2"),
        ("file,label\n1.png,a\n1.png,b\n", "line 3 names '1.png' again, as line 2 does"),
        ("file,label\n", "names no files"),
        ('file,label\n"1.png,a\n', "cannot be read"),
        ("", "nothing"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, text: str, told: str):
    touch(tmp_path, "1.png")
    with pytest.raises(HostileInput) as error:
        find_labelled(table(tmp_path, text))
    assert told in str(error.value)


def test_a_table_of_other_bytes_is_refused(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(b"file,label\n\xff\xfe,a\n")
    with pytest.raises(HostileInput, match="cannot be read"):
        find_labelled(tmp_path / "t.csv")


@pytest.mark.parametrize("entry", ["../out/1.png", "link/1.png", "/etc/hostname"])
def test_a_table_may_not_lead_out(tmp_path: Path, entry: str):
    touch(tmp_path, "in/1.png", "out/1.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    file = table(tmp_path / "in", f"file,label\n{entry},a\n")
    with pytest.raises(HostileInput, match="leads out of the data's folder") as error:
        find_labelled(file)
    assert "--allow-outside" in error.value.next_command
    assert find_labelled(file, outside=True).pictures[0].name == entry


@pytest.mark.parametrize("link", ["in/a/2.png", "in/b", "in/a/deep"])
def test_a_link_may_not_lead_out(tmp_path: Path, link: str):
    touch(tmp_path, "in/a/1.png", "out/1.png")
    (tmp_path / link).symlink_to(tmp_path / "out" / ("1.png" if link.endswith("png") else ""))
    with pytest.raises(HostileInput, match="leads out of the data's folder"):
        find_labelled(tmp_path / "in")
    assert len(find_labelled(tmp_path / "in", outside=True).pictures) == 2


def test_links_in_a_circle_end(tmp_path: Path):
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    with pytest.raises(HostileInput, match="was read already"):
        find_labelled(tmp_path)


def test_what_holds_no_labelled_pictures_is_refused(tmp_path: Path):
    with pytest.raises(ImportFailed, match="there is no folder or table"):
        find_labelled(tmp_path / "nowhere")
    with pytest.raises(HostileInput, match="holds no pictures"):
        find_labelled(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(HostileInput, match="hold no pictures: 'empty'"):
        find_labelled(tmp_path)
    touch(tmp_path, "1.png")
    with pytest.raises(HostileInput, match="lie in no folder that says what they show"):
        find_labelled(tmp_path)
    with pytest.raises(UsageFailed, match="is no table"):
        find_labelled(tmp_path / "1.png")
