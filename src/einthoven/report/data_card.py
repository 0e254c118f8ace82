"""What a report says of the data: archives, labels, rejections, splits, patients, quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from einthoven.console import plural
from einthoven.records import LEADS
from einthoven.report.parts import ReportTable, listed
from einthoven.report.run_files import RunFiles
from einthoven.runs import MODE_RECORDS

SPLIT_WORDS = {"train": "train", "val": "validation", "test": "test"}

QUALITY_MEANINGS = {
    "flat_lead": "a lead that holds a constant for most of the record",
    "clipped": "2 % of samples or more at a lead's own extreme",
    "lead_law": "limb leads that contradict I + III = II or Goldberger's laws by 0.05 mV or more",
    "missing": "samples without a value, filled",
}

_AUDIT_TITLES = {
    "n_records": "records compared",
    "n_pairs": "pairs with the same recording",
    "n_duplicates": "duplicates, left out",
    "n_groups": "patient groups",
    "n_unlabelled": "records without a label, left out",
    "pairs": "first pair",
}


def store_sentence(files: RunFiles) -> str:
    """How records are stored."""
    if files.manifest is None:
        return ""
    attributes = files.manifest.attrs
    n, patients = len(files.manifest), files.manifest["patient_group"].nunique()
    text = f"{plural(n, 'record')} of {plural(patients, 'patient')} stored"
    if attributes.get("target_fs") and attributes.get("target_samples"):
        seconds = attributes["target_samples"] / attributes["target_fs"]
        text += f" at {attributes['target_fs']} Hz in windows of {seconds:g} s"
    rates = files.manifest["fs"].value_counts().head(4)
    recorded = ", ".join(f"{float(str(rate)):g} Hz ({count:,})" for rate, count in rates.items())
    return f"{text}; recorded at {recorded}."


def archive_table(files: RunFiles) -> ReportTable | None:
    """Records found, stored, rejected and labelled in each archive."""
    if files.mapping is None:
        return None
    header = ["archive", "found", "stored", "rejected", "labelled", "duplicates", "patients"]
    names = sorted(files.mapping["archive"].unique())
    rows = [[name, *_archive_counts(files, name)] for name in names]
    footer = [["all", *_archive_counts(files, None)]] if len(names) > 1 else []
    note = (
        "Labelled: stored records with a label of this set. Duplicates: recordings that another "
        "record repeats; they neither train nor score."
    )
    found = len(files.mapping)
    done = sum(len(table) for table in (files.manifest, files.rejected) if table is not None)
    if found > done:
        note += f" {plural(found - done, 'record')} not prepared: new, or beyond the limit set."
    return ReportTable(header, rows, note, footer)


def _archive_counts(files: RunFiles, name: str | None) -> list[str]:
    """Counts of one archive, or of all."""
    found, rejected, stored = (
        None if table is None else table if name is None else table[table["archive"] == name]
        for table in (files.mapping, files.rejected, files.manifest)
    )
    n_found, n_rejected = (0 if table is None else len(table) for table in (found, rejected))
    if stored is None:
        return [f"{n_found:,}", "", f"{n_rejected:,}", "", "", ""]
    counts = (
        n_found,
        len(stored),
        n_rejected,
        int((stored["labels"].map(len) > 0).sum()),
        int((stored["duplicate_of"] != "").sum()),
        stored["patient_group"].nunique(),
    )
    return [f"{count:,}" for count in counts]


def coverage_table(files: RunFiles) -> ReportTable | None:
    """Stored records that carry each label, by archive."""
    if files.manifest is None or files.manifest.empty:
        return None
    carried = files.manifest[["archive", "labels"]].explode("labels")
    carried = carried.assign(labels=carried["labels"].astype(object).fillna("(no label)"))
    counts = pd.crosstab(carried["labels"], carried["archive"])
    order = [label for label in files.labels if label in counts.index]
    order += [str(label) for label in counts.index if label not in order]
    archives = [str(name) for name in counts.columns]
    rows = [
        [label, *(f"{n:,}" for n in counts.loc[label]), f"{counts.loc[label].sum():,}"]
        for label in order
    ]
    if len(archives) == 1:
        rows = [row[:2] for row in rows]
    header = ["label", *archives, "all"][: len(archives) + 1 + (len(archives) > 1)]
    unused = [label for label in files.labels if label not in counts.index]
    note = f"In no stored record: {listed(unused)}." if unused else ""
    return ReportTable(header, rows, note)


def rejection_table(files: RunFiles, most: int = 10) -> ReportTable | None:
    """The commonest reasons for rejecting records, with an example of each."""
    if files.rejected is None or files.rejected.empty:
        return None
    groups = files.rejected.groupby(["archive", "reason"], as_index=False).agg(
        records=("record_id", "size"), example=("record_id", "first")
    )
    groups = groups.sort_values("records", ascending=False, kind="stable")
    rows = [
        [str(row.archive), str(row.reason), f"{row.records:,}", str(row.example)]
        for row in groups.head(most).itertuples()
    ]
    note = "The whole list is in rejected.csv." if len(groups) > most else ""
    return ReportTable(["archive", "reason", "records", "for example"], rows, note)


def unmapped_table(files: RunFiles, most: int = 10) -> ReportTable | None:
    """The commonest codes that the label set knows nothing of."""
    if files.coverage is None:
        return None
    codes = files.coverage[files.coverage["kind"] == "unmapped code"]
    if codes.empty:
        return None
    order = codes["count"].astype(int).sort_values(ascending=False, kind="stable").index
    columns = ["archive", "name", "count"]
    rows = [[str(cell) for cell in row] for row in codes.loc[order[:most], columns].to_numpy()]
    note = "The whole list is in label_coverage.csv." if len(codes) > most else ""
    return ReportTable(["archive", "code", "records"], rows, note)


# Splits ----------------------------------------------------------------------------------------


def split_parts(files: RunFiles) -> dict[str, pd.DataFrame]:
    """Rows of the manifest in each split of this run; empty where they cannot be told."""
    if files.manifest is None or files.is_crossval_alone:
        return {}
    return {name: files.manifest.iloc[rows] for name, rows in files.own.rows.items()}


def splits_sentence(files: RunFiles) -> str:
    """Which splits the tables are of, where they are not the store's; why there are none."""
    if files.own.problem:
        return f"Splits are not shown: {files.own.problem}."
    if not split_parts(files):
        return ""
    hold_out, mode = (files.settings.get(name) for name in ("hold_out", "run_mode"))
    folds = str(hold_out or "").split(",")
    told = []
    if hold_out:
        is_archive = files.own.new_archives == (str(hold_out).strip(),)
        what = hold_out if is_archive else f"fold{'s' * (len(folds) > 1)} {', '.join(folds)}"
        told.append(f"tested on {what}, held out (`HOLD_OUT`)")
    if mode in MODE_RECORDS:
        told.append(f"a part of the records (`RUN_MODE` {mode})")
    return f"The splits below are this run's own: {'; '.join(told)}." if told else ""


def split_table(files: RunFiles) -> ReportTable | None:
    """Records of each label in each split, with the label's share of the split."""
    parts = split_parts(files)
    if not parts:
        return None
    counts = pd.DataFrame(
        {name: part["labels"].map(list).explode().value_counts() for name, part in parts.items()}
    )
    order = list((files.run or {}).get("labels") or sorted(counts.index))
    counts = counts.reindex(order).fillna(0).astype(int)
    rows = [
        [str(label), *(_share(int(counts.loc[label, name]), len(parts[name])) for name in parts)]
        for label in order
    ]
    footer = [["records", *(f"{len(part):,}" for part in parts.values())]]
    header = ["label", *(SPLIT_WORDS[name] for name in parts)]
    return ReportTable(header, rows, footer=footer)


def _share(n: int, of: int) -> str:
    return f"{n:,} ({100 * n / of:.1f} %)" if of else f"{n:,}"


def patient_table(files: RunFiles) -> ReportTable | None:
    """Who is in each split: patients, age, sex, archives."""
    parts = split_parts(files)
    if not parts:
        return None
    described = [_describe_people(part) for part in parts.values()]
    rows = [[name, *(one[name] for one in described)] for name in described[0]]
    note = (
        "No patient is in two splits. Age: median and quartiles, in years. The validation split "
        "has two halves, by patient: one picks the epoch, the other calibrates and sets thresholds."
    )
    header = ["", *(SPLIT_WORDS[name] for name in parts)]
    return ReportTable(header, rows, note, is_list=True)


def _describe_people(part: pd.DataFrame) -> dict[str, str]:
    age, n = pd.to_numeric(part["age"], errors="coerce").dropna(), len(part)
    quartiles = age.quantile([0.25, 0.5, 0.75]).to_list() if len(age) else []
    sexes = part["sex"].astype(str)
    return {
        "records": f"{n:,}",
        "patients": f"{part['patient_group'].nunique():,}",
        "age": f"{quartiles[1]:.0f} ({quartiles[0]:.0f}–{quartiles[2]:.0f})" if quartiles else "–",
        "age not known": _share(n - len(age), n),
        "female": _share(int((sexes == "female").sum()), n),
        "male": _share(int((sexes == "male").sum()), n),
        "sex not known": _share(int((~sexes.isin(["female", "male"])).sum()), n),
        "archives": ", ".join(
            f"{name} {count:,}" for name, count in part["archive"].value_counts().items()
        ),
    }


def audit_table(files: RunFiles) -> ReportTable | None:
    """What the duplicate audit says."""
    audit = (files.splits or {}).get("audit")
    if not audit:
        return None
    rows = [
        [title, short_value(audit[key])] for key, title in _AUDIT_TITLES.items() if key in audit
    ]
    return ReportTable(["duplicate audit", ""], rows, is_list=True)


def short_value(value: Any) -> str:
    """A value of a JSON file in few words.

    >>> short_value(1200), short_value([["a/1", "b/2"]])
    ('1,200', 'a/1 and b/2')
    """
    if isinstance(value, list):
        return " and ".join(str(item) for item in value[0]) if value else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short_value(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# Quality ---------------------------------------------------------------------------------------


def quality_table(files: RunFiles) -> ReportTable | None:
    """Records with each quality flag, and records with fewer than twelve leads."""
    if files.manifest is None or files.manifest.empty:
        return None
    parts = {"all stored": files.manifest, **split_parts(files)}
    flags = {name: part["quality"].astype(str).str.split(";") for name, part in parts.items()}
    named = sorted({flag for part in flags.values() for row in part for flag in row if flag})
    rows = [
        [
            flag,
            *(_share(int(part.map(lambda row, f=flag: f in row).sum()), len(part))
              for part in flags.values()),
            QUALITY_MEANINGS.get(flag, ""),
        ]
        for flag in named
    ]  # fmt: skip
    n_leads = {name: part["leads_present"].map(_n_leads) for name, part in parts.items()}
    if any((count < len(LEADS)).any() for count in n_leads.values()):
        short = [_share(int((count < len(LEADS)).sum()), len(count)) for count in n_leads.values()]
        rows.append(
            ["fewer leads", *short, "fewer than twelve leads recorded; the others are zero"]
        )
    if not rows:
        return None
    titles = [SPLIT_WORDS.get(name, name) for name in parts]
    return ReportTable(["flag", *titles, "meaning"], rows, "A flag rejects nothing.")


def _n_leads(present: object) -> int:
    return len([name for name in str(present).split(",") if name])
