"""Patient groups in the order in which they are dealt: rarest label first, like to like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from einthoven.columns import number_few, number_lists, row_pieces, taken

# Labels whose bits fit into one number beside the number of those before.
LABELS_AT_A_TIME = 31


def group_table(manifest: pd.DataFrame, group: np.ndarray, n_groups: int) -> pd.DataFrame:
    """One row per group: its home archive, its labels as one string, its number of records.

    The labels of duplicates count too: they say of the same patient what another archive says.
    """
    # First, because it takes most memory while it is made.
    labels = _labels_of_groups(manifest["labels"].to_numpy(), group, n_groups)
    archive, archives = number_few(manifest["archive"])
    is_copy = (manifest["duplicate_of"] != "").to_numpy(bool)
    home = np.zeros(n_groups, archive.dtype)
    # What is written last stands: the first canonical record, else the first copy.
    for wanted in (True, False):
        for piece in reversed(list(row_pieces(len(group)))):
            rows = np.flatnonzero(is_copy[piece] == wanted)[::-1] + piece.start
            home[group[rows]] = archive[rows]
    n_records = np.zeros(n_groups, np.int32)
    for piece in row_pieces(len(group)):
        np.add.at(n_records, group[piece], 1)
    return pd.DataFrame(
        {
            "archive": _sorted_category(home, archives),
            "labels": labels,
            "n_records": n_records,
        },
        copy=False,
    )


def _sorted_category(numbers: np.ndarray, texts: Sequence[str]) -> pd.Categorical:
    """Numbered strings as a column that sorts as they do."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    codes = taken(place, numbers, np.min_scalar_type(-max(len(order), 1)))
    categories = pd.Index([texts[at] for at in order], dtype=object)
    return pd.Categorical.from_codes(codes, categories, ordered=True)


def _labels_of_groups(lists: np.ndarray, group: np.ndarray, n_groups: int) -> pd.Categorical:
    """All labels of each group's records, sorted, with semicolons between."""
    number_of_list, distinct = number_lists(lists)
    names = sorted({name for listed in distinct for name in listed})
    number = np.zeros(n_groups, np.uint64)
    unions: list[tuple[str, ...]] = [()]
    for first in range(0, len(names), LABELS_AT_A_TIME):
        part = names[first : first + LABELS_AT_A_TIME]
        bits = [sum(1 << at for at, name in enumerate(part) if name in of) for of in distinct]
        number <<= np.uint64(LABELS_AT_A_TIME)
        for piece in row_pieces(len(group)):
            mine = np.array(bits, np.uint64)[number_of_list[piece]]
            np.bitwise_or.at(number, group[piece], mine)
        values = _distinct_values(number)
        unions = [
            unions[value >> LABELS_AT_A_TIME]
            + tuple(name for at, name in enumerate(part) if value >> at & 1)
            for value in values.tolist()
        ]
        for piece in row_pieces(n_groups):
            number[piece] = np.searchsorted(values, number[piece])
    del number_of_list
    return _sorted_category(number, [";".join(union) for union in unions])


def _distinct_values(values: np.ndarray) -> np.ndarray:
    distinct = values[:0]
    for piece in row_pieces(len(values)):
        distinct = np.union1d(distinct, values[piece])
    return distinct


def dealing_order(groups: pd.DataFrame) -> np.ndarray:
    """Group numbers of one archive: rarest label first, like next to like."""
    labels = groups["labels"].astype("category")
    texts, codes = list(labels.cat.categories), labels.cat.codes.to_numpy()
    split = [text.split(";") if text else [] for text in texts]
    n_of_text = np.bincount(codes, minlength=len(texts)).tolist()
    counts: Counter[str] = Counter()
    for names, n in zip(split, n_of_text, strict=True):
        counts.update(dict.fromkeys(names, n))
    rank = {name: at for at, name in enumerate(sorted(counts, key=lambda n: (counts[n], n)))}
    rarest = [min((rank[name] for name in names), default=len(rank)) for names in split]
    place = np.empty(len(texts), np.int32)
    place[sorted(range(len(texts)), key=lambda at: (rarest[at], texts[at]))] = range(len(texts))
    keys = (groups["order"].to_numpy(), -groups["n_records"].to_numpy(), place[codes])
    return np.asarray(groups.index.to_numpy()[np.lexsort(keys)], np.int64)
