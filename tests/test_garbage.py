from __future__ import annotations

import ctypes
import gc
import platform
import subprocess
import sys

import pytest

from vit_deploy.garbage import collection_off, give_back_memory

PROGRAM = """
import psutil, torch
from vit_deploy.garbage import give_back_memory
first = torch.ones(7_000_000)
del first  # from now on, blocks of up to 28 MB are of the heap
before = psutil.Process().memory_info().rss
held = [torch.ones(1_000_000) for _ in range(50)]
pin = torch.ones(100_000)  # stands at the end of the heap, which cannot shrink
del held
give_back_memory()
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="this C library is not glibc: nothing to give back"
)
def test_what_was_freed_is_the_systems_again() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 50_000_000


def test_another_c_library_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def __init__(self, _: object) -> None:
            pass

    monkeypatch.setattr(ctypes, "CDLL", Musl)
    give_back_memory()


def test_garbage_is_not_collected_for_a_while() -> None:
    assert gc.isenabled()
    with collection_off():
        assert not gc.isenabled()
    assert gc.isenabled()
