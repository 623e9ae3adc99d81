"""The rules by which other tools call an export right, each as that tool runs it: its inputs, its batch.

What is importable is called; what is not was read, and is followed line by line:

* Polygraphy: ``SimpleCompareFunc()`` through ``Comparator.compare_accuracy``, on what its ``DataLoader`` makes
  (one iteration, numbers of 0 to 1; a free batch is 1).
* Optimum (``optimum/exporters/onnx/convert.py`` of optimum-onnx 0.1.0): ``_run_validation`` on two pictures of
  numbers of 0 to 1, ``np.allclose(atol=1e-5)`` (``ATOL_FOR_VALIDATION`` of ``OnnxConfig``; none of its ViTs has
  another). What differs in value or in the set of outputs becomes a warning and the export succeeds; what
  differs in shape, or does not run, is an error.
* timm (``timm/utils/onnx.py``): ``onnx_export --check`` runs the ONNX checker alone; with ``--check-forward``
  it is ``assert_almost_equal(decimal=3)`` on one ``randn`` picture. The latter is what is counted.
* PyTorch: ``torch.onnx.export(verify=True)`` logs a warning from a difference of 5e-3, or of a tenth, on
  (``torch/onnx/_internal/exporter/_core.py``), and a failure to run goes into a report; the export succeeds.
* ``torch.testing.assert_close`` with its defaults, and ``np.allclose`` at 1e-4 with NumPy's ``rtol``, on one
  ``randn`` picture, as export scripts have them.
* Model Navigator (``model_navigator/commands/correctness/correctness_script.py`` of 0.14.0): NaN, Inf, or
  another number of outputs fail; how far the rest differs is recorded and accepted.

They are given more than they have: the true model to compare with, where a tool would take the very module
that it exported, with its faults; every output; the true preprocessing; artefacts of every format.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vit_deploy.spec import IOSpec

    Arrays = dict[str, NDArray[Any]]
    Run = Callable[[Arrays], Arrays]

Says = Literal["passes", "warns", "refuses"]
"""``warns``: the tool prints a warning, and its exit code is 0."""


@dataclass(frozen=True)
class Trial:
    """One artefact before another tool's rule.

    Attributes:
        spec: its inputs and outputs.
        run: the artefact.
        truth: eager PyTorch in float32, on the same inputs.
        size: of the pictures, where the artefact takes any.
    """

    spec: IOSpec
    run: Run
    truth: Run
    size: tuple[int, int]


@dataclass(frozen=True)
class Rule:
    """The rule of one tool.

    Attributes:
        name: of the tool, or the function.
        package: whose version is recorded, as it is installed here; empty where it was read.
        version: what was read, where that is not installed.
        judge: what the rule says of a trial.
    """

    name: str
    package: str
    version: str
    judge: Callable[[Trial], Says]


class _Different(Exception):
    """The outputs are not as close as the rule asks."""


class _OtherOutputs(Exception):
    """The outputs have other names than the model's."""


class _OtherShapes(Exception):
    """The outputs have other shapes than the model's."""


def _randn(trial: Trial, batch: int) -> Arrays:
    return _drawn(trial, batch, lambda generator, shape: generator.standard_normal(shape))


def _uniform(trial: Trial, batch: int) -> Arrays:
    return _drawn(trial, batch, lambda generator, shape: generator.uniform(size=shape))


def _drawn(trial: Trial, batch: int, draw: Callable[[Any, tuple[int, ...]], Any]) -> Arrays:
    """Floats as the tool draws them. Of 8-bit pictures, which no such tool knows, any."""
    generator = np.random.default_rng(0)
    inputs = {}
    for entry in trial.spec.inputs:
        shape = entry.at(trial.spec.free_at(batch, trial.size))
        if entry.dtype == "uint8":
            inputs[entry.name] = generator.integers(0, 256, size=shape, dtype=np.uint8)
        else:
            inputs[entry.name] = draw(generator, shape).astype(entry.dtype)
    return inputs


def _compared(trial: Trial, inputs: Arrays) -> list[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Name, truth and what the artefact gave, for each output of the model.

    Raises:
        _OtherOutputs: when the artefact gives others.
        _OtherShapes: when one of them has another shape.
    """
    found, exact = trial.run(inputs), trial.truth(inputs)
    if set(found) != set(exact):
        raise _OtherOutputs(sorted(found))
    for name, array in exact.items():
        if array.shape != found[name].shape:
            raise _OtherShapes(name)
    return [(name, array, found[name]) for name, array in exact.items()]


def _polygraphy(trial: Trial) -> Says:
    from polygraphy.common import TensorMetadata
    from polygraphy.comparator import Comparator, DataLoader, IterationResult, RunResults
    from polygraphy.comparator.compare import SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    metadata = TensorMetadata()
    for entry in trial.spec.inputs:
        shape = entry.at(trial.spec.free_at(1, trial.size))
        metadata.add(entry.name, dtype=np.dtype(entry.dtype), shape=shape)
    with contextlib.redirect_stdout(io.StringIO()), G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        loader = DataLoader(input_metadata=metadata)
        loader.input_metadata = metadata
        inputs = dict(loader[0])
        results = RunResults()
        for name, run in (("artefact", trial.run), ("eager", trial.truth)):
            results.append((name, [IterationResult(outputs=run(inputs), runner_name=name)]))
        right = bool(Comparator.compare_accuracy(results, compare_func=SimpleCompareFunc()))
    return "passes" if right else "refuses"


def _optimum(trial: Trial) -> Says:
    try:
        pairs = _compared(trial, _uniform(trial, 2))
    except _OtherOutputs:
        return "warns"
    close = all(np.allclose(exact, found, atol=1e-5) for _, exact, found in pairs)
    return "passes" if close else "warns"


def _timm(trial: Trial) -> Says:
    for _, exact, found in _compared(trial, _randn(trial, 1)):
        np.testing.assert_almost_equal(exact, found, decimal=3)
    return "passes"


def _torch_verify(trial: Trial) -> Says:
    """As ``torch.onnx.export(verify=True)``; its warnings are all that it says."""
    import torch
    from torch.onnx._internal.exporter._verification import VerificationInfo

    try:
        pairs = _compared(trial, _randn(trial, 2))
    except Exception:  # whatever it is goes into a report, and the export succeeds
        return "warns"
    for name, exact, found in pairs:
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (exact, found))
        info = VerificationInfo.from_tensors(name, *tensors)
        if info.max_abs_diff >= 5e-3 or info.max_rel_diff >= 1e-1:
            return "warns"
    return "passes"


def _assert_close(trial: Trial) -> Says:
    import torch

    for _, exact, found in _compared(trial, _randn(trial, 1)):
        torch.testing.assert_close(torch.from_numpy(found.copy()), torch.from_numpy(exact.copy()))
    return "passes"


def _allclose(trial: Trial) -> Says:
    for _, exact, found in _compared(trial, _randn(trial, 1)):
        if not np.allclose(found, exact, atol=1e-4):
            raise _Different
    return "passes"


def _navigator(trial: Trial) -> Says:
    found = trial.run(_uniform(trial, 1))
    if len(found) != len(trial.spec.outputs) or not all(np.isfinite(array).all() for array in found.values()):
        return "refuses"
    return "passes"


RULES: tuple[Rule, ...] = (
    Rule("Polygraphy", "polygraphy", "", _polygraphy),
    Rule("Optimum", "", "optimum-onnx 0.1.0, read", _optimum),
    Rule("timm", "timm", "", _timm),
    Rule("torch verify", "torch", "", _torch_verify),
    Rule("torch.testing", "torch", "", _assert_close),
    Rule("allclose 1e-4", "numpy", "", _allclose),
    Rule("Model Navigator", "", "triton-model-navigator 0.14.0, read", _navigator),
)


def ask(rule: Rule, trial: Trial) -> Says:
    """What a rule says; an exception of the artefact, or of the rule, is a refusal."""
    logging.disable(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            return rule.judge(trial)
    except Exception:
        return "refuses"
    finally:
        logging.disable(logging.NOTSET)


def rules_here() -> tuple[Rule, ...]:
    """The rules whose code is installed here, or needs none."""
    from vit_deploy.environment import package_version

    return tuple(rule for rule in RULES if not rule.package or package_version(rule.package))


def versions() -> dict[str, str]:
    """Of each rule that was asked: what is installed here, or what was read."""
    from vit_deploy.environment import package_version

    def told(package: str) -> str:
        return f"{package} {package_version(package)}"

    return {rule.name: told(rule.package) if rule.package else rule.version for rule in rules_here()}
