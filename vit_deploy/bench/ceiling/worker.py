"""The worker of a ceiling: asked as :mod:`vit_deploy.bench.worker` is, it multiplies a model's matrices.

Its step computes every matrix product of one inference once, in the order of the model, through the one
library that a trial found to be the fastest; see :mod:`vit_deploy.bench.ceiling.probe`. What it answers as
facts of its session names that library, and what each of the others reached.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.cases import Case
from vit_deploy.bench.ceiling.operands import Wanted
from vit_deploy.bench.ceiling.probe import choose
from vit_deploy.bench.ceiling.providers import provider
from vit_deploy.bench.ceiling.work import work_of
from vit_deploy.bench.timing import Streams, rest
from vit_deploy.bench.worker import Worker, _failure
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device
from vit_deploy.worker_process import run_worker, serve

if TYPE_CHECKING:
    from vit_deploy.bench.ceiling.work import Work


class CeilingWorker(Worker):
    """One ceiling, from cold to finished."""

    def _open(self, case: dict[str, Any], spawned_ns: int) -> dict[str, Any]:
        """Choose the library, and make its operands ready; each phase lasts until the next one's stamp."""
        own = Case.from_dict(case)
        device = Device.parse(own.device)
        wanted = Wanted(_work(own).gemms, own.precision, device, own.threads)
        imported = time.monotonic_ns()
        name, told = choose(wanted)
        if name is None:
            reasons = "; ".join(f"{library}: {reason}" for library, reason in told.items())
            raise RunFailed(
                f"nothing here multiplies matrices in {wanted.precision} on {device}, so there is no ceiling",
                expected=reasons or f"a library with matrix products in {wanted.precision}",
            )
        chosen = time.monotonic_ns()
        step, version = provider(name).open_products(wanted)
        staging = time.monotonic_ns()
        step()
        step.synchronize()
        done = time.monotonic_ns()
        self._streams = Streams([step])
        rest()
        facts = {
            "backend": name,
            "version": version,
            "device": own.device,
            "precision": wanted.precision,
            "threads": wanted.threads if device.kind == "cpu" else None,
            "providers": told,
        }
        phases = {
            "import": imported - spawned_ns,
            "check": chosen - imported,
            "open": staging - chosen,
            "first": done - staging,
        }
        return {"facts": facts, "cold_start_ns": phases}


def _work(case: Case) -> Work:
    """What the case computes.

    Raises:
        RunFailed: when that cannot be counted.
    """
    work = work_of(case)
    if work is None:
        raise RunFailed(f"the matrix products of {case.artefact} are not known", expected="a bundle of a ViT")
    return work


def main(arguments: list[str] | None = None) -> None:
    """``python -m vit_deploy.bench.ceiling.worker DESCRIPTOR``."""
    given = sys.argv[1:] if arguments is None else arguments
    run_worker(lambda: serve(int(given[0]), CeilingWorker().answer, _failure, last="finish"))


if __name__ == "__main__":
    main()
