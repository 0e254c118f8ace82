"""From an attribution to who carries it: leads, beats, and the pieces that matter most.

A share is a part of the attribution's summed size, whatever its sign: noise of both signs does not
cancel, and shares add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einthoven.records import LEADS

SEGMENT_S = 0.2
LEADING_SEGMENTS = 8


@dataclass(frozen=True)
class CarriedShare:
    """A part of what carries an answer.

    Attributes:
        share: of the attribution's summed size, 0 to 1.
        share_for: the part of it that speaks for the label; the rest speaks against it.
    """

    share: float
    share_for: float

    def values(self) -> dict[str, Any]:
        """Plain values, ready to be written as JSON."""
        return {
            "share": round(self.share, 5),
            "for": round(self.share_for, 5),
            "against": round(self.share - self.share_for, 5),
        }


@dataclass(frozen=True)
class BeatShare:
    """A heartbeat and its share; times are seconds from the recording's start."""

    number: int
    start_s: float
    peak_s: float
    stop_s: float
    carried: CarriedShare

    def values(self) -> dict[str, Any]:
        """Plain values, ready to be written as JSON."""
        times = {"start_s": self.start_s, "peak_s": self.peak_s, "stop_s": self.stop_s}
        rounded = {name: round(value, 3) for name, value in times.items()}
        return {"number": self.number, **rounded, **self.carried.values()}


@dataclass(frozen=True)
class SegmentShare:
    """A piece of a lead that carries much; ``lead`` is None where the method knows no leads, and
    ``beat`` the number of the beat in which its middle lies, None where no beats were found.
    """

    lead: str | None
    start_s: float
    stop_s: float
    beat: int | None
    carried: CarriedShare

    def values(self) -> dict[str, Any]:
        """Plain values, ready to be written as JSON."""
        return {
            "lead": self.lead,
            "start_s": round(self.start_s, 3),
            "stop_s": round(self.stop_s, 3),
            "beat": self.beat,
            **self.carried.values(),
        }


def carried_share(part: np.ndarray, total_size: float) -> CarriedShare:
    """The share of a part of an attribution, of which the summed size is ``total_size``.

    >>> carried_share(np.array([0.3, -0.1]), 0.8)
    CarriedShare(share=0.5, share_for=0.37...)
    """
    if total_size == 0:
        return CarriedShare(0.0, 0.0)
    part = part.astype(np.float64)
    speaks_for = float(part.clip(min=0).sum()) / total_size
    return CarriedShare(float(np.abs(part).sum()) / total_size, speaks_for)


def lead_shares(attribution: np.ndarray) -> dict[str, CarriedShare]:
    """The share of each of the twelve leads; absent ones have next to none."""
    size = summed_size(attribution)
    return {lead: carried_share(row, size) for lead, row in zip(LEADS, attribution, strict=True)}


def beat_shares(
    attribution: np.ndarray, fs: float, beats: np.ndarray, bounds: np.ndarray
) -> tuple[BeatShare, ...]:
    """The share of each beat, over all leads.

    Args:
        attribution: ``(12, sample)``.
        fs: hertz.
        beats: of `find_beats`.
        bounds: of `beat_bounds`.
    """
    size = summed_size(attribution)
    return tuple(
        BeatShare(
            number,
            start / fs,
            peak / fs,
            stop / fs,
            carried_share(attribution[:, start:stop], size),
        )
        for number, (start, peak, stop) in enumerate(
            zip(bounds[:-1].tolist(), beats.tolist(), bounds[1:].tolist(), strict=True), 1
        )
    )


def summed_size(attribution: np.ndarray) -> float:
    """What shares are shares of."""
    return float(np.abs(attribution).sum(dtype=np.float64))


def leading_segments(
    attribution: np.ndarray, fs: float, beats: Sequence[BeatShare], tells_leads: bool
) -> tuple[SegmentShare, ...]:
    """The pieces of 0.2 s that carry most, no two of a lead overlapping, the largest first.

    Args:
        attribution: ``(12, sample)``.
        fs: hertz.
        beats: of `beat_shares`.
        tells_leads: False takes all leads together.
    """
    rows = attribution if tells_leads else attribution.sum(axis=0, keepdims=True)
    size = summed_size(attribution)
    width = min(rows.shape[1], max(1, round(SEGMENT_S * fs)))
    cumulated = np.pad(np.abs(rows).cumsum(axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    carried = cumulated[:, width:] - cumulated[:, :-width]
    segments = []
    for _ in range(LEADING_SEGMENTS):
        row, start = divmod(int(carried.argmax()), carried.shape[1])
        if size == 0 or carried[row, start] <= 0:
            break
        stop = start + width
        segments.append(
            SegmentShare(
                LEADS[row] if tells_leads else None,
                start / fs,
                stop / fs,
                _beat_at((start + width / 2) / fs, beats),
                carried_share(rows[row, start:stop], size),
            )
        )
        carried[row, max(0, start - width + 1) : stop] = 0
    return tuple(segments)


def _beat_at(moment_s: float, beats: Sequence[BeatShare]) -> int | None:
    inside = [beat.number for beat in beats if beat.start_s <= moment_s < beat.stop_s]
    return inside[0] if inside else None


# In words ----------------------------------------------------------------------------------------

MOST_NAMED = 3


def name_leads(leads: dict[str, CarriedShare], n_present: int) -> str:
    """The leads that carry most, and what each would carry if all carried alike.

    >>> shares = {"I": CarriedShare(0.1, 0.1), "V1": CarriedShare(0.9, 0.5)}
    >>> name_leads(shares, 2)
    'V1 90%, I 10% (50% each if all carried alike)'
    """
    ranked = sorted(leads, key=lambda lead: -leads[lead].share)[:MOST_NAMED]
    named = [f"{lead} {leads[lead].share:.0%}" for lead in ranked if leads[lead].share >= 0.005]
    even = f"({1 / n_present:.0%} each if all carried alike)"
    return f"{', '.join(named)} {even}"


def name_beats(beats: Sequence[BeatShare]) -> str:
    """The beats that carry most, with their times.

    >>> name_beats([BeatShare(1, 0.0, 0.5, 1.0, CarriedShare(1.0, 1.0))])
    'beat 1 (0.5 s) 100% (100% each if all carried alike)'
    """
    if not beats:
        return "no heartbeats were found"
    ranked = sorted(beats, key=lambda beat: -beat.carried.share)[:MOST_NAMED]
    named = [
        f"beat {beat.number} ({beat.peak_s:.1f} s) {beat.carried.share:.0%}" for beat in ranked
    ]
    even = f"({1 / len(beats):.0%} each if all carried alike)"
    return f"{', '.join(named)} {even}"
