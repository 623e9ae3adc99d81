"""``export`` as a user types it."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vit_deploy.cli._shapes import batch_range
from vit_deploy.cli.export import _slug
from vit_deploy.errors import UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = Path(__file__).parents[2] / "vit_deploy" / "assets" / "digits"


def run(*words: object, cwd: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from vit_deploy.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, **settings)


def test_a_table_for_people_and_json_for_machines(tmp_path: Path) -> None:
    folder = tmp_path / "out put ü"
    people = run("export", "-m", DIGITS, "--format", "onnx,torchscript", "-o", folder, cwd=tmp_path)
    assert people.returncode == 0, people.stderr
    assert "onnx-fp32" in people.stdout
    assert people.stderr.splitlines()[-1].startswith("next: vit-deploy bench '")
    machines = run("export", "-m", DIGITS, "--format", "onnx", "-o", folder, "--json", cwd=tmp_path)
    document = json.loads(machines.stdout)
    assert document["schema"] == "vit-deploy/export/1"
    assert document["environment"]["packages"]["torch"]
    artefact = document["artefacts"][0]
    assert artefact["passed"] is True
    assert artefact["bytes"] > 100_000
    assert 0 < artefact["p95_ratio"] <= artefact["worst_ratio"] <= 10


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--format", "onx"], 2, "did you mean 'onnx'"),
        (["--format", ","], 2, "--format"),
        (["--dtype", "fp64"], 2, "fp64"),
        (["-m", "vit_bass_patch16_224"], 2, "vit_base_patch16_224"),
        (["-m", "no/such/directory"], 6, "no/such/directory"),
        (["-m", str(DIGITS), "--maxShapes", "8x3x99x99"], 2, "--maxShapes is '8x3x99x99'"),
        (["-m", str(DIGITS), "--outputs", "logit"], 2, "did you mean 'logits'"),
        (["-m", str(DIGITS), "--format", "torchscript", "--opset", "20"], 2, "opset"),
        (["-m", str(DIGITS), "--opset", "16"], 2, "16"),
    ],
)
def test_wrong_words_get_an_answer(words: list[str], code: int, found: str, tmp_path: Path) -> None:
    finished = run("export", *words, cwd=tmp_path)
    assert finished.returncode == code, finished.stderr
    assert found in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """The process may write files of 200 kB: less than the digits model."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    finished = run("export", "-m", DIGITS, "-o", "b", "--no-verify", cwd=tmp_path, preexec_fn=limit)
    assert finished.returncode == 1
    assert "cannot be written" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run the tests as another user")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    finished = run("export", "-m", DIGITS, "-o", "b", "--no-verify", cwd=tmp_path)
    assert finished.returncode == 1
    assert "cannot be written" in finished.stderr


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    finished = run("export", "-m", DIGITS, "-o", "/proc/b", "--no-verify", cwd=tmp_path)
    assert finished.returncode == 1
    assert "cannot be written" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.7, 2.5, 4.0])
def test_a_stop_leaves_nothing(tmp_path: Path, delay: float, stop: signal.Signals) -> None:
    command = [sys.executable, "-c", "from vit_deploy.cli import main; main()", "export", "-o", "b"]
    # A background job of a shell may have been told to ignore Ctrl-C, and its children inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        time.sleep(delay)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (("", "", ""), BatchRange(1, 1, 8)),
        (("pixel_values:1x3x224x224", "4x3x224x224", "16x3x224x224"), BatchRange(1, 4, 16)),
        (("2x3x224x224", "2x3x224x224", "2x3x224x224"), BatchRange(2, 2, 2)),
        (("", "", "4x3x224x224"), BatchRange(1, 1, 4)),
        (("", "32x3x224x224", ""), BatchRange(1, 32, 32)),
    ],
)
def test_shapes_are_read_as_trtexec_writes_them(shapes: tuple[str, str, str], expected: BatchRange) -> None:
    assert batch_range(ViTConfig(), *shapes) == expected


def test_shapes_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(UsageFailed, match="min 4, opt 4, max 2"):
        batch_range(ViTConfig(), "4x3x224x224", "", "2x3x224x224")


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("vit_base_patch16_224", "vit_base_patch16_224"),
        ("hf-hub:org/name", "name"),
        ("/a b/mein modell", "mein-modell"),
        ("model.safetensors", "model"),
    ],
)
def test_the_default_bundle_is_named_after_the_model(model: str, slug: str) -> None:
    assert _slug(model) == slug


def test_every_option_of_every_exporter_is_a_flag(invoke_help: Callable[[str], str]) -> None:
    from vit_deploy import registry
    from vit_deploy.protocols import option_fields

    text = invoke_help("export")
    for name in registry.formats():
        for field in option_fields(registry.exporter(name).Options).values():
            assert (field.metadata["flag"] or f"--{field.name.replace('_', '-')}") in text


@pytest.fixture
def invoke_help() -> Callable[[str], str]:
    from click.testing import CliRunner

    from vit_deploy.cli import group

    return lambda name: CliRunner().invoke(group, [name, "--help"]).output


def test_a_stream_that_cannot_say_it_gets_a_replacement(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = ("export", "-m", DIGITS, "--format", "torchscript", "--no-verify", "-o", "x[/]")
    finished = run(*words, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert "torchscript-fp32" in finished.stdout


def test_an_option_of_the_source_makes_it_again(tmp_path: Path) -> None:
    words = ("export", "-m", DIGITS, "--format", "tensorrt", "--no-verify", "-o", "b", "--opset")
    assert run(*words, 17, cwd=tmp_path).returncode == 0
    again = run(*words, 20, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    made = {entry["name"]: entry for entry in json.loads(again.stdout)["artefacts"]}
    assert made["onnx-fp32"]["facts"]["opset"] == 20


def test_what_was_not_foreseen_is_a_line_unless_debug(tmp_path: Path) -> None:
    code = (
        "import sys; from vit_deploy import cli; from vit_deploy.cli import models\n"
        "models.command.callback = lambda **_: 1 / 0\n"
        "cli.main(sys.argv[1:])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, "models"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (told.returncode, "Traceback" in told.stderr, "--debug" in told.stderr) == (1, False, True)
    shown = subprocess.run(
        [sys.executable, "-c", code, "models", "--debug"], capture_output=True, text=True, check=False
    )
    assert "ZeroDivisionError" in shown.stderr
    assert "Traceback" in shown.stderr
