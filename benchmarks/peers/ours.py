"""Our side of the comparison: seeded weights, a bundle made of them, and eager's output on the pixels."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.peers.models import IMAGE_SIZE, SEED, PeerModel
from benchmarks.peers.places import WORK
from benchmarks.peers.worker import make_pixels
from vit_deploy import registry
from vit_deploy.bench.cases import cases_for, reference
from vit_deploy.bench.grid import Grid
from vit_deploy.bundle.reader import Bundle
from vit_deploy.facts import Device
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vit_deploy.bench.cases import Case
    from vit_deploy.protocols import Artefact

FORMATS = ("onnx", "torchscript")
BACKENDS = ("eager", "onnxruntime", "openvino", "torchscript")
"""What of ours is measured, the baseline first."""
_STAMP = "made.json"


@dataclass(frozen=True)
class OurModel:
    """A model as both sides are given it.

    Attributes:
        model: which.
        folder: where all of it lies.
        sha256: of the weights.
        differences: how far each of our backends is from eager, by name.
        seconds: what the export took, by format.
    """

    model: PeerModel
    folder: Path
    sha256: str
    differences: dict[str, dict[str, float]]
    seconds: dict[str, float]

    @property
    def checkpoint(self) -> Path:
        """The weights in timm's layout."""
        return self.folder / "checkpoint"

    @property
    def bundle(self) -> Path:
        """Our bundle."""
        return self.folder / "bundle"

    @property
    def reference(self) -> Path:
        """Eager's output."""
        return self.folder / "reference.npy"

    def cases(self, batch_sizes: Sequence[int], threads: int) -> list[Case]:
        """Our cases, by batch size, the baseline first."""
        bundle, grid = Bundle.open(self.bundle), Grid(batch_sizes=tuple(batch_sizes), threads=(threads,))
        found: list[Case] = []
        for name in BACKENDS:
            cases, refused = cases_for(bundle, registry.runtime(name), Device(), grid)
            if refused:
                raise refused[0]
            # Ours are held to what the others are held to: the distance from eager, which was measured.
            found += [replace(case, verified=True) for case in cases]
        return sorted(found, key=lambda case: batch_sizes.index(case.batch_size))


def prepare_ours(model: PeerModel, largest_batch: int, threads: int) -> OurModel:
    """The weights, the bundle and the reference of a model, made if they are not there.

    Raises:
        VitDeployError: when one of our own artefacts cannot be made: nothing is compared then.
    """
    folder = WORK / "models" / model.name
    stamp = folder / _STAMP
    made_from = [model.timm, model.arguments, model.output]
    wanted = {"model": made_from, "largest_batch": largest_batch, "seed": SEED, "formats": list(FORMATS)}
    held = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {}
    if held.get("wanted") != wanted:
        _remove(folder)
        folder.mkdir(parents=True)
        held = {"wanted": wanted, **_make(model, folder, largest_batch, threads)}
        stamp.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    return OurModel(model, folder, held["sha256"], held["differences"], held["seconds"])


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _make(model: PeerModel, folder: Path, largest_batch: int, threads: int) -> dict[str, Any]:
    from vit_deploy.deploy.export import export_model
    from vit_deploy.spec import BatchRange
    from vit_deploy.weights import load_model

    sha256 = write_checkpoint(model, folder / "checkpoint")
    batch = BatchRange(1, largest_batch, largest_batch)
    seconds: dict[str, float] = {}
    for name in FORMATS:
        began = time.monotonic()
        loaded = load_model(str(folder / "checkpoint"))
        outcome = export_model(
            loaded, folder / "bundle", [name], outputs=(model.output,), batch=batch, verify=False
        )[0]
        if outcome.error is not None:
            raise outcome.error
        seconds[name] = time.monotonic() - began
    return {
        "sha256": sha256,
        "seconds": seconds,
        "differences": _differences(folder, largest_batch, threads),
    }


def write_checkpoint(model: PeerModel, folder: Path) -> str:
    """Seeded weights of timm's own module, in timm's layout; their SHA-256.

    Biases, norms and LayerScale are moved away from their first values, which would hide mistakes.
    """
    import torch
    from safetensors.torch import save_file

    from vit_deploy.torchvision_schemas import let_torchvision_import

    let_torchvision_import()
    import timm

    torch.manual_seed(SEED)
    module = timm.create_model(model.timm, pretrained=False, **model.arguments)
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for name, tensor in state.items():
        if tensor.ndim == 1:
            tensor += 0.05 * torch.randn_like(tensor) + (0.2 if name.endswith(".gamma") else 0.0)
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    told = {
        "architecture": model.timm,
        "num_classes": module.num_classes,
        "num_features": module.num_features,
        "model_args": model.arguments,
        "pretrained_cfg": {"input_size": [3, IMAGE_SIZE, IMAGE_SIZE], "fixed_input_size": True},
    }
    (folder / "config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(folder: Path, batch_size: int, threads: int) -> dict[str, dict[str, float]]:
    """Eager's output is written, and each of our other backends compared with it."""
    import numpy as np

    bundle = Bundle.open(folder / "bundle")
    pixels = make_pixels(batch_size)
    wanted = _run("eager", reference(bundle, batch_size), pixels, threads)
    np.save(folder / "reference.npy", wanted)
    found = {"eager": {"max_abs_diff": 0.0, "relative_error": 0.0}}
    for name in BACKENDS[1:]:
        runtime = registry.runtime(name)
        record = next(entry for entry in bundle.records.values() if entry.format in runtime.formats)
        apart = _run(name, bundle.artefact(record.name), pixels, threads).astype(np.float64) - wanted
        relative = np.linalg.norm(apart) / np.linalg.norm(wanted)
        found[name] = {"max_abs_diff": float(np.abs(apart).max()), "relative_error": float(relative)}
    return found


def _run(name: str, artefact: Artefact, pixels: Any, threads: int) -> Any:
    """The one output of an artefact on a backend."""
    options = SessionOptions(threads=threads)
    with registry.runtime(name).open(artefact, Device(), options) as session:
        (output,) = session.run({artefact.spec.inputs[0].name: pixels}).values()
        return output
