"""What a user sees of a build, and how it is stopped."""

from __future__ import annotations

import pytest

from vit_deploy.errors import ExportFailed
from vit_deploy.exporters._tensorrt_progress import BuildProgress
from vit_deploy.protocols import Silent

needs_rtx = pytest.mark.usefixtures("rtx")


class Recorder(Silent):
    def __init__(self, cancel_after: int | None = None) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.steps = 0
        self.cancel_after = cancel_after

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append((text, total))

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    @property
    def cancelled(self) -> bool:
        return self.cancel_after is not None and len(self.phases) > self.cancel_after


@needs_rtx
def test_progress_shows_the_builders_phases(source, tmp_path, export):
    recorder = Recorder()
    export(source, tmp_path, progress=recorder)
    names = [name for name, _ in recorder.phases]
    assert names[0] == "Reading the ONNX graph into TensorRT"
    assert names[-1] == "Writing the engine"
    inner = [total for name, total in recorder.phases if name.startswith("TensorRT: ")]
    assert len(inner) > 3
    assert all(inner)
    assert recorder.steps > 10


@needs_rtx
@pytest.mark.parametrize("after", [-1, 3])
def test_cancel_before_and_during_the_build(source, tmp_path, after, export):
    with pytest.raises(ExportFailed, match="cancelled"):
        export(source, tmp_path, progress=Recorder(cancel_after=after))
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_ctrl_c_inside_a_callback_stops_the_build_and_is_raised_after_it(source, tmp_path, export):
    class Interrupted(Recorder):
        def advance(self, steps: int = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path, progress=Interrupted())


def test_progress_returns_to_the_outer_phase():
    recorder = Recorder()
    reporter = BuildProgress(recorder)
    reporter.start("outer", 3)
    assert reporter.step("outer")
    reporter.start("inner", 2)
    assert reporter.step("inner")
    reporter.finish("inner")
    assert reporter.step("outer")
    assert recorder.phases == [("TensorRT: outer", 3), ("TensorRT: inner", 2), ("TensorRT: outer", 3)]
    # one step of outer, one of inner, then outer again with the two it has done
    assert recorder.steps == 1 + 1 + 2
