"""Proof of import: our eager model against the source library's own, in float64, block by block."""

from vit_deploy.proof.prove import LIMIT, prove_import, require_passed
from vit_deploy.proof.record import Proof

__all__ = ["LIMIT", "Proof", "prove_import", "require_passed"]
