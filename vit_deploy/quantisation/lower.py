"""From the finished fp32 graph to int8 or fp8: calibrated, smoothed, quantised, corrected, checked.

The pictures pass up to three times: some through the graph to see which channels are larger than others
(:mod:`vit_deploy.quantisation.smooth`), all of them through the smoothed graph for the ranges
(:mod:`vit_deploy.quantisation.ranges`), and some again for the means that rounding moves
(:mod:`vit_deploy.quantisation.bias`). No pass keeps more than a batch of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import UsageFailed
from vit_deploy.graph.precision import Lowered
from vit_deploy.quantisation.bias import correct_biases, measure_moments
from vit_deploy.quantisation.cache import observe_once
from vit_deploy.quantisation.holding import NO_SEARCH, WORST, keep_worst
from vit_deploy.quantisation.insert import part_biases_from_gelu, quantise
from vit_deploy.quantisation.lint import lint_quantised
from vit_deploy.quantisation.places import find_places, sources, wide_places
from vit_deploy.quantisation.ranges import threshold
from vit_deploy.quantisation.samples import choose_samples
from vit_deploy.quantisation.smooth import smooth
from vit_deploy.quantisation.weights import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from vit_deploy.graph.options import OnnxOptions
    from vit_deploy.protocols import Arrays, Progress
    from vit_deploy.quantisation.observe import Observed
    from vit_deploy.quantisation.places import Place
    from vit_deploy.quantisation.samples import Samples
    from vit_deploy.quantisation.weights import Kind
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

_BATCH = 4
"""Pictures at a time: more make a pass hardly faster, and take memory."""

_SOME = 32
"""Pictures that are enough for the largest magnitude of each channel, and for means: 6,000 tokens of each."""


@dataclass(frozen=True)
class Calibration:
    """A graph that is being quantised, and the pictures that it is calibrated on."""

    graph: ir.Model
    model: Model
    spec: IOSpec
    samples: Samples
    progress: Progress

    def seen(
        self, tensors: Sequence[str], settings: Mapping[str, Any], limit: int | None = None
    ) -> dict[str, Observed]:
        """What these tensors are on the pictures, or the first ``limit``; kept from one export to the next.

        Args:
            tensors: names of values.
            settings: what was done to the graph's weights; see :func:`observe_once`.
            limit: of the pictures.
        """
        few = self.samples if limit is None else self.samples.first(limit)
        return observe_once(
            self.graph,
            self.model,
            self.spec,
            few,
            tensors,
            settings=settings,
            batch_size=_BATCH,
            progress=self.progress,
        )

    def batches(self, limit: int | None = None) -> Iterator[Arrays]:
        """The pictures, or the first ``limit`` of them."""
        given = 0
        for batch in self.samples.batches(self.model, self.spec, _BATCH):
            if limit is not None and given >= limit:
                return
            yield batch
            given += len(next(iter(batch.values())))


def lower(
    graph: ir.Model,
    model: Model,
    spec: IOSpec,
    precision: Precision,
    options: OnnxOptions,
    progress: Progress,
) -> Lowered:
    """See :class:`vit_deploy.graph.precision.Lower`."""
    kind = _kind(precision, options)
    places = find_places(graph)
    wide = wide_places(graph, places, options.keep_fp32)
    chosen = [place for place in places if place.name not in wide]
    if not chosen:
        raise UsageFailed(
            f"no layer is left to be quantised to {kind}: {len(wide)} stay in fp32",
            expected="at least one product with a weight",
            next_command="leave --keep-fp32 out, or export with --dtype fp32",
        )
    progress.phase(f"{kind}: choosing the pictures to calibrate on")
    samples = choose_samples(model, options.calibrate, options.calibration_images)
    calibration = Calibration(graph, model, spec, samples, progress)
    smoothed = _smooth(calibration, chosen, options)
    scales = _scales(calibration, chosen, kind, options)
    progress.phase(f"{kind}: measuring what rounding does to the means", total=_SOME)
    moments = measure_moments(graph, scales, kind, calibration.batches(_SOME), progress)
    power = {name: found.power for name, found in moments.items()}
    searched: dict[str, Any] = {}
    if options.max_drop < NO_SEARCH:
        worst, searched = keep_worst(
            *(graph, places, scales, kind, calibration.batches, options.max_drop),
            wide=frozenset(wide),
            power=power,
            progress=progress,
        )
        wide |= dict.fromkeys(worst, WORST)
        chosen = [place for place in chosen if place.name not in wide]
    progress.phase(f"{kind}: quantising the weights")
    weights = quantise(graph, places, scales, weights=kind, keep=frozenset(wide), power=power)
    corrected = correct_biases(graph, chosen, weights, moments)
    part_biases_from_gelu(graph)
    progress.phase(f"{kind}: checking the graph")
    lint_quantised(graph, spec, chosen, kind)
    facts = {
        **_facts(chosen, wide, samples, options),
        "smoothed": smoothed,
        "biases_corrected": corrected,
        **({"budget": searched} if searched else {}),
    }
    return Lowered(spec, {"quantisation": facts})


def _kind(precision: Precision, options: OnnxOptions) -> Kind:
    if options.io_dtype != "float32":
        raise UsageFailed(
            f"--io-dtype {options.io_dtype} was asked for with --dtype {precision}",
            expected="inputs and outputs in float32, as everything between the quantised products is",
            next_command="leave --io-dtype out, or export with --dtype fp16",
        )
    if not 0 <= options.smooth_quant <= 1:
        raise UsageFailed(f"--smooth-quant is {options.smooth_quant}", expected="a number from 0 to 1")
    return "fp8" if precision == "fp8" else "int8"


def _smooth(calibration: Calibration, places: Sequence[Place], options: OnnxOptions) -> dict[str, int]:
    if not options.smooth_quant:
        return {}
    calibration.progress.phase("Looking for channels that are larger than others", total=_SOME)
    tensors = sources([place for place in places if place.operator != "Conv"])
    seen = calibration.seen(tensors, {}, limit=_SOME)
    largest = {name: found.channel_max for name, found in seen.items()}
    return smooth(calibration.graph, places, largest, options.smooth_quant)


def _scales(
    calibration: Calibration, places: Sequence[Place], kind: Kind, options: OnnxOptions
) -> dict[str, float]:
    """The value of a step for each tensor that comes into a place."""
    calibration.progress.phase("Calibrating the ranges of activations", total=calibration.samples.count)
    smoothed = {"strength": options.smooth_quant, "pictures": _SOME, "layers": [place.name for place in places]}
    seen = calibration.seen(sources(places), {"smoothed": smoothed})
    levels = LEVELS[kind]
    return {name: threshold(found, options.ranges, levels=levels) / levels for name, found in seen.items()}


def _facts(
    places: Sequence[Place], wide: Mapping[str, str], samples: Samples, options: OnnxOptions
) -> dict[str, Any]:
    """What the manifest keeps of how a graph was quantised."""
    return {
        "quantised": len(places),
        "kept_fp32": dict(wide),
        "ranges": options.ranges,
        "smooth_quant": options.smooth_quant,
        "calibration": {
            "images": samples.count,
            "synthetic": samples.synthetic,
            "digest": samples.digest,
            "skipped": len(samples.skipped),
        },
    }
