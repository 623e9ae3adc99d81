"""AOTInductor: ``torch.export`` of timm's module, then ``aoti_compile_and_package``.

https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_aot_inductor.html, whose example
has a dynamic batch too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.models import IMAGE_SIZE
from benchmarks.peers.recipe import Job, Opened, Peer, Variant

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

PEER = Peer(
    title="AOTInductor",
    command="aoti_compile_and_package(torch.export.export(model, …))",
    shows=("torch", "timm"),
    variants=(Variant("aot-inductor", "AOTInductor"),),
)


def prepare(job: Job) -> None:
    """Compile a package for every batch size up to the largest."""
    import torch

    from benchmarks.peers.timm_model import load_timm

    path = job.fresh("package") / "model.pt2"
    pixels = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    batch = torch.export.Dim("batch", min=1, max=max(2, job.largest_batch))
    with torch.inference_mode():
        exported = torch.export.export(load_timm(job.checkpoint), (pixels,), dynamic_shapes=({0: batch},))
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))


def open_model(job: Job, variant: str, pixels: Pixels, threads: int) -> Opened:  # noqa: ARG001 - it has one
    """Load the package."""
    import torch
    import torch._inductor

    from benchmarks.peers.torch_step import open_call

    torch.set_num_threads(threads)
    return open_call(
        torch._inductor.aoti_load_package(str(job.folder / "package" / "model.pt2")), pixels, threads
    )
