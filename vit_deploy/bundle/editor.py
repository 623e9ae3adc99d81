"""Writing a bundle: staged, flushed, renamed, locked.

Files are staged inside the bundle under ``.staging``, flushed, renamed to a name that holds their
hash, and the manifest is replaced last: a reader sees the old bundle or the new one, never a mix.
What an interrupted run left behind, and what the manifest no longer names, is cleared when the
bundle is next opened for writing; so a reader that holds the last manifest still finds its files.
"""

from __future__ import annotations

import contextlib
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy import __version__
from vit_deploy.bundle.durable import is_whole, publish, record_of, replace_manifest
from vit_deploy.bundle.folder import (
    LOCK_NAME,
    STAGING,
    clear_unnamed,
    refuse_foreign,
    remove_if_empty,
)
from vit_deploy.bundle.manifest import (
    MANIFEST_NAME,
    ArtefactRecord,
    BatchRecord,
    FileRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ProofRecord,
    SizesRecord,
    SourceRecord,
    TensorRecord,
    plain,
)
from vit_deploy.bundle.reader import Bundle, preprocessing_from
from vit_deploy.errors import HostileInput, OutputFailed, UsageFailed
from vit_deploy.model.kinds import architecture_from
from vit_deploy.protocols import Artefact, ExportedFiles, recorded_options
from vit_deploy.weights.safetensors_file import read_safetensors
from vit_deploy.weights.tensors import Weights, WeightTensor, sync_file, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from vit_deploy.bundle.default import DefaultRecord
    from vit_deploy.facts import Verdict
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

LOCK_TIMEOUT_S = 600.0


@contextlib.contextmanager
def edit_bundle(path: str | Path, model: Model) -> Iterator[BundleEditor]:
    """Open the bundle at ``path`` for adding artefacts of ``model``; it is made where none is.

    The bundle is locked for as long as this context lasts. A bundle that gets no artefact
    leaves nothing behind.

    Raises:
        UsageFailed: when the bundle holds another model, or ``path`` is something else.
        OutputFailed: when it cannot be written.
    """
    from filelock import FileLock, Timeout

    directory = Path(path)
    refuse_foreign(directory)
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK_NAME)
        with lock.acquire(timeout=LOCK_TIMEOUT_S, poll_interval=0.1):
            editor = BundleEditor(directory, model)
            try:
                editor.begin()
                yield editor
                editor.require_weights()
            finally:
                editor.finish()
    except Timeout as error:
        raise OutputFailed(
            f"another process has written to {str(path)!r} for {LOCK_TIMEOUT_S:.0f} s",
            next_command="wait for it, or choose another --output",
        ) from error
    except OSError as error:
        raise OutputFailed(
            f"the bundle at {str(path)!r} cannot be written: {error.strerror or error}",
            expected="a writable folder with room for the artefacts",
            next_command="choose another --output",
        ) from error
    finally:
        if made:
            remove_if_empty(directory)


class BundleEditor:
    """A bundle that is locked for writing; made by :func:`edit_bundle`.

    Attributes:
        proof: the proof of import that the manifest shall keep from the next artefact on; one that it
            has already stays where this is ``None``.
        dropped_default: the tuned default that an accepted artefact took out of the manifest, as it was
            found with the artefact that this one replaced.
    """

    def __init__(self, path: Path, model: Model) -> None:
        self.path = path
        self._given = model
        self._staging = path / STAGING
        self._manifest: Manifest | None = None
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[FileRecord] | None = None
        self.proof: ProofRecord | None = None
        self.dropped_default: DefaultRecord | None = None

    def begin(self) -> None:
        """Clear what an interrupted run left, and begin to write the reference weights if they are new.

        They are written while the first artefact's graph is captured, which needs none of them.
        """
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir()
        if (self.path / MANIFEST_NAME).exists():
            self._manifest = Bundle.open(self.path).manifest
            self._refuse_other_model(self._manifest.model)
            self._mend_weights(self._manifest.model.weights)
        clear_unnamed(self.path, self._manifest)
        if self._manifest is None:
            self._writing = self._writer.submit(self._write_new_weights)

    def _write_new_weights(self) -> FileRecord:
        """Write the weights while the checkpoint is hashed, which the manifest will want: both take long."""
        with ThreadPoolExecutor(max_workers=1) as hashing:
            hashed = hashing.submit(lambda: self._given.source.sha256)
            written = self._write_weights()
            hashed.result()
        return written

    def _mend_weights(self, record: FileRecord) -> None:
        """Reference weights that are missing or were changed are written again from the model.

        Raises:
            HostileInput: when the model's weights are not those that the manifest names.
        """
        if is_whole(self.path, record):
            return
        written = self._write_weights()
        if written.sha256 != record.sha256:
            (self.path / written.name).unlink(missing_ok=True)
            raise HostileInput(
                f"{str(self.path / record.name)!r} was changed, and this model's weights are others",
                expected=f"weights with SHA-256 {record.sha256[:16]}…",
                next_command="export from the original checkpoint, or into another --output",
            )

    def _refuse_other_model(self, record: ModelRecord) -> None:
        given = self._given
        same = {
            "checkpoint": record.source == SourceRecord(**asdict(given.source)),
            "config": architecture_from(record.kind, record.config) == given.config,
            "preprocessing": preprocessing_from(record.preprocessing) == given.preprocessing,
            "labels": tuple(record.labels) == given.labels,
        }
        if not all(same.values()):
            other = " and ".join(part for part, equal in same.items() if not equal)
            size = record.config.get("image_size", ())
            at_size = f", {'x'.join(map(str, size))} pixels" if size else ""
            raise UsageFailed(
                f"the bundle at {str(self.path)!r} holds another model, by its {other}: {record.source.name} "
                f"({record.source.sha256[:12]}){at_size}",
                expected=f"{given.source.name} ({given.source.sha256[:12]}), or no bundle",
                next_command="choose another --output, or delete the bundle",
            )

    def _write_weights(self) -> FileRecord:
        """Write the reference weights under the name they keep; no manifest names them yet."""
        staged = self._staging / "weights.safetensors"
        with staged.open("wb") as file:
            digest = write_safetensors(self._given.weights, file)
            sync_file(file)
        record = FileRecord(
            name=f"weights-{digest[:12]}.safetensors", bytes=staged.stat().st_size, sha256=digest
        )
        staged.replace(self.path / record.name)
        return record

    @property
    def model(self) -> Model:
        """The model, its weights read from the bundle's own reference weights once they are written."""
        kept = (tensor.stored() for tensor in self._given.weights.values())
        weights = Weights(
            (
                WeightTensor(tensor.name, tensor.shape, tensor.dtype, partial(self._read_written, tensor.name))
                for tensor in kept
            ),
            digest=lambda: self._weights_record().sha256,
        )
        return replace(self._given, weights=weights)

    def _read_written(self, name: str) -> torch.Tensor:
        return self._written_weights[name].read()

    @cached_property
    def _written_weights(self) -> Weights:
        return read_safetensors(self.path / self._weights_record().name)

    def require_weights(self) -> None:
        """Wait for the reference weights, and raise what writing them met."""
        self._weights_record()

    def _weights_record(self) -> FileRecord:
        """The record of the reference weights; waits until they are written.

        Raises:
            OSError: what writing them met.
        """
        if self._manifest is not None:
            return self._manifest.model.weights
        if self._writing is None:
            raise OutputFailed("the bundle was not begun")
        return self._writing.result()

    def accepted(self, name: str) -> Artefact | None:
        """An artefact that the bundle holds already, its hashes verified, or ``None``."""
        if self._manifest is None or name not in self._manifest.artefacts:
            return None
        return Bundle(self.path, self._manifest).artefact(name)

    def stage(self, name: str) -> Path:
        """An empty folder for the files of the artefact ``name``."""
        folder = self._staging / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def candidate(self, name: str, format: str, precision: Precision, exported: ExportedFiles) -> Artefact:
        """The artefact as it lies in its staging folder, to be verified before it is accepted."""
        path = self._staging / name / exported.files[0]
        return Artefact(name, format, precision, path, exported.spec, self._given.config, dict(exported.facts))

    def accept(
        self, candidate: Artefact, exported: ExportedFiles, options: object, verdict: Verdict
    ) -> ArtefactRecord:
        """Move a candidate into the bundle and write the manifest that names it."""
        folder = self._staging / candidate.name
        files = [record_of(folder, name) for name in exported.files]
        directory = publish(self.path, folder, candidate.name, files)
        record = ArtefactRecord(
            name=candidate.name,
            format=candidate.format,
            precision=candidate.precision,
            contract=exported.spec.contract,
            directory=directory,
            files=files,
            inputs=[TensorRecord.of(spec) for spec in exported.spec.inputs],
            outputs=[TensorRecord.of(spec) for spec in exported.spec.outputs],
            batch=BatchRecord(**asdict(exported.spec.batch)),
            sizes=SizesRecord(**asdict(exported.spec.sizes)) if exported.spec.sizes else None,
            options=plain(recorded_options(options)),
            tools=dict(sorted(exported.tools.items())),
            facts=plain(exported.facts),
            parity=ParityRecord.of(verdict),
        )
        self._commit(record)
        return record

    def _commit(self, record: ArtefactRecord) -> None:
        old, recipe = self._manifest, self._given.preprocessing
        if old is None:
            model = ModelRecord(
                kind=self._given.config.kind,
                config=self._given.config.to_dict(),
                preprocessing=recipe.to_dict() if recipe else None,
                labels=list(self._given.labels),
                source=SourceRecord(**asdict(self._given.source)),
                weights=self._weights_record(),
            )
        else:
            model = old.model
        if self.proof is not None:
            model = model.model_copy(update={"proof": self.proof})
        artefacts = {**(old.artefacts if old else {}), record.name: record}
        default = old.default if old else None
        if default is not None and default.artefact == record.name:
            self.dropped_default, default = default, None
        generator = {"vit-deploy": __version__}
        manifest = Manifest(generator=generator, model=model, artefacts=artefacts, default=default)
        replace_manifest(self.path, self._staging, manifest)
        self._manifest = manifest

    def finish(self) -> None:
        """Clear the staging folder; a bundle that got no artefact leaves nothing."""
        self._writer.shutdown(wait=True)
        shutil.rmtree(self._staging, ignore_errors=True)
        if not (self.path / MANIFEST_NAME).exists():
            clear_unnamed(self.path, self._manifest)
            (self.path / LOCK_NAME).unlink(missing_ok=True)
