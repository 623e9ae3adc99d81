from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vit_deploy import pt2_target
from vit_deploy.blame.formats import found_taps, tapped
from vit_deploy.errors import BackendMissing, ExportFailed, OutputFailed, RunFailed, UsageFailed
from vit_deploy.exporters import _pt2_compile, _pt2_work, pt2
from vit_deploy.exporters._pt2_objects import KEPT, ObjectCache
from vit_deploy.exporters.pt2 import EXPORTER, Pt2Options
from vit_deploy.facts import Device
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Artefact, SessionOptions, Silent
from vit_deploy.pt2_target import Target, check_target
from vit_deploy.runtimes.pt2 import RUNTIME
from vit_deploy.weights.random import random_model

pytestmark = pytest.mark.skipif(
    not EXPORTER.available().ok, reason=f"pt2 cannot be compiled here: {EXPORTER.available().reason}"
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vit_deploy.weights.imported import Model

OUTPUTS = ("logits", "embedding", "tokens")

compiles = pytest.mark.skipif(
    not EXPORTER.available().ok, reason=f"{EXPORTER.available().reason}: {EXPORTER.available().mend}"
)


@pytest.fixture(scope="module")
def model() -> Model:
    config = ViTConfig(
        image_size=(32, 48), patch_size=8, embed_dim=60, depth=2, num_heads=5, mlp_dim=150, num_classes=7
    )
    return random_model(config, "small", seed=1)


@pytest.fixture(scope="module")
def compiled(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The one package that is compiled for these tests."""
    folder = tmp_path_factory.mktemp("mit Leerzeichen & ü")
    spec = model.config.io_spec(OUTPUTS)
    made = EXPORTER.export(model, spec, Pt2Options(), folder, Silent())
    assert [path.name for path in folder.iterdir()] == list(made.files)
    assert made.tools["torch"] == torch.__version__
    assert "version" in made.tools["compiler"]
    return Artefact("pt2-fp32", "pt2", "fp32", folder / made.files[0], made.spec, model.config, made.facts)


@pytest.fixture
def artefact(compiled: Artefact, tmp_path: Path) -> Artefact:
    """A copy that a test may damage."""
    path = tmp_path / compiled.path.name
    shutil.copyfile(compiled.path, path)
    return replace(compiled, path=path)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def images(batch_size: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(batch_size)
    return {"pixel_values": rng.standard_normal((batch_size, 3, 32, 48)).astype(np.float32)}


@compiles
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_the_eager_reference(model: Model, compiled: Artefact, batch_size: int) -> None:
    inputs = images(batch_size)
    with RUNTIME.open(compiled, Device(), SessionOptions()) as session:
        found = session.run(inputs)
    with torch.inference_mode():
        results = model.eager(outputs=OUTPUTS)(torch.from_numpy(inputs["pixel_values"]))
    assert tuple(found) == OUTPUTS
    for name, want in zip(OUTPUTS, results, strict=True):
        assert found[name].dtype == np.float32
        assert np.linalg.norm(found[name] - want.numpy()) / np.linalg.norm(want.numpy()) <= 2e-6, name


@compiles
def test_a_staged_step_leaves_its_outputs_in_place(compiled: Artefact) -> None:
    with RUNTIME.open(compiled, Device(), SessionOptions()) as session:
        step = session.stage(images(2))
        step()
        step.synchronize()
        found = session.run(images(2))
    assert np.array_equal(step.results[0].numpy(), found["logits"])


@compiles
@pytest.mark.usefixtures("threads")
def test_facts_are_read_back(compiled: Artefact) -> None:
    with RUNTIME.open(compiled, Device(), SessionOptions(threads=1)) as session:
        facts = session.facts
    assert (facts.backend, facts.device, facts.precision, facts.threads) == ("pt2", "cpu", "fp32", 1)
    assert facts.version == torch.__version__
    assert list(facts.placement) == ["cpu"]
    assert set(facts.details["weights"]) == {"float32"}
    assert facts.fused_attention == {"fused": 2, "of": 2}
    # Two blocks of four products, the patches and the head; two norms a block and the last.
    assert facts.dtypes["linear"] == {"fp32": 10}
    assert facts.dtypes["layernorm"] == {"fp32": 5}
    assert facts.dtypes["io"] == {"fp32": 4}


@compiles
def test_its_weights_are_packed_and_its_products_fused(compiled: Artefact) -> None:
    calls = compiled.facts["calls"]
    assert calls["linear_pointwise"] + calls["linear_pointwise_binary"] == 9
    assert calls["linear_pointwise_binary"] == 4  # the residual sums
    assert compiled.facts["kernels"] >= 5


@compiles
def test_the_package_holds_no_path_of_this_machine(compiled: Artefact) -> None:
    here = (Path.home(), Path(torch.__file__).parent, Path(__file__).parents[2], compiled.path.parent)
    told = [str(path).encode() for path in here] + [tempfile.gettempdir().encode() + b"/"]
    with zipfile.ZipFile(compiled.path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not [path for path in told if path in content], name
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


@compiles
def test_pytorch_s_own_loader_takes_it(model: Model, compiled: Artefact) -> None:
    inputs = torch.from_numpy(images(2)["pixel_values"])
    loaded = torch._inductor.aoti_load_package(str(compiled.path))
    with torch.inference_mode():
        expected = model.eager(outputs=("logits",))(inputs)
    torch.testing.assert_close(loaded(inputs)[0], expected, rtol=1e-4, atol=1e-5)


@compiles
def test_opening_leaves_no_file_and_no_descriptor(compiled: Artefact) -> None:
    folder = Path(tempfile.gettempdir())
    before, descriptors = set(folder.iterdir()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with RUNTIME.open(compiled, Device(), SessionOptions()) as session:
        session.run(images(1))
        assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
    assert not [path for path in set(folder.iterdir()) - before if (path / "model").exists()]


@compiles
@pytest.mark.parametrize("damage", ["empty", "no zip", "half", "all but the end", "a byte of its code"])
def test_a_damaged_file_is_refused(artefact: Artefact, damage: str) -> None:
    whole = artefact.path.read_bytes()
    with zipfile.ZipFile(artefact.path) as archive:
        code = next(entry for entry in archive.infolist() if entry.filename.endswith(".so"))
    middle = code.header_offset + code.file_size // 2
    contents = {
        "empty": b"",
        "no zip": b"no zip at all",
        "half": whole[: len(whole) // 2],
        "all but the end": whole[:-1],
        "a byte of its code": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    artefact.path.write_bytes(contents[damage])
    with pytest.raises(RunFailed, match=r"model\.pt2 is no compiled package"):
        RUNTIME.open(artefact, Device(), SessionOptions())


@compiles
@pytest.mark.parametrize("missing", ["file", "code"])
def test_what_is_not_there_is_refused(artefact: Artefact, missing: str) -> None:
    artefact.path.unlink()
    if missing == "code":
        with zipfile.ZipFile(artefact.path, "w") as archive:
            archive.writestr("model/data/aotinductor/model/model.wrapper.cpp", "int main() {}")
    with pytest.raises(RunFailed, match="is no compiled package"):
        RUNTIME.open(artefact, Device(), SessionOptions())


@compiles
def test_a_shared_object_that_is_no_model_is_refused(artefact: Artefact) -> None:
    with zipfile.ZipFile(artefact.path, "w") as archive:
        archive.writestr("model/data/aotinductor/model/model.wrapper.so", b"\x7fELF and no more")
    with pytest.raises(RunFailed, match="PyTorch refuses"):
        RUNTIME.open(artefact, Device(), SessionOptions())


@compiles
def test_another_precision_than_declared_is_refused(compiled: Artefact) -> None:
    with pytest.raises(RunFailed, match="holds weights of float32"):
        RUNTIME.open(replace(compiled, precision="bf16"), Device(), SessionOptions())


HERE = Target("linux", "x86_64", "x86-64-v3", ("avx2", "fma"), "2.13.0")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"machine": "aarch64"}, "compiled for linux aarch64"),
        ({"system": "darwin"}, "compiled for darwin x86_64"),
        ({"cpu_flags": ("avx2", "avx1024")}, "has no avx1024"),
        ({"torch": "2.12.1"}, "compiled for torch 2.12.1, and this is torch 2.13.0"),
    ],
)
def test_another_machine_is_told_apart_before_anything_is_opened(
    other: dict[str, Any], told: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pt2_target.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(pt2_target.sys, "platform", "linux")
    monkeypatch.setattr(
        pt2_target, "cpu_flags", lambda: frozenset({"avx2", "fma"}) | pt2_target.LEVELS[1].flags
    )
    monkeypatch.setattr(pt2_target, "torch_version", lambda: "2.13.0")
    check_target(HERE, "pt2-fp32")
    facts = {"target": replace(HERE, **other).to_facts()}
    nowhere = tmp_path / "is not there.pt2"
    artefact = Artefact("pt2-fp32", "pt2", "fp32", nowhere, model.config.io_spec(), model.config, facts)
    with pytest.raises(BackendMissing, match=told) as caught:
        RUNTIME.open(artefact, Device(), SessionOptions())
    assert caught.value.exit_code == 4
    assert "export --format pt2" in caught.value.next_command


@pytest.mark.parametrize("facts", [{}, {"target": None}, {"target": {"machine": "x86_64"}}, {"target": "here"}])
def test_a_package_of_unknown_origin_is_not_opened(facts: dict[str, Any], model: Model, tmp_path: Path) -> None:
    path = tmp_path / "is not there.pt2"
    artefact = Artefact("pt2-fp32", "pt2", "fp32", path, model.config.io_spec(), model.config, facts)
    with pytest.raises(RunFailed, match="nothing says what machine pt2-fp32 was compiled for"):
        RUNTIME.open(artefact, Device(), SessionOptions())


@compiles
def test_what_it_cannot_do_is_refused_by_name(compiled: Artefact) -> None:
    with pytest.raises(UsageFailed, match="CUDA graph"):
        RUNTIME.open(compiled, Device(), SessionOptions(cuda_graph=True))
    with pytest.raises(UsageFailed, match="without its optimisations"):
        RUNTIME.open(compiled, Device(), SessionOptions(optimise=False))
    target = {**compiled.facts["target"], "device": "cuda"}
    with pytest.raises(UsageFailed, match="compiled for the device cuda"):
        RUNTIME.open(replace(compiled, facts={"target": target}), Device(), SessionOptions())


@compiles
def test_it_cannot_be_looked_into(compiled: Artefact, tmp_path: Path) -> None:
    for look in (lambda: found_taps(compiled), lambda: tapped(compiled, ("tokens",), tmp_path)):
        with pytest.raises(RunFailed, match="compiled as one piece"):
            look()


# Exporting ------------------------------------------------------------------------------------------


def try_export(model: Model, folder: Path, progress: Any = None, **chosen: Any) -> None:
    folder.mkdir(exist_ok=True)
    precision = chosen.pop("precision", "fp32")
    EXPORTER.export(
        model, model.config.io_spec(), Pt2Options(**chosen), folder, progress or Silent(), None, precision
    )


def test_without_a_compiler_the_mend_is_told(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "apt-get install g++" in EXPORTER.available().mend
    with pytest.raises(BackendMissing, match="no 'no-such-compiler'"):
        try_export(model, tmp_path)


def test_a_compiler_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert "does not run" in EXPORTER.available().reason


def test_another_kind_of_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pt2_target.platform, "machine", lambda: "riscv64")
    for found in (EXPORTER.available(), RUNTIME.available()):
        assert "linux riscv64" in found.reason
        assert found.mend
    assert RUNTIME.devices() == ()


def test_a_processor_below_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pt2_target, "cpu_flags", lambda: frozenset({"sse2"}))
    assert "no AVX2" in pt2_target.supported().reason


@compiles
def test_a_level_that_this_processor_has_not(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pt2, pt2_target):
        monkeypatch.setattr(module, "cpu_flags", lambda: pt2_target.LEVELS[-1].flags)
    with pytest.raises(UsageFailed, match="does not have x86-64-v4") as caught:
        try_export(model, tmp_path, cpu_level="x86-64-v4")
    assert caught.value.expected == "--cpu-level x86-64-v3"
    with pytest.raises(UsageFailed, match="nothing in fp16"):
        try_export(model, tmp_path, precision="fp16")


@compiles
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device; needs one without")
def test_a_package_for_a_gpu_needs_one(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BackendMissing, match="compiled on one"):
        try_export(model, tmp_path, compile_for="cuda")
    with pytest.raises(BackendMissing, match="no CUDA device"):
        check_target(replace(HERE, cpu_flags=(), torch=pt2_target.torch_version(), device="cuda"), "pt2")


class CancelledWhileCompiling(Silent):
    """Cancelled some seconds after the worker was started."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun = 0.0

    def phase(self, text: str, total: int | None = None) -> None:
        if "Compiling" in text:
            self.begun = time.monotonic()

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        return bool(self.begun) and time.monotonic() - self.begun > self.seconds


@compiles
def test_a_cancelled_compile_leaves_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(cache))
    with pytest.raises(ExportFailed, match="cancelled"):
        try_export(model, tmp_path / "staging", CancelledWhileCompiling(1.0))
    assert not list((tmp_path / "staging").iterdir())
    assert not list((cache / "pt2").glob("compile-*"))


KILLED = """
import sys
from pathlib import Path
from tests.runtimes.test_pt2 import try_export
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import Silent
from vit_deploy.weights.random import random_model

class Telling(Silent):
    def phase(self, text, total=None):
        if "Compiling" in text:
            print("compiling", flush=True)

config = ViTConfig(image_size=(32, 48), patch_size=8, embed_dim=60, depth=2, num_heads=5, mlp_dim=150)
try_export(random_model(config, "small", seed=1), Path(sys.argv[1]), Telling())
"""


@compiles
@pytest.mark.slow
def test_an_export_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "staging")],
        stdout=subprocess.PIPE,
        env={**os.environ, "VIT_DEPLOY_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"compiling\n"
        time.sleep(4)
        assert list((cache / "pt2").glob("compile-*/inductor"))  # it is at it
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while list((cache / "pt2").glob("compile-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)  # until the worker would have ended, had it made the folder again
    assert not list((cache / "pt2").glob("compile-*"))
    assert not list((tmp_path / "staging").iterdir())


@compiles
@pytest.mark.slow
def test_another_process_in_another_folder_writes_the_same_bytes(
    compiled: Artefact, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "a-new-one"))  # with no object files in it
    monkeypatch.setenv("TORCHINDUCTOR_CPP_MARCH", "native")
    spec = model.config.io_spec(OUTPUTS)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    EXPORTER.export(model, spec, Pt2Options(), folder, Silent())
    assert (folder / "model.pt2").read_bytes() == compiled.path.read_bytes()


def test_what_others_left_behind_is_cleared_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    from filelock import FileLock

    for name in ("compile-left", "compile-used", "compile-new", "objects"):
        (tmp_path / name).mkdir()
    for name in ("compile-left", "compile-used"):
        (tmp_path / name / "in-use.lock").touch()
    with FileLock(tmp_path / "compile-used" / "in-use.lock"):
        _pt2_work.clear_stale(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["compile-new", "compile-used", "objects"]


def test_a_path_with_blanks_is_not_compiled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = tmp_path / "with blanks"
    blank.mkdir()
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(blank))
    with _pt2_work.work_folder() as folder:
        assert " " not in str(folder)
    assert not folder.exists()
    monkeypatch.setattr(tempfile, "tempdir", str(blank))
    with pytest.raises(OutputFailed, match="blanks"), _pt2_work.work_folder():
        pass


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "a-file"))
    with pytest.raises(OutputFailed, match="no folder to compile in"), _pt2_work.work_folder():
        pass


def test_object_files_are_kept_by_what_made_them(tmp_path: Path) -> None:
    cache, source, made = ObjectCache(tmp_path / "objects"), tmp_path / "a.cpp", tmp_path / "a.o"
    source.write_text("int a;")
    made.write_bytes(b"object")
    key = cache.key(source, "g++ -O1", "gcc 12")
    assert not cache.fetch(key, tmp_path / "b.o")
    cache.keep(key, made)
    assert cache.fetch(key, tmp_path / "b.o")
    assert (tmp_path / "b.o").read_bytes() == b"object"
    assert key not in {cache.key(source, "g++ -O2", "gcc 12"), cache.key(source, "g++ -O1", "gcc 13")}
    source.write_text("int b;")
    assert cache.key(source, "g++ -O1", "gcc 12") != key
    entry = tmp_path / "objects" / key
    entry.write_bytes(entry.read_bytes()[:-1])
    assert not cache.fetch(key, tmp_path / "c.o")
    assert not (tmp_path / "c.o").exists()


def test_the_latest_object_files_are_kept(tmp_path: Path) -> None:
    cache, made = ObjectCache(tmp_path / "objects"), tmp_path / "a.o"
    made.write_bytes(b"object")
    for number in range(KEPT + 3):
        cache.keep(f"{number:03}", made)
        os.utime(tmp_path / "objects" / f"{number:03}", (number, number))
    cache.keep("last", made)
    kept = sorted(path.name for path in (tmp_path / "objects").iterdir())
    assert len(kept) == KEPT
    assert kept[-1] == "last"
    assert "000" not in kept


def test_a_worker_that_dies_is_told(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pt2_compile, "WORKER_MODULE", "this")  # it ends at once, and answers nothing
    package = tmp_path / "model.pt2"
    with pytest.raises(ExportFailed, match="came to no end: the worker ended with exit code"):
        _pt2_compile.compile_program(tmp_path, package, {}, Silent())
    assert not package.exists()


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ({"text": "OSError: No space left on device", "compiler": []}, OutputFailed, "cannot be written"),
        ({"text": "", "compiler": ["a.cpp:1: fatal error: omp.h"]}, ExportFailed, "fatal error: omp.h"),
        ({"text": "", "compiler": []}, ExportFailed, "AOTInductor does not compile"),
    ],
)
def test_what_the_worker_tells_becomes_an_error(answer: dict[str, Any], error: type, told: str) -> None:
    found = _pt2_compile.failure_of({"error": "it failed", **answer})
    assert isinstance(found, error)
    assert told in str(found)
