"""Is an artefact equal to eager PyTorch? The criterion, the inputs, and the check that gives verdicts."""

from vit_deploy.parity.check import ParityCheck
from vit_deploy.parity.images import pictures_in
from vit_deploy.parity.inputs import FAMILIES
from vit_deploy.parity.limits import LIMITS, Limits

__all__ = ["FAMILIES", "LIMITS", "Limits", "ParityCheck", "pictures_in"]
