"""What PyTorch's runtimes share: an output of another dtype than fp32 is told, not converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device, RuntimeFacts
from vit_deploy.model.contract import contracted
from vit_deploy.protocols import Artefact, SessionOptions
from vit_deploy.runtimes.eager import RUNTIME, TorchSession


def test_a_half_output_of_an_fp32_artefact_is_an_error(small_model):
    config = small_model.config
    artefact = Artefact("a", "pytorch", "fp32", Path("none"), config.io_spec(), config)
    module = small_model.eager()
    pixels = np.zeros((1, 3, 32, 48), np.float32)
    facts = RuntimeFacts("eager", "1", "cpu", "fp32")
    TorchSession(artefact, module, Device(), facts).run({"pixel_values": pixels})
    halved = TorchSession(artefact, lambda x: module(x).half(), Device(), facts)
    with pytest.raises(RunFailed, match=r"torch\.float16"):
        halved.run({"pixel_values": pixels})


@pytest.fixture
def picture_artefact(small_model):
    config = small_model.config
    spec = contracted(config.io_spec(), "uint8", config, small_model.preprocessing)
    return Artefact("a", "pytorch", "fp32", Path("none"), spec, config)


def test_8_bit_pictures_go_in_as_they_are(picture_artefact, small_model):
    module, seen = small_model.loaded(picture_artefact.spec), []

    def watched(images):
        seen.append(images.dtype)
        return module(images)

    facts = RuntimeFacts("eager", "1", "cpu", "fp32")
    session = TorchSession(picture_artefact, watched, Device(), facts)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    assert session.run({"images": pictures})["logits"].shape == (2, 7)
    assert seen == [torch.uint8]
    with pytest.raises(RunFailed, match="float32"):
        session.run({"images": pictures.astype(np.float32)})


def test_reference_weights_take_no_8_bit_pictures(picture_artefact):
    with pytest.raises(RunFailed, match="'uint8'"):
        RUNTIME.open(picture_artefact, Device(), SessionOptions())
