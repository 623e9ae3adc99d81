"""What eager PyTorch says: in float64, the truth, and at a precision, the yardstick.

Both are computed on the CPU, a few samples at a time, when they are first asked for, and kept for
every artefact of the model, on the disk too where there is a cache. Of eager at a precision only the errors
are kept. How large the numbers inside grow is seen in passing, while the truth is computed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.garbage import give_back_memory
from vit_deploy.model.precision import eager_dtype
from vit_deploy.parity.criterion import relative_errors
from vit_deploy.parity.inputs import stacked
from vit_deploy.parity.ranges import RangeWatch, RangeWatcher, natural
from vit_deploy.parity.reference_cache import Shelf, arithmetic
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
    from vit_deploy.parity.reference_cache import ReferenceCache
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
        cache: keeps them on the disk for the next run.
    """

    def __init__(
        self,
        model: Model,
        samples: Sequence[Sample],
        exact: Model | None = None,
        cache: ReferenceCache | None = None,
    ) -> None:
        self._model = model
        self._exact_model = exact or model
        self._samples = samples
        self._shelf = Shelf(cache, model, self._exact_model, samples)
        self._exact: dict[str, Floats] = {}
        self._errors: dict[tuple[Precision, str], Floats] = {}
        # What is resampled for a reference is judged at a size that is not the model's own.
        watched = exact is None and model.config.kind == "vit"
        self._natural = natural(samples) if watched else []
        self._ranges: RangeWatch | None = None

    def exact(self, names: Sequence[OutputName], progress: Progress) -> dict[str, Floats]:
        """The outputs in float64, each ``(s, ...)`` over all samples.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        import torch

        for name in names:
            if name not in self._exact:
                kept = self._shelf.get(kind="exact", output=name)
                if kept is not None:
                    self._exact[name] = kept
        missing = [name for name in names if name not in self._exact]
        if missing:
            progress.phase("reference in float64", len(self._samples))
            whole = _Whole(missing, len(self._samples))
            watch = self._natural if self._ranges is None else []
            for chosen, outputs in self._eager(torch.float64, missing, self._samples, progress, watch):
                whole.add(chosen, outputs)
            for output, values in whole.arrays.items():
                self._exact[output] = values
                self._shelf.put(values, kind="exact", output=output)
        return {name: self._exact[name] for name in names}

    def eager_errors(
        self, precision: Precision, names: Sequence[OutputName], progress: Progress
    ) -> dict[str, Floats]:
        """Relative errors of eager at a precision: ``(s,)`` for each output, ``(s, n)`` for tokens.

        They are not finite where eager overflows.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        for name in names:
            if (precision, name) not in self._errors:
                kept = self._shelf.get(kind="errors", output=name, precision=precision, **arithmetic())
                if kept is not None:
                    self._errors[precision, name] = kept
        missing = [name for name in names if (precision, name) not in self._errors]
        if missing:
            exact = self.exact(missing, progress)
            progress.phase(f"eager PyTorch in {precision}", len(self._samples))
            whole = _Whole(missing, len(self._samples))
            dtype = eager_dtype(precision)
            for chosen, outputs in self._eager(dtype, missing, self._samples, progress):
                pairs = zip(missing, outputs, strict=True)
                whole.add(chosen, [relative_errors(found, exact[name][chosen]) for name, found in pairs])
            for output, values in whole.arrays.items():
                self._errors[precision, output] = values
                self._shelf.put(values, kind="errors", output=output, precision=precision, **arithmetic())
        return {name: self._errors[precision, name] for name in names}

    def ranges(self, progress: Progress) -> RangeWatch | None:
        """How large the numbers inside grow on the natural samples.

        Seen in passing where :meth:`exact` has been asked for; a run in float32 of its own otherwise.

        Returns:
            ``None`` where nothing is known of the model's inside, or no sample is natural.

        Raises:
            HostileInput: when the reference weights cannot be read.
        """
        import torch

        if self._ranges is None and self._natural:
            kept = self._shelf.get(kind="ranges")
            if kept is not None:
                self._ranges = RangeWatch.from_array(kept, len(self._natural))
            else:
                chosen = [self._samples[index] for index in self._natural]
                progress.phase("eager PyTorch in fp32: ranges", len(chosen))
                for _ in self._eager(torch.float32, (), chosen, progress, range(len(chosen))):
                    pass
        return self._ranges

    def _eager(
        self,
        dtype: torch.dtype,
        names: Sequence[OutputName],
        samples: Sequence[Sample],
        progress: Progress,
        watch: Sequence[int] = (),
    ) -> Iterator[tuple[slice, tuple[NDArray[np.float64], ...]]]:
        """Outputs as float64, chunk by chunk, with an eye on the samples at ``watch``.

        The memory of the module is the system's again at the end, before an artefact is opened.
        """
        yield from self._chunks(dtype, names, samples, progress, watch)
        give_back_memory()

    def _chunks(
        self,
        dtype: torch.dtype,
        names: Sequence[OutputName],
        samples: Sequence[Sample],
        progress: Progress,
        watch: Sequence[int],
    ) -> Iterator[tuple[slice, tuple[NDArray[np.float64], ...]]]:
        import torch

        model = self._exact_model if dtype == torch.float64 else self._model
        module: Any = model.eager(dtype=dtype, outputs=names)
        batch = self._model.config.io_spec().batch
        size = batch.minimum if batch.is_fixed else CHUNK
        with contextlib.ExitStack() as stack:
            watcher = stack.enter_context(RangeWatcher(module)) if watch else None
            for start in range(0, len(samples), size):
                chosen = slice(start, min(start + size, len(samples)))
                run = list(samples[chosen])
                if batch.is_fixed:  # what is added is dropped again
                    run += run[-1:] * (size - len(run))
                inputs = [torch.from_numpy(array).to(dtype) for array in stacked(run)]
                rows = [index - start for index in watch if chosen.start <= index < chosen.stop]
                with watcher.rows(rows) if watcher else contextlib.nullcontext():
                    results = _run(module, inputs, dtype)
                tensors = results if isinstance(results, tuple) else (results,)
                count = chosen.stop - chosen.start
                yield chosen, tuple(tensor[:count].double().numpy() for tensor in tensors)
                progress.advance(count)
        if watcher:
            self._ranges = watcher.result()
            self._shelf.put(self._ranges.to_array(), kind="ranges")


class _Whole:
    """Arrays over all samples, filled chunk by chunk: pieces to be joined would be held twice."""

    def __init__(self, names: Sequence[str], count: int) -> None:
        self._names = names
        self._count = count
        self.arrays: dict[str, Floats] = {}

    def add(self, chosen: slice, pieces: Sequence[Floats]) -> None:
        import numpy as np

        for name, piece in zip(self._names, pieces, strict=True):
            if name not in self.arrays:
                self.arrays[name] = np.empty((self._count, *piece.shape[1:]))
            self.arrays[name][chosen] = piece


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
