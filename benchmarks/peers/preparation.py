"""Everything that is done before the clock runs: weights, our bundle, each peer's artefact, a trial of each.

All of it is kept under ``.work`` and made anew only when what it was made from has changed. A peer that
fails is a value here: it becomes a failed row.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.peers import recipe
from benchmarks.peers.environments import PeerEnvironment, environment_for
from benchmarks.peers.models import IMAGE_SIZE, largest_batch
from benchmarks.peers.places import HERE, REPOSITORY
from benchmarks.peers.recipe import Job, PreparationFailed, Variant
from benchmarks.peers.worker import JOB_VARIABLE
from vit_deploy.bench.cases import Case
from vit_deploy.bench.process import CaseFailed, CaseWorker
from vit_deploy.worker_process import worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.peers.ours import OurModel

PREPARE_TIMEOUT_S = 1800.0
OPEN_TIMEOUT_S = 900.0
WORKER_MODULE = "benchmarks.peers.worker"
_STAMP = "prepared.json"


@dataclass
class Prepared:
    """A peer on a model, ready to be measured, or the reason why it is not.

    Attributes:
        job: what it is.
        environment: where it runs; ``None`` where that could not be made.
        fingerprint: of all that it was made from.
        seconds: how long the artefact took.
        failed: why there is none; empty where there is.
        trials: what opening it gave, by variant and batch size: arithmetic, distance from eager, memory.
    """

    job: Job
    environment: PeerEnvironment | None
    fingerprint: str
    seconds: float = 0.0
    failed: str = ""
    trials: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def trial(self, variant: str, batch_size: int) -> dict[str, Any]:
        """What opening a variant gave; another batch size's where this one was not tried."""
        tried = self.trials.get(variant, {})
        return tried.get(str(batch_size)) or next(iter(tried.values()), {"failed": "it was never tried"})

    def tidy(self) -> None:
        """Remove what its workers unpacked and, being ended at once, left lying."""
        shutil.rmtree(self.job.folder / "temporary", ignore_errors=True)

    def worker(self, case: Case) -> CaseWorker:
        """The worker of one of its cases."""
        if self.environment is None:
            raise CaseFailed(self.failed)
        variables = _variables(self.job, case.batch_size)
        return CaseWorker(case, WORKER_MODULE, python=str(self.environment.python), variables=variables)


def prepare_peer(
    name: str, ours: OurModel, batch_sizes: Sequence[int], threads: int, comparison: str = "formats"
) -> Prepared:
    """Prepare a peer on a model for a comparison, or take what was prepared before."""
    folder = ours.folder / "peers" / name
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(name, ours.model, ours.checkpoint, ours.reference, folder, largest_batch(batch_sizes))
    try:
        environment = environment_for(recipe.requirements(name))
    except PreparationFailed as failure:
        return Prepared(job, None, "", failed=str(failure))
    prepared = Prepared(job, environment, _fingerprint(job, environment, ours.sha256))
    _recall(prepared)
    if not prepared.seconds:
        _make(prepared, threads)
    job.write(job_file(job))
    if not prepared.failed:
        _try_all(prepared, ours, batch_sizes, threads, comparison)
    return prepared


def _fingerprint(job: Job, environment: PeerEnvironment, sha256: str) -> str:
    """Of the recipe, the pins, the weights and the largest batch size."""
    digest = hashlib.sha256(f"{environment.folder.name} {sha256} {job.largest_batch}".encode())
    shared = (HERE / name for name in ("timm_model.py", "ort.py", "ov.py", "torch_step.py"))
    for path in (*shared, *sorted((HERE / "tools" / job.peer).glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _recall(prepared: Prepared) -> None:
    stamp = prepared.job.folder / _STAMP
    if not stamp.is_file():
        return
    held = json.loads(stamp.read_text(encoding="utf-8"))
    if held["fingerprint"] == prepared.fingerprint:
        prepared.seconds, prepared.trials = held["seconds"], held["trials"]


def _remember(prepared: Prepared) -> None:
    told = {name: getattr(prepared, name) for name in ("fingerprint", "seconds", "trials")}
    (prepared.job.folder / _STAMP).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _make(prepared: Prepared, threads: int) -> None:
    """Run the recipe in the peer's environment."""
    job = prepared.job
    shutil.rmtree(job.folder)
    job.folder.mkdir()
    job.write(job_file(job))
    variables = {**worker_environment(threads), **_variables(job, job.largest_batch)}
    began = time.monotonic()
    assert prepared.environment is not None
    command = [str(prepared.environment.python), "-m", "benchmarks.peers.recipe", str(job_file(job))]
    log = job.folder / "log.txt"
    try:
        with log.open("w", encoding="utf-8") as file:
            subprocess.run(
                command, stdout=file, stderr=file, env=variables, timeout=PREPARE_TIMEOUT_S, check=True
            )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        late = isinstance(error, subprocess.TimeoutExpired)
        prepared.failed = f"not done in {PREPARE_TIMEOUT_S:g} s" if late else " | ".join(lines[-3:])[-1000:]
        return
    prepared.seconds = max(time.monotonic() - began, 1e-3)
    if not recipe.load(job.peer).PEER.compiles_each_batch:
        shutil.rmtree(_compiled(job, job.largest_batch), ignore_errors=True)  # what went into a package
    _remember(prepared)


def job_file(job: Job) -> Path:
    """Where a job's workers read it."""
    return job.folder / "job.json"


def _compiled(job: Job, batch_size: int) -> Path:
    """Where PyTorch keeps what it compiled for a batch size."""
    return job.folder / f"inductor-{batch_size}"


def _variables(job: Job, batch_size: int) -> dict[str, str]:
    """The environment of a peer's processes; what is compiled for a batch size is kept apart from the rest."""
    temporary = job.folder / "temporary"
    temporary.mkdir(exist_ok=True)
    return {
        "PYTHONPATH": str(REPOSITORY),
        JOB_VARIABLE: str(job_file(job)),
        "TORCHINDUCTOR_CACHE_DIR": str(_compiled(job, batch_size)),
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
    }


def _try_all(
    prepared: Prepared, ours: OurModel, batch_sizes: Sequence[int], threads: int, comparison: str
) -> None:
    """Open each variant once: what it computes in, how far from eager it is, what it compiles."""
    peer = recipe.load(prepared.job.peer).PEER
    for variant in peer.rows(comparison):
        sizes = batch_sizes if peer.compiles_each_batch else batch_sizes[:1]
        for size in sizes:
            tried = prepared.trials.setdefault(variant.name, {})
            if "failed" in tried.get(str(size), {"failed": ""}):
                tried[str(size)] = _try(prepared, variant, ours, size, threads)
                _remember(prepared)
    prepared.tidy()


def _try(prepared: Prepared, variant: Variant, ours: OurModel, batch_size: int, threads: int) -> dict[str, Any]:
    """One trial: the very worker that will be measured, opened and ended."""
    found: dict[str, Any] = {}
    for arithmetic in [variant.arithmetic] if variant.arithmetic else ["fp32", "bf16"]:
        case = case_of(prepared, variant.name, arithmetic, ours, batch_size, threads)
        found = _attempt(lambda case=case: _open_and_close(prepared, case))  # type: ignore[misc]
        if "failed" not in found:
            return found
    return found


def _open_and_close(prepared: Prepared, case: Case) -> dict[str, Any]:
    with prepared.worker(case) as worker:
        began = time.monotonic()
        opened = worker.ask("open", OPEN_TIMEOUT_S, case=case.to_dict(), spawned_ns=worker.spawned_ns)
        seconds = time.monotonic() - began
        peak = worker.ask("finish", OPEN_TIMEOUT_S)["peak_rss_bytes"]
    details = opened["facts"]["details"]
    told = {name: details[name] for name in ("arithmetic", "max_abs_diff", "relative_error")}
    return {**told, "open_seconds": seconds, "peak_rss_bytes": peak}


def _attempt(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return act()
    except CaseFailed as failure:
        return {"failed": str(failure)}


def case_of(
    prepared: Prepared, variant: str, arithmetic: str, ours: OurModel, batch_size: int, threads: int
) -> Case:
    """A peer's variant as a case beside ours."""
    return Case(
        bundle=str(ours.bundle),
        artefact=variant,
        format=prepared.job.peer,
        precision=arithmetic.partition(" ")[0],  # type: ignore[arg-type]
        backend=backend_of(prepared.job.peer),
        device="cpu",
        batch_size=batch_size,
        threads=threads,
        verified=True,
        files={"fingerprint": prepared.fingerprint},
        image_size=(IMAGE_SIZE, IMAGE_SIZE),
    )


def backend_of(peer: str) -> str:
    """What a peer's cases have for a backend."""
    return f"peer-{peer}"
