"""The command line as a user meets it: arguments in, exit code and both streams out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from vit_deploy.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What a machine reads: the whole of stdout is one document."""
        document: dict[str, Any] = json.loads(self.out)
        assert document["schema"].startswith("vit-deploy/")
        assert "python" in document["environment"]
        return document


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the console script in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return Result(int(ended.value.code or 0), told.out, told.err)

    return run
