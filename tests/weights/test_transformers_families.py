"""Every class of transformers that is read: equal to its own forward in float64, whatever its values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.weights.transformers_classes import CASES, agree, save
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights import load_model
from vit_deploy.weights.transformers import FAMILIES


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of each case and its module, made once."""
    made = {}

    def make(case):
        if case.id not in made:
            directory = tmp_path_factory.mktemp("saved")
            made[case.id] = directory, save(case, directory)
        return made[case.id]

    return make


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_equal(saved, case):
    directory, module = saved(case)
    model = load_model(str(directory))
    assert model.source.kind == "transformers"
    agree(model, case, module)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_names_in_memory(saved, case, tmp_path):
    """What release 5 calls its modules is read as what it writes."""
    directory, module = saved(case)
    state = {name: value.float().contiguous() for name, value in module.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    ours, again = load_model(str(directory)).weights, load_model(str(tmp_path)).weights
    assert set(ours) == set(again)
    for name, tensor in ours.items():
        assert torch.equal(tensor.read(), again[name].read()), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bare_file(saved, case, monkeypatch):
    """A file with the architecture's sizes is enough, where no config could say more."""
    directory, _ = saved(case)
    told = load_model(str(directory))
    sizes = (
        "image_size",
        "patch_size",
        "embed_dim",
        "depth",
        "num_heads",
        "mlp_dim",
        "activation",
        "gated_mlp",
    )
    base = replace(
        ViTConfig(num_classes=0), drop_remainder=True, **{name: getattr(told.config, name) for name in sizes}
    )
    monkeypatch.setitem(NAMED_CONFIGS, "of_its_size", base)
    bare = load_model(str(directory / "model.safetensors"), arch="of_its_size")
    # The epsilon and the base of the angles are on no weight.
    untold: dict[str, Any] = {"norm_eps": told.config.norm_eps, "rotary": told.config.rotary}
    if bare.config.activation != told.config.activation:
        # An architecture of another family lends its sizes alone; the activation is the family's, and said.
        assert any("are read as" in note for note in bare.notes)
        untold |= {name: getattr(told.config, name) for name in ("activation", "pool_activation")}
    assert replace(bare.config, **untold) == told.config
    for name, tensor in told.weights.items():
        assert torch.equal(tensor.read(), bare.weights[name].read()), name


def test_every_class_has_a_case():
    here = {case.name for case in CASES}
    plain = {"ViTModel", "DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"}
    assert {name for family in FAMILIES for name in family.classes} == here | plain
