"""Where cases are made: subjects, folders, exports, patches that are taken back."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.parity.case import Case
from benchmarks.parity.subjects import Subject, make_subject
from vit_deploy import registry
from vit_deploy.model.contract import contracted
from vit_deploy.protocols import Artefact, Silent
from vit_deploy.spec import BatchRange, artefact_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import onnx_ir as ir

    from vit_deploy.spec import Contract, IOSpec
    from vit_deploy.weights.imported import Model

BATCH = BatchRange(1, 1, 5)
"""Of every artefact: judged at 1, 2 and 5."""


class Workbench:
    """Makes artefacts in a temporary folder; a context manager.

    Args:
        threads: CPU threads of eager and of backends.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._all = ExitStack()
        self._case = ExitStack()
        self._root = Path(self._all.enter_context(tempfile.TemporaryDirectory(prefix="mutations-")))
        self._subjects: dict[str, Subject] = {}
        self._made: dict[tuple[Any, ...], Artefact] = {}
        self._folders = 0

    def __enter__(self) -> Workbench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()
        self._all.close()

    def done(self) -> None:
        """One case has been judged: what was patched for it is as it was."""
        self._case.close()

    def patch(self, target: Any, name: str, value: Any) -> None:
        """Have ``target.name`` be ``value`` until the case has been judged and blamed."""
        self._case.enter_context(mock.patch.object(target, name, value))

    def folder(self) -> Path:
        """A new, empty folder."""
        self._folders += 1
        path = self._root / f"{self._folders:04d}"
        path.mkdir()
        return path

    def subject(self, name: str) -> Subject:
        """The subject of that name; its references are computed once."""
        if name not in self._subjects:
            self._subjects[name] = make_subject(name, self.folder(), self.threads)
        return self._subjects[name]

    def spec(
        self,
        model: Model,
        outputs: Sequence[str] = (),
        contract: Contract = "pixel_values",
        batch: BatchRange = BATCH,
        *,
        any_size: bool = False,
    ) -> IOSpec:
        """What an artefact takes and gives."""
        from vit_deploy.model.sizes import size_range

        sizes = size_range(model.vit_config) if any_size else None
        plain = model.config.io_spec(tuple(outputs), batch, sizes=sizes)
        return contracted(plain, contract, model.config, model.preprocessing)

    def export(
        self, model: Model, format: str = "onnx", spec: IOSpec | None = None, **options: Any
    ) -> Artefact:
        """An artefact of ``model`` by our own exporter.

        Args:
            model: as it is, faults and all.
            format: of the exporter.
            spec: what it takes and gives; the model's default outputs where it is ``None``.
            options: of the exporter.
        """
        spec = spec or self.spec(model)
        exporter = registry.exporter(format)
        folder = self.folder()
        exported = exporter.export(model, spec, exporter.Options(**options), folder, Silent())
        name = artefact_name(format, "fp32", spec.contract)
        path = folder / exported.files[0]
        return Artefact(name, format, "fp32", path, exported.spec, model.config, exported.facts)

    def written(self, model: Model, spec: IOSpec | None = None) -> Artefact:
        """An ONNX artefact as another exporter would make it: nobody looked at its graph before it was written.

        Our own linter refuses the graphs of many wrong models before anything is compared; here it is the
        comparison that is put to the test.
        """
        from vit_deploy.exporters.onnx import OnnxOptions, build_graph
        from vit_deploy.graph.stream import write_model

        spec = spec or self.spec(model)
        folder = self.folder()
        graph = build_graph(model, spec, OnnxOptions().opset)
        files = write_model(graph, folder / "model.onnx")
        name = artefact_name("onnx", "fp32", spec.contract)
        return Artefact(name, "onnx", "fp32", folder / files[0], spec, model.config)

    def honest(self, family: str, *outputs: str, contract: Contract = "pixel_values", **options: Any) -> Case:
        """An ONNX artefact of a subject as it should be; made once, and not to be written to."""
        subject = self.subject(family)
        key = (family, outputs, contract, *sorted(options.items()))
        if key not in self._made:
            spec = self.spec(subject.model, outputs, contract)
            self._made[key] = self.export(subject.model, "onnx", spec, **options)
        return Case(subject, self._made[key])

    def edited(self, case: Case, change: Callable[[ir.Model], None]) -> Case:
        """A copy of an ONNX artefact whose graph ``change`` has worked on."""
        import onnx_ir as ir

        graph = ir.load(case.artefact.path)
        change(graph)
        path = self.folder() / "model.onnx"
        ir.save(graph, path)
        return replace(case, artefact=replace(case.artefact, path=path))
