"""Tables of numbers as text: a column for each lead, its name on top.

As in `einthoven.readers.own`; besides, any of the usual separators, a decimal comma where the
separator is none, units in the names ("I [mV]"), a first column of times, and lines that begin with
``#`` passed by.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from einthoven.errors import RecordError
from einthoven.formats.arrays import STANDARD_ORDER
from einthoven.formats.content import (
    MAX_TEXT_MB,
    MOST_LEADS,
    FileContent,
    check_sizes,
    is_known_lead,
    is_standard_lead,
    scale_signal,
)
from einthoven.readers.fields import as_float32
from einthoven.readers.wfdb_header import MILLIVOLTS_PER_UNIT
from einthoven.records import LEADS

SEPARATORS = ("\t", ";", ",")
# A first column of these names counts time: seconds, or milliseconds.
TIME_COLUMNS = {"time": 1.0, "t": 1.0, "seconds": 1.0, "sec": 1.0, "s": 1.0, "times": 1.0,
                "time_s": 1.0, "time_ms": 1e-3, "ms": 1e-3, "t_ms": 1e-3}  # fmt: skip
COUNT_COLUMNS = frozenset({"", "index", "sample", "samples", "n", "#", "unnamed: 0"})
# Twelve leads, Frank's three and a column of times: wider tables of bare numbers are other things.
MOST_UNNAMED_COLUMNS = 16
_NAME_WITH_UNIT = re.compile(r"^(.*?)\s*[\[(]\s*([a-zµμ]{1,3})\s*[\])]$", re.IGNORECASE)
_HEAD_BYTES = 2**16


class TableHead(NamedTuple):
    """How a table is written: what separates its columns, decimals, and the names on top if any."""

    separator: str
    decimal: str
    names: tuple[str, ...]
    n_columns: int


def table_head(data: bytes) -> TableHead | None:
    """How a table of numbers is written; None where these bytes begin none.

    A table of numbers has only numbers, or nothing, in its second line, and a first line of lead
    names or of numbers.
    """
    head = data[:_HEAD_BYTES]
    if b"\0" in head:
        return None
    text = _decode_text(head)
    whole = text if len(data) <= _HEAD_BYTES else text.rpartition("\n")[0]
    lines = [line for line in whole.splitlines() if line.strip() and not line.startswith("#")][:3]
    if len(lines) < 2:
        return None
    separator = next((one for one in SEPARATORS if one in lines[1]), "")
    decimal = "," if separator in (";", "\t") and "," in lines[1] else "."
    first, second = ([_bare_cell(cell) for cell in _cells(line, separator)] for line in lines[:2])
    if len(first) != len(second) or not all(_is_number(cell, decimal) for cell in second):
        return None
    if not any(second):
        return None
    if all(_is_number(cell, decimal) for cell in first):
        return TableHead(separator, decimal, (), len(first))
    return TableHead(separator, decimal, tuple(first), len(first))


def is_signal_table(data: bytes) -> bool:
    """Do these bytes begin a table that may be a recording, rather than one of labels?"""
    head = table_head(data)
    if head is None:
        return False
    if not head.names:
        return head.n_columns <= MOST_UNNAMED_COLUMNS
    return any(is_standard_lead(_split_unit(name)[0]) for name in head.names)


def read_text_table(data: bytes, told_leads: Sequence[str] = ()) -> FileContent:
    """The signal of a CSV or TSV file.

    Raises:
        RecordError: it is no table of numbers.
    """
    if len(data) > MAX_TEXT_MB * 2**20:
        raise RecordError(f"the table is larger than {MAX_TEXT_MB} MiB")
    head = table_head(data)
    if head is None:
        raise RecordError("this is no table of numbers with lead names on top")
    if head.n_columns > MOST_LEADS:
        raise RecordError(f"the table has {head.n_columns:,} columns; at most {MOST_LEADS} can be")
    columns = _load_columns(data, head)
    names, fs, start = head.names, None, 0
    if names and (names[0].lower() in COUNT_COLUMNS or _time_unit(names[0]) is not None):
        unit = _time_unit(names[0])
        fs = None if unit is None else rate_of_times(columns[0] * unit)
        start = 1
    signal = columns[start:]
    check_sizes(len(signal), columns.shape[1], fs)
    return _content_of_columns(signal, names[start:], fs, told_leads)


def _content_of_columns(
    signal: np.ndarray, names: Sequence[str], fs: float | None, told_leads: Sequence[str]
) -> FileContent:
    split = [_split_unit(name) for name in names]
    leads = tuple(name for name, _ in split)
    if not any(map(is_known_lead, leads)) and told_leads:
        leads = tuple(told_leads)
    remarks: tuple[str, ...] = ()
    if not leads and len(signal) == len(LEADS):
        leads, remarks = LEADS, (STANDARD_ORDER,)
    units = [unit for _, unit in split]
    if units and all(unit.lower() in MILLIVOLTS_PER_UNIT for unit in units):
        scaled = scale_signal(signal, [MILLIVOLTS_PER_UNIT[unit.lower()] for unit in units])
        return FileContent(scaled, fs, leads, remarks)
    return FileContent(as_float32(signal), fs, leads, remarks, has_units=False)


def _load_columns(data: bytes, head: TableHead) -> np.ndarray:
    """``(column, row)`` float64."""
    try:
        table = pd.read_csv(
            io.StringIO(_decode_text(data)),
            sep=head.separator or r"\s+",
            decimal=head.decimal,
            header=0 if head.names else None,
            comment="#",
            skipinitialspace=True,
            low_memory=False,
        )
        values = table.to_numpy(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"the table holds something other than numbers ({error})") from None
    if values.shape[1] != head.n_columns:
        raise RecordError("the table's rows differ in their number of columns")
    return np.ascontiguousarray(values.T)


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _cells(line: str, separator: str) -> list[str]:
    return line.split(separator) if separator else line.split()


def _bare_cell(written: str) -> str:
    return written.strip().strip("\"'").strip()


def _is_number(cell: str, decimal: str) -> bool:
    if not cell:
        return True
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return False
    return True


def _split_unit(name: str) -> tuple[str, str]:
    """``"I [mV]"`` as ``("I", "mV")``; a name without a unit as it is."""
    match = _NAME_WITH_UNIT.match(name)
    if match and match[2].lower() in (*MILLIVOLTS_PER_UNIT, "s", "ms"):
        return match[1], match[2]
    return name, ""


def _time_unit(name: str) -> float | None:
    """Seconds in one step of a column of times; None where it is none."""
    plain, unit = _split_unit(name)
    if unit in ("s", "ms"):
        plain = f"{plain}_{unit}"
    return TIME_COLUMNS.get(plain.strip().lower())


def rate_of_times(times: np.ndarray) -> float:
    """Samples per second of evenly spaced times.

    Raises:
        RecordError: they are not evenly spaced.
    """
    n_steps = len(times) - 1
    length = float(times[-1] - times[0]) if n_steps > 0 else 0.0
    if not (np.isfinite(times).all() and length > 0):
        raise RecordError("the column of times does not grow")
    even = times[0] + length / n_steps * np.arange(n_steps + 1)
    # Times are written with few decimals: half a step off is rounding, more is a gap.
    if np.abs(times - even).max() > 0.75 * length / n_steps:
        raise RecordError("the times in the first column are not evenly spaced")
    fs = n_steps / length
    return float(round(fs)) if abs(fs - round(fs)) < 0.001 * fs else round(fs, 3)
