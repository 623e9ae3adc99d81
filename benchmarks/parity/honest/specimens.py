"""Checkpoints as the libraries that people get them from save them, imported and exported as a user would."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from benchmarks.parity.case import Case, Honest
from benchmarks.parity.subjects import Subject

if TYPE_CHECKING:
    from benchmarks.parity.workbench import Workbench


def _specimen(source: str, name: str, format: str = "onnx") -> Honest:
    def make(bench: Workbench) -> Case:
        from vit_deploy.torchvision_schemas import let_torchvision_import
        from vit_deploy.weights import load_model

        let_torchvision_import()
        known = importlib.import_module(f"tests.specimens.{source}").SPECIMENS
        (chosen,) = (specimen for specimen in known if specimen.name == name)
        model = load_model(**chosen.save(bench.folder()))
        subject = Subject(chosen.id, model, threads=bench.threads)
        spec = bench.spec(model, model.config.output_names)
        return Case(subject, bench.export(model, format, spec))

    return Honest(f"{source} {name}, {format}", f"{source}/{name}", make)


HONEST: tuple[Honest, ...] = (
    _specimen("timm", "vit_tiny_patch16_224"),
    _specimen("timm", "vit_base_patch14_reg4_dinov2"),
    _specimen("timm", "eva02_tiny_patch14_224"),
    _specimen("timm", "beit_base_patch16_224"),
    _specimen("timm", "vit_small_patch16_dinov3"),
    _specimen("timm", "vit_so150m_patch16_reg4_map_256"),
    _specimen("timm", "vit_small_patch16_rope_mixed_224", "torchscript"),
    _specimen("transformers", "ViTForImageClassification"),
    _specimen("transformers", "Dinov2WithRegistersModel"),
    _specimen("transformers", "CLIPVisionModelWithProjection"),
    _specimen("transformers", "SiglipVisionModel"),
    _specimen("open_clip", "ViT-B-32-quickgelu"),
    _specimen("torchvision", "vit_b_16", "torchscript"),
    _specimen("jax_npz", "vit_tiny_patch16_224"),
)
