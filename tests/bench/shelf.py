"""Bundles that hold artefacts of any spec, which the fake runtime opens."""

from __future__ import annotations

from dataclasses import replace

from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.facts import Verdict
from vit_deploy.model.contract import with_inputs
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.spec import BatchRange, artefact_name

SIZE = (32, 48)
"""The image size of the tests' small model."""


def shelve(path, model, *, batch=None, sizes=None, contract="pixel_values", precision="fp32", passed=True):
    """Add an artefact of the fake format to the bundle at ``path``, and give the bundle."""
    spec = model.config.io_spec(batch=batch or BatchRange(), sizes=sizes if contract != "image" else None)
    spec = with_inputs(spec, contract, sizes if contract == "image" else None)
    name = artefact_name("fake", precision, contract)
    with edit_bundle(path, model) as editor:
        (editor.stage(name) / "orders.json").write_text('{"step_us": 100}')
        exported = ExportedFiles(("orders.json",), spec)
        candidate = replace(editor.candidate(name, "fake", precision, exported))
        verdict = Verdict(passed=passed, reason="" if passed else "there was no GPU", worst_ratio=1.25)
        editor.accept(candidate, exported, NoOptions(), verdict)
    return Bundle.open(path)
