"""Reading a bundle: nothing is opened before its hash was found right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.bundle.manifest import MANIFEST_NAME, ArtefactRecord, FileRecord, Manifest
from vit_deploy.errors import HostileInput, ImportFailed, unknown_name
from vit_deploy.model.kinds import architecture_from
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.protocols import Artefact
from vit_deploy.weights.hashes import sha256_of
from vit_deploy.weights.imported import Model
from vit_deploy.weights.safetensors_file import read_safetensors
from vit_deploy.weights.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.model.kinds import Architecture
    from vit_deploy.spec import IOSpec, Precision


class Bundle:
    """A bundle that lies on the disk, open for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._verified: set[str] = set()

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open the bundle at ``path``.

        Raises:
            ImportFailed: when there is none.
            HostileInput: when its manifest cannot be trusted.
        """
        directory = Path(path)
        try:
            text = (directory / MANIFEST_NAME).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImportFailed(
                f"there is no bundle at {str(path)!r}",
                expected=f"a directory with a {MANIFEST_NAME}",
                next_command=f"vit-deploy export -m MODEL --format onnx -o {str(path)!r}",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise HostileInput(
                f"the manifest of {str(path)!r} cannot be read: {error}", expected="a readable UTF-8 file"
            ) from error
        bundle = cls(directory, Manifest.from_json(text, str(directory / MANIFEST_NAME)))
        bundle._check_model()
        return bundle

    def _check_model(self) -> None:
        """Refuse a model that no checkpoint can have given.

        Raises:
            HostileInput: naming what is wrong.
        """
        try:
            classes, labels = self.config.num_classes, len(self.labels)
            _ = self.preprocessing
        except (ImportFailed, TypeError, ValueError) as error:
            raise HostileInput(
                f"the manifest of {str(self.path)!r} describes no model: {error}",
                next_command="vit-deploy export again",
            ) from error
        if labels not in (0, classes):
            raise HostileInput(
                f"the manifest of {str(self.path)!r} has {labels} labels for {classes} classes",
                expected="one label per class, or none",
                next_command="vit-deploy export again",
            )

    @property
    def config(self) -> Architecture:
        """The model's config."""
        return architecture_from(self.manifest.model.kind, self.manifest.model.config)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The model's preprocessing; ``None`` where its input is no picture."""
        return preprocessing_from(self.manifest.model.preprocessing)

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's labels, or none."""
        return tuple(self.manifest.model.labels)

    @property
    def records(self) -> dict[str, ArtefactRecord]:
        """The record of each artefact, by name."""
        return dict(self.manifest.artefacts)

    def model(self, code: str = "") -> Model:
        """The model, with its reference weights unread.

        Args:
            code: the ``package.module:factory`` that the user has named, if the bundle was made from one:
                it is imported. Without it such a model has weights, and nothing to run them in.

        Raises:
            HostileInput: when the weights were changed.
            UsageFailed: when ``code`` is not what the bundle was made from.
            ImportFailed: when the code no longer gives the module that was exported.
        """
        record = self.manifest.model
        described = Model(
            config=self.config,
            weights=read_safetensors(
                self._verified_path("", record.weights), digest=lambda: record.weights.sha256
            ),
            preprocessing=self.preprocessing,
            labels=self.labels,
            source=Source(**record.source.model_dump()),
        )
        if not code:
            return described
        from vit_deploy.weights.module import with_code

        return with_code(described, code)

    def artefact(self, name: str) -> Artefact:
        """An artefact by name, once the hash of each of its files was found right.

        Raises:
            UsageFailed: for an unknown name, with the nearest ones.
            HostileInput: when a file is missing or was changed.
        """
        record = self.manifest.artefacts.get(name)
        if record is None:
            raise unknown_name("artefact", name, self.manifest.artefacts, f"vit-deploy inspect {self.path}")
        paths = [self._verified_path(record.directory, file) for file in record.files]
        return Artefact(
            name=record.name,
            format=record.format,
            precision=record.precision,
            path=paths[0],
            spec=record.io_spec(),
            config=self.config,
            facts=record.facts,
        )

    def reference(self, spec: IOSpec, precision: Precision = "fp32", code: str = "") -> Artefact:
        """The reference weights as an artefact that the eager runtime opens.

        Args:
            spec: its inputs and outputs.
            precision: the precision to compute in.
            code: see :meth:`model`.
        """
        path = self._verified_path("", self.manifest.model.weights)
        return Artefact(f"pytorch-{precision}", "pytorch", precision, path, spec, self.config, code=code)

    def _verified_path(self, directory: str, file: FileRecord) -> Path:
        path = self.path / directory / file.name
        if str(path) in self._verified:
            return path
        if path.is_symlink() or not path.is_file():
            raise HostileInput(
                f"{str(path)!r} is missing, or is no plain file",
                expected="the file that the manifest names",
                next_command="vit-deploy export again",
            )
        if path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
            raise HostileInput(
                f"{str(path)!r} was changed since it was exported: its SHA-256 is not the manifest's",
                expected=f"{file.bytes} bytes with SHA-256 {file.sha256[:16]}…",
                next_command="vit-deploy export again, or restore the file",
            )
        self._verified.add(str(path))
        return path


def preprocessing_from(data: Mapping[str, Any] | None) -> Preprocessing | None:
    """The preprocessing that a manifest records, if any.

    Raises:
        ImportFailed: for a field that is missing, unknown, or of another type.
    """
    return None if data is None else Preprocessing.from_dict(data)
