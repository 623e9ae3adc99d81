"""What eager PyTorch says at every tap: in float64, the truth, and at a precision, the yardstick.

The same as :mod:`vit_deploy.parity.references`, inside the model and for the few samples of one run.
Taps are read by hooks on the model as it is written for people. The truth is kept in files, as a large
model's taps outweigh its parameters; of eager at a precision only the errors are kept.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.blame.record import TapReading
from vit_deploy.blame.taps import TOKENS, depth_at, in_order, stream_taps
from vit_deploy.blame.watching import watched
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.precision import eager_dtype
from vit_deploy.parity.criterion import percentile, reference_lengths, relative_errors, yardsticks
from vit_deploy.parity.inputs import stacked
from vit_deploy.parity.limits import SUSPECT
from vit_deploy.spec import EAGER_PRECISIONS
from vit_deploy.weights.module.factory import foreign_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.inputs import Sample
    from vit_deploy.parity.limits import Limits
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model


@dataclass(frozen=True)
class Reading:
    """An artefact at one tap, beside eager.

    Attributes:
        public: what is reported.
        typical: the root mean square of the artefact's errors over that of eager's: near 1 for any honest
            artefact, so that it shows what is too small for the limits.
    """

    public: TapReading
    typical: float


class EagerTaps:
    """The truth and the yardsticks of one run of one model at every tap.

    Args:
        model: the model.
        samples: one for each slot that is compared.
        outputs: the model's outputs that are wanted; those of a ViT's tokens are there in any case.
    """

    def __init__(self, model: Model, samples: Sequence[Sample], outputs: Sequence[str]) -> None:
        config = model.config
        is_vit = isinstance(config, ViTConfig)
        stream = stream_taps(config.depth) if is_vit else ()
        self.outputs = in_order((*outputs, TOKENS) if is_vit else tuple(outputs))
        self.names: tuple[str, ...] = (*stream, *self.outputs)
        self._model = model
        self._samples = tuple(samples)
        self._folder = Path(tempfile.mkdtemp(prefix="vit-deploy-taps-"))
        self._finish = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._errors: dict[tuple[Precision, str], Floats] = {}
        self._have_truth = False

    def close(self) -> None:
        """Remove the files."""
        self._finish()

    def exact(self, tap: str) -> Floats:
        """Eager in float64 at a tap, ``(s, ..., d)``.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        import numpy as np
        import torch

        if not self._have_truth:
            self._pass(torch.float64, lambda name, values: np.save(self._file(name), values))
            self._have_truth = True
        truth: Floats = np.load(self._file(tap), mmap_mode="r")
        return truth

    def eager_errors(self, tap: str, precision: Precision) -> Floats:
        """Relative errors of eager at a precision, ``(s, ...)``; in fp32 where eager has no such precision."""
        chosen: Precision = precision if precision in EAGER_PRECISIONS else "fp32"
        if (chosen, tap) not in self._errors:
            self.exact(tap)  # all of it is computed now, so that one pass can be compared with the other

            def compare(name: str, values: Floats) -> None:
                self._errors[chosen, name] = relative_errors(values, self.exact(name))

            self._pass(eager_dtype(chosen), compare)
        return self._errors[chosen, tap]

    def read(self, tap: str, found: NDArray[Any] | None, precision: Precision, limits: Limits) -> Reading:
        """How far an artefact is from the truth at a tap.

        Args:
            tap: one of :attr:`names`.
            found: what it gives there, ``(s, ..., d)``; ``None`` where it gives nothing.
            precision: the declared one.
            limits: what the artefact is held to.
        """
        import numpy as np

        exact = self.exact(tap)
        eager = self.eager_errors(tap, precision)
        granted = granted_errors(eager, exact, precision, limits, depth_at(tap, self._model.config.depth))
        largest_eager = float(np.nan_to_num(eager, nan=np.inf).max())
        if found is None or found.shape != exact.shape or not np.isfinite(found).all():
            broken = TapReading(tap, float("inf"), largest_eager, float("inf"), holds=False)
            return Reading(broken, float("inf"))
        errors = relative_errors(found, exact)
        ratios = errors / granted
        worst = float(ratios.max())
        holds = worst <= _worst(limits) and (limits.p95 is None or percentile(ratios) <= limits.p95)
        typical = float(np.sqrt(np.mean(errors**2) / np.mean(granted**2)))
        return Reading(TapReading(tap, float(errors.max()), largest_eager, worst, holds), typical)

    def _file(self, name: str) -> Path:
        return self._folder / f"{self.names.index(name)}.npy"

    def _pass(self, dtype: torch.dtype, keep: Callable[[str, Floats], object]) -> None:
        """One pass of eager at a dtype; each tap's values go to ``keep`` as float64, in order."""
        import torch

        module = self._model.eager(dtype=dtype, outputs=self.outputs)
        inputs = [torch.from_numpy(array).to(dtype) for array in stacked(self._samples)]
        with (
            torch.inference_mode(),
            foreign_code(),
            watched(module, lambda name, values: keep(name, values.double().numpy())),
        ):
            results = module(*inputs)
        tensors = results if isinstance(results, tuple) else (results,)
        for name, tensor in zip(self.outputs, tensors, strict=True):
            keep(name, tensor.double().numpy())


def granted_errors(eager: Floats, exact: Floats, precision: Precision, limits: Limits, depth: int) -> Floats:
    """As the criterion has it: where eager has no such precision, the declared rounding stands alone."""
    import numpy as np

    granted = eager if precision in EAGER_PRECISIONS else np.zeros_like(eager)
    return yardsticks(granted, reference_lengths(exact), limits, depth)


def _worst(limits: Limits) -> float:
    return SUSPECT if limits.worst is None else limits.worst
