"""Google's ``.npz`` checkpoints in the layouts of ``vision_transformer`` and ``big_vision``.

The weights are those of a small timm model, written under Google's names and in Flax's shapes: dense
kernels are ``(in, out)``, attention's ``(in, heads, width)`` and ``(heads, width, out)``, convolutions
``(h, w, in, out)``. timm reads both layouts by itself (``VisionTransformer.load_pretrained``).

Sources of the layouts: https://github.com/google-research/vision_transformer ``vit_jax/models_vit.py``
and https://github.com/google-research/big_vision ``big_vision/models/vit.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.specimens.specimen import Specimen, Stranger
from tests.specimens.timm import SIZES
from tests.specimens.values import randomise

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    Arrays = dict[str, np.ndarray]

SOURCE = "jax_npz"


@dataclass(frozen=True)
class Layout:
    """How one of Google's repositories names a ViT's weights.

    Attributes:
        prefix: before every name.
        positions: name of the learned positions.
        attention: name of a block's attention.
        norm2: name of a block's second norm.
        mlp: name of a block's MLP.
        stacked: one array for all blocks, the block being its first axis (``nn.scan``).
    """

    prefix: str = ""
    positions: str = "Transformer/posembed_input/pos_embedding"
    attention: str = "MultiHeadDotProductAttention_1"
    norm2: str = "LayerNorm_2"
    mlp: str = "MlpBlock_3"
    stacked: bool = False


_BIG_VISION = {
    "positions": "pos_embedding",
    "attention": "MultiHeadDotProductAttention_0",
    "norm2": "LayerNorm_1",
    "mlp": "MlpBlock_0",
}
AUGREG = Layout()
OPTIMISER = Layout(prefix="opt/target/")
BIG_VISION = Layout(prefix="params/", **_BIG_VISION)
SCANNED = Layout(prefix="params/", stacked=True, **_BIG_VISION)
SIGLIP = Layout(prefix="params/img/", **_BIG_VISION)


def save(
    folder: Path, seed: int, *, architecture: str, layout: Layout, sizes: dict[str, Any]
) -> dict[str, str]:
    """The weights of a small timm model, written by ``numpy.savez`` under Google's names."""
    import numpy as np
    import timm

    module = randomise(timm.create_model(architecture, **{**SIZES, **sizes}), seed)
    path = folder / f"{architecture}.npz"
    np.savez(path, **google_arrays(module, layout))
    return {"reference": str(path), "arch": architecture}


def google_arrays(module: Any, layout: Layout) -> Arrays:
    """Every weight of a timm ViT under Google's names."""
    blocks = [_block(block, layout) for block in module.blocks]
    arrays = _outside(module, layout)
    if layout.stacked:
        import numpy as np

        for name in blocks[0]:
            arrays[f"Transformer/encoderblock/{name}"] = np.stack([block[name] for block in blocks])
    else:
        for index, block in enumerate(blocks):
            arrays |= {f"Transformer/encoderblock_{index}/{name}": value for name, value in block.items()}
    return {layout.prefix + name: value for name, value in arrays.items()}


def _outside(module: Any, layout: Layout) -> Arrays:
    kernel = module.patch_embed.proj
    arrays = {
        "embedding/kernel": kernel.weight.detach().numpy().transpose(2, 3, 1, 0),
        "embedding/bias": kernel.bias.detach().numpy(),
        layout.positions: module.pos_embed.detach().numpy(),
        **_norm("Transformer/encoder_norm", module.norm),
    }
    if module.cls_token is not None:
        arrays["cls"] = module.cls_token.detach().numpy()
    if module.num_classes:
        arrays |= _dense("head", module.head)
    if module.attn_pool is not None:
        arrays |= {f"MAPHead_0/{name}": value for name, value in _pool(module.attn_pool).items()}
    return arrays


def _block(block: Any, layout: Layout) -> Arrays:
    heads = block.attn.num_heads
    arrays = {**_norm("LayerNorm_0", block.norm1), **_norm(layout.norm2, block.norm2)}
    weights = block.attn.qkv.weight.detach().numpy()
    biases = block.attn.qkv.bias.detach().numpy()
    dim = weights.shape[1]
    for index, name in enumerate(("query", "key", "value")):
        rows = slice(index * dim, (index + 1) * dim)
        arrays |= _heads(f"{layout.attention}/{name}", weights[rows], biases[rows], heads)
    arrays |= _out(f"{layout.attention}/out", block.attn.proj, heads)
    return (
        arrays | _dense(f"{layout.mlp}/Dense_0", block.mlp.fc1) | _dense(f"{layout.mlp}/Dense_1", block.mlp.fc2)
    )


def _pool(pool: Any) -> Arrays:
    heads, attention = pool.num_heads, "MultiHeadDotProductAttention_0"
    kv, kv_bias = pool.kv.weight.detach().numpy(), pool.kv.bias.detach().numpy()
    dim = kv.shape[1]
    return {
        "probe": pool.latent.detach().numpy(),
        **_heads(f"{attention}/query", pool.q.weight.detach().numpy(), pool.q.bias.detach().numpy(), heads),
        **_heads(f"{attention}/key", kv[:dim], kv_bias[:dim], heads),
        **_heads(f"{attention}/value", kv[dim:], kv_bias[dim:], heads),
        **_out(f"{attention}/out", pool.proj, heads),
        **_norm("LayerNorm_0", pool.norm),
        **_dense("MlpBlock_0/Dense_0", pool.mlp.fc1),
        **_dense("MlpBlock_0/Dense_1", pool.mlp.fc2),
    }


def _norm(name: str, norm: Any) -> Arrays:
    return {f"{name}/scale": norm.weight.detach().numpy(), f"{name}/bias": norm.bias.detach().numpy()}


def _dense(name: str, layer: Any) -> Arrays:
    return {f"{name}/kernel": layer.weight.detach().numpy().T, f"{name}/bias": layer.bias.detach().numpy()}


def _heads(name: str, weight: np.ndarray, bias: np.ndarray, heads: int) -> Arrays:
    dim = weight.shape[1]
    return {f"{name}/kernel": weight.T.reshape(dim, heads, -1), f"{name}/bias": bias.reshape(heads, -1)}


def _out(name: str, layer: Any, heads: int) -> Arrays:
    kernel = layer.weight.detach().numpy().T
    return {
        f"{name}/kernel": kernel.reshape(heads, -1, kernel.shape[1]),
        f"{name}/bias": layer.bias.detach().numpy(),
    }


def _save_objects(folder: Path, seed: int) -> dict[str, str]:
    import numpy as np

    path = folder / "objects.npz"
    np.savez(path, **{"embedding/kernel": np.array([{"seed": seed}, "a pickle"], dtype=object)})
    return {"reference": str(path), "arch": "vit_tiny_patch16_224"}


def _save_mixer(folder: Path, seed: int) -> dict[str, str]:
    import numpy as np

    generator = np.random.default_rng(seed)
    names = {"stem/kernel": (8, 8, 3, 64), "MixerBlock_0/token_mixing/Dense_0/kernel": (16, 32)}
    path = folder / "Mixer-B_16.npz"
    np.savez(path, **{name: generator.normal(size=shape).astype("float32") for name, shape in names.items()})
    return {"reference": str(path), "arch": "vit_base_patch16_224"}


def _specimen(family: str, architecture: str, layout: Layout, suffix: str = "", **sizes: Any) -> Specimen:
    write = partial(save, architecture=architecture, layout=layout, sizes=sizes)
    return Specimen(family, SOURCE, architecture + suffix, write)


SPECIMENS: tuple[Specimen, ...] = (
    _specimen("ViT (AugReg)", "vit_tiny_patch16_224", AUGREG),
    _specimen("ViT (AugReg)", "vit_base_patch16_224", OPTIMISER, ", opt/target", depth=3),
    _specimen("ViT (AugReg)", "vit_large_patch16_224", AUGREG, ", no head", num_classes=0),
    _specimen("ViT, mean pooling", "vit_base_patch16_gap_224", BIG_VISION, ", big_vision", num_classes=0),
    _specimen("SigLIP", "vit_base_patch16_siglip_224", BIG_VISION, num_classes=0),
    _specimen("SigLIP", "vit_base_patch16_siglip_256", SCANNED, ", scanned", num_classes=0),
    _specimen("SigLIP 2", "vit_so400m_patch16_siglip_256", SIGLIP, ", both towers", num_classes=0),
)

STRANGERS: tuple[Stranger, ...] = (
    Stranger("Pickled objects", SOURCE, "objects", _save_objects, says="object|pickle|code"),
    Stranger("MLP-Mixer", SOURCE, "Mixer-B_16", _save_mixer, says="mixer|embedding"),
)
