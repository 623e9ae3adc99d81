"""The first tap that diverges is the one that the fault was put into, in every format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.blame.conftest import FAULTS, Counted, damaged_onnx, judged, write_torchscript
from vit_deploy.blame.search import find, run_budget
from vit_deploy.facts import Device

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.parity import ParityCheck
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_an_onnx_graph_is_found_where_it_was_put(
    name: str,
    honest_onnx: Artefact,
    deep_model: Model,
    deep_check: ParityCheck,
    tmp_path: Path,
    counted: Counted,
) -> None:
    damage, tap = FAULTS[name]
    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path, damage)
    runtime, verdict = judged(deep_check, artefact)
    assert verdict.passed is False
    finding = find(deep_check, artefact, verdict, runtime, Device(), open_session=counted)
    assert finding.where == tap, (finding.bisection, finding.notes)
    assert finding.runs == counted.opened <= run_budget(5)
    assert counted.most_taps <= 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_torchscript_is_found_where_it_was_put(
    name: str, deep_model: Model, deep_check: ParityCheck, tmp_path: Path, counted: Counted
) -> None:
    damage, tap = FAULTS[name]
    artefact = write_torchscript(deep_model, tmp_path, damage)
    runtime, verdict = judged(deep_check, artefact)
    assert verdict.passed is False
    finding = find(deep_check, artefact, verdict, runtime, Device(), open_session=counted)
    assert finding.where == tap, (finding.bisection, finding.notes)
    assert finding.runs == counted.opened <= run_budget(5)
    assert counted.most_taps <= 2
