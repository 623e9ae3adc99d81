"""With no bundle, what is needed is exported into the cache, once."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

BUNDLES = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "fakes" / "bundles.py"))
QUICK = ("--duration", "0.1", "--rounds", "2", "--threads", "1", "--no-aa")


class TestCache:
    """With no bundle, what is needed is exported into the cache, once."""

    @pytest.fixture
    def exports(self, tmp_path, small_model, monkeypatch):
        """Stand in for the export: makes the fake's artefact, and remembers what it was asked."""
        from vit_deploy import registry
        from vit_deploy.facts import Availability

        BUNDLES["know_the_fake"](monkeypatch)
        monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))
        asked = []

        def export_model(model, output, formats, *, batch, progress, **_):
            asked.append(list(formats))
            BUNDLES["make_bundle"](output, model, batch=batch, **{"fake-fp32": {}})
            return []

        class Exporter:
            def available(self):
                return Availability.yes()

        monkeypatch.setattr("vit_deploy.deploy.export.export_model", export_model)
        monkeypatch.setattr("vit_deploy.weights.load_model", lambda reference, **_: small_model)
        monkeypatch.setattr(registry, "exporter", lambda name: Exporter())
        return asked

    def test_it_is_made_once(self, invoke, exports):
        first = invoke("bench", "--backend", "fake", *QUICK)
        assert first.code == 0
        assert "random weights" in first.err
        assert "exporting small to fake" in first.err
        again = invoke("bench", "--backend", "fake", *QUICK)
        assert again.code == 0
        assert exports == [["fake"]]

    def test_a_larger_batch_is_exported_anew(self, invoke, exports, tmp_path):
        from vit_deploy.bundle import Bundle

        invoke("bench", "--backend", "fake", *QUICK)
        assert invoke("bench", "--backend", "fake", "--batch-size", "16", *QUICK).code == 0
        assert exports == [["fake"], ["fake"]]
        (path,) = (tmp_path / "cache" / "bench").iterdir()
        assert Bundle.open(path).records["fake-fp32"].batch.maximum == 16

    def test_a_broken_one_is_made_again(self, invoke, exports, tmp_path):
        invoke("bench", "--backend", "fake", *QUICK)
        next((tmp_path / "cache").rglob("orders.json")).write_text("broken")
        result = invoke("bench", "--backend", "fake", *QUICK)
        assert result.code == 0
        assert "is made again" in result.err
        assert exports == [["fake"], ["fake"]]

    def test_what_keeps_an_artefact_out_is_told(self, invoke, exports, tmp_path, monkeypatch):
        from vit_deploy.deploy.job import Outcome
        from vit_deploy.errors import ParityFailed

        failed = Outcome("fake-fp32", "fake", "fp32", error=ParityFailed("it is not equal"))
        monkeypatch.setattr("vit_deploy.deploy.export.export_model", lambda *_, **__: [failed])
        result = invoke("bench", "--backend", "fake", *QUICK)
        assert result.code == 3
        assert "it is not equal" in result.err
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
