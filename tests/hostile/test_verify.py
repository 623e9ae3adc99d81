"""What ``vit-deploy verify`` says of bad pictures, of artefacts that lie and of backends that break down."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from PIL import Image

from vit_deploy import registry
from vit_deploy.bundle import edit_bundle
from vit_deploy.cli import main
from vit_deploy.facts import Verdict
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import ExportedFiles, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import Weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

from onnx import TensorProto, helper  # noqa: E402

CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=8, embed_dim=40, depth=2, num_heads=4, mlp_dim=96, num_classes=5
)
WORKER = "vit_deploy.parity.worker"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No reference of another test."""
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def verify(capsys) -> Callable[..., Result]:
    """Run ``vit-deploy verify`` in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main(["verify", *map(str, arguments)])
        finally:
            signal.signal(signal.SIGTERM, before)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        assert not workers()
        return Result(int(ended.value.code or 0), told.out, told.err)

    return run


def workers(parent: int | None = None) -> list[psutil.Process]:
    """The processes that hold artefacts open for a process, this one by default."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        try:
            if WORKER in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIG, "small", seed=2)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> tuple[Path, ExportedFiles]:
    """The ONNX artefact as it is exported, in no bundle yet."""
    folder, exporter = tmp_path_factory.mktemp("exported"), registry.exporter("onnx")
    spec = CONFIG.io_spec(batch=BatchRange(1, 1, 3))
    return folder, exporter.export(model, spec, exporter.Options(), folder, Silent())


@pytest.fixture
def bundle(model, exported, tmp_path) -> Callable[..., Path]:
    """Make a bundle with one artefact, whose hashes are right whatever was done to it."""

    def make(
        edit: Callable[[Any], None] | None = None,
        of: Model = model,
        declare: Callable[[Any], Any] | None = None,
    ) -> Path:
        folder, made = exported
        graph = onnx.load(folder / made.files[0])
        if edit is not None:
            edit(graph)
        path = tmp_path / "ein Bündel"
        with edit_bundle(path, of) as editor:
            staging = editor.stage("onnx-fp32")
            onnx.save(graph, staging / made.files[0])
            files = replace(made, spec=declare(made.spec) if declare else made.spec)
            candidate = editor.candidate("onnx-fp32", "onnx", "fp32", files)
            editor.accept(
                candidate, files, registry.exporter("onnx").Options(), Verdict(None, reason="not judged yet")
            )
        return path

    return make


# --- pictures ---------------------------------------------------------------------------------------------


def test_a_folder_without_pictures(bundle, verify, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "read me.txt").write_text("no picture")
    result = verify(bundle(), "--images", folder)
    assert result.code == 6
    assert "holds no pictures" in result.err
    assert "files that end in" in result.err
    assert result.out == ""


def truncated(path: Path) -> None:
    Image.effect_noise((64, 48), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    """The header of a PNG of 60,000 by 60,000 pixels."""
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


BAD_PICTURES = {
    "text": lambda path: path.write_text("no picture at all"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "bomb": bomb,
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_one_picture_among_good_ones_that_cannot_be_read(kind, bundle, verify, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "c"):
        Image.new("RGB", (40, 30), (200, 10, 90)).save(folder / f"{name}.png")
    BAD_PICTURES[kind](folder / "b.png")
    result = verify(bundle(), "--images", folder)
    assert result.code == 6
    assert "b.png" in result.err
    assert result.out == ""


def test_fewer_pictures_than_a_share_can_be_shown_on(bundle, verify, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.effect_noise((40, 30), 90).convert("RGB").save(folder / "one.png")
    path = bundle()
    result = verify(path, "--images", folder, "--limit", "top1=0.98", "--json")
    assert result.code == 4
    (entry,) = json.loads(result.out)["artefacts"]
    assert entry["passed"] is None
    counted = entry["details"]["decisions"]["top1"]
    assert counted["agreed"] == counted["of"] <= 97
    # With no sample that disagrees, 0.98^n must fall to 5 %: n = 149.
    assert f"149 clear samples would show it, {149 - counted['of']} more than there are" in entry["reason"]
    assert counted["samples_needed"] == 149
    assert "149" in result.err


# --- artefacts that lie -----------------------------------------------------------------------------------


def rename(graph: Any, name: str) -> None:
    """The first output under another name, as something else than it was."""
    (output,) = graph.graph.output
    graph.graph.node.append(helper.make_node("Identity", [output.name], [name]))
    output.name = name


def pass_through(graph: Any, operator: str, element: int, shape: list[Any], **attributes: Any) -> None:
    """The output as ``operator`` leaves it, under its old name."""
    (output,) = graph.graph.output
    for node in graph.graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    inputs = ["before"]
    if operator == "Unsqueeze":
        graph.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
        inputs.append("axes")
    graph.graph.node.append(helper.make_node(operator, inputs, [output.name], **attributes))
    output.CopyFrom(helper.make_tensor_value_info(output.name, element, shape))


def cast(element: int) -> Callable[[Any], None]:
    return lambda graph: pass_through(graph, "Cast", element, ["batch", 5], to=element)


def unsqueeze(graph: Any) -> None:
    pass_through(graph, "Unsqueeze", TensorProto.FLOAT, ["batch", 1, 5])


def mean(graph: Any) -> None:
    pass_through(graph, "ReduceMean", TensorProto.FLOAT, [], keepdims=0)


def add_output(graph: Any) -> None:
    graph.graph.node.append(helper.make_node("Identity", [graph.graph.output[0].name], ["more"]))
    graph.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 5]))


def a_sequence(graph: Any) -> None:
    pass_through(graph, "SequenceConstruct", TensorProto.FLOAT, [])
    name = graph.graph.output[0].name
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph.graph.output[0].CopyFrom(helper.make_value_info(name, kind))


LIES = {
    "another name": (lambda graph: rename(graph, "scores"), "it gives the outputs scores, not logits"),
    "one more": (add_output, "it gives the outputs logits, more, not logits"),
    "doubles": (cast(TensorProto.DOUBLE), "logits is float64 of shape"),
    "half": (cast(TensorProto.FLOAT16), "logits is float16 of shape"),
    "whole numbers": (cast(TensorProto.INT64), "logits is int64 of shape"),
    "text": (cast(TensorProto.STRING), "'logits' is an array of object"),
    "a sequence": (a_sequence, "'logits' is a list"),
    "one axis more": (unsqueeze, "(1, 1, 5) at batch 1, not float32 of shape (1, 5)"),
    "no axis": (mean, "logits is float32 of shape ()"),
}


@pytest.mark.parametrize("lie", LIES)
def test_outputs_that_are_not_those_declared(lie, bundle, verify):
    edit, told = LIES[lie]
    result = verify(bundle(edit), "--no-blame", "--json")
    (entry,) = json.loads(result.out)["artefacts"]
    assert told in entry["reason"]
    assert entry["passed"] is False
    assert result.code == 3
    assert "onnx-fp32" in result.err


DECLARED = {
    "unknown": (lambda entry: replace(entry, name="scores"), "declares the output 'scores'"),
    "rank": (lambda entry: replace(entry, shape=("batch", 1, 5)), "declares logits of shape ('batch', 1, 5)"),
    "dtype": (lambda entry: replace(entry, dtype="int64"), "declares logits as int64"),
}


@pytest.mark.parametrize("kind", DECLARED)
def test_a_manifest_that_declares_what_the_model_does_not_give(kind, bundle, verify):
    change, told = DECLARED[kind]
    path = bundle(declare=lambda spec: replace(spec, outputs=tuple(map(change, spec.outputs))))
    result = verify(path, "--json")
    (entry,) = json.loads(result.out)["artefacts"]
    assert told in entry["reason"]
    assert result.code == 3


def test_a_reference_of_nan(model, bundle, verify):
    """Whatever the artefact gives, there is nothing that it could be compared with."""
    bias = model.weights["blocks.1.mlp.fc2.bias"]
    spoiled = replace(bias, reader=lambda: torch.full(bias.shape, torch.nan))
    weights = Weights(spoiled if name == bias.name else tensor for name, tensor in model.weights.items())
    result = verify(bundle(of=replace(model, weights=weights)))
    assert result.code == 6
    assert "NaN" in result.err
    assert "float64" in result.err
    assert result.out == ""


# --- backends that break down -----------------------------------------------------------------------------


def endless(graph: Any) -> None:
    """A loop without an end before everything else."""
    (given,) = graph.graph.input
    flag = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["carried"], ["kept"]),
            helper.make_node("Identity", ["going"], ["goes_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            flag,
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, None),
        ],
    )
    for node in graph.graph.node:
        node.input[:] = ["looped" if name == given.name else name for name in node.input]
    graph.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph.graph.node.insert(0, helper.make_node("Loop", ["", "yes", given.name], ["looped"], body=body))


def in_the_middle(act: Callable[[psutil.Process], None], parent: int | None = None) -> threading.Thread:
    """Do something to the worker once it has been busy for a while."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for worker in workers(parent):
                # Opening takes half a second of processor time, an endless loop all that there is.
                if worker.cpu_times().user > 1.5:
                    act(worker)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_backend_that_hangs(bundle, verify):
    started = time.monotonic()
    result = verify(bundle(endless), "--timeout", "3", "--json")
    (entry,) = json.loads(result.out)["artefacts"]
    assert "did not answer 'run' within 3 s and was killed" in entry["reason"]
    assert "onnx-fp32 ran on pixel_values 1x3x16x24" in entry["reason"]
    assert entry["passed"] is False
    assert result.code == 3
    # Looking for the culprit must not sit the same hang out again and again.
    assert time.monotonic() - started < 40


@pytest.mark.parametrize("fatal", [signal.SIGSEGV, signal.SIGKILL])
def test_a_backend_that_dies(fatal, bundle, verify):
    killer = in_the_middle(lambda worker: worker.send_signal(fatal))
    result = verify(bundle(endless), "--timeout", "60", "--no-blame", "--json")
    killer.join()
    (entry,) = json.loads(result.out)["artefacts"]
    assert f"the worker was killed by {fatal.name}" in entry["reason"]
    assert entry["passed"] is False
    assert result.code == 3


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_the_middle_leaves_no_worker(sent, bundle):
    path = bundle(endless)
    program = "from vit_deploy.cli import main; main()"
    command = [sys.executable, "-c", program, "verify", str(path), "--timeout", "60"]
    # A background job of a shell may have been told to ignore Ctrl-C, and its children inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=heed) as run:
        held: list[psutil.Process] = []

        def stop(worker: psutil.Process) -> None:
            held.append(worker)
            os.kill(run.pid, sent)

        stopper = in_the_middle(stop, run.pid)
        out, err = run.communicate(timeout=90)
        stopper.join()
    assert run.returncode == 130
    assert "stopped" in err
    assert out == ""
    assert held
    assert not held[0].is_running()
