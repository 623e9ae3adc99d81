"""What eager PyTorch says: in float64, the truth, and at a precision, the yardstick.

Both are computed on the CPU, a few samples at a time, when they are first asked for, and kept for
every artefact of the model. Of eager at a precision only the errors are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.parity.criterion import relative_errors
from vit_deploy.parity.inputs import stacked
from vit_deploy.weights.module.factory import foreign_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from vit_deploy.model.config import OutputName
    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.inputs import Sample
    from vit_deploy.protocols import Progress
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

CHUNK = 4
"""Samples in one eager batch: bounds the activations in float64, and is as fast as more on a CPU."""


class References:
    """Eager outputs of one model on one set of samples.

    Args:
        model: the model.
        samples: what it is run on.
        exact: the model of the reference in float64, where it is another one: positions that were
            resampled in float64, too.
    """

    def __init__(self, model: Model, samples: Sequence[Sample], exact: Model | None = None) -> None:
        self._model = model
        self._exact_model = exact or model
        self._samples = samples
        self._exact: dict[str, Floats] = {}
        self._errors: dict[tuple[Precision, str], Floats] = {}

    def exact(self, names: Sequence[OutputName], progress: Progress) -> dict[str, Floats]:
        """The outputs in float64, each ``(s, ...)`` over all samples.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        import numpy as np
        import torch

        missing = [name for name in names if name not in self._exact]
        if missing:
            progress.phase("reference in float64", len(self._samples))
            pieces = [outputs for _, outputs in self._eager(torch.float64, missing, progress)]
            for name, parts in zip(missing, zip(*pieces, strict=True), strict=True):
                self._exact[name] = np.concatenate(parts)
        return {name: self._exact[name] for name in names}

    def eager_errors(
        self, precision: Precision, names: Sequence[OutputName], progress: Progress
    ) -> dict[str, Floats]:
        """Relative errors of eager at a precision: ``(s,)`` for each output, ``(s, n)`` for tokens.

        They are not finite where eager overflows.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        import numpy as np
        import torch

        exact = self.exact(names, progress)
        missing = [name for name in names if (precision, name) not in self._errors]
        if missing:
            progress.phase(f"eager PyTorch in {precision}", len(self._samples))
            dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
            pieces: dict[str, list[Floats]] = {name: [] for name in missing}
            for chosen, outputs in self._eager(dtype, missing, progress):
                for name, output in zip(missing, outputs, strict=True):
                    pieces[name].append(relative_errors(output, exact[name][chosen]))
            for name in missing:
                self._errors[precision, name] = np.concatenate(pieces[name])
        return {name: self._errors[precision, name] for name in names}

    def _eager(
        self, dtype: torch.dtype, names: Sequence[OutputName], progress: Progress
    ) -> Iterator[tuple[slice, tuple[NDArray[np.float64], ...]]]:
        """Outputs as float64, chunk by chunk; the module is dropped at the end."""
        import torch

        model = self._exact_model if dtype == torch.float64 else self._model
        module = model.eager(dtype=dtype, outputs=names)
        batch = self._model.config.io_spec().batch
        size = batch.minimum if batch.is_fixed else CHUNK
        for start in range(0, len(self._samples), size):
            chosen = slice(start, min(start + size, len(self._samples)))
            run = list(self._samples[chosen])
            if batch.is_fixed:  # what is added is dropped again
                run += run[-1:] * (size - len(run))
            inputs = [torch.from_numpy(array).to(dtype) for array in stacked(run)]
            results = _run(module, inputs, dtype)
            tensors = results if isinstance(results, tuple) else (results,)
            count = chosen.stop - chosen.start
            yield chosen, tuple(tensor[:count].double().numpy() for tensor in tensors)
            progress.advance(count)


def _run(module: nn.Module, inputs: Sequence[torch.Tensor], dtype: torch.dtype) -> Any:
    import torch

    try:
        with torch.inference_mode(), foreign_code():
            return module(*inputs)
    except RuntimeError as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ImportFailed(
            f"eager PyTorch does not run in {str(dtype).removeprefix('torch.')}: {lines[0]}",
            expected="a module whose constants follow the dtype of its inputs: so that its truth is known",
            next_command="torch.zeros(..., dtype=x.dtype) in its code; --no-verify exports it unverified",
        ) from error
