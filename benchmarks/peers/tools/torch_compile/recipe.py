"""``torch.compile`` of timm's module, with nothing said. What it compiled is kept in a cache for each batch.

In bf16 the module is cast whole, as ``model.bfloat16()`` does it, and given pixels in bf16; that one is also
run as it is, without compiling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.recipe import PRECISION, Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

COMPILED, EAGER = "torch-compile-bf16", "torch-eager-bf16"
PEER = Peer(
    title="torch.compile",
    command="torch.compile(model)",
    shows=("torch", "timm"),
    variants=(
        Variant("torch-compile", "torch.compile"),
        Variant(COMPILED, "torch.compile, timm's model in bf16", "bf16", PRECISION),
        Variant(EAGER, "eager PyTorch, timm's model in bf16", "bf16", PRECISION),
    ),
    compiles_each_batch=True,
)


def prepare(job: Job) -> None:
    """Nothing: it compiles when it is first called, and keeps that in its cache."""


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:
    """Compile the model, or take what the cache has of it."""
    import torch

    from benchmarks.peers.timm_model import load_timm
    from benchmarks.peers.torch_step import open_call

    model = load_timm(job.checkpoint)
    if variant not in (COMPILED, EAGER):
        return open_call(torch.compile(model), pixels, threads)
    model = model.bfloat16()
    return open_call(torch.compile(model) if variant == COMPILED else model, pixels, threads, torch.bfloat16)
