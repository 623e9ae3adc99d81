"""Parameters and matrix products of a config in closed form, so that listing sizes needs no torch.

A test holds the figures against the model itself. Multiply-accumulates are those of the matrix
products (patch projection, linear layers, both products of attention); additions, LayerNorm,
activations and softmax are left out, as is the field's custom. A multiply-accumulate is two
floating-point operations, everywhere in this library.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vit_deploy.model.config import ViTConfig


def count_parameters(config: ViTConfig) -> int:
    """The number of parameters of ``ViT(config)``."""
    dim = config.embed_dim
    patch = dim * config.in_channels * config.patch_size**2 + dim * config.patch_bias
    learned = config.positions == "learned"
    tokens = config.num_prefix_tokens + learned * (config.num_position_prefix + config.num_patches)
    norms = 2 * dim * (config.pre_norm + config.final_norm)
    tables = _table(config) if config.relative_positions == "shared" else 0
    if config.rotary is not None and config.rotary.learned:
        tables += config.depth * dim
    blocks = config.depth * _block_parameters(config)
    return patch + tokens * dim + norms + tables + blocks + _head_parameters(config)


def _table(config: ViTConfig) -> int:
    """Entries of a table of relative positions."""
    height, width = config.grid_size
    return ((2 * height - 1) * (2 * width - 1) + 3) * config.num_heads


def _block_parameters(config: ViTConfig) -> int:
    dim, mlp = config.embed_dim, config.mlp_dim
    wide = mlp * (2 if config.gated_mlp else 1)
    attention = 3 * dim * (dim + config.qkv_bias) + dim * (dim + config.proj_bias)
    layers = wide * (dim + config.mlp_bias) + dim * (mlp + config.mlp_bias)
    norms = (
        4 * dim + 4 * config.head_dim * config.qk_norm + 2 * dim * config.attn_norm + 2 * mlp * config.mlp_norm
    )
    table = _table(config) if config.relative_positions == "block" else 0
    return attention + layers + norms + table + 2 * dim * config.layer_scale


def _head_parameters(config: ViTConfig) -> int:
    dim, classes, wide = config.embed_dim, config.num_classes, config.embedding_dim
    total = config.projection_dim * (wide + config.projection_bias)
    if config.pool == "map":
        mlp = config.pool_mlp_dim or config.mlp_dim
        total += dim + 4 * dim * (dim + 1) + 2 * dim + mlp * (dim + 1) + dim * (mlp + 1)
    total += 2 * _pooled(config) * config.fc_norm
    total += config.representation_size * (_pooled(config) + 1)
    total += classes * (wide + config.head_bias)
    return total + (classes * (dim + 1) if config.distillation_head else 0)


def _pooled(config: ViTConfig) -> int:
    """Width of what the pool gives."""
    return config.embed_dim * (2 if config.pool == "token_avg" else 1)


@dataclass(frozen=True)
class Gemm:
    """Matrix products of one shape: ``(m, k) @ (k, n)``.

    Attributes:
        name: what it is in the model.
        m: rows of the result.
        k: the dimension that is summed over.
        n: columns of the result.
        batch: matrices that one operation multiplies side by side: images × heads in attention.
        times: how many such operations an inference has, each with operands of its own.
        weights: whether the second operand is a weight; otherwise it is computed from the picture too.
    """

    name: str
    m: int
    k: int
    n: int
    batch: int = 1
    times: int = 1
    weights: bool = True

    @property
    def count(self) -> int:
        """How many single matrix products an inference has of it."""
        return self.batch * self.times

    @property
    def flops(self) -> int:
        """Floating-point operations of all of them: two for each multiply-accumulate."""
        return 2 * self.m * self.k * self.n * self.count


def gemm_shapes(
    config: ViTConfig,
    batch_size: int = 1,
    image_size: tuple[int, int] | None = None,
    outputs: Sequence[str] = (),
) -> tuple[Gemm, ...]:
    """The matrix products of one inference of ``ViT(config)``, in the order in which they are computed.

    A model of free image size resamples its positions with each batch; that is left out.

    Args:
        config: the architecture.
        batch_size: images in the inference.
        image_size: ``(height, width)`` in pixels, where it is another one than the config's own.
        outputs: what is computed, by name; the config's default when empty.
    """
    if image_size is not None:
        config = replace(config, image_size=image_size)
    names = frozenset(outputs or config.default_outputs)
    dim, patch_dim = config.embed_dim, config.in_channels * config.patch_size**2
    return (
        Gemm("patch projection", batch_size * config.num_patches, patch_dim, dim),
        *_block_gemms(config, batch_size),
        *(_pooling_gemms(config, batch_size) if names - {"tokens"} else ()),
        *_head_gemms(config, batch_size, names),
    )


def _block_gemms(config: ViTConfig, batch_size: int) -> Iterator[Gemm]:
    dim, mlp, tokens, depth = config.embed_dim, config.mlp_dim, config.num_tokens, config.depth
    rows, heads = batch_size * tokens, batch_size * config.num_heads
    yield Gemm("qkv", rows, dim, 3 * dim, times=depth)
    yield Gemm("scores", tokens, config.head_dim, tokens, heads, depth, weights=False)
    yield Gemm("values", tokens, tokens, config.head_dim, heads, depth, weights=False)
    yield Gemm("attention projection", rows, dim, dim, times=depth)
    yield Gemm("mlp in", rows, dim, mlp * (2 if config.gated_mlp else 1), times=depth)
    yield Gemm("mlp out", rows, mlp, dim, times=depth)


def _pooling_gemms(config: ViTConfig, batch_size: int) -> Iterator[Gemm]:
    dim = config.embed_dim
    if config.pool == "map":
        seen = config.num_tokens if config.pool_prefix else config.num_patches
        mlp, heads = config.pool_mlp_dim or config.mlp_dim, config.pool_heads or config.num_heads
        # The query is learned: one for all images.
        yield Gemm("pooling query", 1, dim, dim)
        yield Gemm("pooling keys and values", batch_size * seen, dim, 2 * dim)
        yield Gemm("pooling scores", 1, dim // heads, seen, batch_size * heads, weights=False)
        yield Gemm("pooling values", 1, seen, dim // heads, batch_size * heads, weights=False)
        yield Gemm("pooling projection", batch_size, dim, dim)
        yield Gemm("pooling mlp in", batch_size, dim, mlp)
        yield Gemm("pooling mlp out", batch_size, mlp, dim)
    if config.representation_size:
        yield Gemm("pre-logits", batch_size, _pooled(config), config.representation_size)


def _head_gemms(config: ViTConfig, batch_size: int, outputs: frozenset[str]) -> Iterator[Gemm]:
    if "logits" in outputs and config.num_classes:
        yield Gemm("head", batch_size, config.embedding_dim, config.num_classes)
        if config.distillation_head:
            yield Gemm("distillation head", batch_size, config.embed_dim, config.num_classes)
    if "image_embeds" in outputs and config.projection_dim:
        yield Gemm("projection", batch_size, config.embedding_dim, config.projection_dim)


def count_macs(
    config: ViTConfig,
    *,
    batch_size: int = 1,
    image_size: tuple[int, int] | None = None,
    outputs: Sequence[str] = (),
) -> int:
    """Multiply-accumulates of one inference; the arguments are those of :func:`gemm_shapes`."""
    return sum(gemm.flops for gemm in gemm_shapes(config, batch_size, image_size, outputs)) // 2


def count_moved_elements(config: ViTConfig, gemms: Sequence[Gemm]) -> int:
    """Numbers that one inference moves at the very least: a lower bound, whatever is fused.

    Each parameter is read once. Each product reads what it multiplies and writes its result; the first
    one's input is the picture, the last one's result the output. Attention counts as one operation that
    reads queries, keys and values and writes the mixed values: its scores need not leave the processor
    (Dao et al. 2022, https://arxiv.org/abs/2205.14135). What lies between the products (norms, residual
    sums, activations) can be fused into them and counts nothing.

    Args:
        config: the architecture.
        gemms: of :func:`gemm_shapes`.
    """
    return count_parameters(config) + sum(_moved(gemm) for gemm in gemms)


def _moved(gemm: Gemm) -> int:
    """Activations in and out of one entry, the scores of attention left out."""
    left, right, result = gemm.m * gemm.k, gemm.k * gemm.n, gemm.m * gemm.n
    if gemm.weights:
        return (left + result) * gemm.count
    scores = gemm.name.endswith("scores")
    return (left + right if scores else right + result) * gemm.count
