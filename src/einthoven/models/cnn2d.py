"""A convolutional network that takes the signal for a picture.

Reshaped to one channel of leads × samples, a recording goes through small two-dimensional kernels,
as pictures of ECGs do in Jun et al., "ECG arrhythmia classification using a 2-D convolutional
neural network" (arXiv:1804.06812); blocks are those of Simonyan and Zisserman, "Very deep
convolutional networks" (ICLR 2015, arXiv:1409.1556), with batch norm.

What it can see: shapes over time, and how they change from a lead to the next, with the same
kernels for all leads; V1 to V6 lie beside each other on the chest, so their order means something.
What it cannot see until its last layer, where all leads meet: anything between leads that are not
neighbours in the list, and which lead it looks at. Neighbours such as aVF and V1 are chance.

`cnn2d`: 154,677 parameters, 56.6 MFLOPs (12 leads, 250 samples, 5 classes).
"""

from __future__ import annotations

import torch
from torch import nn

from einthoven.models.resnet1d import pooled_head

# Shape suffixes: B batch, L lead, S sample, F feature, C class.


def conv_block2d(n_in: int, n_out: int) -> nn.Sequential:
    """A convolution over 3 leads and 7 samples that halves the length and keeps the leads."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, (3, 7), (1, 2), (1, 3), bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


class Cnn2d(nn.Module):
    """Two-dimensional convolutions, one that joins the leads, and a pooled head.

    Args:
        n_leads: rows of the input.
        n_classes: logits of the output.
        widths: features of each convolution; each halves the length.
        n_joined: features once the leads are joined.
        dropout: share of pooled features dropped before the head, in training.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        widths: tuple[int, ...] = (16, 32, 64),
        n_joined: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        pairs = zip((1, *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(conv_block2d(n_in, n_out) for n_in, n_out in pairs))
        self.join = nn.Sequential(
            nn.Conv2d(widths[-1], n_joined, (n_leads, 1), bias=False),
            nn.BatchNorm2d(n_joined),
            nn.ReLU(),
        )
        self.head = pooled_head(n_joined, n_classes, dropout)

    def forward(self, x_BLS: torch.Tensor) -> torch.Tensor:
        h_BFLS = self.blocks(x_BLS[:, None])
        h_BFS = self.join(h_BFLS).squeeze(2)
        logits_BC: torch.Tensor = self.head(h_BFS)
        return logits_BC
