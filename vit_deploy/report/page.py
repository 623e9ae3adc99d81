"""What every page of HTML is made with: templates that escape, its style and script, its size.

A page is one file that asks for nothing and is read without JavaScript; it may hold no more than
:data:`MOST_BYTES`, so a report is told in less and less detail until it fits.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from vit_deploy.errors import BackendMissing
from vit_deploy.report import charts, facts, words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Environment

MOST_BYTES = 1_000_000


def templates() -> Environment:
    """The templates of the package, which escape whatever they are given.

    Raises:
        BackendMissing: when jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise BackendMissing(
            "the page of HTML needs jinja2, which is not installed",
            expected="the extra `report`",
            next_command="pip install 'vit-deploy[report]'",
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vit_deploy.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["first_upper"] = lambda text: text[:1].upper() + text[1:]
    environment.globals.update(words=words, facts=facts, meter=charts.meter, swatch=charts.swatch)
    return environment


def trimmings(*styles: str) -> dict[str, str]:
    """What stands in a page as it is: its style, its script, and the hash that lets the script run.

    Args:
        styles: names of more style sheets, which follow the common one.
    """
    script = _asset("sort.js")
    return {
        "style": "\n".join(map(_asset, ("page.css", *styles))),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }


def _asset(name: str) -> str:
    return (resources.files("vit_deploy.report") / "templates" / name).read_text(encoding="utf-8")


def first_that_fits(pages: Iterable[str]) -> str:
    """The first page below :data:`MOST_BYTES`, or the last: they come in order of falling detail."""
    page = ""
    for page in pages:
        if len(page.encode()) < MOST_BYTES:
            break
    return page
