"""The whole model in each format, written by the tools of PyTorch and ONNX.

What those tools write beside the graph, the paths of our source files on this machine among it, is
taken out again.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from einthoven.errors import ConfigError
from einthoven.exporting.facts import facts_as_text
from einthoven.exporting.graph import FEWEST_SAMPLES, INPUT_NAME, OUTPUT_NAMES, WholeModel
from einthoven.models.crnn import recurrence_as_loop
from einthoven.records import LEADS

ExportFormat = Literal["onnx", "torchscript", "torch-export"]

FACTS_FILE = "einthoven.json"
MOST_RECORDS, MOST_SAMPLES = 65_536, 100_000_000


def example_signal(window: int) -> torch.Tensor:
    """What the graph is recorded with: noise, since files may keep it; three records of 2½ windows.

    Sizes that a program may take for fixed ones, such as 1 and the window's own, are avoided.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, len(LEADS), 2 * window + window // 2 + 3, generator=generator)


@contextlib.contextmanager
def quiet_tools() -> Iterator[None]:
    """Hold back what the tools tell their own developers, and keep no gradients."""
    talker = logging.getLogger("torch.onnx")
    level = talker.level
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        talker.setLevel(logging.ERROR)
        try:
            yield
        finally:
            talker.setLevel(level)


# TorchScript ------------------------------------------------------------------------------------


def write_torchscript(whole: WholeModel, path: Path, facts: Mapping[str, Any]) -> None:
    """A traced program; C++ and Python run it without our code."""
    buffer = io.BytesIO()
    with quiet_tools():
        example = example_signal(whole.crops.window)
        program = torch.jit.trace(  # type: ignore[no-untyped-call]
            whole, (example,), check_trace=False
        )
        torch.jit.save(program, buffer, _extra_files={FACTS_FILE: _facts_json(facts)})
    buffer.seek(0)
    # Files that only name the line of source that each operation came from.
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(path, "w") as kept:
        for entry in written.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, written.read(entry))


# torch.export -----------------------------------------------------------------------------------


def whole_program(whole: WholeModel) -> torch.export.ExportedProgram:
    """The model as a program of `torch.export`, for any number of records of any one length."""
    sizes = {
        INPUT_NAME: {
            0: torch.export.Dim("batch", min=1, max=MOST_RECORDS),
            2: torch.export.Dim("samples", min=FEWEST_SAMPLES, max=MOST_SAMPLES),
        }
    }
    with quiet_tools(), recurrence_as_loop():
        program = torch.export.export(
            whole, (example_signal(whole.crops.window),), dynamic_shapes=sizes
        )
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def write_torch_export(whole: WholeModel, path: Path, facts: Mapping[str, Any]) -> None:
    """A program of `torch.export`."""
    buffer = io.BytesIO()
    with quiet_tools():
        torch.export.save(
            whole_program(whole), buffer, extra_files={FACTS_FILE: _facts_json(facts)}
        )
    path.write_bytes(buffer.getvalue())


def _facts_json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False, indent=2)


# ONNX -------------------------------------------------------------------------------------------


def import_onnx() -> Any:
    """The library that writes ONNX, and what PyTorch's exporter needs beside it.

    Raises:
        ConfigError: one of them is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "ONNX files need onnx and onnxscript: pip install 'einthoven[export]'"
        ) from error
    return onnx


def write_onnx(whole: WholeModel, path: Path, facts: Mapping[str, Any]) -> None:
    """One ONNX file, weights included."""
    onnx = import_onnx()
    program = whole_program(whole)
    with quiet_tools():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            external_data=False,
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            verbose=False,
        )
    assert exported is not None
    onnx.save(tidy_onnx(exported.model_proto, facts), str(path))


def tidy_onnx(model: Any, facts: Mapping[str, Any]) -> Any:
    """Name the axes, leave out what the tools noted, and add what the model says of itself.

    Args:
        model: an ONNX ``ModelProto``; it is changed and returned.
    """
    tidy_onnx_graph(model.graph)
    for function in model.functions:
        tidy_onnx_graph(function)
    axes = {INPUT_NAME: ("batch", None, "samples")} | dict.fromkeys(OUTPUT_NAMES, ("batch", None))
    for value in (*model.graph.input, *model.graph.output):
        for size, name in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if name:
                size.dim_param = name
    used = used_domains(model.graph)
    # Quantisation lists every operator set that its runtime knows.
    for unused in [each for each in model.opset_import if each.domain not in used]:
        model.opset_import.remove(unused)
    model.doc_string = str(facts["disclaimer"])
    model.producer_name, model.producer_version = (
        "einthoven",
        str(facts["exported_with"]["einthoven"]),
    )
    del model.metadata_props[:]
    for name, text in facts_as_text(facts).items():
        model.metadata_props.add(key=name, value=text)
    return model


def used_domains(graph: Any) -> set[str]:
    """Whose operators a graph, and those within it, are made of; empty names the standard's."""
    inner = [within for node in graph.node for within in inner_graphs(node)]
    return {node.domain for node in graph.node}.union(*(used_domains(each) for each in inner))


def inner_graphs(node: Any) -> list[Any]:
    """The bodies of a loop or of a choice."""
    return [
        within
        for attribute in node.attribute
        for within in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))
    ]


def tidy_onnx_graph(graph: Any) -> None:
    """Leave out notes and inner shapes of a graph and of those within it.

    The inner shapes are guesses of the exporter, which ONNX Runtime can do without; those of a
    Fourier transform (`s4d`) it finds contradictory.
    """
    graph.doc_string = ""
    for field_name in ("metadata_props", "value_info"):
        del getattr(graph, field_name)[:]
    for value in (*graph.node, *getattr(graph, "initializer", ())):
        value.doc_string = ""
        del value.metadata_props[:]
        for inner in inner_graphs(value) if hasattr(value, "attribute") else ():
            tidy_onnx_graph(inner)


EXPORT_WRITERS = {
    "onnx": write_onnx, "torchscript": write_torchscript, "torch-export": write_torch_export,
}  # fmt: skip
