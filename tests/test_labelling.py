from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven import labelling
from einthoven.errors import ConfigError, DataError, RecordError
from einthoven.files import file_digest, read_json, stamp_step
from einthoven.labelling import label_archives, read_mapping
from einthoven.labels.mapping import MAPPING_COLUMNS
from einthoven.readers.registry import Archive
from einthoven.records import RecordInfo
from einthoven.settings import Settings


class FakeArchives:
    """Archives of a name and some records each; ``n_listed`` counts how often they were listed."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.records: dict[str, list[RecordInfo]] = {}
        self.n_listed = 0

    def add(self, archive: str, **codes: str) -> None:
        (self.data_dir / archive).mkdir(parents=True, exist_ok=True)
        for record_id, text in codes.items():
            (self.data_dir / archive / f"{record_id}.dat").write_bytes(b"12")
            info = RecordInfo(archive, record_id, f"{record_id}.dat", "p1", tuple(text.split()))
            self.records.setdefault(archive, []).append(info)

    def find(self, folder: Path) -> tuple[list[Archive], list[str]]:
        names = sorted(self.records)
        return [Archive(name, "fake", folder / name) for name in names], ["tables: passed by"]

    def index(self, archive: Archive, target_fs: int) -> list[RecordInfo]:
        self.n_listed += 1
        return self.records[archive.name]

    def read(self, reader: str, folder: Path, path: str) -> tuple[np.ndarray, float, tuple[str]]:
        if path.startswith("torn"):
            raise RecordError("torn")
        return np.zeros((1, 9), np.float32), 300.0, ("I",)


Run = Callable[..., pd.DataFrame]


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeArchives:
    archives = FakeArchives(tmp_path / "Dataset")
    monkeypatch.setattr(labelling, "find_archives", archives.find)
    monkeypatch.setattr(labelling, "index_archive", archives.index)
    monkeypatch.setattr(labelling, "read_signal", archives.read)
    archives.add("first", a="snomed:164889003", b="scp:NORM=100 scp:SR=0", c="snomed:999")
    archives.add("second", a="scp:IMI=0 scp:CLBBB=100", d="cinc2017:N")
    return archives


@pytest.fixture
def run(tmp_path: Path, fakes: FakeArchives) -> Run:
    return lambda **values: label_archives(Settings(root=tmp_path, **values))


@pytest.fixture
def mapping_path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "unified_label_mapping.csv"


def edit(path: Path, record: str, labels: str) -> None:
    """What a person does in a text editor."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    archive, record_id = record.split("/")
    chosen = (table["archive"] == archive) & (table["record_id"] == record_id)
    table.loc[chosen, "labels"] = labels
    table.to_csv(path, index=False)


def labels_by_record(mapping: pd.DataFrame) -> dict[str, str]:
    records = mapping["archive"] + "/" + mapping["record_id"]
    return dict(zip(records, mapping["labels"], strict=True))


# The table ---------------------------------------------------------------------------------------


def test_mapping_has_a_row_per_record_found(run: Run, mapping_path: Path) -> None:
    mapping = run()
    assert tuple(mapping.columns) == MAPPING_COLUMNS
    assert labels_by_record(mapping) == {
        "first/a": "AF", "first/b": "NORM", "first/c": "", "second/a": "MI", "second/d": "NORM",
    }  # fmt: skip
    assert mapping["label_quality"].tolist() == ["", "", "", "", "rhythm_only"]
    assert mapping["folder"].tolist() == ["first"] * 3 + ["second"] * 2
    assert mapping["age"].dtype == mapping["fold"].dtype == "float64"
    assert not mapping.drop(columns=["age", "fold"]).isna().any(axis=None)
    assert read_mapping(mapping_path).equals(mapping)


def test_multi_task_keeps_every_label(run: Run) -> None:
    assert labels_by_record(run(task="multi"))["second/a"] == "MI;BBB"


def test_step_prints_what_it_found(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="einthoven"):
        run()
    table = next(line for line in caplog.text.split("\n") if line.startswith("first "))
    assert table.split() == "first 3 1 1 300 2 0 AF 1, NORM 1".split()
    assert "tables: passed by" in caplog.text and "snomed:999" in caplog.text
    assert "not done" not in caplog.text and caplog.text.count("AF 1") == 1


def test_many_labels_are_counted_in_a_table_of_their_own(
    run: Run, fakes: FakeArchives, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("NORM", "LVH", "IMI", "AMI", "CLBBB", "CRBBB", "LAFB")
    fakes.add("third", **{name: f"scp:{name}=100" for name in names})
    with caplog.at_level("INFO", logger="einthoven"):
        run(label_set="diagnostic")
    lines = [line.split() for line in caplog.text.split("\n")]
    assert next(line for line in lines if line[:1] == ["third"])[-4:] == ["7", "of", "44,", "below"]
    shown = [line[0] for line in lines if line[1:] == ["0", "0", "1"]]
    assert shown == ["AMI", "CRBBB", "LAFB", "LVH"]  # in the set's order; the others have more


def test_reasons_for_redoing_name_files_and_no_digest(
    run: Run, mapping_path: Path, fakes: FakeArchives, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")
    fakes.add("first", e="scp:AFIB=0")
    fakes.add("third", a="scp:NORM")
    with caplog.at_level("INFO", logger="einthoven"):
        run(archives="first,third")
    assert (
        "label: archive first has changed; archive second: left out; "
        "unified_label_mapping.csv has changed; archive third: new\n"
    ) in caplog.text


def test_archive_whose_first_records_are_torn_is_still_listed(
    run: Run, fakes: FakeArchives
) -> None:
    fakes.add("torn", torn1="scp:NORM", torn2="scp:NORM", torn3="scp:NORM")
    assert len(run()) == 8


def test_coverage_is_saved_beside_the_mapping(run: Run, mapping_path: Path) -> None:
    run()
    report = pd.read_csv(mapping_path.with_name("label_coverage.csv"))
    unmapped = report[report["kind"] == "unmapped code"]
    assert unmapped.to_numpy().tolist() == [["first", "unmapped code", "snomed:999", 1]]


def test_record_with_a_problem_keeps_its_row(run: Run, fakes: FakeArchives) -> None:
    fakes.records["first"][0] = replace(fakes.records["first"][0], problem="the header\nis empty")
    assert run()["problem"].tolist() == ["the header is empty", "", "", "", ""]


def test_only_named_archives_are_listed(run: Run) -> None:
    assert set(run(archives="second")["archive"]) == {"second"}


def test_unknown_archive_gets_the_nearest_name(run: Run) -> None:
    with pytest.raises(ConfigError, match="'secnd', found: first, second; did you mean second"):
        run(archives="first,secnd")


def test_no_archive_at_all_says_what_was_passed_by(run: Run, fakes: FakeArchives) -> None:
    fakes.records.clear()
    with pytest.raises(DataError, match=r"no archive that a reader knows.*\n  tables: passed by"):
        run()


# Skipping ----------------------------------------------------------------------------------------


def test_nothing_changed_is_skipped(run: Run, fakes: FakeArchives) -> None:
    first = run()
    assert run().equals(first)
    assert fakes.n_listed == 2  # once per archive


def test_a_step_that_calls_for_the_mapping_may_leave_a_skip_unsaid(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    caplog.clear()
    with caplog.at_level("INFO", logger="einthoven"):
        label_archives(Settings(root=tmp_path), say_skipped=False)
        assert caplog.messages == []
        run()
    assert "label: nothing has changed" in caplog.text


@pytest.mark.parametrize("change", ["grown", "touched", "new", "gone", "table"])
def test_changed_archive_is_listed_again(
    run: Run, fakes: FakeArchives, tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "Dataset" / "first"
    (folder / "table.csv").write_text("a")
    run()
    stat = (folder / "table.csv").stat()
    if change == "grown":
        (folder / "a.dat").write_bytes(b"123")
    elif change == "touched":
        os.utime(folder / "a.dat", ns=(1, 1))
    elif change == "new":
        (folder / "deep").mkdir()
        (folder / "deep" / "x").write_text("")
    elif change == "gone":
        (folder / "a.dat").unlink()
    else:  # same size, same time
        (folder / "table.csv").write_text("b")
        os.utime(folder / "table.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run()
    assert fakes.n_listed == 4


def test_hidden_files_of_an_archive_do_not_count(run: Run, fakes: FakeArchives, tmp_path: Path):
    folder = tmp_path / "Dataset" / "first"
    run()
    n_listed = fakes.n_listed
    (folder / ".download").mkdir()
    (folder / ".download" / "verified.txt").write_text("what a download notes")
    (folder / ".table.csv").write_text("what an editor leaves")
    run()
    assert fakes.n_listed == n_listed
    (folder / "table.csv").write_text("seen")
    run()
    assert fakes.n_listed > n_listed


@pytest.mark.parametrize("values", [{"label_set": "all"}, {"task": "multi"}, {"target_fs": 500}])
def test_changed_setting_is_not_skipped(
    run: Run, fakes: FakeArchives, values: dict[str, object]
) -> None:
    run()
    run(**values)
    assert fakes.n_listed == 4


def test_deleted_mapping_is_made_anew(run: Run, mapping_path: Path) -> None:
    first = run()
    mapping_path.unlink()
    assert run().equals(first)


# Edits -------------------------------------------------------------------------------------------


def test_edits_hold_over_reruns(
    run: Run, mapping_path: Path, fakes: FakeArchives, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    edit(mapping_path, "first/a", "bbb")  # case does not matter
    edit(mapping_path, "first/b", "")  # unlabelled on purpose
    with caplog.at_level("INFO", logger="einthoven"):
        assert labels_by_record(run())["first/a"] == "BBB"
    assert "2 edited records kept" in caplog.text
    fakes.add("first", e="scp:AFIB=0")
    again = run()
    assert labels_by_record(again) == {
        "first/a": "BBB", "first/b": "", "first/c": "", "first/e": "AF", "second/a": "MI",
        "second/d": "NORM",
    }  # fmt: skip
    assert again["labels_mapped"].tolist() == ["AF", "NORM", "", "AF", "MI", "NORM"]


def test_edit_taken_back_is_gone(run: Run, mapping_path: Path) -> None:
    run()
    edit(mapping_path, "first/a", "MI")
    run()
    edit(mapping_path, "first/a", "AF")
    assert labels_by_record(run())["first/a"] == "AF"
    assert labels_by_record(run(archives="second,first"))["first/a"] == "AF"


def test_edit_of_no_label_is_refused_with_its_line_and_nearest_label(
    run: Run, mapping_path: Path
) -> None:
    run()
    edit(mapping_path, "first/c", "OTHR")
    before = mapping_path.read_bytes()
    told = r"1 edited label cannot be used:\n.*line 4 \(c\): no label 'OTHR'; did you mean OTHER"
    with pytest.raises(DataError, match=told):
        run()
    assert mapping_path.read_bytes() == before


def test_several_labels_in_a_single_label_task_follow_precedence(
    run: Run, mapping_path: Path
) -> None:
    run()
    edit(mapping_path, "first/c", "BBB, AF")
    assert labels_by_record(run())["first/c"] == "AF"


def test_several_labels_that_cannot_be_chosen_from_are_refused(
    run: Run, mapping_path: Path
) -> None:
    values = {"label_set": "superdiagnostic", "task": "single"}
    run(**values)
    edit(mapping_path, "first/c", "MI;CD")
    with pytest.raises(DataError, match="CD and MI, but the task takes one label"):
        run(**values)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_edits_survive_a_spreadsheet(
    run: Run, mapping_path: Path, separator: str, encoding: str
) -> None:
    run()
    table = pd.read_csv(mapping_path, dtype=str, keep_default_na=False)
    table.loc[0, "labels"] = "MI"
    table.loc[0, "age"] = "61,5"
    table["note"] = "geprüft"  # a column of the person's own
    table = table[table.columns[::-1]]
    text = table.to_csv(index=False, sep=separator, lineterminator="\r\n", quoting=1)
    mapping_path.write_bytes((text + separator * 14 + "\r\n").encode(encoding))
    assert read_mapping(mapping_path).loc[0, "age"] == 61.5
    assert labels_by_record(run())["first/a"] == "MI"


def test_edit_survives_a_spreadsheet_that_drops_leading_zeros(
    run: Run, mapping_path: Path, fakes: FakeArchives
) -> None:
    fakes.add("third", **{"0012": "scp:NORM", "0007": "scp:NORM", "7": "scp:NORM"})
    run()
    edit(mapping_path, "third/0012", "MI")
    edit(mapping_path, "third/7", "AF")
    mapping_path.write_text(mapping_path.read_text().replace(",0012,", ",12,"))
    labels = labels_by_record(run())
    assert (labels["third/0012"], labels["third/0007"], labels["third/7"]) == ("MI", "NORM", "AF")


def test_mapping_without_its_columns_is_refused(run: Run, mapping_path: Path) -> None:
    run()
    mapping_path.write_text("archive,record_id\nfirst,a\n")
    with pytest.raises(DataError, match="lacks the column labels"):
        run()
    with pytest.raises(DataError, match="lacks the column patient_id"):
        read_mapping(mapping_path)


def test_mapping_of_an_earlier_version_is_made_again_with_its_edits(
    run: Run, mapping_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")
    run()
    older = pd.read_csv(mapping_path, dtype=str, keep_default_na=False)
    older.drop(columns=["device", "site"]).to_csv(mapping_path, index=False)
    stamp_path = Settings(root=mapping_path.parents[1]).workspace.step_path("label")
    stamp = read_json(stamp_path)
    del stamp["columns of the mapping"]
    stamp_step(stamp_path, stamp | {mapping_path.name: file_digest(mapping_path)})
    with pytest.raises(
        DataError, match=r"lacks the column device .* `einthoven label` .* edits stay"
    ):
        read_mapping(mapping_path)
    caplog.set_level("INFO", logger="einthoven")
    mapping = run()
    assert "label: columns of the mapping: new" in caplog.text
    assert tuple(mapping.columns) == MAPPING_COLUMNS
    assert labels_by_record(mapping)["first/a"] == "BBB"


def test_absent_mapping_says_how_to_make_one(mapping_path: Path) -> None:
    with pytest.raises(DataError, match="run `einthoven label` first"):
        read_mapping(mapping_path)


def test_edits_come_back_with_their_label_set(run: Run, mapping_path: Path) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")
    assert labels_by_record(run(label_set="superdiagnostic"))["first/a"] == ""
    aside = mapping_path.with_name("unified_label_mapping.five.csv")
    assert aside.exists()
    edit(mapping_path, "first/a", "CD")
    assert labels_by_record(run())["first/a"] == "BBB"
    assert not aside.exists()  # its edits are in the mapping again
    assert labels_by_record(run(label_set="superdiagnostic"))["first/a"] == "CD"


def test_edits_of_archives_left_out_for_once_come_back(run: Run, mapping_path: Path) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")
    run(archives="second")
    edit(mapping_path, "second/a", "AF")
    labels = labels_by_record(run())
    assert (labels["first/a"], labels["second/a"]) == ("BBB", "AF")


def test_mapping_that_a_spreadsheet_keeps_open_says_what_to_do(
    run: Run, mapping_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")

    def locked(path: Path, table: pd.DataFrame) -> None:
        if path == mapping_path:
            raise PermissionError(13, "Access is denied", str(path))
        write(path, table)

    write = labelling.write_csv

    with monkeypatch.context() as opened:
        opened.setattr(labelling, "write_csv", locked)
        with pytest.raises(
            DataError, match=r"label_mapping.csv cannot be read or replaced.*close the program"
        ):
            run()
    assert labels_by_record(run())["first/a"] == "BBB"


def test_killed_run_loses_no_edit(
    run: Run, mapping_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")
    with monkeypatch.context() as killed:
        killed.setattr(labelling, "coverage", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(label_set="superdiagnostic")
    assert labels_by_record(run(label_set="superdiagnostic"))["first/a"] == ""
    assert labels_by_record(run())["first/a"] == "BBB"


@pytest.mark.parametrize("n_written", [0, 1, 2])
def test_killed_run_loses_no_edit_of_an_archive_left_out_for_once(
    run: Run, mapping_path: Path, monkeypatch: pytest.MonkeyPatch, n_written: int
) -> None:
    run()
    edit(mapping_path, "first/a", "BBB")
    write, calls = labelling.write_csv, []

    def killed(path: Path, table: pd.DataFrame) -> None:
        if len(calls) == n_written:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, table)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(labelling, "write_csv", killed)
        run(archives="second")
    assert labels_by_record(run())["first/a"] == "BBB"


def tampered(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *change(lines), ""]), encoding="utf-8")


TAMPERINGS: dict[str, Callable[[list[str]], list[str]]] = {
    "deleted": lambda lines: lines[1:],
    "all deleted": lambda lines: [],
    "reversed": lambda lines: lines[::-1],
    "duplicated": lambda lines: [*lines, *lines],
    "added by hand": lambda lines: [*lines, "first,zz,,,MI,,,,,,,,,", "nowhere,a,,,AF,,,,,,,,,"],
    "nonsense": lambda lines: [*lines, "?", ",,,,,,,,,,,,,", '"', "a,b,c,d,,,,,,,,,,,,,,,,,,,"],
    "other paths": lambda lines: [line.replace(".dat", ".tad") for line in lines],
    "other folders": lambda lines: [line.replace(",fake,", ",own,") for line in lines],
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_mapping_keeps_a_row_per_record_found_whatever_a_person_does_to_its_rows(
    run: Run, mapping_path: Path, kind: str
) -> None:
    before = run()
    tampered(mapping_path, TAMPERINGS[kind])
    pd.testing.assert_frame_equal(run(), before)
    pd.testing.assert_frame_equal(run(task="multi", archives="first"), before[:3])


@pytest.mark.parametrize("edited_line", [0, 1])
def test_edit_in_either_of_two_copies_of_a_row_counts(
    run: Run, mapping_path: Path, edited_line: int
) -> None:
    run()

    def copy_and_edit(lines: list[str]) -> list[str]:
        copies = [lines[0], lines[0]]
        copies[edited_line] = copies[edited_line].replace(",AF,AF,", ",MI,AF,")
        return [*copies, *lines[1:]]

    tampered(mapping_path, copy_and_edit)
    assert labels_by_record(run())["first/a"] == "MI"
    assert labels_by_record(run(task="multi"))["first/a"] == "MI"


def test_two_copies_of_a_row_with_different_labels_are_refused_with_their_lines(
    run: Run, mapping_path: Path
) -> None:
    run()

    def contradict(lines: list[str]) -> list[str]:
        return [lines[0].replace(",AF,AF,", f",{label},AF,") for label in ("MI", "BBB")] + lines[1:]

    tampered(mapping_path, contradict)
    with pytest.raises(DataError, match="two lines for the record first/a, 2 and 3"):
        run()


# Real archives -----------------------------------------------------------------------------------


def test_real_archives_are_labelled(shared_data: Path, tmp_path: Path) -> None:
    mapping = label_archives(Settings(root=tmp_path, dataset_dir=shared_data))
    n_records = mapping["archive"].value_counts()
    assert (n_records["ptb-xl"], n_records["challenge-2017"], n_records["ptbdb"]) == (2094, 182, 1)
    letters = mapping[mapping["archive"] == "challenge-2017"]["labels"].value_counts()
    assert letters.to_dict() == {"NORM": 89, "OTHER": 39, "AF": 30, "": 24}
    report = pd.read_csv(tmp_path / "logs" / "label_coverage.csv")
    assert "unmapped code" not in set(report["kind"])


def test_same_recording_in_two_archives_has_the_same_label(
    shared_data: Path, tmp_path: Path
) -> None:
    labels = labels_by_record(label_archives(Settings(root=tmp_path, dataset_dir=shared_data)))
    here = [labels[f"ptb-xl/{n}"] for n in range(1, 11)]
    there = [labels[f"challenge-2021-ptb-xl/HR{n:05d}"] for n in range(1, 11)]
    # The Challenge adds to 3, 7 and 10 what PTB-XL's statements do not say: a first-degree block,
    # an axis, an arrhythmia.
    differ = [n for n in range(1, 11) if here[n - 1] != there[n - 1]]
    assert differ == [3, 7, 10]
