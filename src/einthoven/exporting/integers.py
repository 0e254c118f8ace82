"""8-bit integers in an exported model's convolutions and matrix products.

Static quantisation: the range of every activation is settled beforehand, on signals that are run
through the model, and weights get a scale for each output channel. What comes before and after the
network, where a microvolt and the last digits of a probability count, stays as it is.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import ConfigError
from einthoven.exporting.formats import import_onnx, tidy_onnx
from einthoven.exporting.graph import INPUT_NAME

QUANTIZED_OPERATIONS = ("Conv", "Gemm", "MatMul")
# Records that go through the model together while ranges are settled.
RECORDS_PER_RANGE_PASS = 8


class SignalReader:
    """Hands batches of signals to ONNX Runtime's calibration, by the methods it asks for."""

    def __init__(self, signals: Sequence[np.ndarray]) -> None:
        by_length: dict[int, list[np.ndarray]] = {}
        for signal in signals:
            by_length.setdefault(signal.shape[1], []).append(np.asarray(signal, np.float32))
        self.batches = [
            np.stack(alike[first : first + RECORDS_PER_RANGE_PASS])
            for alike in by_length.values()
            for first in range(0, len(alike), RECORDS_PER_RANGE_PASS)
        ]
        self.rewind()

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.waiting, None)
        return None if batch is None else {INPUT_NAME: batch}

    def rewind(self) -> None:
        self.waiting = iter(self.batches)


def quantize_onnx(path: Path, signals: Sequence[np.ndarray], facts: Mapping[str, Any]) -> None:
    """Turn an exported ONNX file into one with 8-bit integers, in place.

    Args:
        path: of a float32 export.
        signals: ``(12, sample)`` millivolts each, on which ranges are settled.
        facts: what the new file says of itself.

    Raises:
        ConfigError: the network has nothing that can be quantised, or a library is not installed.
    """
    onnx = import_onnx()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            fused, small = Path(folder) / "fused.onnx", Path(folder) / "int8.onnx"
            # Norms become part of the convolutions before these lose digits.
            quant_pre_process(str(path), str(fused), skip_symbolic_shape=True)
            names = network_operations(onnx.load(str(fused)).graph)
            quantize_static(
                str(fused),
                str(small),
                SignalReader(signals),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=names,
                op_types_to_quantize=list(QUANTIZED_OPERATIONS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            onnx.save(tidy_onnx(onnx.load(str(small)), facts), str(path))
        finally:
            logging.disable(logging.NOTSET)


def network_operations(graph: Any) -> list[str]:
    """The names of the operations of the network that have stored weights.

    Raises:
        ConfigError: there is none.
    """
    stored = {weights.name for weights in graph.initializer}
    names = [
        node.name
        for node in graph.node
        if node.op_type in QUANTIZED_OPERATIONS
        and node.input[1] in stored
        and not node.input[1].startswith("filter.")
    ]
    if not names:
        raise ConfigError("this network has no convolution or matrix product for int8")
    return names
