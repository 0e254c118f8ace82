"""Archives of copied records, each damaged in one way, and what the real steps make of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.io import loadmat, savemat

from einthoven.labelling import label_archives
from einthoven.prepare import Prepared, prepare_archives
from einthoven.settings import Settings
from einthoven.store import Store, open_store

# Archives and copies ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where an archive's records lie, and how its table names them."""

    folder: str
    sources: list[str]
    target: str
    suffix: str = ".hea"
    table: str = ""
    has_header: bool = True
    cells: dict[str, str] = field(default_factory=dict)
    record: str = ""

    def source_id(self, source: str) -> str:
        """The record id of a source: its file's name, or the number in it."""
        name = Path(source).name
        return str(int(name[:5])) if self.record else name


PTB_XL_CELLS = {
    "ecg_id": "{0}", "patient_id": "{0}", "filename_lr": "records100/90000/{0}_lr",
    "filename_hr": "records500/90000/{0}_hr",
}  # fmt: skip
PTB_XL = Layout(
    "ptb-xl", [f"records100/00000/{n:05d}_lr" for n in (1, 2, 3)], "records100/90000/{0}_lr",
    table="ptbxl_database.csv", cells=PTB_XL_CELLS, record="{0}",
)  # fmt: skip
REAL_LAYOUTS = {
    "ptb-xl": PTB_XL,
    "challenge-2021-georgia": Layout(
        "challenge-2021/training/georgia", [f"g1/E0000{n}" for n in (1, 2, 3, 6, 7, 8)],
        "g90/E00{0}",
    ),
    "challenge-2017": Layout(
        "challenge-2017", [f"training2017/A0000{n}" for n in (1, 2, 3, 4)], "training2017/A00{0}",
        table="training2017/REFERENCE.csv", has_header=False, cells={"0": "A00{0}"},
    ),
    "cpsc-2018": Layout(
        "cpsc2018", [f"TrainingSet1/A198{n}" for n in (0, 1, 2)], "TrainingSet1/A0{0}", ".mat",
        table="REFERENCE.csv", cells={"Recording": "A0{0}"},
    ),
    "sph": Layout(
        "sph", [f"records/SPH0000{n}" for n in (1, 2, 4)], "records/SPH00{0}", ".h5",
        table="metadata.csv", cells={"ECG_ID": "SPH00{0}.h5", "Patient_ID": "S00{0}"},
    ),
    "ptbdb": Layout(
        "ptbdb", ["patient001/s0010_re"], "patient{0}/s0{0}_re",
        table="RECORDS", has_header=False, cells={"0": "patient{0}/s0{0}_re"},
    ),
}  # fmt: skip
SYNTHETIC_LAYOUTS = {
    "ptb-xl": PTB_XL,
    "chapman": Layout(
        "chapman", [f"WFDBRecords/01/010/JS0000{n}" for n in (1, 2, 3)],
        "WFDBRecords/01/010/JS00{0}",
    ),
}  # fmt: skip


@dataclass
class Copy:
    """A copy of a record, for a damage to be done to.

    ``row`` holds its cells in the archive's table; it is written when the damage is done, and an
    emptied one is left out.
    """

    folder: Path
    path: Path
    row: dict[str, str]

    @property
    def signal_path(self) -> Path:
        dat = self.path.with_suffix(".dat")
        return dat if dat.exists() else self.path.with_suffix(".mat")


@dataclass(frozen=True)
class Damage:
    """What is done to a copy, and where the record should end.

    Rejected where there is a ``reason`` (a pattern that the real one matches), else stored, with
    these values in the manifest; ``times`` is its signal's ratio to the undamaged one.
    """

    name: str
    archive: str
    do: Callable[[Copy], object]
    reason: str = ""
    stored: dict[str, Any] = field(default_factory=dict)
    record: str = "{}"
    when: bool = True


def copy_record(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in source.parent.glob(f"{source.name}.*"):
        content = path.read_bytes()
        if path.suffix == ".hea":
            content = content.replace(source.name.encode(), target.name.encode())
        target.with_suffix(path.suffix).write_bytes(content)


def read_rows(path: Path, has_header: bool) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    header = lines.pop(0) if has_header else [str(at) for at in range(len(lines[0]))]
    return [dict(zip(header, line, strict=True)) for line in lines]


def write_rows(path: Path, rows: list[dict[str, str]], has_header: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if has_header:
            writer.writeheader()
        writer.writerows(row for row in rows if row)


def build_archive(
    layout: Layout, shared: Path, dataset: Path, damages: list[Damage]
) -> dict[str, tuple[str, str]]:
    """Copy the sources, and one damaged copy for each damage.

    Returns:
        Damage to the id of its record and that of the record which it is a copy of.
    """
    taken_from, folder = shared / layout.folder, dataset / layout.folder
    for source in layout.sources:
        copy_record(taken_from / source, folder / source)
    every = read_rows(taken_from / layout.table, layout.has_header) if layout.table else []
    known = {s: {s, Path(s).name, f"{Path(s).name}.h5"} for s in layout.sources}
    row_of = {s: row for row in every for s, names in known.items() if names & set(row.values())}
    rows, ids = [dict(row) for row in row_of.values()], {}
    for number, damage in enumerate(damages, 900):
        source = layout.sources[number % len(layout.sources)]
        path = folder / (layout.target.format(number) + layout.suffix)
        copy_record(folder / source, path.with_suffix(""))
        cells = {name: text.format(number) for name, text in layout.cells.items()}
        copy = Copy(folder, path, {**row_of.get(source, {}), **cells})
        rows.append(copy.row)
        damage.do(copy)
        name = layout.record.format(number) or path.stem
        ids[damage.name] = (damage.record.format(name), layout.source_id(source))
    if layout.table:
        write_rows(folder / layout.table, rows, layout.has_header)
    return ids


@dataclass(frozen=True)
class Outcome:
    """What two real steps made of damaged archives."""

    settings: Settings
    mapping: pd.DataFrame
    done: Prepared
    store: Store
    rejected: pd.DataFrame
    ids: dict[str, tuple[str, str]]

    def windows(self, record: str) -> np.ndarray:
        at = self.store.manifest.index[self.store.manifest["record"] == record]
        return self.store.windows(int(at[0])).astype(float)


def prepare_damaged(
    root: Path, shared: Path, layouts: dict[str, Layout], damages: list[Damage]
) -> Outcome:
    ids: dict[str, tuple[str, str]] = {}
    for archive, layout in layouts.items():
        mine = [d for d in damages if d.archive == archive and d.when]
        ids |= build_archive(layout, shared, root / "Dataset", mine)
    settings = Settings(root=root, prepare_workers=1)
    mapping = label_archives(settings)
    done = prepare_archives(settings)
    rejected = pd.read_csv(settings.workspace.rejected_path, dtype=str, keep_default_na=False)
    return Outcome(settings, mapping, done, open_store(settings.workspace), rejected, ids)


# Damages ---------------------------------------------------------------------------------------


def header(pattern: str, by: str) -> Callable[[Copy], object]:
    """Replace text of the header."""

    def do(copy: Copy) -> None:
        text = copy.path.read_text(encoding="latin-1")
        changed, n = re.subn(pattern, by, text, flags=re.MULTILINE)
        assert n, "nothing was damaged"
        copy.path.write_text(changed, encoding="latin-1")

    return do


def header_bytes(make: Callable[[bytes], bytes]) -> Callable[[Copy], object]:
    return lambda copy: copy.path.write_bytes(make(copy.path.read_bytes()))


def samples(change: Callable[[np.ndarray], object]) -> Callable[[Copy], object]:
    """Change the file's own numbers, ``(sample, lead)``, in place."""

    def do(copy: Copy) -> None:
        n_leads = int(copy.path.read_text(encoding="latin-1").split()[1])
        raw = copy.signal_path.read_bytes()
        start = 24 if copy.signal_path.suffix == ".mat" else 0
        values = np.frombuffer(raw, "<i2", offset=start).reshape(-1, n_leads).copy()
        change(values)
        copy.signal_path.write_bytes(raw[:start] + values.tobytes())
        mend_checksums(copy)

    return do


def mend_checksums(copy: Copy) -> None:
    """Let the header's sums be those of the samples that it announces: only the damage is told."""
    first, *rest = copy.path.read_text(encoding="latin-1").splitlines()
    n_leads, n_samples = int(first.split()[1]), int(first.split()[3])
    raw = copy.signal_path.read_bytes()
    start = 24 if copy.signal_path.suffix == ".mat" else 0
    values = np.frombuffer(raw, "<i2", offset=start).reshape(-1, n_leads)[:n_samples]
    sums = values.sum(axis=0, dtype=np.int64) % 65536
    for at, total in enumerate(sums):
        fields = rest[at].split(None, 8)
        rest[at] = " ".join([*fields[:6], str(total), *fields[7:]])
    copy.path.write_text("\n".join([first, *rest]) + "\n", encoding="latin-1")


def one_bit_flipped(raw: bytes) -> bytes:
    return raw[:5000] + bytes([raw[5000] ^ 0x40]) + raw[5001:]


def signal_bytes(make: Callable[[bytes], bytes]) -> Callable[[Copy], object]:
    return lambda copy: copy.signal_path.write_bytes(make(copy.signal_path.read_bytes()))


def cells(**values: str) -> Callable[[Copy], object]:
    return lambda copy: copy.row.update(values)


def without_files(copy: Copy) -> None:
    for path in copy.path.parent.glob(f"{copy.path.stem}.*"):
        path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def all_of(*steps: Callable[[Copy], object]) -> Callable[[Copy], object]:
    return lambda copy: [step(copy) for step in steps]


def matlab(**changes: Any) -> Callable[[Copy], object]:
    """Change fields of CPSC-2018's struct; a function takes the old value, None drops the field."""

    def do(copy: Copy) -> None:
        record = loadmat(copy.path)["ECG"][0, 0]
        fields = {name: record[name] for name in record.dtype.names}
        for name, new in changes.items():
            fields[name] = new(fields[name]) if callable(new) else new
        savemat(copy.path, {"ECG": {k: v for k, v in fields.items() if v is not None}})

    return do


def hdf5(change: Callable[[np.ndarray], Any], name: str = "ecg") -> Callable[[Copy], object]:
    def do(copy: Copy) -> None:
        import h5py

        with h5py.File(copy.path, "r") as file:
            changed = change(file["ecg"][()])
        with h5py.File(copy.path, "w") as file:
            file[name] = changed

    return do


def one_nan_lead(signal: np.ndarray) -> np.ndarray:
    changed = np.array(signal, float)
    changed[7] = np.nan
    return changed


def as_lines_of_text(raw: bytes) -> bytes:
    return (b"<!DOCTYPE html><p>404, this record has moved" * len(raw))[: len(raw)]


def half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def garbage(raw: bytes) -> bytes:
    return np.random.default_rng(0).bytes(600)


def only_at_500_hz(copy: Copy) -> None:
    """The fine file is there, the coarse one is not."""
    fine = copy.folder / copy.row["filename_hr"]
    copy_record(copy.path.with_suffix(""), fine)
    signal_path = fine.with_suffix(".dat")
    coarse = np.frombuffer(signal_path.read_bytes(), "<i2").reshape(-1, 12)
    signal_path.write_bytes(np.repeat(coarse, 5, axis=0).tobytes())
    fine_copy = Copy(copy.folder, fine.with_suffix(".hea"), {})
    header(r" 12 100 1000", " 12 500 5000")(fine_copy)
    mend_checksums(fine_copy)
    without_files(copy)


def twice_in_two_groups(copy: Copy) -> None:
    stem = copy.path.with_suffix("")
    copy_record(stem, stem.parents[1] / "g91" / stem.name)


def with_leads_reversed(copy: Copy) -> None:
    """Rows of the header and columns of the signal, both in reverse: nothing is lost."""
    first, *rest = copy.path.read_text().splitlines()
    copy.path.write_text("\n".join([first, *rest[11::-1], *rest[12:]]) + "\n")
    samples(lambda v: np.copyto(v, v[:, ::-1].copy()))(copy)


def cut_both(copy: Copy) -> None:
    header(r" 500 5000", " 500 0")(copy)
    signal_bytes(lambda raw: raw[:24])(copy)
