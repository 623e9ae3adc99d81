"""Which library multiplies fastest: a short trial of each in a process of its own.

Several libraries in one process are no fair trial: each brings threads, allocators and OpenMPs that the
others meet. What a library took in memory is gone with its process, so that the worker that goes on
with the best of them holds that one alone. ``python -m vit_deploy.bench.ceiling.probe`` reads one trial as
JSON on stdin and writes its outcome as JSON on the descriptor that it was given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.ceiling.operands import Wanted
from vit_deploy.bench.ceiling.providers import able, provider
from vit_deploy.bench.timing import time_steps
from vit_deploy.environment import package_version
from vit_deploy.facts import Device
from vit_deploy.model.counts import Gemm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAYERS = 2
"""So many blocks stand for all of them: the shapes are those of the model, the weights are not all there."""

TRIAL_NS = 200_000_000
TIMEOUT_S = 60.0


def trial_gemms(gemms: Sequence[Gemm]) -> tuple[Gemm, ...]:
    """The same shapes, fewer of each."""
    return tuple(replace(gemm, times=min(gemm.times, LAYERS)) for gemm in gemms)


def choose(wanted: Wanted) -> tuple[str | None, dict[str, Any]]:
    """Try each library that multiplies in the precision that is wanted, on the device.

    Returns:
        The fastest one's name, ``None`` where there is none; and for each its GFLOP/s, or why it has none.
    """
    names = able(wanted.precision, wanted.device)
    if len(names) == 1 and _is_installed(names[0]):
        return names[0], {names[0]: "the only one that can"}
    shortened = replace(wanted, gemms=trial_gemms(wanted.gemms))
    flops = sum(gemm.flops for gemm in shortened.gemms)
    told: dict[str, Any] = {}
    for name in names:
        outcome = _try_alone(name, shortened)
        told[name] = flops / outcome["best_ns"] if "best_ns" in outcome else outcome["reason"]
    reached = {name: value for name, value in told.items() if isinstance(value, float)}
    best = max(reached, key=lambda name: reached[name]) if reached else None
    return best, told


def _is_installed(name: str) -> bool:
    distributions = provider(name).NAME, f"{provider(name).NAME}-gpu"
    return any(package_version(distribution) for distribution in distributions)


def _try_alone(name: str, wanted: Wanted) -> dict[str, Any]:
    """The outcome of one trial: ``best_ns``, or the ``reason`` why there is none."""
    if not _is_installed(name):
        return {"reason": "not installed"}
    request = {**asdict(wanted), "provider": name, "device": str(wanted.device)}
    try:
        # Libraries write to stdout as they like: the outcome has a file of its own.
        with tempfile.TemporaryFile() as outcome:
            done = subprocess.run(
                [sys.executable, "-m", "vit_deploy.bench.ceiling.probe", str(outcome.fileno())],
                input=json.dumps(request).encode(),
                stdout=subprocess.DEVNULL,
                pass_fds=(outcome.fileno(),),
                timeout=TIMEOUT_S,
                check=False,
            )
            outcome.seek(0)
            answer = outcome.read()
    except subprocess.TimeoutExpired:
        return {"reason": f"no answer within {TIMEOUT_S:g} s"}
    if not answer:
        return {"reason": f"it ended with exit code {done.returncode}"}
    told: dict[str, Any] = json.loads(answer)
    return told


def trial(request: Mapping[str, Any]) -> dict[str, Any]:
    """Open one library's products and time them; its best time, or why it is not able to."""
    gemms = tuple(Gemm(**entry) for entry in request["gemms"])
    device = Device.parse(request["device"])
    wanted = Wanted(gemms, request["precision"], device, request["threads"])
    try:
        step, _ = provider(request["provider"]).open_products(wanted)
        time_steps(step, TRIAL_NS // 4)
        # The shortest is what it can do; a busy neighbour only ever adds.
        return {"best_ns": min(time_steps(step, TRIAL_NS, minimum=3))}
    except Exception as error:
        # Whatever a library raises says that it is not able to.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"reason": f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"}


def main(arguments: list[str] | None = None) -> None:
    """``python -m vit_deploy.bench.ceiling.probe DESCRIPTOR``."""
    given = sys.argv[1:] if arguments is None else arguments
    os.write(int(given[0]), json.dumps(trial(json.load(sys.stdin))).encode())
    # Native thread pools are alive; the interpreter's shutdown can hang on them.
    os._exit(0)


if __name__ == "__main__":
    main()
