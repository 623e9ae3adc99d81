"""What a verification finds, written by hand: one artefact that passed, one that failed, one not checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vit_deploy.blame.record import Culprit, Drift, StageReading, TapReading
from vit_deploy.facts import Verdict
from vit_deploy.parity.against import Comparison, Finding
from vit_deploy.parity.inputs import Sample
from vit_deploy.parity.ranges import PLACES, RangeWatch
from vit_deploy.report.document import Judged, ParityReport, build_report

ENVIRONMENT = {
    "cpu": "AMD EPYC 9R14",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "gpus": [],
    "system": "Linux x86_64",
    "python": "3.11.2",
    "packages": {"vit-deploy": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0"},
}

FAMILIES = ("pink", "constant", "pink", "checkerboard", "image", "image", "gradient", "impulse")
NAMES = tuple(f"{family}-{index}" for index, family in enumerate(FAMILIES))

HOSTILE = "<script>alert(1)</script> \"'&]]> @everyone #1 `tick` | pipe \u202e \x1b[31m \x00 größe 犬 \ud800"
"""What a file's name may hold: markup of every rendering, control characters, no valid Unicode."""


def samples(names: tuple[str, ...] = NAMES) -> list[Sample]:
    """Samples with pictures: noise, which is large as PNG, and flat ones."""
    found = []
    for index, (name, family) in enumerate(zip(names, FAMILIES, strict=True)):
        generator = np.random.default_rng(index)
        picture = generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        if family != "pink":
            picture = np.full((160, 224, 3), 30 * index, np.uint8)
        found.append(Sample(name, family, np.zeros((3, 8, 8), np.float32), picture=picture))
    return found


def pictures(of: list[Sample]) -> dict[str | int, Any]:
    return {index: sample.picture for index, sample in enumerate(of)}


def _histogram(centre: float) -> dict[str, Any]:
    edges = [round(-2 + 0.25 * step, 2) for step in range(33)]
    counts = [round(60 * math.exp(-((edge - centre) ** 2) / 0.15)) for edge in edges[:-1]]
    return {"edges": edges, "counts": counts}


def _evidence(names: tuple[str, ...], scale: float) -> dict[str, Any]:
    entries = [
        {
            "name": name,
            "family": FAMILIES[index],
            "worst_ratio": scale * (1 + index % 5),
            "output": "logits",
            "batch_size": 8,
            "slot": index,
            "top1": {"eager": [3, 0.87], "artefact": [3 if scale < 10 else 5, 0.61]},
        }
        for index, name in enumerate(names)
    ]
    worst = {"output": "logits", "batch_size": 8, "indices": [*range(8)], "slot": 4, "sample": names[4]}
    histograms = {"logits": _histogram(math.log10(scale)), "tokens": _histogram(math.log10(scale) - 0.3)}
    return {"worst_run": worst, "samples": entries, "histograms": histograms}


def _details(scale: float, limits: dict[str, float]) -> dict[str, Any]:
    agreed = 7 if scale < 10 else 2
    return {
        "limits": limits,
        "outputs": {
            name: {"worst_ratio": 5 * share * scale, "p95_ratio": 4 * share * scale, "yardstick": 1e-6}
            for name, share in (("logits", 1.0), ("tokens", 0.5))
        },
        "families": {"pink": 5 * scale},
        "decisions": {
            "top1": {
                "agreed": agreed,
                "of": 7,
                "near_ties": 1,
                "near_ties_agreed": 1,
                "lower_bound": 0.652,
                "confidence": 0.95,
            },
            "top5": {"agreed": 8, "of": 8, "near_ties": 0, "near_ties_agreed": 0, "lower_bound": 0.688},
            "kl": {"mean": 1.2e-9 * scale, "max": 4e-9 * scale},
            "embeddings": {"embedding": {"cosine_min": 0.9999997, "recall_at_10": 1.0, "of": 8}},
        },
        "steadiness": {"run_to_run": 0.0, "batch_position": 0.4 * scale, "batch_size": None},
        "built": {
            "backend": "onnxruntime",
            "precision": "fp32",
            "dtype": {"linear": {"fp32": 48}, "layernorm": {"fp32": 25}},
            "placement": {"CPUExecutionProvider": 287},
            "tf32": None,
            "fused_attention": {"fused": 12, "of": 12},
        },
        "range_watch": watch().to_dict(),
        "device": "cpu",
    }


def watch(depth: int = 12) -> RangeWatch:
    """Residuals that grow until the last blocks come near the end of fp16's range."""
    growth = {name: 2.0 + place for place, name in enumerate(PLACES)}
    growth["residual"] = 20.0
    maxima = {name: tuple(start * 1.95**block for block in range(depth)) for name, start in growth.items()}
    return RangeWatch(maxima, samples=3)


def taps(depth: int = 12) -> list[str]:
    inside = [f"blocks.{block}.{part}" for block in range(depth) for part in ("attn", "mlp")]
    return ["embed", *inside, "tokens", "logits"]


def drift(name: str, scale: float, from_tap: int | None = None, depth: int = 12, base: float = 4e-8) -> Drift:
    """An honest drift, with a step up at one tap."""
    readings = []
    for place, tap in enumerate(taps(depth)):
        own = base * math.sqrt(1 + place)
        jump = 80.0 if from_tap is not None and place >= from_tap else 1.0
        ratio = scale * jump * (1 + 0.1 * math.sin(place))
        readings.append(TapReading(tap, ratio * own, own, ratio, ratio <= 10))
    return Drift(name, tuple(readings))


def culprit() -> Culprit:
    stages = (
        StageReading("model", "export layout", 1.0, True),
        StageReading("export", "captured graph", 1.04, True),
        StageReading("pass", "fold constants", 1.04, True),
        StageReading("pass", "fuse attention", 412.0, False, "from here on the error is there"),
        StageReading("runtime", "optimisations off", 412.0, False),
        StageReading("precision", "fp16", None, None, "nothing here computes in fp16"),
    )
    bisection = tuple(
        TapReading(f"blocks.{block}.attn", 1e-5, 1e-7, ratio, ratio < 10)
        for block, ratio in ((6, 1.2), (9, 260.0), (7, 240.0))
    )
    sentence = (
        "The error comes in at blocks.7.attn, with the pass that fuses attention: the scale is not applied."
    )
    return Culprit("pass", "blocks.7.attn", sentence, stages, bisection, 3, ("One tap disturbed the fusion.",))


def judged(hostile: bool = False) -> list[Judged]:
    names = tuple(f"{name} {HOSTILE}" for name in NAMES) if hostile else NAMES
    word = HOSTILE if hostile else ""
    fp32 = Verdict(
        True, "onnxruntime", "", 5.0, 4.0, 8, _details(1.0, {"worst": 10.0, "p95": 4.0}), _evidence(names, 1.0)
    )
    told = f"logits: 412 times eager's own error at the worst (limit 4), worst on 'pink-0' {word}"
    wrong = Verdict(
        False,
        "onnxruntime",
        told,
        412.0,
        330.0,
        8,
        _details(82.4, {"worst": 4.0, "p95": 2.0}),
        _evidence(names, 82.4),
    )
    absent = Verdict(None, reason=f"tensorrt: no CUDA device; vit-deploy doctor {word}")
    return [
        Judged("onnx-fp32", "onnx", "fp32", "pixel_values", 346_000_000, fp32, None, drift("onnx-fp32", 1.2)),
        Judged(
            f"onnx-fp16{word}",
            "onnx",
            "fp16",
            "uint8",
            173_000_000,
            wrong,
            culprit(),
            drift("onnx-fp16", 1.1, 15, base=3e-4),
            (f"fused-attention: 11 of 12 {word}",),
        ),
        Judged("tensorrt-fp16", "tensorrt", "fp16", "pixel_values", 177_000_000, absent),
    ]


def comparison(hostile: bool = False) -> Comparison:
    """A rebuild that is worse than what was accepted."""
    word = HOSTILE if hostile else ""
    fails = Finding(
        "fused-attention", "fails", f"11 of 12 attentions are fused, and 12 were {word}", "onnx-fp16"
    )
    return Comparison((fails, Finding("tools", "informs", f"torch 2.13.0 was 2.12.1 {word}")))


def report(hostile: bool = False, against: bool = False) -> ParityReport:
    entries = judged(hostile)
    names = tuple(f"{name} {HOSTILE}" for name in NAMES) if hostile else NAMES
    labels = ["zero", "one", "two", HOSTILE if hostile else "tabby cat", "four", "tiger"]
    bundle = f"bundles/{HOSTILE}" if hostile else "bundles/vit_small"
    return build_report(
        bundle,
        entries,
        samples(names),
        ENVIRONMENT,
        labels=labels,
        comparison=comparison(hostile) if against else None,
    )


def nothing_but_faults() -> ParityReport:
    """Verdicts that hold no figures, and numbers that are not finite."""
    inf, nan = math.inf, math.nan
    broken = Verdict(
        False,
        "onnxruntime",
        "tokens is missing",
        inf,
        nan,
        8,
        {
            "limits": {"worst": 10.0, "p95": None},
            "outputs": {"logits": {"worst_ratio": inf, "p95_ratio": np.float32(nan)}},
        },
        {"worst_run": {"output": "tokens", "batch_size": 1, "indices": [0], "slot": 0, "sample": NAMES[0]}},
    )
    readings = (
        TapReading("embed", 0.0, 0.0, 0.0, True),
        TapReading("blocks.0.attn", inf, 1e-7, inf, False),
        TapReading("blocks.0.mlp", nan, nan, nan, False),
    )
    bare = Culprit(None, "", "", (StageReading("export", "graph", inf, False),))
    return build_report(
        "b",
        [
            Judged("a", "onnx", "fp32", "pixel_values", 0, broken, bare, Drift("a", readings)),
            Judged(
                "b",
                "onnx",
                "fp32",
                "pixel_values",
                12,
                Verdict(None, reason="no"),
                None,
                Drift("b", missing="why"),
            ),
        ],
        samples(),
        ENVIRONMENT,
    )
