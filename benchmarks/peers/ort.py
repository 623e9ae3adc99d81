"""An ONNX file in ONNX Runtime's defaults, but for the threads: what several peers run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.recipe import Opened

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.recipe import Pixels


class Bound:
    """One inference with its tensors bound, as ours."""

    def __init__(self, session: Any, binding: Any) -> None:
        self.session = session
        self.binding = binding

    def __call__(self) -> None:
        """Make one inference."""
        self.session.run_with_iobinding(self.binding)

    def synchronize(self) -> None:
        """On the CPU an inference is done when its call returns."""
        self.binding.synchronize_outputs()


def open_onnx(path: Path, pixels: Pixels, threads: int, output: str = "", token: int | None = None) -> Opened:
    """A session of a file, its inputs and outputs bound.

    Args:
        path: the file.
        pixels: float32 of shape ``(b, c, h, w)``.
        threads: of the session; it does not spin, as ours do not.
        output: the output to compare; the first when empty.
        token: which token of it, where it has tokens: the output is ``(b, n, d)`` then.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(pixels))
    for name in names:
        binding.bind_output(name, "cpu")
    # Run once, so that each output is bound where it came to lie and no inference allocates one, as with ours.
    session.run_with_iobinding(binding)
    for name, value in zip(names, binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(name, value)

    def result() -> Pixels:
        values = dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))
        chosen: Pixels = values[output or names[0]]
        return chosen if token is None else chosen[:, token]

    return Opened(
        step=Bound(session, binding),
        output=result,
        version=ort.__version__,
        threads=session.get_session_options().intra_op_num_threads,
        details={"providers": session.get_providers()},
    )
