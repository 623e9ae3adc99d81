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
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.model.vit import ViT
from vit_deploy.protocols import ExportedFiles, NoOptions, Silent
from vit_deploy.spec import BatchRange, IOSpec
from vit_deploy.weights.imported import Model, Source
from vit_deploy.weights.tensors import Weights, WeightTensor


def random_model(config: ViTConfig) -> Model:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: tuple(value.shape) for name, value in ViT(config).state_dict().items()}
    state = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    weights = Weights(
        WeightTensor(name, tuple(value.shape), "float32", lambda value=value: value)
        for name, value in state.items()
    )
    size = config.image_size
    preprocessing = Preprocessing(size, "exact", size, "bicubic", (0.5,) * 3, (0.5,) * 3)
    return Model(config, weights, preprocessing, (), Source("random", "test", "0" * 64))


def export(model: Model, folder: Path, spec: IOSpec | None = None, progress: object = None) -> ExportedFiles:
    folder.mkdir(exist_ok=True)
    spec = spec or model.config.io_spec(("logits", "tokens"))
    return EXPORTER.export(model, spec, NoOptions(), folder, progress or Silent())


@pytest.fixture
def model(small_config: ViTConfig) -> Model:
    return random_model(small_config)


def load(path: Path) -> torch.jit.ScriptModule:
    with torchscript.quiet_deprecation():
        return torch.jit.load(str(path))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_archive_is_bit_equal_to_the_module_it_was_traced_from(model, tmp_path, batch_size):
    export(model, tmp_path)
    images = torch.randn(batch_size, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = load(tmp_path / "model.pt")(images)
        expected = model.eager(outputs=("logits", "tokens")).for_export()(images)
    assert [tuple(output.shape) for output in found] == [(batch_size, 7), (batch_size, 25, 60)]
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(have.numpy(), want.numpy())


def test_fixed_batch_and_single_output(model, tmp_path):
    spec = model.config.io_spec(("embedding",), BatchRange(3, 3, 3))
    exported = export(model, tmp_path, spec)
    assert exported.spec is spec
    assert load(tmp_path / "model.pt")(torch.zeros(3, 3, 32, 48)).shape == (3, 60)


def test_facts_and_files(model, tmp_path):
    exported = export(model, tmp_path)
    assert exported.files == ("model.pt",)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert exported.facts["operators"]["aten::scaled_dot_product_attention"] == model.config.depth
    assert set(exported.facts["constants"]) == {"float32"}
    assert exported.tools == {"torch": torch.__version__}


def test_two_exports_of_one_process_are_byte_equal(model, tmp_path):
    export(model, tmp_path / "one")
    export(model, tmp_path / "two")
    one, two = ((tmp_path / name / "model.pt").read_bytes() for name in ("one", "two"))
    assert one == two


SCRIPT = """
import runpy, sys
from pathlib import Path
module = runpy.run_path(sys.argv[1])
config = module["ViTConfig"](image_size=(32, 48), patch_size=8, embed_dim=60, depth=3, num_heads=5,
                             mlp_dim=150, num_classes=7)
module["export"](module["random_model"](config), Path(sys.argv[2]))
"""


def test_another_process_in_another_folder_writes_the_same_bytes(model, tmp_path):
    export(model, tmp_path)
    elsewhere = tmp_path / "größer & elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-c", SCRIPT, __file__, str(elsewhere)], cwd=elsewhere, check=True)
    digests = {hashlib.sha256((folder / "model.pt").read_bytes()).digest() for folder in (tmp_path, elsewhere)}
    assert len(digests) == 1


def test_archive_holds_no_path_of_this_machine(model, tmp_path):
    export(model, tmp_path)
    here = [str(Path.home()), str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), str(tmp_path)]
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        names = archive.namelist()
        for name in names:
            content = archive.read(name)
            assert not [path for path in (*here, "site-packages", ".py\n") if path.encode() in content], name
    assert not [name for name in names if name.endswith((".debug_pkl", "serialization_id"))]


def test_records_are_stored_plain_and_tensors_aligned(model, tmp_path):
    export(model, tmp_path)
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


def test_the_users_cudnn_settings_are_left_as_they_were(model, tmp_path):
    before = torch.backends.cudnn.allow_tf32
    export(model, tmp_path)
    assert torch.backends.cudnn.allow_tf32 is before
    assert "CONSTANTS.c0, CONSTANTS.c1, [8, 8]" in load(tmp_path / "model.pt").code
    convolution = next(line for line in load(tmp_path / "model.pt").code.splitlines() if "_convolution" in line)
    # benchmark, deterministic, cudnn_enabled, allow_tf32
    assert convolution.rstrip().endswith("False, False, True, False)")


def test_cancelled_export_writes_nothing(model, tmp_path):
    class Cancelled(Silent):
        cancelled = True

    with pytest.raises(ExportFailed, match="cancelled"):
        export(model, tmp_path, progress=Cancelled())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(model, tmp_path):
    spec = model.config.io_spec()
    with pytest.raises(OutputFailed, match="cannot be written"):
        EXPORTER.export(model, spec, NoOptions(), tmp_path / "is not there", Silent())


def test_python_3_14_is_refused_with_a_way_out(model, tmp_path, monkeypatch):
    assert EXPORTER.available().ok
    monkeypatch.setattr(torchscript.sys, "version_info", (3, 14, 0))
    assert not EXPORTER.available().ok
    with pytest.raises(BackendMissing, match=r"3\.14") as caught:
        export(model, tmp_path)
    assert "vit-deploy export --format" in caught.value.next_command
