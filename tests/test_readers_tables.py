"""A damaged row of an archive's table costs one record, never the archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.errors import DataError
from einthoven.readers.registry import Archive, index_archive
from einthoven.readers.tables import ROW_PROBLEM, read_archive_table

OPEN = "has a quote that is not closed"


def read_text(tmp_path: Path, text: str) -> pd.DataFrame:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    return read_archive_table(path, ("id", "note"))


def rows_of(tmp_path: Path, text: str) -> list[list[str]]:
    return read_text(tmp_path, text).to_numpy().tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_sound_table_is_read_as_written(tmp_path: Path, end: str):
    lines = ["\ufeffid , note", "1,", "2,caf\u00e9", '3,"a, b"', '4,"two', 'lines"', "", "5", ""]
    assert rows_of(tmp_path, end.join(lines)) == [
        ["1", "", ""], ["2", "caf\u00e9", ""], ["3", "a, b", ""], ["4", f"two{end}lines", ""],
        ["5", "", ""],
    ]  # fmt: skip


def test_row_with_too_many_cells_says_its_line_and_the_others_are_sound(tmp_path: Path):
    rows = rows_of(tmp_path, "id,note\n1,a\n2,b,c\n3,d,,\n")
    fault = "line 3 of t.csv has 3 cells where its first line has 2"
    assert rows == [["1", "a", ""], ["2", "b", fault], ["3", "d", ""]]


@pytest.mark.parametrize(
    "line", ['2,"b', '"2,b', '2,"b,c', '2,"' + "long" * 40_000], ids=["end", "id", "cells", "long"]
)
@pytest.mark.parametrize("quoted", [True, False])
def test_quote_that_is_not_closed_costs_its_own_line(tmp_path: Path, line: str, quoted: bool):
    notes = ['"x, y"', '"z, w"'] if quoted else ["x", "z"]
    table = read_text(tmp_path, f"id,note\n1,{notes[0]}\n{line}\n3,{notes[1]}\n4,{notes[0]}\n")
    assert table[ROW_PROBLEM].tolist() == ["", f"line 3 of t.csv {OPEN}", "", ""]
    sound = table[table[ROW_PROBLEM] == ""]
    assert sound["id"].tolist() == ["1", "3", "4"]
    assert sound["note"].str.len().tolist() == [4, 4, 4] if quoted else [1, 1, 1]


def test_quote_not_closed_in_the_last_line_is_told(tmp_path: Path):
    assert rows_of(tmp_path, 'id,note\n1,a\n2,"b')[1][-1] == f"line 3 of t.csv {OPEN}"


def test_quote_within_a_cell_is_text(tmp_path: Path):
    assert rows_of(tmp_path, 'id,note\n1,5" lead') == [["1", '5" lead', ""]]


def test_second_column_of_a_name_does_not_hide_the_first(tmp_path: Path):
    assert read_text(tmp_path, "id,note,note\n1,a,b\n")["note"].tolist() == ["a"]


def test_latin_1_is_read(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes("id,note\n1,gepr\u00fcft\n".encode("latin-1"))
    assert read_archive_table(tmp_path / "t.csv", ("id",))["note"].tolist() == ["gepr\u00fcft"]


def test_table_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.csv cannot be read .*columns id"):
        read_archive_table(tmp_path / "none.csv", ("id",))


PTB_XL = "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr"
TABLES = {
    "ptb-xl": (
        "ptbxl_database.csv",
        [PTB_XL, "1,1,50,0,{},1,a,a", "2,1,50,0,{},1,a,a,", "3,1,50,0,{},1,a,a,extra", '4,"1,50'],
        {
            "3": "line 4 of ptbxl_database.csv has 9 cells",
            "4": f"line 5 of ptbxl_database.csv {OPEN}",
        },
    ),
    "sph": (
        "metadata.csv",
        [
            "ECG_ID,AHA_Code,Patient_ID,Age,Sex",
            "A1,1,P,50,M", "A2,1,P,50,M,x", 'A3,"1', "A4,1,P,5,M",
        ],
        {"A2": "line 3 of metadata.csv has 6 cells", "A3": f"line 4 of metadata.csv {OPEN}"},
    ),
    "cpsc-2018": (
        "REFERENCE.csv",
        ["Recording,First_label", "A1,1", "A2,1,x", 'A3,"1', "A4,5"],
        {"A2": "line 3 of REFERENCE.csv has 3 cells", "A3": f"line 4 of REFERENCE.csv {OPEN}"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reader", TABLES)
def test_damaged_row_of_a_published_table_is_a_problem_of_its_record(tmp_path: Path, reader: str):
    name, lines, faults = TABLES[reader]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    infos = {info.record_id: info for info in index_archive(Archive("a", reader, tmp_path), 100)}
    assert len(infos) == len(lines) - 1
    for record_id, info in infos.items():
        if record_id in faults:
            assert info.problem.startswith(faults[record_id]) and info.codes == ()
        else:
            assert "line" not in info.problem


def test_record_of_a_damaged_row_has_that_problem_though_its_file_is_sound(tmp_path: Path):
    (tmp_path / "labels.csv").write_text("path,labels\nx.npy,AF,MI\n")
    np.save(tmp_path / "x.npy", np.zeros((12, 9)))
    (info,) = index_archive(Archive("mine", "own", tmp_path), 100)
    assert "has 3 cells" in info.problem
