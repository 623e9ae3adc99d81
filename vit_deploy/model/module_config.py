"""``ModuleConfig``: a user's own PyTorch module, described by what goes in and what comes out.

Nothing is said of its inside. It was found out by running the module once, and is recorded so that an
artefact can be opened and measured without the code that the module was made of.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from vit_deploy.errors import ImportFailed, UsageFailed, unknown_name
from vit_deploy.model.fields import Fields
from vit_deploy.spec import BatchRange, IOSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.model.kinds import Kind
    from vit_deploy.spec import SizeRange

PREFIX = "py:"
"""What a reference to a factory in Python code begins with."""

_WORD = r"[^\W\d]\w*"
FACTORY = re.compile(rf"{_WORD}(\.{_WORD})*:{_WORD}(\.{_WORD})*")
"""``package.module:factory``, as entry points are written."""

_NAME = re.compile(r"[\w.-]{1,120}")
"""What an input or output may be called, so that every format can say it."""

_MAX_SIZE = 2**31
_IMAGE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Port:
    """One input or output: its name, and its shape without the batch, which comes first."""

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        # JSON gives lists; the field is a tuple wherever it comes from.
        object.__setattr__(self, "shape", tuple(self.shape))
        if not _NAME.fullmatch(self.name):
            raise ImportFailed(
                f"an input or output is called {self.name!r}",
                expected="letters, digits, dots, hyphens and underscores",
                next_command="name it in the factory: input_names, output_names",
            )
        if not all(0 < size < _MAX_SIZE for size in self.shape):
            raise ImportFailed(f"{self.name!r} has shape {self.shape}", expected="sizes of 1 or more")


@dataclass(frozen=True)
class ModuleConfig:
    """A module of a user's own.

    Attributes:
        factory: what made it, ``package.module:factory``; never imported but by the user's word.
        inputs: its inputs in the order of its ``forward``, all float32.
        outputs: its outputs in their own order, all floating.
        depth: how many blocks its matrix products amount to (see
            :data:`vit_deploy.weights.module.probe.PRODUCTS_PER_BLOCK`).
        fixed_batch: the one batch size that it runs at; 0 where it takes any.
        class_output: the output that scores classes, where that is known; empty otherwise.
        own_weights: whether the factory gives the weights too; otherwise they came from a file.
        seed: of torch's generator while the factory ran.
    """

    kind: ClassVar[Kind] = "module"

    factory: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    depth: int
    fixed_batch: int = 0
    class_output: str = ""
    own_weights: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not FACTORY.fullmatch(self.factory):
            raise ImportFailed(f"the factory is {self.factory!r}", expected="package.module:factory")
        for kind, ports in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [port.name for port in ports]
            if not names or len(set(names)) != len(names):
                raise ImportFailed(
                    f"the {kind} of {self.factory} are {', '.join(names) or 'none'}",
                    expected="one or more, each with a name of its own",
                )
        if self.class_output and self.class_output not in self.output_names:
            raise ImportFailed(
                f"the classes stand in {self.class_output!r}", expected=f"one of {', '.join(self.output_names)}"
            )
        if self.depth < 1 or self.fixed_batch < 0:
            raise ImportFailed(
                f"the depth is {self.depth} and the batch {self.fixed_batch}", expected="1 or more, 0 or more"
            )

    @property
    def takes_image(self) -> bool:
        """Whether its one input is a picture: ``(b, c, h, w)`` with 1, 3 or 4 channels."""
        shape = self.inputs[0].shape
        return len(self.inputs) == 1 and len(shape) == 3 and shape[0] in _IMAGE_CHANNELS

    @property
    def in_channels(self) -> int:
        """Channels of its one picture; 0 where it takes none, or something else too."""
        return self.inputs[0].shape[0] if self.takes_image else 0

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of its one picture; zeros where it takes none, or something else too."""
        height, width = self.inputs[0].shape[1:] if self.takes_image else (0, 0)
        return height, width

    @property
    def num_classes(self) -> int:
        """Classes that it is known to score; 0 where no output is known to be that."""
        sizes = [port.shape[-1] for port in self.outputs if port.name == self.class_output and port.shape]
        return sizes[0] if sizes else 0

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that it gives."""
        return tuple(port.name for port in self.outputs)

    @property
    def default_outputs(self) -> tuple[str, ...]:
        """All of them."""
        return self.output_names

    def io_spec(
        self,
        outputs: tuple[str, ...] = (),
        batch: BatchRange | None = None,
        dtype: str = "float32",
        sizes: SizeRange | None = None,
    ) -> IOSpec:
        """See :class:`vit_deploy.model.kinds.Architecture`.

        Raises:
            UsageFailed: for an unknown output, free image sizes, or a batch other than the one that the
                module takes.
        """
        if sizes is not None:
            raise UsageFailed(
                f"{self.factory} is exported at one image size: what others mean to it is not known",
                expected="no --dynamic-image-size",
                next_command="export once for each size, with --input-shape",
            )
        fixed = self.fixed_batch
        batch = batch or (BatchRange(fixed, fixed, fixed) if fixed else BatchRange())
        if fixed and (batch.minimum, batch.maximum) != (fixed, fixed):
            raise UsageFailed(
                f"{self.factory} runs at batch {fixed} only: its code has that number in it",
                expected=f"a batch that is fixed to {fixed}",
                next_command=self.fixed_shapes(fixed),
            )
        known = {port.name: port for port in self.outputs}
        for name in outputs:
            if name not in known:
                raise unknown_name("output of this module", name, known)
        return IOSpec(
            inputs=tuple(TensorSpec(port.name, dtype, (batch.dim, *port.shape)) for port in self.inputs),
            outputs=tuple(
                TensorSpec(name, dtype, (batch.dim, *known[name].shape))
                for name in dict.fromkeys(outputs or known)
            ),
            batch=batch,
        )

    def fixed_shapes(self, batch_size: int) -> str:
        """The flags that fix the batch."""
        shapes = shapes_text(self.inputs, batch_size)
        return f"--minShapes {shapes} --optShapes {shapes} --maxShapes {shapes}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a manifest."""
        data = asdict(self)
        for name in ("inputs", "outputs"):
            data[name] = [{**port, "shape": list(port["shape"])} for port in data[name]]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModuleConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ImportFailed: for a field that is missing, unknown, or of another type.
        """
        known = {entry.name for entry in fields(cls)}
        extra = sorted(set(data) - known)
        if extra:
            raise ImportFailed(
                f"the module's config has fields that this version does not know: {', '.join(extra)}",
                expected=f"only {', '.join(sorted(known))}",
                next_command="pip install --upgrade vit-deploy",
            )
        entries = Fields(data, "the module's config")
        return cls(
            factory=entries.text("factory"),
            inputs=_ports(entries, "inputs"),
            outputs=_ports(entries, "outputs"),
            depth=entries.integer("depth"),
            fixed_batch=entries.integer("fixed_batch", 0),
            class_output=entries.text("class_output", ""),
            own_weights=entries.boolean("own_weights", True),
            seed=entries.integer("seed", 0),
        )


def shapes_text(ports: tuple[Port, ...], batch_size: int) -> str:
    """Shapes as trtexec writes them: ``1x3x224x224``, or ``image:1x3x224x224,state:1x8``."""
    texts = ["x".join(map(str, (batch_size, *port.shape))) for port in ports]
    if len(ports) == 1:
        return texts[0]
    return ",".join(f"{port.name}:{text}" for port, text in zip(ports, texts, strict=True))


def _ports(entries: Fields, name: str) -> tuple[Port, ...]:
    listed = entries.data.get(name)
    if not isinstance(listed, (list, tuple)):
        raise ImportFailed(f"{entries.where} says nothing of its {name}", expected="a list")
    ports = []
    for entry in listed:
        port = Fields(entry, f"an entry of {name}")
        shape = port.data.get("shape")
        if not isinstance(shape, (list, tuple)) or not all(type(size) is int for size in shape):
            raise ImportFailed(f"{port.where} has the shape {shape!r}", expected="whole numbers")
        ports.append(Port(port.text("name"), tuple(shape)))
    return tuple(ports)
