"""``export --require``: exit codes, and what is said of what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = Path(__file__).parents[2] / "vit_deploy" / "assets" / "digits"


def test_what_was_built_otherwise_exits_with_3_and_says_so(invoke: Callable, tmp_path: Path) -> None:
    words = ["export", "-m", DIGITS, "--no-verify", "-o", tmp_path / "b"]
    done = invoke(*words, "--require", "dtype.linear=fp16,dtype.layernorm=fp32")
    assert done.code == 3
    assert "dtype.linear=fp16 was asked for: of the" in done.err
    assert "in fp32; export with another --dtype" in " ".join(done.err.split())
    assert "dtype.layernorm=fp32 was asked for" not in done.err
    assert not (tmp_path / "b").exists()


def test_an_unknown_requirement_is_refused_before_anything_is_made(invoke: Callable, tmp_path: Path) -> None:
    done = invoke("export", "-m", "none", "-o", tmp_path / "b", "--require", "fused-atention=all")
    assert done.code == 2
    assert "did you mean 'fused-attention'" in done.err
