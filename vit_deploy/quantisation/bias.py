"""Bias correction: the mean of what quantising adds to each output channel is taken off its bias.

Rounding errors of a weight are fixed, so that they move the mean of what a product gives; so do activations
that are clipped, and those of a channel so small that all of it is rounded to zero. Both are known once the
means of what comes in are: the mean error of a product is ``Wq E[Q(x)] - W E[x]``, and goes into the bias,
which costs nothing (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2). Each product is
corrected for its own error alone: what the ones before it add, they have corrected themselves. The mean is
that of ordinary tokens: with a massive one among them the correction would ruin all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.protocols import Silent
from vit_deploy.quantisation.insert import reader
from vit_deploy.quantisation.weights import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir
    import torch

    from vit_deploy.protocols import Arrays, Progress
    from vit_deploy.quantisation.places import Place
    from vit_deploy.quantisation.weights import Kind, QuantisedWeight

MASSIVE = 8.0
"""How many times larger than most a token's largest magnitude is where it is no ordinary one."""


@dataclass(frozen=True)
class Moments:
    """What comes in, by channel of the last axis.

    Attributes:
        mean: float32 ``(c,)``, of ordinary tokens.
        rounded: float32 ``(c,)``, the same once they are quantised.
        power: float32 ``(c,)``, the mean square of all tokens.
    """

    mean: torch.Tensor
    rounded: torch.Tensor
    power: torch.Tensor


def measure_moments(
    graph: ir.Model,
    scales: Mapping[str, float],
    kind: Kind,
    batches: Iterable[Arrays],
    progress: Progress | None = None,
) -> dict[str, Moments]:
    """Run the fp32 graph and see what quantising does to the means of the tensors that are to be quantised.

    Args:
        graph: in fp32, as it will be quantised.
        scales: the value of a step for each tensor.
        kind: dtype of the codes.
        batches: inputs by name; small ones, as every tensor of a batch is in memory.
        progress: advanced by one for each picture.

    Raises:
        ExportFailed: when ONNX Runtime cannot run the graph.
    """
    import torch

    from vit_deploy.quantisation.session import opened

    sums: dict[str, torch.Tensor] = {}
    with opened(graph, list(scales)) as session:
        for batch in batches:
            for name, array in session.run(batch).items():
                values = torch.from_numpy(array).reshape(-1, array.shape[-1])
                found = _sums(values, scales[name], kind)
                sums[name] = sums[name] + found if name in sums else found
            (progress or Silent()).advance(len(next(iter(batch.values()))))
    return {name: _moments(total) for name, total in sums.items()}


def _sums(values: torch.Tensor, scale: float, kind: Kind) -> torch.Tensor:
    """float64 ``(5, c)``: ordinary rows, those rounded, all squares; how many are ordinary, how many in all."""
    import torch

    ordinary = values[_ordinary(values)]
    codes = rounded(ordinary / scale, kind).float()
    counts = torch.tensor([len(ordinary), len(values)]).unsqueeze(1).expand(2, values.shape[1])
    sums = torch.stack([ordinary.sum(0), codes.sum(0) * scale, values.square().sum(0)])
    return torch.cat([sums.double(), counts.double()])


def _ordinary(values: torch.Tensor) -> torch.Tensor:
    """Which tokens are no bearers of massive activations (Sun et al. 2024, https://arxiv.org/abs/2402.17762).

    Large ViTs keep numbers a thousand times larger than all others in one or two tokens. What rounding does to
    those would be the mean error of all, and its correction would be the ruin of the ordinary ones.
    """
    largest = values.abs().amax(dim=1)
    return largest <= MASSIVE * largest.median()


def _moments(sums: torch.Tensor) -> Moments:
    mean, codes, power, ordinary, every = sums
    return Moments((mean / ordinary).float(), (codes / ordinary).float(), (power / every).float())


def correct_biases(
    graph: ir.Model,
    places: Sequence[Place],
    weights: Mapping[str, QuantisedWeight],
    moments: Mapping[str, Moments],
) -> int:
    """Take the mean error of each quantised product off its bias, in place; returns how many there are.

    Args:
        graph: quantised.
        places: of this graph.
        weights: those that were quantised, by place.
        moments: by source; places without are left alone, and so are those without a bias.
    """
    import onnx_ir as ir

    count = 0
    for place in places:
        if place.name not in weights or place.source not in moments or not place.bias:
            continue
        if place.operator == "Conv":
            continue  # what comes into one is told by its last axis, which is no channel
        value = graph.graph.initializers[place.bias]
        if value.const_value is None:
            continue
        error = mean_error(weights[place.name], moments[place.source])
        corrected = reader(value.const_value)() - error
        value.const_value = ir.tensor(corrected.numpy(), name=value.name)
        count += 1
    return count


def mean_error(weight: QuantisedWeight, moments: Moments) -> torch.Tensor:
    """``(c,)``: what quantising a product's operands adds to the mean of each output channel."""
    import torch

    exact, coarse = weight.read(), weight.dequantised()
    axis = weight.inner
    given: torch.Tensor = torch.tensordot(coarse, moments.rounded, ([axis], [0]))
    meant: torch.Tensor = torch.tensordot(exact, moments.mean, ([axis], [0]))
    return given - meant
