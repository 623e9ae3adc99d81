"""Put every fault and every honest artefact to the checker, and to the rules of other tools.

    python -m benchmarks.parity --output benchmarks/results/DEVICE/mutations.json
    python -m benchmarks.parity --only "dead head"

With both, those rows of the file are measured again and the others stay. With ``--output`` the table of
``benchmarks/parity/README.md`` is made anew. It exits with 3 where less than 95 % of the faults are caught, a
fault is missed that has no reason, or an honest artefact is refused.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.parity.faults import FAULTS
from benchmarks.parity.honest import HONEST
from benchmarks.parity.measure import judge_fault, judge_honest
from benchmarks.parity.rules import versions
from benchmarks.parity.table import totals, write_table
from benchmarks.parity.workbench import Workbench
from vit_deploy.environment import environment
from vit_deploy.errors import UsageFailed

README = Path(__file__).with_name("README.md")
SCHEMA = "vit-deploy/mutations/1"
LEAST_CAUGHT = 0.95


def main() -> int:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", default="", help="those whose name holds this")
    parser.add_argument("--output", type=Path, help="write the rows to this JSON file, and the table")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of eager and of backends")
    parser.add_argument("--no-blame", action="store_true", help="leave out where each fault came in")
    arguments = parser.parse_args()
    result = measure(arguments.only, arguments.threads, blame=not arguments.no_blame)
    if arguments.output:
        if arguments.only and arguments.output.exists():
            result = merged(json.loads(arguments.output.read_text(encoding="utf-8")), result)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_table(result, README)
    _print(result["totals"])
    return 0 if holds(result) else 3


def measure(only: str = "", threads: int = 1, *, blame: bool = True) -> dict[str, Any]:
    """All rows, what they add up to, and what they were made on.

    Args:
        only: leave out those whose name does not hold this.
        threads: CPU threads of eager and of backends.
        blame: ask where each fault came in.
    """
    started = time.perf_counter()
    faults, honest, left_out = [], [], []
    with Workbench(threads) as bench:
        for fault in FAULTS:
            if only in fault.name:
                faults.append(_told(judge_fault(fault, bench, blame=blame)))
        for artefact in HONEST:
            if only not in artefact.name:
                continue
            if artefact.needs and not _have(artefact.needs):
                left_out.append({"name": artefact.name, "needs": artefact.needs})
            else:
                honest.append(_told(judge_honest(artefact, bench)))
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "environment": environment(),
        "threads": threads,
        "versions": versions(),
        "faults": faults,
        "honest": honest,
        "left_out": left_out,
        "seconds": round(time.perf_counter() - started, 1),
    }
    return {**result, "totals": totals(result)}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``old`` with those rows of ``new`` that it has, too; a row of a new name is for a whole run.

    Raises:
        UsageFailed: when the two were made on unlike machines or versions.
    """
    for key in ("environment", "versions", "threads"):
        if old[key] != new[key]:
            raise UsageFailed(
                f"the result was made with another {key}",
                expected="rows of like circumstances in one result",
                next_command="make mutations",
            )
    for part in ("faults", "honest"):
        again = {row["name"]: row for row in new[part]}
        old[part] = [again.get(row["name"], row) for row in old[part]]
    return {**old, "totals": totals(old)}


def holds(result: dict[str, Any]) -> bool:
    """Whether enough was caught, each miss has its reason, and nothing honest was refused."""
    missed = [row for row in result["faults"] if not row["caught"]]
    enough = len(missed) <= (1 - LEAST_CAUGHT) * len(result["faults"])
    explained = all(row["missed"] for row in missed)
    return enough and explained and not any(row["refused"] for row in result["honest"])


def _have(tool: str) -> bool:
    return importlib.util.find_spec(tool) is not None or shutil.which(tool) is not None


def _told(row: dict[str, Any]) -> dict[str, Any]:
    said = row.get("culprit") or {}
    place = f"  {said.get('stage')} {said.get('where')}" if said else ""
    print(f"{row['name'][:60]:60} {row['verdict']:10} {row['worst_ratio']!s:>10}{place}", flush=True)
    if row.get("refused") or row.get("caught") is False:
        print(f"    {row['reason'] or row.get('missed', '')}", flush=True)
    return row


def _print(counted: dict[str, Any]) -> None:
    for name, entry in counted["checkers"].items():
        print(
            f"{name:16} {entry['caught']:3} of {counted['faults']} faults, {entry['warned']} by a warning; "
            f"refuses {entry['refused_fp32']} + {entry['refused_lower']} of {counted['honest']} honest"
        )
    print(counted.get("blame", ""))


if __name__ == "__main__":
    sys.exit(main())
