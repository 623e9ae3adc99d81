"""What a graph says of itself: nothing of the machine it was made on, and what a user of it needs.

PyTorch's exporter writes stack traces, scopes and file paths into every node. They leak paths and
keep two exports from having the same bytes. In their place stands what a consumer needs to feed
the graph and to read its answer, under the names that transformers' configs use.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vit_deploy import __version__

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.weights.imported import Model


def strip_metadata(graph_model: ir.Model) -> None:
    """Drop every stack trace, scope and doc string, and number the nodes by their operator."""
    for holder in (graph_model, graph_model.graph):
        holder.metadata_props.clear()
        holder.doc_string = None
    graph_model.producer_name = "vit-deploy"
    graph_model.producer_version = __version__
    values = [*graph_model.graph.inputs, *graph_model.graph.initializers.values()]
    for index, node in enumerate(graph_model.graph):
        node.name = f"{node.op_type}_{index}"
        node.doc_string = None
        node.metadata_props.clear()
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


def describe_model(graph_model: ir.Model, model: Model) -> None:
    """Write the model's task, labels and preprocessing into the graph's metadata."""
    entries = {
        "architecture": model.source.name,
        "source_sha256": model.source.sha256,
        "config": _json(model.config.to_dict()),
    }
    if model.preprocessing is not None:
        task = "image-classification" if model.config.num_classes else "image-feature-extraction"
        entries["task"] = task
        entries["preprocessor_config"] = _json(model.preprocessing.to_dict())
    if model.labels:
        entries["id2label"] = _json({str(index): label for index, label in enumerate(model.labels)})
    graph_model.graph.name = model.config.kind
    graph_model.metadata_props.update(entries)


def _json(data: object) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False)
