"""Proof of import: our eager model against the source library's own, in float64, block by block."""

from vit_deploy.proof.record import Proof
from vit_deploy.proof.prove import LIMIT, prove_import

__all__ = ["LIMIT", "Proof", "prove_import"]
