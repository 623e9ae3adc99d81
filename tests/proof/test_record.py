from __future__ import annotations

import json
import math

from vit_deploy.proof import Proof


def proof(errors: dict[str, float], **changes) -> Proof:
    values = {
        "library": "timm",
        "library_version": "1.2.3",
        "checkpoint_sha256": "ab",
        "code_version": "0.1",
        "torch_version": "2.13.0",
        "images": 4,
        "limit": 1e-10,
    }
    return Proof(**{**values, **changes}, errors=errors)


GOOD = {"embed": 1e-16, "blocks.0": 2e-16, "blocks.1": 3.14e-15, "tokens": 3e-15, "logits": 1e-15}


def test_a_proof_passes_when_every_stage_holds():
    found = proof(GOOD)
    assert found.passed
    assert found.first_difference is None
    assert found.worst == 3.14e-15
    assert found.sentence == "every stage agrees with timm 1.2.3 to 3.1e-15"


def test_the_first_stage_that_differs_is_named():
    found = proof({**GOOD, "blocks.1": 2.1e-3, "tokens": 0.5})
    assert not found.passed
    assert found.sentence == "blocks.1 differs first: 2.1e-03; embed and blocks.0 agree to 2.0e-16"
    several = proof({"embed": 0.0, **{f"blocks.{index}": 1e-15 for index in range(3)}, "tokens": 1.0})
    assert several.sentence == "tokens differs first: 1.0e+00; embed and blocks.0–2 agree to 1.0e-15"
    assert proof({"embed": 1.0, "tokens": 1.0}).sentence == "embed differs first: 1.0e+00"
    assert "embed agrees to the last bit" in proof({"embed": 0.0, "blocks.0": 1.0}).sentence


def test_stages_are_in_the_order_of_computation():
    names = [
        "embed",
        *(f"blocks.{index}" for index in range(12)),
        "tokens",
        "embedding",
        "logits",
        "image_embeds",
    ]
    assert list(proof(dict.fromkeys(sorted(names), 0.0)).errors) == names


def test_no_number_and_no_stage_prove_nothing():
    assert not proof({"embed": math.nan}).passed
    assert not proof({"embed": math.inf}).passed
    assert not proof({}).passed


def test_a_proof_survives_json():
    found = proof({**GOOD, "logits": math.inf}, not_compared=("embedding",), reason="shapes")
    data = json.loads(json.dumps(found.to_dict(), sort_keys=True, allow_nan=False))
    assert data["errors"]["logits"] is None
    assert data["passed"] is False
    again = Proof.from_dict(data)
    assert list(again.errors) == list(found.errors)
    assert again.errors["blocks.1"] == 3.1e-15
    assert again.to_dict() == data


def test_what_a_document_says_of_passing_is_judged_again():
    assert not Proof.from_dict({**proof({"embed": 1.0}).to_dict(), "passed": True}).passed
