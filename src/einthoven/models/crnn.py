"""Convolutions that see waves, and a recurrent layer that sees the rhythm.

Zihlmann, Perekrestenko and Tschannen, "Convolutional recurrent neural networks for
electrocardiogram classification" (CinC 2017, arXiv:1710.06122), with a bidirectional gated
recurrent unit (Cho et al., EMNLP 2014, arXiv:1406.1078) in place of their LSTM and the attention of
`AttentionPool1d` in place of the mean over time.

`crnn`: 428,293 parameters, 31.8 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from einthoven.models.se_resnet1d import AttentionPool1d

# Shape suffixes: B batch, L lead, S sample, F feature, C class.


@contextlib.contextmanager
def recurrence_as_loop() -> Iterator[None]:
    """Within it `torch.export`, and so ONNX, takes recurrent layers for loops over any length.

    Otherwise it unrolls them over the length that it is shown, as versions of torch that have no
    such loops yet do in any case. A program exported so has no gradient.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Of the list in which nn.GRU keeps its weights a second time.
        warnings.filterwarnings("ignore", ".*_flat_weights")
        warnings.filterwarnings("ignore", "_check_is_size", FutureWarning)
        with contextlib.suppress(ImportError):
            from torch.export._patches import register_gru_while_loop_decomposition

            stack.enter_context(register_gru_while_loop_decomposition())
            stack.enter_context(torch.no_grad())
        yield


class Crnn(nn.Module):
    """Strided convolutions, a recurrent layer in both directions, attention and a linear head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        widths: features of each convolution; each halves the length.
        kernel_size: odd length of the convolutions, in samples.
        n_hidden: state of the recurrent layer, in each direction.
        dropout: share of features dropped before the recurrent layer and the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        widths: tuple[int, ...] = (64, 128, 192),
        kernel_size: int = 7,
        n_hidden: int = 96,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.convolutions = nn.Sequential()
        n_in = n_leads
        for n_out in widths:
            self.convolutions.extend(
                [
                    nn.Conv1d(n_in, n_out, kernel_size, 2, kernel_size // 2, bias=False),
                    nn.BatchNorm1d(n_out),
                    nn.ReLU(),
                ]
            )
            n_in = n_out
        self.dropout = nn.Dropout(dropout)
        self.recurrence = nn.GRU(n_in, n_hidden, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(
            AttentionPool1d(2 * n_hidden), nn.Dropout(dropout), nn.Linear(2 * n_hidden, n_classes)
        )

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        h_BFS = self.dropout(self.convolutions(x_BLS))
        h_BSF, _ = self.recurrence(h_BFS.transpose(1, 2))
        logits_BC: torch.Tensor = self.head(h_BSF.transpose(1, 2))
        return logits_BC
