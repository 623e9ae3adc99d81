"""Puts cases to the checker, to blame, and to the rules of other tools; gives rows."""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.parity.rules import Trial, ask, rules_here
from vit_deploy import registry
from vit_deploy.facts import Device
from vit_deploy.model.contract import network_is_dynamic
from vit_deploy.protocols import SessionOptions, Silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.parity.case import Case, Fault, Honest
    from benchmarks.parity.rules import Says
    from benchmarks.parity.workbench import Workbench
    from vit_deploy.facts import Verdict
    from vit_deploy.protocols import Runtime

    Row = dict[str, Any]


def judge_fault(fault: Fault, bench: Workbench, *, others: bool = True, blame: bool = True) -> Row:
    """The row of one fault.

    Args:
        fault: is made and judged.
        bench: makes it.
        others: ask the rules of other tools, too.
        blame: ask where the fault came in, too, where this version can tell.
    """
    row: Row = {
        "name": fault.name,
        "kind": fault.kind,
        "family": fault.family,
        "expected": {"stage": fault.stage, "where": fault.where},
    }
    started = time.perf_counter()
    try:
        case = fault.make(bench)
        verdict = _judged(case)
        row |= _figures(case, verdict) | {"caught": verdict.passed is False}
        if verdict.passed is not False:
            row["missed"] = fault.missed
        elif blame and can_blame():
            row["culprit"] = _culprit(case, verdict)
        if others:
            row["others"] = _others(case)
    finally:
        bench.done()
    return row | {"seconds": round(time.perf_counter() - started, 2)}


def judge_honest(honest: Honest, bench: Workbench, *, others: bool = True) -> Row:
    """The row of one honest artefact; see :func:`judge_fault`."""
    row: Row = {"name": honest.name, "family": honest.family}
    started = time.perf_counter()
    try:
        case = honest.make(bench)
        verdict = _judged(case)
        row |= _figures(case, verdict) | {"refused": verdict.passed is not True}
        if others:
            row["others"] = _others(case)
    finally:
        bench.done()
    return row | {"seconds": round(time.perf_counter() - started, 2)}


def can_blame() -> bool:
    """Whether this version of the library can say whose fault it is."""
    return importlib.util.find_spec("vit_deploy.blame.culprit") is not None


def _judged(case: Case) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow is what some faults are
        return case.subject.check.judge(case.artefact, runtime=case.runtime, device=Device())


def _figures(case: Case, verdict: Verdict) -> Row:
    return {
        "artefact": case.artefact.name,
        "precision": case.artefact.precision,
        "backend": verdict.backend,
        "verdict": verdict.word,
        "worst_ratio": _rounded(verdict.worst_ratio),
        "p95_ratio": _rounded(verdict.p95_ratio),
        "reason": verdict.reason.replace(str(case.artefact.path.parent), "…"),
    }


def _rounded(ratio: float | None) -> float | str | None:
    if ratio is None:
        return None
    return float(f"{ratio:.4g}") if math.isfinite(ratio) else "inf"


def _runtime(case: Case) -> Runtime:
    return case.runtime or registry.runtimes_for(case.artefact.format)[0]


def _culprit(case: Case, verdict: Verdict) -> Row:
    from vit_deploy.blame.culprit import find_culprit

    try:
        found = find_culprit(
            case.subject.check, case.artefact, verdict, _runtime(case), Device(), progress=Silent()
        )
    except Exception as error:  # a report that cannot be given is a finding of its own
        return {"stage": None, "where": "", "error": f"{type(error).__name__}: {error}"}
    return {"stage": found.stage, "where": found.where, "runs": found.runs, "sentence": found.sentence}


def _others(case: Case) -> dict[str, Says]:
    """What each other rule says; one that cannot even open the artefact refuses it."""
    options = SessionOptions(threads=case.subject.threads)
    spec = case.artefact.spec
    said: dict[str, Says] = {}
    for rule in rules_here():
        try:
            with _runtime(case).open(case.artefact, Device(), options) as session:
                trial = Trial(spec, lambda given: dict(session.run(given)), _truth(case), _size(case))
                said[rule.name] = ask(rule, trial)
        except Exception:
            said[rule.name] = "warns" if rule.name == "torch verify" else "refuses"
    return said


def _size(case: Case) -> tuple[int, int]:
    """Of the pictures that others are given, where any will do: the network's own, or one to be resized."""
    height, width = case.subject.model.config.image_size
    return (height, width) if network_is_dynamic(case.artefact.spec) else (height * 3 // 2, width * 3 // 2)


def _truth(case: Case) -> Any:
    """Eager in float32, behind the model's own preprocessing where pictures go in."""
    import torch

    model, spec = case.subject.model, case.artefact.spec
    module = model.eager(outputs=spec.output_names)

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        (array,) = inputs.values()
        values = array if spec.contract == "pixel_values" else _prepared(array, case)
        with torch.inference_mode():
            results = module(torch.from_numpy(np.ascontiguousarray(values)))
        tensors = results if isinstance(results, tuple) else (results,)
        return {name: tensor.numpy() for name, tensor in zip(spec.output_names, tensors, strict=True)}

    return run


def _prepared(pictures: NDArray[Any], case: Case) -> NDArray[np.float32]:
    from PIL import Image

    recipe = case.subject.model.known_preprocessing
    if case.artefact.spec.contract == "uint8":
        return np.stack([recipe.normalise(picture) for picture in pictures])
    return np.stack([recipe(Image.fromarray(picture)) for picture in pictures])
