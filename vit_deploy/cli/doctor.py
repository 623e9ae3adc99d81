"""``vit-deploy doctor``: fact, verdict and mend, a line each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from vit_deploy.cli._output import json_option, next_step, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vit_deploy.diagnosis import Check, Finding

OWN_VARIABLES = ("VIT_DEPLOY_CACHE", "VIT_DEPLOY_DEBUG", "VIT_DEPLOY_REFERENCE_CACHE_BYTES")
"""Variables that are no command's flag."""


@click.command("doctor", short_help="Check this machine: fact, verdict and mend, a line each.")
@json_option
def command(as_json: bool) -> None:
    """Check this machine: what is installed, what it can run, and what would go wrong.

    Each line gives a fact, a verdict (ok, warn or bad) and the command that mends it. Exits with 4
    when anything is bad.
    """
    from dataclasses import asdict

    from vit_deploy.diagnosis import diagnose

    checks = diagnose({"variables": _check_variables})
    if as_json:
        print_json("doctor", {"checks": [asdict(check) for check in checks]})
    else:
        print_table(
            ["check", "verdict", "fact", "mend"],
            [(check.name, check.verdict, check.fact, check.mend) for check in checks],
        )
    _refuse_broken(checks)
    next_step("vit-deploy demo")


def _check_variables() -> Finding:
    from vit_deploy.diagnosis.machine import judge_variables

    return judge_variables(os.environ, (*OWN_VARIABLES, *flag_variables()))


def flag_variables() -> Iterator[str]:
    """The environment variable behind every flag of every command."""
    from vit_deploy.cli import COMMANDS, group

    context = click.Context(group)
    for name in COMMANDS:
        found = group.get_command(context, name)
        for parameter in found.params if found else ():
            if isinstance(parameter, click.Option) and parameter.name:
                yield f"VIT_DEPLOY_{name.upper()}_{parameter.name.upper()}"


def _refuse_broken(checks: list[Check]) -> None:
    """End with exit code 4 when the set-up is broken."""
    from vit_deploy.errors import BackendMissing

    bad = [check for check in checks if check.verdict == "bad"]
    if bad:
        raise BackendMissing(
            f"{len(bad)} of {len(checks)} checks are bad: {', '.join(check.name for check in bad)}",
            expected="no check that is bad",
            next_command=bad[0].mend,
        )
