"""A fake runtime, and bundles of orders to it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BUNDLES = runpy.run_path(str(Path(__file__).parent / "fakes" / "bundles.py"))


@pytest.fixture(autouse=True)
def fake_runtime(monkeypatch):
    BUNDLES["know_the_fake"](monkeypatch)


@pytest.fixture
def fake_bundle(tmp_path, small_model):
    """Make a bundle: ``fake_bundle(quick={"step_us": 100}, slow={...})``."""

    def make(**artefacts):
        return BUNDLES["make_bundle"](tmp_path / "a bundle é", small_model, **artefacts)

    return make


@pytest.fixture
def fake_cases(fake_bundle):
    """Make a bundle and the cases that the fake runtime has in it, at batch size 1."""
    from vit_deploy import registry
    from vit_deploy.bench.cases import cases_for
    from vit_deploy.bench.grid import Grid
    from vit_deploy.facts import Device

    def make(batch_sizes=(1,), **artefacts):
        bundle = fake_bundle(**artefacts)
        grid = Grid(batch_sizes=tuple(batch_sizes), threads=(1,))
        return cases_for(bundle, registry.runtime("fake"), Device("cpu"), grid)[0]

    return make
