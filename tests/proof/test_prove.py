"""What is right passes, what is wrong is caught, and the stage where it begins is named first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.proof.conftest import CONFIG, model_of
from vit_deploy.errors import BackendMissing, ImportFailed, ParityFailed, RunFailed, UsageFailed
from vit_deploy.proof import LIMIT, prove_import, require_passed
from vit_deploy.proof.prove import compare
from vit_deploy.proof.references import Reference, builder
from vit_deploy.proof.references.timm import reference
from vit_deploy.weights import load_model
from vit_deploy.weights.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, torch.Tensor]
STAGES = ["embed", *(f"blocks.{index}" for index in range(4)), "tokens", "embedding", "logits"]


def against(twin: torch.nn.Module) -> Callable[[], Reference]:
    return lambda: reference(twin, CONFIG, "1.0")


def test_an_honest_import_passes(twin, state):
    proof = compare(against(twin), model_of(CONFIG, state))
    assert proof.passed
    assert list(proof.errors) == STAGES
    assert 0 < proof.worst < 1e-13
    assert proof.images == 4
    assert proof.limit == LIMIT == 1e-10
    assert proof.checkpoint_sha256 == "0" * 64
    require_passed(proof)


def epsilon(config, state):
    return replace(config, norm_eps=1e-5)


def tiny_epsilon(config, state):
    return replace(config, norm_eps=1.0001e-6)


def tanh_gelu(config, state):
    return replace(config, activation="gelu_tanh")


def swapped_query_and_key(config, state):
    for kind in ("weight", "bias"):
        query, key, value = state[f"blocks.2.attn.qkv.{kind}"].chunk(3)
        state[f"blocks.2.attn.qkv.{kind}"] = torch.cat([key, query, value])
    return config


def dropped_bias(config, state):
    state["blocks.3.mlp.fc1.bias"].zero_()
    return config


def identity_layer_scale(config, state):
    state["blocks.1.ls2.gamma"].fill_(1)
    return config


def layer_scale_of_the_next_block(config, state):
    state["blocks.0.ls1.gamma"] = state["blocks.1.ls1.gamma"]
    return config


def shifted_positions(config, state):
    state["pos_embed"] = state["pos_embed"].roll(1, dims=1)
    return config


def mean_pooling(config, state):
    return replace(config, pool="avg")


def lost_final_norm(config, state):
    del state["norm.weight"], state["norm.bias"]
    return replace(config, final_norm=False)


def permuted_classes(config, state):
    state["head.bias"] = state["head.bias"].flip(0)
    return config


def one_weight_in_half_precision(config, state):
    state["blocks.2.attn.proj.weight"] = state["blocks.2.attn.proj.weight"].half().double()
    return config


@pytest.mark.parametrize(
    ("fault", "first"),
    [
        (epsilon, "blocks.0"),
        (tiny_epsilon, "blocks.0"),
        (tanh_gelu, "blocks.0"),
        (swapped_query_and_key, "blocks.2"),
        (dropped_bias, "blocks.3"),
        (identity_layer_scale, "blocks.1"),
        (layer_scale_of_the_next_block, "blocks.0"),
        (shifted_positions, "embed"),
        (mean_pooling, "embedding"),
        (lost_final_norm, "tokens"),
        (permuted_classes, "logits"),
        (one_weight_in_half_precision, "blocks.2"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_is_caught_where_it_begins(fault, first, twin, state):
    config = fault(CONFIG, state)
    proof = compare(against(twin), model_of(config, state))
    assert not proof.passed
    assert proof.first_difference == first
    assert all(
        error < 1e-13 for name, error in proof.errors.items() if STAGES.index(name) < STAGES.index(first)
    )
    with pytest.raises(ParityFailed, match=f"{first} differs first") as raised:
        require_passed(proof)
    assert raised.value.exit_code == 3


def test_another_shape_is_a_difference_and_is_told(twin, state):
    config = replace(CONFIG, num_registers=2, position_scope="class")
    state["reg_token"] = torch.randn(1, 2, 64)
    proof = compare(against(twin), model_of(config, state))
    assert proof.first_difference == "embed"
    assert "(1, 19, 64) here and (1, 17, 64) there" in proof.sentence
    assert proof.to_dict()["errors"]["embed"] is None


def test_no_numbers_are_a_difference(twin, state):
    state["head.bias"][0] = torch.nan
    assert compare(against(twin), model_of(CONFIG, state)).first_difference == "logits"


@pytest.mark.parametrize("missing", ["embed", "blocks.2"])
def test_a_stage_that_is_skipped_is_no_proof(missing, twin, state):
    whole = reference(twin, CONFIG, "1.0")
    taps = {name: tap for name, tap in whole.taps.items() if name != missing}
    with pytest.raises(RunFailed, match=missing):
        compare(lambda: replace(whole, taps=taps), model_of(CONFIG, state))


def test_outputs_are_needed_but_not_all_of_them(twin, state):
    whole = reference(twin, CONFIG, "1.0")
    model = model_of(CONFIG, state)
    taps = {name: tap for name, tap in whole.taps.items() if name != "embedding"}
    proof = compare(lambda: replace(whole, taps=taps), model)
    assert proof.passed
    assert proof.not_compared == ("embedding",)
    with pytest.raises(RunFailed, match="no output"):
        compare(lambda: replace(whole, taps=taps, outputs=lambda x: dict.fromkeys((), twin(x))), model)


def test_pictures_of_the_users_are_compared_too(twin, state, tmp_path):
    from PIL import Image

    Image.effect_noise((40, 50), 80).convert("RGB").save(tmp_path / "photo.png")
    steps: list[str] = []

    class Told:
        cancelled = False

        def phase(self, text: str, total: int | None = None) -> None:
            steps.append(f"{text} {total}")

        def advance(self, steps: int = 1) -> None:
            pass

    proof = compare(against(twin), model_of(CONFIG, state), images=[tmp_path / "photo.png"], progress=Told())
    assert proof.images == 5
    assert proof.passed
    assert steps == ["the source library, in float64 5", "our model, in float64 5"]


def test_what_the_library_does_not_load_or_run_is_said_in_words(twin, state):
    model = model_of(CONFIG, state)

    def refuses() -> Any:
        raise KeyError("no such weight\nand more")

    with pytest.raises(ImportFailed, match="refuses the checkpoint: 'no such weight"):
        compare(refuses, model)

    def fails(_: torch.Tensor) -> Any:
        raise IndexError("out of range")

    with pytest.raises(RunFailed, match=r"timm 1\.0 fails on the checkpoint: out of range"):
        compare(lambda: replace(reference(twin, CONFIG, "1.0"), outputs=fails), model)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    "name",
    [
        "timm/vit_tiny_patch16_224",
        "timm/vit_base_patch16_224, oblong",
        "timm/deit_small_distilled_patch16_224",
        "timm/vit_small_patch32_224, no head",
        "transformers/ViTForImageClassification",
        "transformers/ViTModel",
        "transformers/DeiTForImageClassificationWithTeacher",
        "transformers/DeiTModel",
    ],
)
def test_plain_checkpoints_are_proved(name: str, specimen):
    request, model = specimen(name)
    proof = prove_import(request, model)
    assert proof.passed, proof.sentence
    assert proof.library == name.partition("/")[0]
    assert proof.library_version[0].isdigit()
    assert proof.checkpoint_sha256 == model.source.sha256
    assert set(model.config.output_names) <= set(proof.errors)


def test_a_model_without_its_pooler_has_no_embedding_to_compare(specimen):
    request, model = specimen("transformers/ViTModel, no pooler")
    proof = prove_import(request, model)
    assert proof.passed, proof.sentence
    assert proof.not_compared == ("embedding",)


def test_a_bare_file_is_proved_against_the_architecture_that_was_named(tmp_path):
    import timm

    from tests.specimens.values import randomise

    module = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=3, in_chans=1), seed=2)
    averaged = {name: value + 1 for name, value in module.state_dict().items()}
    torch.save({"model": module.state_dict(), "model_ema": averaged}, tmp_path / "w.pth")
    arguments = {"reference": str(tmp_path / "w.pth"), "arch": "vit_tiny_patch16_224"}
    proof = prove_import(Request(**arguments), load_model(**arguments))
    assert proof.passed, proof.sentence


@pytest.mark.parametrize(
    "name", ["dialect/Lightning", "dialect/state_dict beside state_dict_ema", "dialect/module. (DDP)"]
)
def test_what_a_training_script_wrapped_is_proved_without_its_wrapping(name: str, specimen):
    proof = prove_import(*specimen(name))
    assert proof.passed, proof.sentence
    assert proof.library == "timm"


@pytest.mark.parametrize(("kind", "package"), [("timm", "timm"), ("transformers", "transformers")])
def test_a_library_that_cannot_be_imported_is_missing_too(kind, package, state, monkeypatch):
    import importlib

    honest = importlib.import_module

    def broken(name: str, *arguments: Any) -> Any:
        if name == package:
            raise RuntimeError("operator torchvision::nms does not exist")
        return honest(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", broken)
    model = model_of(CONFIG, state)
    with pytest.raises(BackendMissing, match="cannot be imported: operator torchvision::nms"):
        prove_import(Request("somewhere"), replace(model, source=replace(model.source, kind=kind)))


def test_transformers_never_makes_weights_up(specimen):
    from safetensors.torch import load_file, save_file

    request, model = specimen("transformers/ViTForImageClassification")
    path = request.path / "model.safetensors"
    weights = load_file(path)
    lost = next(name for name in weights if "layernorm_after" in name and name.endswith("bias"))
    save_file({name: value for name, value in weights.items() if name != lost}, path, {"format": "pt"})
    with pytest.raises(ImportFailed, match="would make it up"):
        builder("transformers")(request, model)


@pytest.mark.parametrize(("kind", "library"), [("timm", "timm"), ("transformers", "transformers")])
def test_a_library_that_is_missing_is_named_with_its_command(kind, library, twin, state, monkeypatch):
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    model = replace(model_of(CONFIG, state), source=replace(model_of(CONFIG, state).source, kind=kind))
    with pytest.raises(BackendMissing, match=f"{library} is not installed") as raised:
        prove_import(Request("somewhere"), model)
    assert raised.value.exit_code == 4
    assert "pip install" in raised.value.next_command


def test_random_weights_are_nothing_to_prove():
    model = load_model("vit_tiny_patch16_224")
    with pytest.raises(UsageFailed, match="nothing was imported"):
        prove_import(Request("vit_tiny_patch16_224"), model)


def test_a_source_without_a_library_is_refused(twin, state):
    model = model_of(CONFIG, state)
    for kind in ("elsewhere", "no-name", "__init__"):
        with pytest.raises(UsageFailed, match="no source library"):
            prove_import(Request("somewhere"), replace(model, source=replace(model.source, kind=kind)))


def test_a_bare_file_of_transformers_cannot_be_proved(specimen):
    request, model = specimen("transformers/ViTForImageClassification")
    file = Request(str(request.path / "model.safetensors"), arch="vit_tiny_patch16_224")
    with pytest.raises(UsageFailed, match="no config"):
        prove_import(file, model)


def test_nothing_is_left_behind(twin, state, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compare(against(twin), model_of(CONFIG, state))
    assert not list(tmp_path.iterdir())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in twin.modules())
