"""Results of benchmarks that no run has written: refused with what is wrong, in time, and never a traceback."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from tests.bench import results
from vit_deploy.bench import document
from vit_deploy.bench.document import read_result
from vit_deploy.cli._bench_compare import command
from vit_deploy.errors import HostileInput


def whole() -> bytes:
    return results.report(results.row(results.HOSTILE)).to_json().encode()


def refused(path):
    with pytest.raises(HostileInput) as refusal:
        read_result(path)
    error = refusal.value
    assert error.exit_code == 6
    assert error.expected
    assert error.next_command
    assert len(str(error)) < 2000
    return str(error)


def put(tmp_path, raw):
    path = tmp_path / "a result é 犬.json"
    path.write_bytes(raw)
    return path


def test_a_whole_one_is_read(tmp_path):
    assert read_result(put(tmp_path, whole())).rows[0].artefact == results.HOSTILE


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_cut_short(tmp_path, part):
    raw = whole().rstrip()
    told = refused(put(tmp_path, raw[: int(len(raw) * part)]))
    assert "cut short" in told


@pytest.mark.parametrize("raw", [b"", b" \n\t"])
def test_empty(tmp_path, raw):
    assert "is empty" in refused(put(tmp_path, raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"not json",
        b"\x00" * 1000,
        b"\x80\x04\x95.",
        b"PK\x03\x04",
        b'{"schema": "\xff\xfe"}',
        '{"schema": "é"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": "\\ud800"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b"{} {}",
    ],
    ids=lambda raw: repr(raw[:16]),
)
def test_no_json(tmp_path, raw):
    assert "is no result" in refused(put(tmp_path, raw))


@pytest.mark.parametrize("raw", [b"[]", b"{}", b"null", b"5", b'"text"', b'{"schema": 2}', b'{"schema": null}'])
def test_no_schema(tmp_path, raw):
    assert "says no schema" in refused(put(tmp_path, raw))


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("vit-deploy/bench/1", "another version"),
        ("vit-deploy/bench/2", "another version"),
        ("vit-deploy/verify/1", "no result of a benchmark"),
        ("x" * 10_000, "no result of a benchmark"),
    ],
    ids=lambda text: text[:30],
)
def test_another_schema(tmp_path, schema, told):
    text = refused(put(tmp_path, json.dumps({"schema": schema, "rows": []}).encode()))
    assert told in text
    assert "measure again" in text


ROW = {
    "p50_ms": ["10", True, -1, 1e300, None, [], {"a": 1}],
    "samples_ns": ["text", [1], [1.5] * 320, [True] * 320, [-1] * 320, [10**40] * 320, {}],
    "round_lengths": [[0], [10**18] * 3, "8"],
    "key": [5, None],
    "image_size": [[1], [1, 2, 3], "32x32", [-1, 5]],
    "ok": ["yes", 1],
    "facts": [[], 5, {"a": 1e300}, {"a": 10**300}],
    "files": [{"a": 5}, []],
    "ratio_interval": [[1], ["a", "b"], 5],
    "unheard_of": [1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, bad in ROW.items() for value in bad], ids=str
)
def test_wrong_rows(tmp_path, field, value):
    raw = json.dumps(results.document({**results.row(), field: value})).encode()
    assert field in refused(put(tmp_path, raw)) or field in {"round_lengths", "samples_ns"}


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": {}},
        {"rows": [5]},
        {"rows": "text"},
        {"environment": []},
        {"environment": None},
        {"soundness": {"sound": "yes"}},
        {"soundness": []},
        {"interrupted": "no"},
        {"order": [5]},
        {"skipped": [{"backend": "a"}]},
        {"machine": 5},
        {"extra": 1},
    ],
    ids=str,
)
def test_wrong_documents(tmp_path, changes):
    assert "is no result" in refused(put(tmp_path, json.dumps(results.document(**changes)).encode()))


def test_a_number_too_large_for_a_float(tmp_path):
    raw = json.dumps(results.document()).replace('"p50_ms": ', '"p50_ms": 1e999, "gone": ', 1).encode()
    assert "p50_ms" in refused(put(tmp_path, raw))


def test_deep_entries(tmp_path):
    deep: dict = {}
    for _ in range(100):
        deep = {"a": deep}
    raw = json.dumps(results.document({**results.row(), "facts": deep})).encode()
    assert "deep" in refused(put(tmp_path, raw))


def test_two_rows_of_one_key(tmp_path):
    assert "two rows" in refused(
        put(tmp_path, json.dumps(results.document(results.row(), results.row())).encode())
    )


def test_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(document, "MOST_BYTES", 1000)
    assert "1000" in refused(put(tmp_path, whole()))
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(10**12)
    assert "bytes" in refused(sparse)


def test_what_is_no_plain_file(tmp_path):
    assert "folder" in refused(tmp_path)
    assert "cannot be read" in refused(tmp_path / "nowhere.json")
    assert "cannot be read" in refused(tmp_path / ("n" * 300))
    assert "cannot be read" in refused("a\0b")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "plain file" in refused(pipe)
    assert "plain file" in refused("/dev/zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: run the tests as another user")
def test_unreadable(tmp_path):
    path = put(tmp_path, whole())
    path.chmod(0)
    assert "cannot be read" in refused(path)


def test_the_command_refuses_either_file(tmp_path):
    good, bad = put(tmp_path, whole()), tmp_path / "bad"
    bad.write_bytes(whole()[:500])
    for words in ([good, bad], [bad, good]):
        found = CliRunner().invoke(command, [str(word) for word in words])
        assert isinstance(found.exception, HostileInput)
        assert not found.stdout


def test_figures_at_the_edge_are_compared(tmp_path):
    """What is allowed must be reckoned with: the smallest and the largest figures, and none at all."""
    edge = results.row(p50_ms=1e18, images_per_s=5e-324, half_width=0.0, peak_rss_bytes=10**18)
    tiny = results.row(p50_ms=5e-324, images_per_s=1e18, peak_rss_bytes=0, cold_start_ms={"import": 0.0})
    zero = results.row(p50_ms=0.0, p50_interval_ms=[0.0, 0.0], images_per_s=0.0, round_elapsed_ns=[0] * 8)
    paths = []
    for name, row in (("edge", edge), ("tiny", tiny), ("zero", zero)):
        path = tmp_path / name
        path.write_text(results.report(row).to_json())
        paths.append(str(path))
    for old in paths:
        for new in paths:
            for words in ([], ["--json"]):
                found = CliRunner().invoke(command, [old, new, *words, "--fail-if", "p50 > +1e"])
                assert found.exit_code != 0  # no gate
                found = CliRunner().invoke(command, [old, new, *words, "--markdown", str(tmp_path / "c.md")])
                assert found.exit_code == 0, found.output
