"""What PyTorch's runtimes share: an output of another dtype than fp32 is told, not converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vit_deploy.errors import RunFailed
from vit_deploy.protocols import Artefact
from vit_deploy.runtimes.eager import TorchSession
from vit_deploy.spec import Device, RuntimeFacts


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
