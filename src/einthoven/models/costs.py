"""What a model costs: its parameters, and the floating-point operations of one pass.

A multiplication and an addition are two operations. Counted are convolutions, matrix products (a
recurrent layer's at every step too), attention and Fourier transforms, for one record forwards;
backwards costs about twice as much. Not counted is what works element by element: norms,
activations, pooling, and the exponentials and sines of `einthoven.models.s4d`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Numbers that training fits.

    >>> count_parameters(nn.Conv1d(12, 64, 7))
    5440
    """
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_flops(model: nn.Module, n_leads: int, n_samples: int) -> int:
    """Floating-point operations of a forward pass of one record ``(1, L, S)``.

    The model is left in the mode, training or evaluation, in which it was met.

    >>> count_flops(nn.Conv1d(12, 64, 7), n_leads=12, n_samples=256) == 2 * 250 * 12 * 64 * 7
    True
    """
    was_training = model.training
    device = next(model.parameters()).device
    with FlopCounterMode(display=False, custom_mapping=NOT_COUNTED_BY_TORCH) as counter:
        model.eval()(torch.zeros(1, n_leads, n_samples, device=device))
    model.train(was_training)
    return int(counter.get_total_flops())


def spectrum_flops(x: torch.Size, *_: Any, out_shape: torch.Size, **__: Any) -> int:
    """Of transforms of n real numbers, or back to them: 2.5 n log2 n operations each.

    Half of what is usually counted for n complex ones (https://www.fftw.org/speed/method.html).

    Args:
        x, out_shape: shapes before and after; the real side is the longer one.
    """
    n_real = max(math.prod(x), math.prod(out_shape))
    n = max(x[-1], out_shape[-1])
    return round(2.5 * n_real * math.log2(n))


def attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    """Of scores and weighted sums; shapes ``(B, H, S, F)``."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


NOT_COUNTED_BY_TORCH = {
    torch.ops.aten._fft_r2c: spectrum_flops,
    torch.ops.aten._fft_c2r: spectrum_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
}
