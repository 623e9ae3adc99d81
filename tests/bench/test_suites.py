"""Suites are read whole or refused by the key that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vit_deploy.bench.grid import Grid
from vit_deploy.bench.suites import _KEYS, MAX_BYTES, load_suite, suite_names
from vit_deploy.errors import HostileInput, UsageFailed

REPOSITORY = Path(__file__).parents[2]
SMALLEST = 'title = "t"\n'


@pytest.fixture
def write(tmp_path):
    def make(text, name="mine.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def test_the_suites_that_are_shipped():
    assert suite_names() == ["cpu", "gpu", "quick", "release"]


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_is_whole(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.title
    assert suite.grid().batch_sizes == suite.batch_sizes
    assert suite.settings().duration_s == suite.duration
    assert suite.plan() == {
        "backends": suite.backends,
        "scenarios": suite.scenarios,
        "ceiling": suite.ceiling,
    }
    assert load_suite(REPOSITORY / "benchmarks" / "suites" / f"{name}.toml").grid() == suite.grid()


def test_cpu_is_what_its_page_says():
    suite = load_suite("cpu")
    assert suite.backends == ("eager", "onnxruntime", "torchscript", "openvino")
    grid = Grid(
        batch_sizes=(1, 8),
        threads=("all",),
        streams=(1, "threads"),
        contracts=("pixel_values",),
        precisions=("fp32",),
        formats=("onnx", "torchscript"),
    )
    assert suite.grid() == grid
    assert suite.device == "cpu"


def test_a_suite_that_says_nothing_has_the_defaults_of_the_command_line(write):
    suite = load_suite(write(SMALLEST))
    assert suite.grid() == Grid()
    assert suite.plan() == {"backends": ("all",), "scenarios": (), "ceiling": False}
    assert suite.settings().soundness
    assert suite.settings().precision_target == 0.01


def test_every_key_is_read(write):
    suite = load_suite(
        write("""
        title = "everything"
        backends = ["ort", "eager", "ort"]
        device = "cuda:1"
        batch_sizes = [1, 8]
        image_sizes = [224, "384x256"]
        threads = [1, "all"]
        streams = [2, "threads"]
        contracts = ["uint8"]
        precisions = ["int8", "fp32"]
        formats = ["trt"]
        cuda_graph = true
        duration = 3
        rounds = 12
        precision_target = 2
        baseline = "onnxruntime"
        soundness = false
        scenarios = ["single-stream", "Server"]
        ceiling = true
        """)
    )
    assert suite.backends == ("onnxruntime", "eager")
    assert suite.device == "cuda:1"
    assert suite.grid() == Grid(
        batch_sizes=(1, 8),
        image_sizes=((224, 224), (384, 256)),
        threads=(1, "all"),
        streams=(2, "threads"),
        contracts=("uint8",),
        precisions=("int8", "fp32"),
        formats=("tensorrt",),
        cuda_graph=True,
    )
    settings = suite.settings()
    assert (settings.duration_s, settings.rounds, settings.precision_target) == (3.0, 12, 0.02)
    assert (settings.baseline, settings.soundness) == ("onnxruntime", False)
    assert suite.plan()["scenarios"] == ("SingleStream", "Server")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("title = 1", "title"),
        ('title = ""', "title"),
        ('title = "a\\u001b[31m"', "title"),
        ('backends = "eager"', "backends"),
        ("backends = []", "backends"),
        ('backends = ["eagre"]', "backends"),
        ('device = "tpu"', "device"),
        ("batch_sizes = 8", "batch_sizes"),
        ("batch_sizes = []", "batch_sizes"),
        ("batch_sizes = [0]", "batch_sizes"),
        ("batch_sizes = [true]", "batch_sizes"),
        ("batch_sizes = [1.5]", "batch_sizes"),
        ("batch_sizes = [100000]", "batch_sizes"),
        (f"batch_sizes = {list(range(1, 70))}", "batch_sizes"),
        ("image_sizes = [0]", "image_sizes"),
        ('image_sizes = ["224x"]', "image_sizes"),
        ('image_sizes = ["224x224x3"]', "image_sizes"),
        ('threads = ["threads"]', "threads"),
        ('streams = ["all"]', "streams"),
        ('contracts = ["float"]', "contracts"),
        ('precisions = ["fp64"]', "precisions"),
        ('formats = ["onxx"]', "formats"),
        ("cuda_graph = 1", "cuda_graph"),
        ("duration = 0", "duration"),
        ("duration = nan", "duration"),
        ("duration = inf", "duration"),
        ('duration = "10s"', "duration"),
        ("rounds = 0", "rounds"),
        ("rounds = 2.5", "rounds"),
        ("precision_target = -1", "precision_target"),
        ("baseline = []", "baseline"),
        ('soundness = "no"', "soundness"),
        ('scenarios = ["Offlin"]', "scenarios"),
        ("ceiling = 0", "ceiling"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(write, line, key):
    text = line if key == "title" else SMALLEST + line
    with pytest.raises(HostileInput, match=f"'{key}' is ") as raised:
        load_suite(write(text))
    assert raised.value.expected
    assert raised.value.next_command


def test_an_unknown_key_lists_the_known_nearest_first(write):
    with pytest.raises(HostileInput, match=r"unknown key 'batch_size' .did you mean 'batch_sizes'") as raised:
        load_suite(write(SMALLEST + "batch_size = [1]"))
    assert raised.value.expected.startswith("one of batch_sizes")


def test_a_table_is_an_unknown_key(write):
    with pytest.raises(HostileInput, match="unknown key 'grid'"):
        load_suite(write(SMALLEST + "[grid]\nbatch_sizes = [1]"))


def test_a_suite_has_a_title(write):
    with pytest.raises(HostileInput, match="has no 'title'"):
        load_suite(write("batch_sizes = [1]"))


@pytest.mark.parametrize(
    "text",
    [
        b"title = ",
        b"\xff\xfe",
        b'title = "t"\n' + b"#" * MAX_BYTES,
        b"batch_sizes = " + b"[" * 8_000,
        b'title = "a"\ntitle = "b"',
        b"a" + b".a" * 4_000 + b" = 1",
    ],
    ids=["cut short", "not UTF-8", "too long", "nested", "twice", "dotted"],
)
def test_what_is_no_suite_is_hostile(write, text):
    with pytest.raises(HostileInput) as raised:
        load_suite(write(text))
    assert raised.value.exit_code == 6
    assert raised.value.next_command


def test_a_folder_is_no_suite(tmp_path):
    with pytest.raises(HostileInput, match="no plain file"):
        load_suite(tmp_path)


def test_a_name_that_is_neither_suite_nor_file_lists_the_suites():
    with pytest.raises(UsageFailed, match=r"unknown suite 'realease' .did you mean 'release'") as raised:
        load_suite("realease")
    assert "cpu" in raised.value.expected


def test_a_suite_of_a_name_is_not_shadowed_by_a_file(write, monkeypatch):
    monkeypatch.chdir(write("nonsense", "cpu").parent)
    assert load_suite("cpu").title


def test_the_page_describes_every_key_and_every_suite():
    text = (REPOSITORY / "docs" / "suites.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert described == {*_KEYS, *suite_names()}
