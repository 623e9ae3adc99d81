from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vit_deploy.errors import BackendMissing, ExportFailed, OutputFailed
from vit_deploy.exporters import torchscript
from vit_deploy.exporters.torchscript import EXPORTER, trace_and_freeze
from vit_deploy.protocols import ExportedFiles, NoOptions, Silent
from vit_deploy.spec import BatchRange, IOSpec
from vit_deploy.weights.imported import Model


def export(model: Model, folder: Path, spec: IOSpec | None = None, progress: object = None) -> ExportedFiles:
    folder.mkdir(exist_ok=True)
    spec = spec or model.config.io_spec(("logits", "tokens"))
    return EXPORTER.export(model, spec, NoOptions(), folder, progress or Silent())


def load(path: Path) -> torch.jit.ScriptModule:
    with torchscript.quiet_deprecation():
        return torch.jit.load(str(path))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_archive_is_bit_equal_to_the_module_it_was_traced_from(small_model, tmp_path, batch_size):
    export(small_model, tmp_path)
    images = torch.randn(batch_size, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = load(tmp_path / "model.pt")(images)
        expected = small_model.eager(outputs=("logits", "tokens")).for_export()(images)
    assert [tuple(output.shape) for output in found] == [(batch_size, 7), (batch_size, 25, 60)]
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(have.numpy(), want.numpy())


def test_fixed_batch_and_single_output(small_model, tmp_path):
    spec = small_model.config.io_spec(("embedding",), BatchRange(3, 3, 3))
    exported = export(small_model, tmp_path, spec)
    assert exported.spec is spec
    assert load(tmp_path / "model.pt")(torch.zeros(3, 3, 32, 48)).shape == (3, 60)


def test_facts_and_files(small_model, tmp_path):
    exported = export(small_model, tmp_path)
    assert exported.files == ("model.pt",)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert exported.facts["operators"]["aten::scaled_dot_product_attention"] == small_model.config.depth
    assert set(exported.facts["constants"]) == {"float32"}
    assert exported.tools == {"torch": torch.__version__}


def test_two_exports_of_one_process_are_byte_equal(small_model, tmp_path):
    export(small_model, tmp_path / "one")
    export(small_model, tmp_path / "two")
    one, two = ((tmp_path / name / "model.pt").read_bytes() for name in ("one", "two"))
    assert one == two


SCRIPT = """
import runpy, sys
from pathlib import Path
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights.random import random_model
module = runpy.run_path(sys.argv[1])
module["export"](random_model({config!r}, "small", seed=1), Path(sys.argv[2]))
"""


def test_another_process_in_another_folder_writes_the_same_bytes(small_model, tmp_path):
    export(small_model, tmp_path)
    elsewhere = tmp_path / "größer & elsewhere"
    elsewhere.mkdir()
    script = SCRIPT.format(config=small_model.config)
    subprocess.run([sys.executable, "-c", script, __file__, str(elsewhere)], cwd=elsewhere, check=True)
    digests = {hashlib.sha256((folder / "model.pt").read_bytes()).digest() for folder in (tmp_path, elsewhere)}
    assert len(digests) == 1


def test_archive_holds_no_path_of_this_machine(small_model, tmp_path):
    export(small_model, tmp_path)
    here = [str(Path.home()), str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), str(tmp_path)]
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        names = archive.namelist()
        for name in names:
            content = archive.read(name)
            assert not [path for path in (*here, "site-packages", ".py\n") if path.encode() in content], name
    assert not [name for name in names if name.endswith((".debug_pkl", "serialization_id"))]


def test_records_are_stored_plain_and_tensors_aligned(small_model, tmp_path):
    export(small_model, tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt") as archive, (tmp_path / "model.pt").open("rb") as raw:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        tensors = [entry for entry in archive.infolist() if "/constants/" in entry.filename]
        assert tensors
        for entry in tensors:
            raw.seek(entry.header_offset + 26)
            lengths = [int.from_bytes(raw.read(2), "little") for _ in range(2)]
            assert (entry.header_offset + 30 + sum(lengths)) % 64 == 0, entry.filename


def test_a_value_baked_in_by_the_tracer_is_refused(small_config):
    class Bakes(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values * 2 if float(pixel_values.sum()) > 0 else pixel_values

    with pytest.raises(ExportFailed, match="cannot be traced"):
        trace_and_freeze(Bakes(), small_config.io_spec())


def test_the_users_cudnn_settings_are_left_as_they_were(small_model, tmp_path):
    before = torch.backends.cudnn.allow_tf32
    export(small_model, tmp_path)
    assert torch.backends.cudnn.allow_tf32 is before
    assert "CONSTANTS.c0, CONSTANTS.c1, [8, 8]" in load(tmp_path / "model.pt").code
    convolution = next(line for line in load(tmp_path / "model.pt").code.splitlines() if "_convolution" in line)
    # benchmark, deterministic, cudnn_enabled, allow_tf32
    assert convolution.rstrip().endswith("False, False, True, False)")


def test_cancelled_export_writes_nothing(small_model, tmp_path):
    class Cancelled(Silent):
        cancelled = True

    with pytest.raises(ExportFailed, match="cancelled"):
        export(small_model, tmp_path, progress=Cancelled())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(small_model, tmp_path):
    spec = small_model.config.io_spec()
    with pytest.raises(OutputFailed, match="cannot be written"):
        EXPORTER.export(small_model, spec, NoOptions(), tmp_path / "is not there", Silent())


def test_python_3_14_is_refused_with_a_way_out(small_model, tmp_path, monkeypatch):
    assert EXPORTER.available().ok
    monkeypatch.setattr(torchscript.sys, "version_info", (3, 14, 0))
    assert not EXPORTER.available().ok
    with pytest.raises(BackendMissing, match=r"3\.14") as caught:
        export(small_model, tmp_path)
    assert "vit-deploy export --format" in caught.value.next_command
