"""The examples of docs/ci.md: their commands pass on an honest export, and stop the job on a wrong one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import onnx
import pytest
import yaml
from onnx import numpy_helper

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
DIGITS = REPOSITORY / "vit_deploy" / "assets" / "digits"
SPOILED = "blocks.2.attn.proj.bias"


@dataclass(frozen=True)
class Job:
    """One job of an example: its name, its commands in order, where it keeps what a CI system reads."""

    name: str
    lines: tuple[str, ...]
    junit: str

    @property
    def verify(self) -> str:
        return next(line for line in self.lines if line.startswith("vit-deploy verify "))


def _jobs() -> list[Job]:
    jobs = []
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        found: dict[str, Any] = yaml.safe_load(block)
        if "jobs" in found:  # GitHub Actions
            for name, job in found["jobs"].items():
                lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
                jobs.append(Job(f"github {name}", tuple(lines), "parity.xml"))
        else:
            for name, job in found.items():
                junit = job["artifacts"]["reports"]["junit"]
                jobs.append(Job(f"gitlab {name}", tuple(job["script"]), junit))
    return jobs


JOBS = _jobs()


def test_both_systems_are_there():
    assert [job.name for job in JOBS] == [
        "github parity",
        "gitlab parity",
        "gitlab rebuild",
        "gitlab candidate",
    ]


def test_reports_are_kept_whatever_comes_out():
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        found = yaml.safe_load(block)
        if "jobs" not in found:
            assert all(job["artifacts"]["when"] == "always" for job in found.values())
            continue
        for job in found["jobs"].values():
            names = [step.get("name") for step in job["steps"]]
            after = job["steps"][names.index("verify") + 1 :]
            assert after
            assert all(step["if"] == "always()" for step in after)


def test_what_is_installed_are_extras_that_there_are():
    from importlib import metadata

    extras = set(metadata.metadata("vit-deploy").get_all("Provides-Extra"))
    installed = [line for job in JOBS for line in job.lines if line.startswith("pip install ")]
    assert installed
    for line in installed:
        (wanted,) = shlex.split(line)[2:]
        name, _, named = wanted.rstrip("]").partition("[")
        assert name == "vit-deploy"
        assert set(named.split(",")) <= extras


class Runner:
    """Runs the lines of a job; the same export is made once for all jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._exports: dict[str, Path] = {}

    def shell(self, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "VIT_DEPLOY_CACHE": str(self.folder / "cache"),
            "GITHUB_STEP_SUMMARY": "summary.md",
        }
        command = ["bash", "-euo", "pipefail", "-c", line]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    def prepare(self, job: Job, folder: Path) -> None:
        """Everything before the verification, but what is installed already."""
        for line in job.lines[: job.lines.index(job.verify)]:
            if line.startswith("pip "):
                continue
            words = shlex.split(line)
            # Bundles are the same to the byte wherever they lie, so another name is no other export.
            target = words.pop(words.index("-o") + 1)
            made = self._exports.get(" ".join(words))
            if made is None:
                done = self.shell(line, folder)
                assert done.returncode == 0, done.stderr
                made = self.folder / f"made-{len(self._exports)}"
                shutil.copytree(folder / target, made)
                self._exports[" ".join(words)] = made
            else:
                shutil.copytree(made, folder / target)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("ci"))


@pytest.fixture
def desk(runner: Runner, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """What the page says lies there: a checkpoint, photos, the accepted bundle, somebody's file."""
    shutil.copytree(DIGITS, tmp_path / "my-vit")
    (tmp_path / "photos").mkdir()
    for sample in sorted(DIGITS.rglob("*.png"))[:2]:
        shutil.copy(sample, tmp_path / "photos")
    job: Job = request.getfixturevalue("job")
    if not any("-o bundle" in line for line in job.lines):
        runner.prepare(JOBS[0], tmp_path)
        shutil.copy(model_file(tmp_path / "bundle"), tmp_path / "theirs.onnx")
    runner.prepare(job, tmp_path)
    return tmp_path


def model_file(bundle: Path) -> Path:
    (path,) = (bundle / "artefacts").rglob("*.onnx")
    return path


def spoil(path: Path) -> None:
    """One bias is half as large again, as after an export of other weights."""
    model = onnx.load(path)
    (bias,) = (entry for entry in model.graph.initializer if entry.name == SPOILED)
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * 1.5, SPOILED))
    onnx.save(model, path)


def spoil_bundle(bundle: Path) -> None:
    """The same inside a bundle, whose manifest says that all is well."""
    path = model_file(bundle)
    spoil(path)
    data = path.read_bytes()
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    (record,) = (
        manifest["artefacts"].values() if isinstance(manifest["artefacts"], dict) else manifest["artefacts"]
    )
    (file,) = (entry for entry in record["files"] if path.name in entry["name"])
    file.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def failures(path: Path) -> list[str]:
    return [
        case.find("failure").get("message")
        for case in ET.parse(path).iter("testcase")
        if case.find("failure") is not None
    ]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_an_honest_export_passes(runner: Runner, job: Job, desk: Path):
    for line in job.lines[job.lines.index(job.verify) :]:
        done = runner.shell(line, desk)
        assert done.returncode == 0, done.stdout + done.stderr
    assert failures(desk / job.junit) == []
    suite = ET.parse(desk / job.junit).getroot()[0]
    assert suite.get("name") == ("theirs.onnx" if "--candidate" in job.verify else "onnx-fp32")
    assert suite.get("skipped") == "0"
    if job.name.startswith("github"):
        assert (desk / "summary.md").read_text(encoding="utf-8").startswith("### ✅")
        assert (desk / "parity.html").stat().st_size > 10_000


# The search for the culprit exports the model again, which takes its seconds: one job tells as much as four.
WRONG = [JOBS[0], *(pytest.param(job, marks=pytest.mark.slow) for job in JOBS[1:])]


@pytest.mark.parametrize("job", WRONG, ids=lambda job: job.name)
def test_a_wrong_one_ends_the_job_with_3_and_is_named(runner: Runner, job: Job, desk: Path):
    if "--candidate" in job.verify:
        spoil(desk / "theirs.onnx")
    else:
        spoil_bundle(desk / shlex.split(job.verify)[2])
    done = runner.shell(job.verify, desk)
    assert done.returncode == 3, done.stdout + done.stderr
    told = failures(desk / job.junit)
    assert any("block 2" in message for message in told), told
    for line in job.lines[job.lines.index(job.verify) + 1 :]:
        after = runner.shell(line, desk)
        assert after.returncode == 0, after.stderr
