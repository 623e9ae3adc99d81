"""``vit-deploy verify``: artefacts against eager PyTorch, on this machine."""

from __future__ import annotations

import functools
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import TerminalProgress, next_step, note
from vit_deploy.cli._pictures import chosen_pictures
from vit_deploy.cli._verify_options import changed_limits, verify_options
from vit_deploy.cli._verify_report import Reports
from vit_deploy.cli._verify_subject import Subject, bundle_subject, candidate_subject
from vit_deploy.errors import BackendMissing, ParityFailed
from vit_deploy.model.module_config import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.deploy.verify import Judged
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.against import Comparison
    from vit_deploy.parity.check import Opener
    from vit_deploy.protocols import Progress, Runtime


@click.command(
    "verify",
    short_help="Check artefacts against eager PyTorch.",
    epilog="Examples: vit-deploy verify bundle --images photos --junit parity.xml · "
    "vit-deploy verify ./my-vit --candidate theirs.onnx --html report.html",
)
@click.argument("target", metavar="BUNDLE|MODEL", type=click.Path(path_type=Path))
@verify_options
def command(target: Path, backend: str, candidate: Path | None, **words: Any) -> None:
    """Check each artefact of BUNDLE against eager PyTorch, on this machine.

    The bundle is not changed. Exit code 3 says that an artefact is not equal to eager PyTorch, or not as
    --require asks, 4 that none of those asked for can be run here. Where one fails, the report says where it
    first diverges and at which stage the error came in.

    With --candidate, MODEL is what `export -m` takes, and FILE is judged as an export of it. A bundle that
    was made from a py: module needs its code: name it with -m, or take the manifest's word for it with
    --trust-code.
    """
    from vit_deploy import registry
    from vit_deploy.parity.isolated import open_isolated

    runtime = registry.runtime(backend) if backend else None
    opener = functools.partial(open_isolated, timeout_s=words["timeout"])
    reports = Reports.asked(words)
    with tempfile.TemporaryDirectory(prefix="vit-deploy-verify-") as folder:
        if candidate is None:
            subject = bundle_subject(target, words["formats"], runtime, words)
        else:
            subject = candidate_subject(target, candidate, Path(folder), words, opener)
        for text in subject.notes:
            note(text)
        judged, comparison, samples = _judge(subject, runtime, words, opener, drift=reports.pictured)
    reports.give(subject, judged, samples, comparison)
    _finish(judged, comparison, subject)


def _judge(
    subject: Subject, runtime: Runtime | None, words: dict[str, Any], opener: Opener, *, drift: bool
) -> tuple[list[Judged], Comparison | None, Sequence[Any]]:
    """Judge every artefact, and compare the bundle with the one that was accepted last."""
    from vit_deploy.deploy.verify import Verification
    from vit_deploy.facts import Device
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.reference_cache import ReferenceCache
    from vit_deploy.parity.requirements import parse_requirements

    requirements = parse_requirements(words["require"])
    cache = ReferenceCache.default() if words["cache"] else None
    device = Device.parse(words["device"]) if words["device"] else None
    check = ParityCheck(
        subject.model,
        images=chosen_pictures(words["images"], words["max_images"]),
        seed=words["seed"],
        limits=changed_limits(words["limits"]),
        threads=words["threads"],
        open_session=opener,
        cache=cache,
        precisions=[artefact.precision for artefact, _ in subject.artefacts],
    )
    verification = Verification(check, runtime, device, requirements, blame=words["blame"], drift=drift)
    with TerminalProgress() as progress:
        judged = [verification.judge(artefact, nbytes, progress) for artefact, nbytes in subject.artefacts]
        comparison = _compare(subject, judged, check, words["against"], progress)
    if cache is not None and cache.note:
        note(cache.note)
    return judged, comparison, check.samples


def _compare(
    subject: Subject, judged: Sequence[Judged], check: ParityCheck, against: Path | None, progress: Progress
) -> Comparison | None:
    if against is None or subject.bundle is None:
        return None
    from vit_deploy.bundle import Bundle
    from vit_deploy.parity.against import compare_bundles

    verdicts = {entry.name: entry.verdict for entry in judged}
    return compare_bundles(subject.bundle, Bundle.open(against), verdicts, check, progress=progress)


def _finish(judged: Sequence[Judged], comparison: Comparison | None, subject: Subject) -> None:
    """The next command, or the error that the exit code stands for.

    Raises:
        ParityFailed: when an artefact failed, or is no worthy successor.
        BackendMissing: when none could be judged.
    """
    unequal = [entry.name for entry in judged if entry.verdict.passed is False]
    unlike = [entry.name for entry in judged if entry.unmet and entry.name not in unequal]
    if unequal:
        raise ParityFailed(
            f"{len(unequal)} of {len(judged)} artefacts not equal to eager PyTorch: {', '.join(unequal)}",
            expected="a relative error within the limits of the parity criterion",
            next_command=f"vit-deploy export again, and do not use {' or '.join(unequal)} until it passes",
        )
    if unlike:
        raise ParityFailed(
            f"{len(unlike)} of {len(judged)} artefacts not built as required: {', '.join(unlike)}",
            expected="what --require asks for",
            next_command="export as said above, or leave out of --require what these artefacts cannot be",
        )
    if comparison is not None and not comparison.passed:
        raise ParityFailed(
            "the bundle is no equal of the one that was accepted last",
            expected="the same model, as well built",
            next_command="read the findings above; accept this bundle if they are meant",
        )
    passed = [entry.verdict.backend for entry in judged if entry.verdict.passed]
    if not passed:
        first = judged[0]
        told, _, mend = first.verdict.reason.rpartition("; ")
        raise BackendMissing(
            f"nothing could be verified here: {first.name}: {told or first.verdict.reason}",
            expected="a machine and a backend that can run it",
            next_command=mend if told else "vit-deploy doctor",
        )
    if subject.bundle is None:
        next_step(f"vit-deploy export -m {shlex.quote(subject.name)} --format onnx")
        return
    backends = ",".join(["eager", *dict.fromkeys(_short(name) for name in passed if name != "eager")])
    code = f" -m {PREFIX}{subject.code}" if subject.code else ""
    next_step(f"vit-deploy bench {shlex.quote(subject.name)} --backend {backends}{code}")


def _short(backend: str) -> str:
    """The name users type for a backend."""
    return {"onnxruntime": "ort", "openvino": "ov", "tensorrt": "trt"}.get(backend, backend)
