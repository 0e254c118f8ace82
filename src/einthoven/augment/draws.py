"""Chance by counting: numbers that depend on seed, epoch and record, never on what ran before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from einthoven.settings import AUGMENTATION_NAMES

# Of each record and augmentation: the first decides whether, the others how.
UNIFORMS_PER_AUGMENTATION = 16
_GOLDEN_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Draws:
    """Uniform numbers that depend on seed, epoch and record alone.

    Attributes:
        records: ``(B,)`` a number per record that no other record of the split has.
    """

    seed: int
    epoch: int
    records: np.ndarray

    def table(self, names: tuple[str, ...]) -> np.ndarray:
        """``(B, len(names), 16)`` float32 in [0, 1); a name's numbers do not depend on the others.

        >>> Draws(0, 1, np.array([7, 7, 8])).table(("mixup",))[:, 0, 0].round(3)
        array([0.792, 0.792, 0.67 ], dtype=float32)
        """
        first = np.array([AUGMENTATION_NAMES.index(name) for name in names], np.uint64)
        columns = first[:, None] * np.uint64(UNIFORMS_PER_AUGMENTATION) + np.arange(
            UNIFORMS_PER_AUGMENTATION, dtype=np.uint64
        )
        state = np.zeros((1, 1, 1), np.uint64)
        for value in (self.seed, self.epoch, self.records[:, None, None], columns):
            state = _next_state(state, np.atleast_1d(value).astype(np.uint64))
        return (state >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _next_state(state: np.ndarray, value: np.ndarray) -> np.ndarray:
    """SplitMix64, ``value`` steps on: Steele, Lea and Flood, OOPSLA 2014."""
    z = state + (value + np.uint64(1)) * _GOLDEN_STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
