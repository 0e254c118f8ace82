"""Which kinds of recording the synthetic archives hold, and how each archive words them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ArchiveClass:
    """One kind of recording.

    Attributes:
        kind: what `synthesize` takes.
        share: of the records of the PTB-XL and Chapman archives, relative to the other classes.
        scp: PTB-XL's statements with their likelihoods.
        snomed: Chapman's ``#Dx``, rhythm first.
        letter: Challenge 2017's class; empty for one that a single lead cannot show.
        mean_age: years.
    """

    kind: str
    share: float
    scp: dict[str, float] = field(default_factory=dict)
    snomed: str = "426783006"
    letter: str = "O"
    mean_age: float = 64.0


_SINUS, _BRADYCARDIA, _TACHYCARDIA = "426783006", "426177001", "427084000"
_AFIB, _INFARCT = "164889003", "426783006,164865005"

# Likelihood 0 means "not stated" in PTB-XL; its rhythm and form statements mostly have it.
ARCHIVE_CLASSES = (
    ArchiveClass("sinus", 24, {"NORM": 100, "SR": 0}, _SINUS, "N", 50),
    ArchiveClass("bradycardia", 4, {"NORM": 80, "SBRAD": 0}, _BRADYCARDIA, "O", 50),
    ArchiveClass("tachycardia", 4, {"NORM": 80, "STACH": 0}, _TACHYCARDIA, "O", 48),
    ArchiveClass("mi_inferior_old", 7, {"IMI": 50, "ABQRS": 0, "SR": 0}, _INFARCT, ""),
    ArchiveClass("mi_inferior_acute", 4, {"IMI": 100, "STE_": 0, "SR": 0}, _INFARCT, ""),
    ArchiveClass("mi_anterior_old", 7, {"ASMI": 100, "QWAVE": 0, "SR": 0}, _INFARCT, ""),
    ArchiveClass("mi_anterior_acute", 4, {"AMI": 100, "STE_": 0, "SR": 0}, _INFARCT, ""),
    ArchiveClass("mi_lateral_old", 2.5, {"LMI": 50, "QWAVE": 0, "SR": 0}, _INFARCT, ""),
    ArchiveClass("mi_lateral_acute", 2, {"ALMI": 100, "STE_": 0, "SR": 0}, _INFARCT, ""),
    ArchiveClass("afib", 7, {"AFIB": 0}, _AFIB, "A", 72),
    ArchiveClass("afib+lvh", 2, {"LVH": 100, "AFIB": 0}, f"{_AFIB},164873001", "A", 74),
    ArchiveClass("afib+t_inversion", 2, {"NDT": 100, "AFIB": 0}, f"{_AFIB},59931005", "A", 73),
    ArchiveClass("flutter", 3, {"AFLT": 100}, "164890007", "O", 70),
    ArchiveClass("lbbb", 6, {"CLBBB": 100, "SR": 0}, f"{_SINUS},164909002", "O", 70),
    ArchiveClass("lbbb+av_block_1", 1, {"CLBBB": 100, "1AVB": 100, "SR": 0},
                 f"{_SINUS},164909002,270492004", "O", 74),
    ArchiveClass("rbbb", 6, {"CRBBB": 100, "SR": 0}, f"{_SINUS},59118001", "O", 66),
    ArchiveClass("rbbb+mi_inferior_old", 1, {"IMI": 100, "CRBBB": 100, "SR": 0},
                 f"{_INFARCT},59118001", ""),
    ArchiveClass("irbbb", 3, {"IRBBB": 100, "SR": 0}, f"{_SINUS},59118001", "", 45),
    ArchiveClass("av_block_1", 3, {"1AVB": 100, "SR": 0}, f"{_SINUS},270492004", "O", 68),
    ArchiveClass("lvh", 7, {"LVH": 100, "VCLVH": 0, "SR": 0}, f"{_SINUS},164873001", ""),
    ArchiveClass("st_depression", 4, {"ISC_": 100, "STD_": 0, "SR": 0}, f"{_SINUS},429622005", ""),
    ArchiveClass("t_inversion", 5, {"NDT": 100, "INVT": 0, "SR": 0}, f"{_SINUS},59931005", ""),
    ArchiveClass("pvc", 3, {"PVC": 100, "SR": 0}, f"{_SINUS},17338001", "O"),
    ArchiveClass("pac", 3, {"NORM": 50, "PAC": 0, "SR": 0}, f"{_SINUS},284470004", "O"),
)  # fmt: skip


def deal_classes(count: int, rng: np.random.Generator) -> list[ArchiveClass]:
    """``count`` classes in mixed order, in numbers as near to their shares as can be."""
    shares = np.array([each.share for each in ARCHIVE_CLASSES])
    # The largest remainder: shares of a small archive are kept as well as those of a large one.
    wanted = count * shares / shares.sum()
    numbers = np.floor(wanted).astype(int)
    for index in np.argsort(numbers - wanted, kind="stable")[: count - numbers.sum()]:
        numbers[index] += 1
    dealt = [each for each, n in zip(ARCHIVE_CLASSES, numbers, strict=True) for _ in range(n)]
    return [dealt[index] for index in rng.permutation(count)]
