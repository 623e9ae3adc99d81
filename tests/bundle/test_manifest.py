"""The manifest's text is a function of what it says, and reads back to the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_deploy.bundle import Bundle
from vit_deploy.bundle.manifest import Manifest, ParityRecord
from vit_deploy.facts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def test_text_reads_back(bundle_path: Path, small_model: Model, add_artefact: Callable) -> None:
    add_artefact(bundle_path, small_model)
    manifest = Bundle.open(bundle_path).manifest
    assert Manifest.from_json(manifest.to_json(), "there") == manifest
    data = json.loads(manifest.to_json())
    assert list(data) == sorted(data)


@given(
    st.builds(
        Verdict,
        passed=st.sampled_from([True, False, None]),
        worst_ratio=st.none() | st.floats(0, 1e9),
        samples=st.integers(0, 100),
        details=st.dictionaries(st.text(max_size=5), st.floats(0, 1, allow_nan=False)),
    )
)
def test_a_verdict_keeps_four_digits(verdict: Verdict) -> None:
    again = ParityRecord.of(verdict).verdict()
    assert (again.passed, again.samples) == (verdict.passed, verdict.samples)
    if verdict.worst_ratio is not None:
        assert again.worst_ratio == pytest.approx(verdict.worst_ratio, rel=1e-3)
    assert ParityRecord.of(again) == ParityRecord.of(verdict)
