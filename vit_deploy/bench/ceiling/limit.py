"""How close to the limit a case comes: the ceilings that a run measures, and each row's share of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.work import work_of
from vit_deploy.bench.statistics import median

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.ceiling.work import Work
    from vit_deploy.bench.result import Measured

BACKEND = "gemm"
"""What stands for a backend in the case of a ceiling; which library it is turns out when it is opened."""


def ceiling_cases(cases: Iterable[Case]) -> list[Case]:
    """The ceilings of ``cases``: one for each set of matrix products, precision, device and threads.

    Each is made of the first case that it is for, so that it is measured among its peers. Cases whose inside
    is not known have none.
    """
    found: dict[tuple[Any, ...], Case] = {}
    for case in cases:
        work = work_of(case)
        if case.role == "case" and work is not None:
            ceiling = replace(case, role="ceiling", backend=BACKEND, streams=1, cuda_graph=False, code="")
            found.setdefault(_identity(case, work), ceiling)
    return list(found.values())


def _identity(case: Case, work: Work) -> tuple[Any, ...]:
    return work.gemms, case.precision, case.device, case.threads


def limit_of(
    case: Case, p50_ns: float, images_per_s: float, ceilings: Sequence[Measured]
) -> dict[str, float] | None:
    """How close a case comes to what the machine's matrix products reach.

    A share above 1 is told as it is. It means that the artefact beats the best products that were seen: it
    fuses what stands between them, or holds intermediate results in the caches, or runs several streams,
    none of which lone products on all threads do; or it was measured at a quieter moment.

    Args:
        case: what was measured.
        p50_ns: the median time of an inference in nanoseconds.
        images_per_s: images per second of all its streams.
        ceilings: the ceilings of the run; those that failed tell nothing.

    Returns:
        ``flops`` and ``bytes_moved`` of one inference (its whole batch), their ratio ``intensity``,
        ``gflops_per_s``, and where there is a ceiling ``ceiling_gflops_per_s`` and ``share`` of it. ``None``
        for a model whose inside is not known.
    """
    work = work_of(case)
    if work is None:
        return None
    # Streams run side by side: one inference's time tells nothing of what they reach together.
    per_s = images_per_s / case.batch_size if case.streams > 1 else 1e9 / max(p50_ns, 1)
    limit = {
        "flops": float(work.flops),
        "bytes_moved": float(work.bytes_moved),
        "intensity": work.intensity,
        "gflops_per_s": work.flops * per_s / 1e9,
    }
    ceiling = _ceiling_of(case, work, ceilings)
    if ceiling is not None:
        limit["ceiling_gflops_per_s"] = ceiling
        limit["share"] = limit["gflops_per_s"] / ceiling
    return limit


def _ceiling_of(case: Case, work: Work, ceilings: Sequence[Measured]) -> float | None:
    for measured in ceilings:
        own = work_of(measured.case)
        if own is not None and _identity(measured.case, own) == _identity(case, work):
            return _gflops_per_s(measured, own)
    return None


def _gflops_per_s(measured: Measured, work: Work) -> float | None:
    if measured.error or not measured.samples:
        return None
    return work.flops / max(median(measured.samples), 1)


def describe_ceiling(measured: Measured) -> dict[str, Any]:
    """A measured ceiling as it stands in the result: ``ok`` or the ``error``, and whose products were best.

    ``providers`` says for each library what it reached in a short trial, or why it was not able to.
    """
    case, facts, work = measured.case, measured.facts, work_of(measured.case)
    reached = _gflops_per_s(measured, work) if work else None
    return {
        "key": case.key,
        "precision": case.precision,
        "device": case.device,
        "threads": case.threads,
        "batch_size": case.batch_size,
        "image_size": list(case.image_size) if case.image_size else None,
        "ok": reached is not None,
        "error": measured.error or None,
        "provider": facts.get("backend"),
        "version": facts.get("version"),
        "providers": dict(facts.get("providers", {})),
        "flops": work.flops if work else None,
        "p50_ms": median(measured.samples) / 1e6 if reached is not None else None,
        "gflops_per_s": reached,
        "peak_rss_bytes": measured.peak_rss_bytes,
        "samples_ns": measured.samples,
    }
