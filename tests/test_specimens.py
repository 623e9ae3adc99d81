"""The specimens are what they are meant to be: many, seeded, and away from what they were initialised to."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.specimens import SOURCES, SPECIMENS, STRANGERS, by_id
from tests.specimens.values import randomise

WRITTEN_IN_SAFETENSORS = [
    entry.id
    for entry in SPECIMENS
    if entry.source in {"timm", "transformers"} or entry.id.startswith("open_clip/V")
]


def test_ids_are_unique():
    ids = [entry.id for entry in (*SPECIMENS, *STRANGERS)]
    assert len(ids) == len(set(ids))


def test_there_are_enough_of_them():
    assert len(SPECIMENS) >= 55
    assert len(SOURCES) >= 6
    assert all(entry.says for entry in STRANGERS)


@pytest.mark.parametrize("name", WRITTEN_IN_SAFETENSORS)
def test_no_weight_is_at_its_initial_value(name: str, tmp_path):
    by_id(name).save(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    for weight, value in safetensors.numpy.load_file(path).items():
        if value.size > 1 and value.dtype == np.float32:
            assert np.unique(value).size > value.size // 2, f"{weight} is constant"
            assert 0.02 < value.std() < 1.2, f"{weight} is too small or too large to matter"


@pytest.mark.parametrize("name", ["timm/eva02_tiny_patch14_224", "jax_npz/vit_tiny_patch16_224"])
def test_the_same_seed_gives_the_same_weights(name: str, tmp_path):
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        by_id(name).save(folder)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    if name.startswith("timm"):
        assert files[0] == files[1]
    else:  # a zip keeps the time
        archives = [np.load(next((tmp_path / folder).iterdir())) for folder in "ab"]
        assert all(np.array_equal(archives[0][entry], archives[1][entry]) for entry in archives[0].files)


def test_each_kind_of_parameter_has_its_own_range():
    module = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(512), "fc": torch.nn.Linear(400, 512)})
    module.register_parameter("pos_embed", torch.nn.Parameter(torch.zeros(1, 9, 64)))
    module.register_parameter("gamma_1", torch.nn.Parameter(torch.ones(64)))
    randomise(module, seed=3)
    assert abs(module["norm"].weight - 1).max() <= 0.2
    assert module["norm"].bias.abs().max() <= 0.1
    assert 0.9 < module["fc"].weight.std() * 400**0.5 < 1.1
    assert 0.4 < module.pos_embed.abs().max() <= 0.5
    assert ((module.gamma_1 >= 0.3) & (module.gamma_1 <= 0.7)).all()
    assert not module.training
