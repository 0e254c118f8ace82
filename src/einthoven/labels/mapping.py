"""The mapping table, a row per record found, and the report of what it covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from einthoven.console import format_table, plural
from einthoven.labels.codes import code_name
from einthoven.labels.sets import LabelSet, MappedCodes, reduce_to_single
from einthoven.records import RecordInfo

MAPPING_COLUMNS = (
    "archive", "record_id", "patient_id", "codes", "labels", "labels_mapped", "label_quality",
    "age", "sex", "device", "site", "fold", "reader", "folder", "path", "problem",
)  # fmt: skip

MappingRow = dict[str, str]

# Rows --------------------------------------------------------------------------------------------


def mapping_rows(
    infos: Iterable[RecordInfo], reader: str, folder: str, label_set: LabelSet, single: bool
) -> list[MappingRow]:
    """A row per record of one archive, every value as the CSV has it.

    Args:
        infos: what `index_archive` lists; their ids are unique.
        reader: the archive's reader.
        folder: the archive's folder relative to the data folder, with forward slashes.
        single: a record has one label at most.
    """
    mapped: dict[tuple[str, ...], MappedCodes] = {}
    rows = []
    for info in infos:
        # Many records share their codes.
        codes = tuple(info.codes)
        if codes not in mapped:
            mapped[codes] = map_record_codes(codes, label_set, single)
        rows.append(_mapping_row(info, mapped[codes]) | {"reader": reader, "folder": folder})
    return rows


def map_record_codes(codes: Sequence[str], label_set: LabelSet, single: bool) -> MappedCodes:
    """What a record's codes mean, with one label at most for a single-label task.

    A record whose labels such a task cannot choose from is unlabelled, of quality
    ``several_labels``.
    """
    mapped = label_set.map_codes(codes)
    if not single or len(mapped.labels) < 2:
        return mapped
    label = reduce_to_single(mapped.labels, label_set)
    if label is None:
        return MappedCodes((), "several_labels", mapped.unmapped)
    return MappedCodes((label,), mapped.quality, mapped.unmapped)


def _mapping_row(info: RecordInfo, mapped: MappedCodes) -> MappingRow:
    labels = ";".join(mapped.labels)
    return {
        "archive": info.archive,
        "record_id": info.record_id,
        "patient_id": _one_line(info.patient_id),
        "codes": ";".join(_one_line(code).replace(";", ",") for code in info.codes),
        "labels": labels,
        "labels_mapped": labels,
        "label_quality": mapped.quality,
        "age": "" if info.age is None else f"{info.age:g}",
        "sex": info.sex,
        "device": _one_line(info.device),
        "site": _one_line(info.site),
        "fold": "" if info.fold is None else str(info.fold),
        "path": info.path,
        "problem": _one_line(info.problem),
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


# Coverage ----------------------------------------------------------------------------------------

# More of them become a table of their own.
LABELS_IN_A_LINE = 6

RECORD_COUNTS = ("found", "labelled", "unlabelled", "edited", "problems")


def coverage(mapping: pd.DataFrame, label_set: LabelSet) -> pd.DataFrame:
    """What the mapping covers, in long form.

    Returns:
        Columns archive, kind, name, count. The kinds: ``records`` (found = labelled + unlabelled;
        edited by a person; with a problem), ``label``, ``quality`` and ``unmapped code``, the codes
        that the label set knows nothing of, by how many records have them.
    """
    rows: list[tuple[str, str, str, int]] = []
    for archive, part in mapping.groupby("archive", sort=True):
        name = str(archive)
        rows += [(name, "records", what, n) for what, n in _record_counts(part).items()]
        counts = Counter(label for text in part["labels"] for label in split_labels(text))
        rows += [(name, "label", label, counts[label]) for label in label_set.labels]
        qualities = Counter(part.loc[part["label_quality"] != "", "label_quality"])
        rows += [(name, "quality", quality, n) for quality, n in sorted(qualities.items())]
        unmapped = _unmapped_codes(part["codes"], label_set)
        rows += [(name, "unmapped code", code, n) for code, n in unmapped.most_common()]
    return pd.DataFrame(rows, columns=["archive", "kind", "name", "count"])


def split_labels(text: str) -> tuple[str, ...]:
    """The labels of a cell.

    >>> split_labels("MI; AF"), split_labels("")
    (('MI', 'AF'), ())
    """
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _record_counts(part: pd.DataFrame) -> dict[str, int]:
    labelled = int((part["labels"] != "").sum())
    counts = (
        len(part),
        labelled,
        len(part) - labelled,
        int((part["labels"] != part["labels_mapped"]).sum()),
        int((part["problem"] != "").sum()),
    )
    return dict(zip(RECORD_COUNTS, counts, strict=True))


def _unmapped_codes(cells: pd.Series[str], label_set: LabelSet) -> Counter[str]:
    unmapped: Counter[str] = Counter()
    for text, n_records in Counter(cells).items():
        for code in label_set.map_codes(split_labels(text)).unmapped:
            unmapped[code.partition("=")[0] if code.startswith("scp:") else code] += n_records
    return unmapped


def format_coverage(report: pd.DataFrame, most_codes: int = 15) -> str:
    """What the report of `coverage` says besides counts by archive, as plain text.

    Labels that are too many for `labels_in_a_line`, labels that no record has, qualities, and the
    codes not mapped; empty where there is nothing to say.
    """
    archives = list(dict.fromkeys(report["archive"]))
    parts = []
    labels = report[report["kind"] == "label"]
    totals = labels.groupby("name", sort=False)["count"].sum()
    met = list(totals.index[totals > 0])
    if len(met) > LABELS_IN_A_LINE:
        # Whichever there are more of goes down the page.
        by_archive = len(met) < len(archives)
        header = ["archive", *met] if by_archive else ["label", *archives]
        parts.append(_count_table(labels[labels["name"].isin(met)], "label", header, by_archive))
    if (totals == 0).any():
        parts.append("no record has: " + ", ".join(totals.index[totals == 0]))
    parts += _quality_lines(report)
    codes = report[report["kind"] == "unmapped code"].sort_values("count", ascending=False)
    if len(codes):
        parts.append(_code_table(codes, most_codes))
    return "\n\n".join(parts)


def labels_in_a_line(cells: Iterable[str], labels: Sequence[str]) -> str:
    """How many records have each label, in the set's order; of many labels only how many there are.

    >>> labels_in_a_line(["AF", "MI", "AF", ""], ["MI", "AF", "NORM"])
    'MI 1, AF 2'
    """
    counts = Counter(label for text in cells for label in split_labels(text))
    met = [label for label in labels if counts[label]]
    if len(met) > LABELS_IN_A_LINE:
        return f"{len(met)} of {len(labels)}, below"
    return ", ".join(f"{label} {counts[label]:,}" for label in met) or "none"


def _count_table(report: pd.DataFrame, kind: str, header: Sequence[str], by_archive: bool) -> str:
    part = report[report["kind"] == kind]
    rows, columns = ("archive", "name") if by_archive else ("name", "archive")
    counts = {
        (str(row), str(column)): int(n)
        for row, column, n in zip(part[rows], part[columns], part["count"], strict=True)
    }
    names = dict.fromkeys(str(row) for row in part[rows])
    return format_table(
        header, [[name, *(counts.get((name, c), 0) for c in header[1:])] for name in names]
    )


def _quality_lines(report: pd.DataFrame) -> list[str]:
    part = report[report["kind"] == "quality"]
    return [
        f"{archive}: {plural(int(n), 'record')} of label quality {name}"
        for archive, name, n in zip(part["archive"], part["name"], part["count"], strict=True)
    ]


def _code_table(codes: pd.DataFrame, most_codes: int) -> str:
    shown = codes.head(most_codes)
    table = format_table(
        ["code not mapped", "meaning", "archive", "records"],
        [
            [code, code_name(code) or "in no table of ours", archive, int(n)]
            for code, archive, n in zip(
                shown["name"], shown["archive"], shown["count"], strict=True
            )
        ],
    )
    hidden = len(codes) - len(shown)
    return table + (f"\nand {plural(hidden, 'code')} more, in label_coverage.csv" if hidden else "")
