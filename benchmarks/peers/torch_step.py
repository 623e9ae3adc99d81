"""A callable of PyTorch's as a step, as ours is: in inference mode, on a tensor that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.recipe import Opened

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels


class TorchCall:
    """One inference."""

    def __init__(self, call: Any, tensor: Any) -> None:
        self.call = call
        self.tensor = tensor

    def __call__(self) -> None:
        """Make one inference."""
        import torch

        with torch.inference_mode():
            self.call(self.tensor)

    def synchronize(self) -> None:
        """On the CPU an inference is done when its call returns."""


def open_call(call: Any, pixels: Pixels, threads: int, dtype: Any = None) -> Opened:
    """A callable that takes pixels and gives one tensor; in ``dtype``, float32 where there is none."""
    import torch

    torch.set_num_threads(threads)
    tensor = torch.from_numpy(pixels)
    if dtype is not None:
        tensor = tensor.to(dtype)

    def result() -> Pixels:
        with torch.inference_mode():
            found = call(tensor)
        array: Pixels = (found[0] if isinstance(found, (tuple, list)) else found).float().numpy()
        return array

    arithmetic = "bf16" if dtype is torch.bfloat16 else "fp32"
    return Opened(TorchCall(call, tensor), result, torch.__version__, torch.get_num_threads(), arithmetic)
