from __future__ import annotations

from dataclasses import replace

import pytest

from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import PICTURE_SIZES, contracted, network_is_dynamic
from vit_deploy.model.module_config import ModuleConfig, Port
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.spec import BatchRange, SizeRange, artefact_name


@pytest.fixture
def ask(small_config):
    preprocessing = Preprocessing.default(small_config)

    def make(contract, **others):
        spec = small_config.io_spec(("logits", "tokens"), BatchRange(1, 2, 4))
        return contracted(spec, contract, small_config, others.pop("preprocessing", preprocessing), **others)

    return make


def test_pixel_values_are_the_plain_spec(ask, small_config):
    assert ask("pixel_values") == small_config.io_spec(("logits", "tokens"), BatchRange(1, 2, 4))


def test_uint8_takes_pictures_of_the_models_size(ask):
    spec = ask("uint8")
    (images,) = spec.inputs
    assert (images.name, images.dtype, images.shape) == ("images", "uint8", ("batch", 32, 48, 3))
    assert spec.contract == "uint8"
    assert spec.sizes is None


def test_image_takes_pictures_of_any_size_and_the_network_stays_as_it_is(ask):
    spec = ask("image")
    (images,) = spec.inputs
    assert (images.name, images.dtype, images.shape) == ("images", "uint8", ("batch", "height", "width", 3))
    assert spec.sizes == PICTURE_SIZES
    assert not network_is_dynamic(spec)
    assert spec.outputs == ask("pixel_values").outputs
    assert images.at(spec.free_at(2, (5, 7))) == (2, 5, 7, 3)


def test_a_range_of_picture_sizes_is_kept(ask):
    sizes = SizeRange((10, 10), (100, 200), (300, 300), patch_size=1, step=1, num_prefix_tokens=0)
    assert ask("image", sizes=sizes).sizes == sizes


def test_image_and_a_free_network_do_not_go_together(small_config):
    sizes = SizeRange((32, 32), (32, 48), (64, 64), patch_size=8, step=8, num_prefix_tokens=1)
    spec = small_config.io_spec((), BatchRange(), sizes=sizes)
    with pytest.raises(UsageFailed, match="one size"):
        contracted(spec, "image", small_config, Preprocessing.default(small_config))
    free = contracted(spec, "uint8", small_config, Preprocessing.default(small_config))
    assert free.inputs[0].shape == ("batch", "height", "width", 3)
    assert network_is_dynamic(free)


def test_a_filter_that_no_artefact_has_is_refused(ask, small_config):
    nearest = replace(Preprocessing.default(small_config), interpolation="nearest")
    assert ask("uint8", preprocessing=nearest).contract == "uint8"
    with pytest.raises(UsageFailed, match="'nearest'"):
        ask("image", preprocessing=nearest)


@pytest.mark.parametrize("contract", ["uint8", "image"])
def test_a_module_of_the_users_own_is_refused(contract):
    config = ModuleConfig("a:b", (Port("x", (3, 8, 8)),), (Port("y", (5,)),), depth=1)
    with pytest.raises(UsageFailed, match="module of its own"):
        contracted(config.io_spec(), contract, config, None)


def test_names_of_artefacts():
    assert artefact_name("onnx", "fp32") == "onnx-fp32"
    assert artefact_name("tensorrt", "fp16", "uint8") == "tensorrt-fp16-uint8"
