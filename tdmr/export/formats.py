"""Writes a classifier as ONNX, and as a torch.export program. Each takes batches of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim, ExportedProgram

from tdmr.export.classifier import INPUT, OUTPUTS, Classifier

if TYPE_CHECKING:
    import onnx

EXAMPLES = 2  # images that a classifier is traced with: torch takes 0 and 1 for special cases


def capture(classifier: Classifier) -> ExportedProgram:
    """The classifier as a graph. Raises whatever torch.export has against the architecture."""
    side = classifier.side
    example = torch.zeros(EXAMPLES, classifier.channels, side, side)
    program = torch.export.export(
        classifier, (example,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}}, strict=False
    )
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a .pt2 file, for torch.export.load."""
    torch.export.save(program, path)


def write_onnx(program: ExportedProgram, path: Path, facts: dict[str, Any]) -> None:
    """Write an .onnx file that names `facts` in its metadata, each as a string or as JSON.

    Raises ImportError without onnx and onnxscript, and whatever the exporter has against the graph.
    """
    import onnx

    made = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={INPUT: {0: "batch"}},
        dynamo=True,
        verbose=False,
    )
    assert made is not None
    model = made.model_proto
    strip(model)
    describe(model, facts)
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes beside nodes and values: it names files of this machine."""
    for graph in (model.graph, *model.functions):
        _strip(graph)


def _strip(graph: Any) -> None:
    """Of a graph or a function, and of the graphs within its nodes."""
    parts = [graph, *graph.node, *graph.value_info]
    if hasattr(graph, "initializer"):  # a function has none, and its inputs are names
        parts += [*graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                _strip(inner)


def describe(model: onnx.ModelProto, facts: dict[str, Any]) -> None:
    """Put `facts` into the model's metadata."""
    import onnx

    texts = {
        name: fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
        for name, fact in facts.items()
    }
    onnx.helper.set_model_props(model, texts)
