"""What the steps of an epoch add up to, and what is done about steps that had to be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from einthoven.errors import DataError

MAX_SKIPPED_IN_A_ROW = 10


@dataclass
class EpochTally:
    """Sums over the steps of the epoch in hand; plain numbers, so that a checkpoint keeps them.

    They grow step by step in one order, so that an epoch in two halves gives the same bits.

    Attributes:
        n_records, loss, n_right, norm, n_steps: over the steps that were taken.
        n_skipped: steps that were left out because their gradient was not finite.
        n_skipped_in_a_row: of these, how many came last; goes on over the end of an epoch.
        seconds: spent on this epoch, over all the times that it was gone on with.
    """

    n_records: int = 0
    loss: float = 0.0
    n_right: float = 0.0
    norm: float = 0.0
    n_steps: int = 0
    n_skipped: int = 0
    n_skipped_in_a_row: int = 0
    seconds: float = 0.0

    def add(self, figures: Sequence[float], n_records: int) -> None:
        """Add a step's loss, right answers, gradient norm, and whether it was left out."""
        loss, n_right, norm, is_skipped = figures
        if is_skipped:
            self.n_skipped += 1
            self.n_skipped_in_a_row += 1
            return
        self.n_skipped_in_a_row = 0
        self.n_records += n_records
        self.loss += loss
        self.n_right += n_right
        self.norm += norm
        self.n_steps += 1

    @property
    def mean_loss(self) -> float:
        """Per record; no number where no step was taken."""
        return self.loss / self.n_records if self.n_records else float("nan")

    def row(self) -> dict[str, Any]:
        """Its part of the history row."""
        nothing = float("nan")
        return {
            "train_loss": self.mean_loss,
            "train_accuracy": self.n_right / self.n_records if self.n_records else nothing,
            "gradient_norm": self.norm / self.n_steps if self.n_steps else nothing,
            "skipped_steps": self.n_skipped,
            "seconds": self.seconds,
            "records_per_s": self.n_records / self.seconds if self.seconds else nothing,
        }

    def values(self) -> dict[str, Any]:
        """Plain values, from which the constructor makes it again."""
        return asdict(self)

    def next_epoch(self) -> EpochTally:
        """An empty one, which remembers only an unbroken row of steps that were left out."""
        return EpochTally(n_skipped_in_a_row=self.n_skipped_in_a_row)


def diverged_error(lr: float, epoch: int, written_to: str) -> DataError:
    """What to say when no step can be taken any more."""
    return DataError(
        f"loss or gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row of epoch "
        f"{epoch}; their records are listed in {written_to}. Lower LR (now {lr}) or set CLIP_NORM, "
        "and look for extreme values among these records; the last save is from before, so another "
        "--run-name or --fresh starts anew"
    )
