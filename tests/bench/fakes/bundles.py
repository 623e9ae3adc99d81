"""Bundles whose artefacts are orders to the fake runtime."""

from __future__ import annotations

import json
from pathlib import Path

from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.facts import Verdict
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.spec import BatchRange

FAKES = Path(__file__).parent


def make_bundle(path, model, *, passed=True, batch=None, **artefacts):
    """A bundle with one artefact of format ``fake`` for each name and what it is told."""
    spec = model.config.io_spec(batch=batch or BatchRange())
    with edit_bundle(path, model) as editor:
        for name, told in artefacts.items():
            (editor.stage(name) / "orders.json").write_text(json.dumps(told))
            exported = ExportedFiles(("orders.json",), spec)
            candidate = editor.candidate(name, "fake", "fp32", exported)
            verdict = Verdict(passed=passed, reason="" if passed else "there was no GPU")
            editor.accept(candidate, exported, NoOptions(), verdict)
    return Bundle.open(path)


def know_the_fake(monkeypatch):
    """Make the fake runtime known here and in every process started from here."""
    import vit_deploy.runtimes

    folders = [*vit_deploy.runtimes.__path__, str(FAKES / "runtimes")]
    monkeypatch.setattr(vit_deploy.runtimes, "__path__", folders)
    monkeypatch.setenv("PYTHONPATH", str(FAKES / "site"))
