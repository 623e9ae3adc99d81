"""A user's own module: how it is imported, described and refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from tests import user_modules
from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.kinds import Architecture, architecture_from
from vit_deploy.model.module_config import ModuleConfig, Port
from vit_deploy.model.module_summary import module_table
from vit_deploy.spec import BatchRange
from vit_deploy.weights import load_model
from vit_deploy.weights.module.adapter import named_outputs
from vit_deploy.weights.safetensors_file import read_safetensors
from vit_deploy.weights.tensors import digest_of, write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.module.model import ModuleModel


def load(name: str, **given: object) -> ModuleModel:
    model = load_model(f"py:tests.user_modules:{name}", **given)  # type: ignore[arg-type]
    assert isinstance(model.config, ModuleConfig)
    return model  # type: ignore[return-value]


def test_what_it_takes_and_gives_is_found_by_running_it():
    model = load("cnn_transformer")
    assert model.config.inputs == (Port("pixels", (3, 32, 32)),)
    assert model.config.outputs == (Port("logits", (5,)), Port("tokens", (16, 16)))
    assert (model.config.num_classes, model.labels) == (5, ("ant", "bee", "cat", "dog", "elk"))
    assert (model.config.in_channels, model.config.image_size) == (3, (32, 32))
    assert model.preprocessing is not None
    assert model.preprocessing.mean == (0.4, 0.5, 0.6)
    # Two convolutions, four linear layers in the encoder, and the head: 7 products.
    assert (model.config.depth, model.config.fixed_batch) == (2, 0)
    assert (model.source.kind, model.source.name) == ("module", "py:tests.user_modules:cnn_transformer")
    assert not model.live.training
    assert not any(value.requires_grad for value in model.live.parameters())


def test_its_config_is_an_architecture_and_survives_json():
    config = load("cnn_transformer").config
    assert isinstance(config, Architecture)
    assert architecture_from("module", config.to_dict()) == config


@pytest.mark.parametrize(
    "change",
    [
        {"factory": "os"},
        {"factory": "a b:c"},
        {"inputs": []},
        {"inputs": [{"name": "x", "shape": [0]}]},
        {"inputs": [{"name": "x", "shape": [True]}]},
        {"inputs": [{"name": "../x", "shape": [2]}]},
        {"outputs": [{"name": "a", "shape": []}, {"name": "a", "shape": []}]},
        {"depth": 0},
        {"class_output": "nowhere"},
        {"own_weights": 1},
        {"other": 1},
    ],
)
def test_a_config_that_no_module_gave_is_refused(change: dict[str, object]):
    data = {**load("Linear").config.to_dict(), **change}
    with pytest.raises(ImportFailed):
        architecture_from("module", data)


@pytest.mark.parametrize("kind", user_modules.RETURNED)
def test_outputs_are_named_by_where_they_stand(kind: str):
    make, names = user_modules.RETURNED[kind]
    found = named_outputs(make(torch.ones(2)))
    assert list(found) == names
    assert [float(tensor[0]) for tensor in found.values()] == [1.0 + index for index in range(len(names))]


@pytest.mark.parametrize("name", ["Linear", "module", "Factories.nested", "described", "Lazy", "chatty"])
def test_a_class_a_module_and_what_describes_one_are_factories(name: str, capsys):
    model = load(name)
    assert model.config.outputs == (Port("scores" if name == "described" else "output", (4,)),)
    assert capsys.readouterr().out == ""


def test_random_weights_are_the_same_in_every_process_and_others_with_another_seed():
    assert load("Linear").source == load("Linear").source
    assert load("Linear").source != load("Linear", seed=1).source


REFUSED = {
    "tests.nowhere:make": ("no Python module 'tests.nowhere'", "PYTHONPATH"),
    "tests.user_modules": ("names no factory", "py:package.module:factory"),
    "tests.user_modules:resnext": ("has no 'resnext'", "-m py:tests.user_modules:resnet"),
    "tests.user_modules:number": ("cannot be called", ""),
    "tests.user_modules:returns_nothing": ("gives None", "return the module"),
    "tests.user_modules:needs": ("needs arguments: depth, width", "def exported()"),
    "tests.user_modules:fails": ("RuntimeError: no weights at /data (", "--debug"),
    "tests.user_modules:Meta": ("without data", ""),
    "tests.user_modules:Unsaid": ("does not say what its module takes", "--input-shape 3x224x224"),
    "tests.user_modules:Whole": ("'output' is of torch.int64", "leaves that output out"),
    "tests.user_modules:Scalar": ("has shape () at batch 2", "puts the batch first"),
    "tests.user_modules:Words": ("returns a str as 'kind'", "returns its tensors alone"),
    "tests.user_modules:Through": ("'output_1' is an input, unchanged", "leave that output out"),
    "tests.user_modules:Tokens": ("example input 'x' is a tensor of torch.int64", "floating inputs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused_with_the_next_step(name: str):
    found, next_command = REFUSED[name]
    with pytest.raises(ImportFailed) as refused:
        load_model(f"py:{name}")
    assert found in refused.value.found
    assert next_command in refused.value.next_command
    assert "\n" not in refused.value.found


def test_the_current_directory_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_nets.py").write_text("from tests.user_modules import Linear as make\n")
    (tmp_path / "my_broken.py").write_text("import a_package_that_nobody_has\n")
    (tmp_path / "my_typo.py").write_text("def make(:\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert load_model("py:my_nets:make").source.name == "py:my_nets:make"
    with pytest.raises(ImportFailed, match="needs 'a_package_that_nobody_has'"):
        load_model("py:my_broken:make")
    with pytest.raises(ImportFailed, match="SyntaxError"):
        load_model("py:my_typo:make")
    del sys.modules["my_nets"]


def test_a_shape_stands_in_for_an_example():
    assert load("Unsaid", input_shape="3x2x2").config.inputs == (Port("x", (3, 2, 2)),)
    assert load("Unsaid", input_shape="pixels:12").config.inputs == (Port("pixels", (12,)),)
    with pytest.raises(ImportFailed, match=r"does not run on inputs of 1x3x4x4: RuntimeError: mat1 and mat2"):
        load("Unsaid", input_shape="3x4x4")
    for text in ("3x0x2", "x", "3x224x224:image", "9999999999"):
        with pytest.raises(UsageFailed, match="--input-shape is"):
            load("Unsaid", input_shape=text)


@pytest.mark.parametrize("flag", [{"arch": "vit_tiny_patch16_224"}, {"num_classes": 3}])
def test_flags_of_checkpoints_say_nothing_to_a_factory(flag: dict[str, object]):
    with pytest.raises(UsageFailed, match="says nothing to"):
        load("Linear", **flag)
    with pytest.raises(UsageFailed, match="--input-shape goes with a module"):
        load_model("vit_tiny_patch16_224", input_shape="3x224x224")


def test_inputs_that_are_given_by_name_stay_so():
    model = load("TwoInputs")
    assert model.config.inputs == (Port("image", (3, 8, 8)), Port("state", (5,)))
    assert (model.preprocessing, model.config.in_channels) == (None, 0)
    shaped = load("TwoInputs", input_shape="image:3x6x6,state:5")
    assert shaped.config.inputs == (Port("image", (3, 6, 6)), Port("state", (5,)))


def test_a_batch_that_is_baked_in_is_offered_as_the_only_one():
    config = load("OneAtATime").config
    assert config.fixed_batch == 1
    assert config.io_spec().batch == BatchRange(1, 1, 1)
    with pytest.raises(UsageFailed, match="runs at batch 1 only") as refused:
        config.io_spec(batch=BatchRange(1, 1, 8))
    assert refused.value.next_command == "--minShapes 1x6 --optShapes 1x6 --maxShapes 1x6"


def test_weights_become_float32_and_whole_numbers_stay(tmp_path: Path):
    model = load("Half")
    assert model.live.layer.weight.dtype == torch.float32
    with (tmp_path / "kept.safetensors").open("wb") as file:
        digest = write_safetensors(model.weights, file)
    kept = read_safetensors(tmp_path / "kept.safetensors")
    assert {name: tensor.dtype for name, tensor in kept.items()} == {
        "layer.bias": "float32",
        "layer.weight": "float32",
        "order": "int64",
    }
    assert torch.equal(kept["order"].read(), torch.tensor([2, 0, 1, 3]))
    assert digest == digest_of(kept) == model.source.sha256


def test_a_file_of_weights_is_loaded_and_checked(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    state = {"layer.weight": torch.full((4, 6), 0.5), "layer.bias": torch.arange(4.0)}
    save_file(state, path)
    model = load("Linear", weights=path)
    assert not model.config.own_weights
    assert torch.equal(model.live.layer.bias, state["layer.bias"])
    eager = model.eager(dtype=torch.float64)(torch.ones(1, 6, dtype=torch.float64))
    assert eager.dtype == torch.float64
    assert eager.tolist() == [[3.0, 4.0, 5.0, 6.0]]
    save_file({"layer.weight": state["layer.weight"], "layer.bais": state["layer.bias"]}, path)
    with pytest.raises(ImportFailed, match=r"1 missing .*'layer.bias', nearest: 'layer.bais'"):
        load("Linear", weights=path)
    save_file({**state, "layer.bias": torch.ones(5)}, path)
    with pytest.raises(ImportFailed, match=r"'layer.bias' has shape \(5,\)"):
        load("Linear", weights=path)


def test_preprocessing_is_the_modules_own_or_timms_or_a_default_that_says_so():
    recipe = load("convnext").preprocessing
    assert recipe is not None
    assert (recipe.image_size, recipe.resize_size, recipe.origin) == ((32, 32), (32, 32), "checkpoint")
    assert recipe.mean == (0.485, 0.456, 0.406)
    unsaid = load("Unsaid", input_shape="3x2x2").preprocessing
    assert unsaid is not None
    assert unsaid.origin == "default"
    assert load("Linear").preprocessing is None
    with pytest.raises(ImportFailed, match="its preprocessing gives pictures of"):
        load("cnn_transformer", input_shape="3x16x16")


@pytest.mark.parametrize("name", ["Dropping", "Counting"])
def test_a_module_that_differs_from_itself_is_not_to_be_compared(name: str):
    model = load(name)
    with pytest.raises(ImportFailed, match="gives another 'output' each time"):
        model.require_steady()
    load("Linear").require_steady()


def test_the_layer_table_counts_what_is_computed():
    model = load("cnn_transformer")
    rows = module_table(model.live, model.example.at(2), model.example.keywords)
    whole = rows[0]
    assert (whole.name, whole.level, whole.input_shape) == ("", 0, (2, 3, 32, 32))
    assert whole.parameters == sum(value.numel() for value in model.live.parameters())
    convolutions = 64 * 8 * 48 + 16 * 16 * 32
    linear = 16 * (16 * 48 + 16 * 16 + 2 * 16 * 32)
    attention = 2 * 16 * 16 * 16
    assert whole.macs == 2 * (convolutions + linear + attention + 16 * 5)
    by_name = {row.name: row for row in rows}
    assert by_name["encoder.layers.0"].macs == 2 * (linear + attention)
    assert by_name["head"].output_shape == (2, 5)
    assert by_name["encoder.layers.0"].level == by_name["encoder"].level + 1
