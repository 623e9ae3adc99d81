"""``torch.compile`` of timm's module, with nothing said. What it compiled is kept in a cache for each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.recipe import Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

PEER = Peer(
    title="torch.compile",
    command="torch.compile(model)",
    shows=("torch", "timm"),
    variants=(Variant("torch-compile", "torch.compile"),),
    compiles_each_batch=True,
)


def prepare(job: Job) -> None:
    """Nothing: it compiles when it is first called, and keeps that in its cache."""


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:  # noqa: ARG001 - it has one
    """Compile the model, or take what the cache has of it."""
    import torch

    from benchmarks.peers.timm_model import load_timm
    from benchmarks.peers.torch_step import open_call

    return open_call(torch.compile(load_timm(job.checkpoint)), pixels, threads)
