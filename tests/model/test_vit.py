from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vit_deploy.errors import UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.layout import RESHAPE
from vit_deploy.model.patches import PatchEmbedding
from vit_deploy.model.vit import ViT

ALL_OUTPUTS = ("logits", "embedding", "tokens")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def pixels(small_config: ViTConfig) -> torch.Tensor:
    return torch.randn(3, small_config.in_channels, *small_config.image_size)


def distilled(config: ViTConfig) -> ViTConfig:
    return replace(config, distillation_token=True, distillation_head=True)


def test_the_default_is_vit_b_16():
    with torch.device("meta"):
        model = ViT()
        shape = model(torch.empty(2, 3, 224, 224)).shape
    assert sum(value.numel() for value in model.parameters()) == 86_567_656
    assert shape == (2, 1000)


@torch.inference_mode()
def test_the_default_patch_embedding():
    assert PatchEmbedding()(torch.randn(1, 3, 224, 224)).shape == (1, 196, 768)


@torch.inference_mode()
def test_patch_forms_agree_on_the_default_size():
    conv = PatchEmbedding().double()
    linear = PatchEmbedding(form="linear").double()
    linear.load_state_dict(conv.state_dict())
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    expected = conv(images)
    assert (linear(images) - expected).norm() / expected.norm() <= 1e-12


@torch.inference_mode()
def test_patch_forms_agree_through_the_whole_model(small_config: ViTConfig, pixels: torch.Tensor):
    conv = ViT(small_config).double()
    linear = ViT(small_config, patch_form="linear").double()
    linear.load_state_dict(conv.state_dict())
    expected = conv(pixels.double())
    assert (linear(pixels.double()) - expected).norm() / expected.norm() <= 1e-12


class TestOutputs:
    def test_one_is_a_tensor(self, small_config: ViTConfig, pixels: torch.Tensor):
        assert ViT(small_config)(pixels).shape == (3, 7)

    def test_several_are_a_tuple_in_the_order_asked(self, small_config: ViTConfig, pixels: torch.Tensor):
        model = ViT(small_config, outputs=("tokens", "logits", "embedding"))
        tokens, logits, embedding = model(pixels)
        assert torch.equal(tokens, model.encode(pixels))
        assert torch.equal(embedding, tokens[:, 0])
        assert torch.equal(logits, model.head(embedding))

    def test_without_a_head_they_are_embedding_and_tokens(self, small_config: ViTConfig, pixels: torch.Tensor):
        embedding, tokens = ViT(replace(small_config, num_classes=0))(pixels)
        assert embedding.shape == (3, 60)
        assert tokens.shape == (3, 25, 60)

    def test_an_unknown_one_is_refused(self, small_config: ViTConfig):
        with pytest.raises(UsageFailed, match="did you mean 'embedding'"):
            ViT(small_config, outputs=("embeddings",))  # type: ignore[arg-type]

    def test_logits_without_a_head_are_refused(self, small_config: ViTConfig):
        with pytest.raises(UsageFailed, match="logits"):
            ViT(replace(small_config, num_classes=0), outputs=("logits",))

    def test_the_pre_logits_layer_is_a_tanh(self, small_config: ViTConfig, pixels: torch.Tensor):
        model = ViT(replace(small_config, representation_size=11), outputs=ALL_OUTPUTS)
        logits, embedding, tokens = model(pixels)
        expected = torch.tanh(tokens[:, 0] @ model.pre_logits.weight.T + model.pre_logits.bias)
        torch.testing.assert_close(embedding, expected)
        torch.testing.assert_close(logits, model.head(embedding))


class TestSequence:
    def test_prefix_tokens_stand_first_and_positions_are_added(
        self, small_config: ViTConfig, pixels: torch.Tensor
    ):
        model = ViT(distilled(small_config))
        for parameter in (model.cls_token, model.dist_token, model.pos_embed):
            torch.nn.init.normal_(parameter)
        sequence = model.embed(pixels)
        assert torch.equal(sequence[1, 0], (model.cls_token + model.pos_embed[:, :1])[0, 0])
        assert torch.equal(sequence[1, 1], (model.dist_token + model.pos_embed[:, 1:2])[0, 0])
        assert torch.equal(sequence[:, 2:], model.patch_embed(pixels) + model.pos_embed[:, 2:])

    def test_both_distilled_heads_are_averaged(self, small_config: ViTConfig, pixels: torch.Tensor):
        model = ViT(distilled(small_config), outputs=("logits", "tokens"))
        logits, tokens = model(pixels)
        first, second = model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])
        torch.testing.assert_close(logits, (first + second) / 2)
        assert not torch.allclose(first, second)

    def test_epsilon_reaches_every_norm(self, small_config: ViTConfig):
        model = ViT(replace(small_config, norm_eps=1e-3))
        norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
        assert len(norms) == 2 * small_config.depth + 1
        assert {norm.eps for norm in norms} == {1e-3}

    def test_qkv_bias_can_be_left_out(self, small_config: ViTConfig):
        names = ViT(replace(small_config, qkv_bias=False)).state_dict()
        assert not [name for name in names if name.endswith("qkv.bias")]


class TestForExport:
    def test_it_shares_every_weight(self, small_config: ViTConfig, pixels: torch.Tensor):
        model = ViT(distilled(small_config))
        twin = model.for_export()
        assert twin.layout is RESHAPE
        for (name, own), (other, shared) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            assert name == other
            assert own.data_ptr() == shared.data_ptr()
        with torch.no_grad():
            model.head.bias.add_(100)
        assert torch.equal(model(pixels), twin(pixels))

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_it_keeps_mode_and_dtype(self, small_config: ViTConfig, training: bool, dtype: torch.dtype):
        twin = ViT(small_config).to(dtype).train(training).for_export()
        assert {module.training for module in twin.modules()} == {training}
        assert {value.dtype for value in twin.parameters()} == {dtype}

    def test_frozen_weights_stay_frozen_in_both(self, small_config: ViTConfig):
        model = ViT(small_config)
        model.blocks.requires_grad_(requires_grad=False)
        expected = {name: value.requires_grad for name, value in model.named_parameters()}
        twin = model.for_export()
        assert set(expected.values()) == {True, False}
        for either in (model, twin):
            assert {name: value.requires_grad for name, value in either.named_parameters()} == expected

    def test_it_keeps_the_patch_form_and_the_outputs(self, small_config: ViTConfig):
        model = ViT(small_config, patch_form="linear", outputs=("tokens", "logits"))
        assert model.for_export().outputs == ("tokens", "logits")
        assert model.for_export().patch_embed.form == "linear"
        assert model.for_export(("embedding",)).outputs == ("embedding",)

    @pytest.mark.parametrize("form", ["conv", "linear"])
    def test_the_batch_stays_free_and_unguarded(self, small_config: ViTConfig, form: str):
        config = distilled(small_config)
        twin = ViT(config, patch_form=form, outputs=ALL_OUTPUTS).eval().for_export()
        example = torch.randn(2, config.in_channels, *config.image_size)
        # A fixed batch, a bound on it or an assertion of it would each be refused or show up here.
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(twin, (example,), dynamic_shapes=({0: batch},))
        assert [str(bounds) for bounds in program.range_constraints.values()] == ["VR[1, int_oo]"]
        (symbol,) = program.range_constraints
        (outputs,) = program.graph.output_node().args
        for node, spec in zip(outputs, config.io_spec(ALL_OUTPUTS).outputs, strict=True):
            assert tuple(node.meta["val"].shape) == (symbol, *spec.shape[1:])
        calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert not [call for call in calls if "assert" in call or "sym_constrain" in call]
        assert calls.count("aten.scaled_dot_product_attention.default") == config.depth
        for batch_size in (1, 5):
            images = torch.randn(batch_size, *example.shape[1:])
            for exported, eager in zip(program.module()(images), twin(images), strict=True):
                assert torch.equal(exported, eager)
