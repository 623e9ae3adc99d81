"""The ladder of compiled packages: whose fault it is, told by a package that is compiled anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.blame.stages.conftest import WrongRuntime, named, shifted
from vit_deploy import registry
from vit_deploy.exporters.pt2 import EXPORTER, Pt2Options
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import Artefact, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not EXPORTER.available().ok, reason=f"{EXPORTER.available().reason}: {EXPORTER.available().mend}"
    ),
]


def compiled(model: Model, folder: Path) -> Artefact:
    spec = model.config.io_spec(("logits",), BatchRange(1, 1, 3))
    folder.mkdir()
    made = EXPORTER.export(model, spec, Pt2Options(), folder, Silent())
    return Artefact("pt2-fp32", "pt2", "fp32", folder / made.files[0], spec, model.config, made.facts)


def test_an_honest_package_holds_at_every_rung(model: Model, climb: Any, tmp_path: Path) -> None:
    fall, walk = climb(compiled(model, tmp_path / "made"))
    assert fall is None
    assert named(walk) == [
        ("model", "eager PyTorch, layout for export", True),
        ("export", "the captured program, in eager PyTorch", True),
        ("runtime", "pt2, a package compiled anew in fp32", True),
        ("export", "the package itself", True),
    ]


def test_a_package_of_other_weights_is_the_export_s_fault(
    model: Model, climb: Any, check: ParityCheck, tmp_path: Path
) -> None:
    other = compiled(random_model(model.vit_config, "other", seed=9), tmp_path / "made")
    fall, _ = climb(replace(other, config=model.config), judge=check)
    assert fall is not None
    assert fall.reading.kind == "export"
    assert "not what this version compiles from these weights" in fall.because


def test_a_compiler_that_is_wrong_is_told_from_a_package_that_is(
    model: Model, climb: Any, tmp_path: Path
) -> None:
    wrong = WrongRuntime(registry.runtime("pt2"), lambda _: True, shifted)
    fall, _ = climb(compiled(model, tmp_path / "made"), runtime=wrong)
    assert fall is not None
    assert fall.reading.kind == "runtime"
    assert "AOTInductor makes wrong code" in fall.because
