"""From an ONNX file to a strongly typed TensorRT network, and what can be read off that network.

``trt`` is the module of either flavour throughout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vit_deploy.facts import LayerClass
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.tensorrt_flavours import Messages

PRECISION_OF: dict[str, Precision] = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
"""Our names of TensorRT's floating-point types."""

_ARITHMETIC = ("MATRIX_MULTIPLY", "CONVOLUTION", "EINSUM", "ATTENTION_OUTPUT")
"""The layers that hold the bulk of a ViT's arithmetic; their types are its precision."""


_CLASSES: dict[str, LayerClass] = {
    "CONVOLUTION": "linear",
    "ATTENTION_OUTPUT": "attention",
    "SOFTMAX": "softmax",
    "NORMALIZATION": "layernorm",
    "NORMALIZATION_V2": "layernorm",
    "ACTIVATION": "activation",
}
"""The classes of layers by type; a matrix product is one of weights, or of an attention that is spelled out."""

_DTYPES = {**PRECISION_OF, "INT8": "int8", "FP8": "fp8", "UINT8": "uint8"}
_NUMPY = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}
"""NumPy's names of the types that inputs and outputs have."""
_PASSING = {"SHUFFLE", "DEQUANTIZE", "CAST", "IDENTITY"}
"""What leaves a weight a weight, and what was dequantised dequantised."""


def parse_network(trt: Any, builder: Any, logger: Any, messages: Messages, path: Path) -> tuple[Any, Any]:
    """The network of an ONNX file, and the parser, which owns the weights and must outlive the build.

    Raises:
        ExportFailed: with the parser's own words.
    """
    network = builder.create_network(_strongly_typed(trt))
    # TensorRT numbers unnamed networks per process, and the name goes into the plan.
    network.name = "vit-deploy"
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        words = [f"{error.node_operator()} {error.node_name()!r}: {error.desc()}".strip() for error in errors]
        raise ExportFailed(
            f"TensorRT's ONNX parser refused {path.name}: {'; '.join(words) or messages.reason()}",
            expected="an ONNX graph of operators that TensorRT knows",
            next_command="vit-deploy export --format onnx,tensorrt, from the original checkpoint",
        )
    return network, parser


def _strongly_typed(trt: Any) -> int:
    """The creation flags: TensorRT 11 types every network strongly and deprecates the flag."""
    if trt.__name__ == "tensorrt" and int(trt.__version__.partition(".")[0]) >= 11:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _word(value: Any) -> str:
    """The bare name of a TensorRT enumerator."""
    return str(value).rpartition(".")[2]


def mark_attention(trt: Any, network: Any) -> dict[str, int]:
    """Let TensorRT decompose the attention layers that it has no fused kernel for, and count all.

    fp32 has none, so a network in fp32 would not build otherwise. In fp16 and bf16 attention stays
    as it is: that the engine builds is the proof that it was fused.

    Returns:
        ``layers``, the attention layers of the network, and how many of them are ``decomposable``.
    """
    kind = getattr(trt.LayerType, "ATTENTION_OUTPUT", None)  # TensorRT before 10.14 has no such layer
    counts = {"layers": 0, "decomposable": 0}
    for layer in _layers(network):
        if kind is None or layer.type != kind:
            continue
        layer.__class__ = trt.IAttentionOutputLayer  # the bindings' own way to cast a layer down
        attention = layer.attention
        if attention.get_input(0).dtype == trt.DataType.FLOAT:
            attention.decomposable = True
        counts["layers"] += 1
        counts["decomposable"] += int(attention.decomposable)
    return counts


def describe_network(network: Any) -> dict[str, Any]:
    """What the network is made of: layers by type, tensors by type, inputs, outputs, precision."""
    layers: Counter[str] = Counter()
    tensors: Counter[str] = Counter()
    arithmetic: Counter[str] = Counter()
    for layer in _layers(network):
        kind = _word(layer.type)
        layers[kind] += 1
        for index in range(layer.num_outputs):
            dtype = _word(layer.get_output(index).dtype)
            tensors[dtype] += 1
            arithmetic[dtype] += int(kind in _ARITHMETIC)
    dtypes = _dtypes_by_class(network)
    return {
        "layers": dict(sorted(layers.items())),
        "tensors": dict(sorted(tensors.items())),
        "inputs": _tensors(network.get_input, network.num_inputs),
        "outputs": _tensors(network.get_output, network.num_outputs),
        "precision": _quantised_to(dtypes.get("linear", {})) or _bulk_precision(arithmetic),
        "dtypes": dtypes,
    }


def _dtypes_by_class(network: Any) -> dict[str, dict[str, int]]:
    """Number of layers by dtype for each class, as :class:`vit_deploy.facts.RuntimeFacts` has them.

    A product of dequantised operands counts as one of the type that they were quantised to.
    """
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    weights: set[str] = set()
    quantised: dict[str, str] = {}
    for layer in _layers(network):
        kind = _word(layer.type)
        given = [layer.get_input(index) for index in range(layer.num_inputs)]
        names = [tensor.name for tensor in given if tensor is not None]
        made = [layer.get_output(index).name for index in range(layer.num_outputs)]
        if kind == "CONSTANT" or (kind in _PASSING and weights.issuperset(names)):
            weights.update(made)
        if kind == "DEQUANTIZE":
            quantised.update((name, _word(given[0].dtype)) for name in made)
        elif kind in _PASSING and names and names[0] in quantised:
            quantised.update((name, quantised[names[0]]) for name in made)
        group = _CLASSES.get(kind)
        if kind == "MATRIX_MULTIPLY":
            # Products before anything of the network are those that resize pictures.
            group = "linear" if weights & set(names) else "attention" if counted["linear"] else None
        if group is not None:
            own = _word(layer.get_output(0).dtype)
            product = kind in _ARITHMETIC and all(name in quantised for name in names[:2])
            counted[group][_named(quantised[names[0]] if product else own)] += 1
    ends = [network.get_input(index) for index in range(network.num_inputs)]
    ends += [network.get_output(index) for index in range(network.num_outputs)]
    counted["io"].update(_named(_word(tensor.dtype)) for tensor in ends)
    return {group: dict(sorted(found.items())) for group, found in counted.items() if found}


def _quantised_to(linear: Mapping[str, int]) -> Precision | None:
    """What most products with weights are of, where that is a type of 8 bits."""
    kinds: tuple[Precision, ...] = ("int8", "fp8")
    return next((kind for kind in kinds if 2 * linear.get(kind, 0) > sum(linear.values())), None)


def _named(word: str) -> str:
    return _DTYPES.get(word, word.lower())


def _tensors(get: Any, count: int) -> dict[str, dict[str, Any]]:
    tensors = [get(index) for index in range(count)]
    return {
        tensor.name: {"dtype": _word(tensor.dtype), "shape": [int(size) for size in tensor.shape]}
        for tensor in tensors
    }


def _bulk_precision(arithmetic: Counter[str]) -> Precision | None:
    known = [
        (count, PRECISION_OF[name]) for name, count in arithmetic.items() if name in PRECISION_OF and count
    ]
    return max(known)[1] if known else None


def check_network(described: dict[str, Any], spec: IOSpec, precision: Precision) -> None:
    """Compare what was parsed with what was asked for.

    Raises:
        ExportFailed: for other inputs, outputs, dtypes, shapes or precision.
    """
    for kind, wanted in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        found = described[kind]
        if sorted(found) != sorted(tensor.name for tensor in wanted):
            raise ExportFailed(
                f"the parsed network has the {kind} {', '.join(sorted(found)) or 'none'}",
                expected=", ".join(tensor.name for tensor in wanted),
                next_command=_ONNX_AGAIN,
            )
        for tensor in wanted:
            shape = found[tensor.name]["shape"]
            dtype = found[tensor.name]["dtype"]
            if _NUMPY.get(dtype, tensor.dtype) != tensor.dtype:
                raise ExportFailed(
                    f"{tensor.name!r} is {_NUMPY[dtype]} in the parsed network",
                    expected=f"{tensor.dtype}, as the ONNX artefact declares",
                    next_command=_ONNX_AGAIN,
                )
            # A free batch may be narrowed to one size; a fixed one cannot be freed again.
            fits = len(shape) == len(tensor.shape) and all(
                have in (-1, want) for have, want in zip(shape, tensor.shape, strict=True)
            )
            if not fits:
                raise ExportFailed(
                    f"{tensor.name!r} has shape {shape} in the parsed network (-1 is free)",
                    expected=f"shape {list(tensor.shape)}",
                    next_command=_ONNX_AGAIN,
                )
    if described["precision"] != precision:
        raise ExportFailed(
            f"the arithmetic of the parsed network is {described['precision'] or 'of no floating-point type'}",
            expected=f"{precision}, as the ONNX artefact declares",
            next_command=_ONNX_AGAIN,
        )


_ONNX_AGAIN = "vit-deploy export --format onnx,tensorrt, with the same shapes and outputs for both"
