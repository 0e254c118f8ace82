"""Columns of millions of rows, looked at without making an object of each row.

A Python string takes 60 bytes and a list of labels 200; a table of ten million records has no room
for either. So strings stay in Arrow's form and are looked at piece by piece, what few values a
column has is kept once, and numbers stand for the rest.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROWS_PER_PIECE = 1 << 16
# Between the labels of one record while they are one string; in no label.
_UNIT_SEPARATOR = "\x1f"

# What is at some rows: strings, as an array of objects.
Texts = Callable[[Any], np.ndarray]


def row_pieces(n_rows: int) -> Iterator[slice]:
    """Slices of so many rows that what is made of each is no matter."""
    for start in range(0, n_rows, ROWS_PER_PIECE):
        yield slice(start, min(start + ROWS_PER_PIECE, n_rows))


def texts_of(column: pd.Series[Any]) -> Texts:
    """What is at some rows (a slice, or row numbers) of a column."""
    return lambda rows: column.iloc[rows].to_numpy(object)


def release_freed() -> None:
    """Give back to the system what Arrow and the C library have freed; they would keep it."""
    pa.default_memory_pool().release_unused()
    # glibc's own; other C libraries have none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def taken(values: np.ndarray, rows: np.ndarray, dtype: Any) -> np.ndarray:
    """``values[rows]`` of another number type, without both types in memory."""
    out = np.empty(len(rows), dtype)
    for piece in row_pieces(len(rows)):
        out[piece] = values[rows[piece]]
    return out


def rows_where(mask: np.ndarray) -> np.ndarray:
    """The rows at which a mask is true: ``(n,)`` int32."""
    rows, n_found = np.empty(np.count_nonzero(mask), np.int32), 0
    for piece in row_pieces(len(mask)):
        found = np.flatnonzero(mask[piece])
        rows[n_found : n_found + len(found)] = found + piece.start
        n_found += len(found)
    return rows


# Reading -----------------------------------------------------------------------------------------


def read_columns(path: Path, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns of a Parquet file as `pandas.read_parquet` gives them, but one after the other.

    So they are never in memory twice. Records that carry the same list of labels share it; it
    cannot be written to.

    Args:
        names: of the columns; None for all that are there.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    schema = pq.read_schema(path)
    columns: dict[str, Any] = {}
    table = pd.read_parquet(path, columns=[])
    for name in schema.names if names is None else names:
        kind = schema.field(name).type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            columns[name] = whole_texts(_read_one(path, name))
        elif name == "labels" and pa.types.is_list(kind):
            columns[name] = shared_lists(_read_one(path, name))
        else:
            columns[name] = pd.read_parquet(path, columns=[name], use_threads=False)[name]
        release_freed()
    whole = pd.DataFrame(columns, copy=False)
    whole.attrs = dict(table.attrs)
    return whole


def _read_one(path: Path, name: str) -> pa.ChunkedArray:
    # By one thread, because each would keep what it has freed.
    return pq.read_table(path, columns=[name], use_threads=False)[name]


def own_columns(columns: dict[str, pa.ChunkedArray]) -> pd.DataFrame:
    """Arrow columns as pandas has them; each is taken out of the dict, and freed, on the way."""
    owned: dict[str, Any] = {}
    for name in list(columns):
        column = columns.pop(name)
        owned[name] = whole_texts(column) if pa.types.is_string(column.type) else column.to_pandas()
        del column
        release_freed()
    return pd.DataFrame(owned, copy=False)


def whole_texts(column: pa.ChunkedArray) -> pd.Series[str]:
    """A column of strings as pandas has it, in one piece.

    Of many pieces a good part would be waste, and each would be looked at for every row taken.
    """
    pieces = [piece.cast(pa.large_string()) for piece in column.chunks]
    if len(pieces) > 1:
        pieces = [pa.concat_arrays(pieces)]
    whole: pd.Series[str] = pa.chunked_array(pieces, pa.large_string()).to_pandas()
    return whole


def shared_lists(column: pa.ChunkedArray) -> np.ndarray:
    """``(n,)`` objects: each row's list of strings; equal lists are one array."""
    known: dict[str | None, np.ndarray | None] = {None: None}
    lists = np.empty(len(column), object)
    for piece in row_pieces(len(column)):
        part = column.slice(piece.start, piece.stop - piece.start).cast(pa.list_(pa.string()))
        encoded = pc.binary_join(part, _UNIT_SEPARATOR).combine_chunks().dictionary_encode()
        texts = [*encoded.dictionary.to_pylist(), None]
        for text in texts:
            if text not in known:
                known[text] = _fixed_list(text or "")
        values = np.empty(len(texts), object)
        for number, text in enumerate(texts):
            values[number] = known[text]
        codes = encoded.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
        lists[piece] = values[codes]
    return lists


def _fixed_list(text: str) -> np.ndarray:
    parts = np.array(text.split(_UNIT_SEPARATOR) if text else [], object)
    parts.flags.writeable = False
    return parts


# Numbers for values ------------------------------------------------------------------------------


def number_lists(lists: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Number lists of strings, of which there are few different ones.

    Returns:
        ``(n,)`` int32 number of each row's list, and the lists, in the order of their first row.
    """
    number_of_object: dict[int, int] = {}
    number_of: dict[tuple[str, ...], int] = {}

    def look_up(names: Sequence[str]) -> int:
        number = number_of_object.get(id(names))
        if number is None:
            number = number_of.setdefault(tuple(names), len(number_of))
            # Lists that records share; of lists of their own it would hold every one.
            if len(number_of_object) < ROWS_PER_PIECE:
                number_of_object[id(names)] = number
        return number

    numbers = np.fromiter(map(look_up, lists), np.int32, count=len(lists))
    return numbers, list(number_of)


def number_few(column: pd.Series[Any]) -> tuple[np.ndarray, list[Any]]:
    """Number the values of a column that has few different ones, in the order of their first row.

    Returns:
        ``(n,)`` numbers, of the smallest type that holds them, and the values.
    """
    number_of: dict[Any, int] = {}
    numbers = np.zeros(len(column), np.uint8)
    for piece in row_pieces(len(column)):
        codes, values = pd.factorize(column.iloc[piece])
        mapped = np.array([number_of.setdefault(value, len(number_of)) for value in values], int)
        needed = np.min_scalar_type(max(len(number_of) - 1, 0))
        if needed.itemsize > numbers.itemsize:
            numbers = numbers.astype(needed)
        numbers[piece] = mapped[codes]
    return numbers, list(number_of)


def number_texts(texts: Texts, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Number strings that may be all different, in the order of their first row.

    As `pandas.factorize`, with a tenth of its memory: rows are sorted by 40 bits or so of their
    strings' hashes, and those of one hash are compared as strings.

    Args:
        texts: the strings at some rows.
        n_rows: how many there are.

    Returns:
        ``(n_rows,)`` int32 number of each row's string, and ``(n_strings,)`` int32 first row of
        each.
    """
    number = _first_rows(texts, n_rows)
    first_rows, n_found = np.empty(n_rows, np.int32), 0
    for piece in row_pieces(n_rows):
        rows = np.arange(piece.start, piece.stop)
        is_first = number[piece] == rows
        found = rows[is_first]
        first_rows[n_found : n_found + len(found)] = found
        number[found] = np.arange(n_found, n_found + len(found))
        # A first row is not behind its others, and has its number by now.
        others = rows[~is_first]
        number[others] = number[number[others]]
        n_found += len(found)
    first_rows = first_rows[:n_found].copy()
    release_freed()
    return number, first_rows


def _first_rows(texts: Texts, n_rows: int) -> np.ndarray:
    """For each row the first row with its string: ``(n_rows,)`` int32."""
    leader = _rows_of_one_hash(texts, n_rows)
    others: dict[tuple[int, str], int] = {}
    for piece in row_pieces(n_rows):
        rows = np.arange(piece.start, piece.stop)
        rows = rows[leader[piece] != rows]
        if len(rows) == 0:
            continue
        for row in rows[texts(rows) != texts(leader[rows])].tolist():
            # Another string with the same bits: rare, and settled one by one.
            key = (int(leader[row]), str(texts(slice(row, row + 1))[0]))
            leader[row] = others.setdefault(key, row)
    return leader


def _rows_of_one_hash(texts: Texts, n_rows: int) -> np.ndarray:
    """For each row the first row with its hash, as far as the hash fits beside a row's number."""
    leader = np.empty(n_rows, np.int32)
    for half in range(2):
        # Hashed twice, so that half as many are in memory.
        _lead_rows(leader, _sorted_hashes(texts, n_rows, half))
    return leader


def _row_mask(n_rows: int) -> np.uint64:
    """The lowest bits, in which a row's number fits."""
    return np.uint64((1 << max(int(n_rows - 1).bit_length(), 1)) - 1)


def _sorted_hashes(texts: Texts, n_rows: int, half: int) -> np.ndarray:
    """Hashes with this highest bit, each with its row in its lowest bits, ascending."""
    low = _row_mask(n_rows)
    # What is not written to takes no memory.
    packed, n_packed = np.empty(n_rows, np.uint64), 0
    for piece in row_pieces(n_rows):
        hashed = pd.util.hash_array(texts(piece), categorize=False)
        rows = np.arange(piece.start, piece.stop, dtype=np.uint64)
        mine = ((hashed & ~low) | rows)[hashed >> np.uint64(63) == half]
        packed[n_packed : n_packed + len(mine)] = mine
        n_packed += len(mine)
    packed = packed[:n_packed]
    packed.sort()
    return packed


def _lead_rows(leader: np.ndarray, packed: np.ndarray) -> None:
    """Write for each of these rows the first row with its hash."""
    low = _row_mask(len(leader))
    before, first = None, 0
    for piece in row_pieces(len(packed)):
        bits, rows = packed[piece] & ~low, (packed[piece] & low).astype(np.int64)
        begins = np.concatenate([[bits[0] != before], bits[1:] != bits[:-1]])
        start = np.where(begins, np.arange(len(rows)), -1)
        start = np.maximum.accumulate(start)
        leader[rows] = np.where(start >= 0, rows[start], first)
        before, first = bits[-1], int(leader[rows[-1]])


def column_of_texts(texts: Texts, n_rows: int, changed: Mapping[int, str]) -> Any:
    """A column of strings, some of them changed, as pandas keeps it; made piece by piece.

    None may be missing: that would come out as an empty one.

    Its bytes lie in one array that grows: what Arrow builds of Python's strings is, by half, room
    for more.
    """
    rows = np.array(sorted(changed), np.int64)
    offsets, content = np.zeros(n_rows + 1, np.int64), np.zeros(0, np.uint8)
    for piece in row_pieces(n_rows):
        part = texts(piece)
        for row in rows[slice(*np.searchsorted(rows, (piece.start, piece.stop)))].tolist():
            part[row - piece.start] = changed[row]
        _, ends, letters = pa.array(part, pa.large_string()).buffers()
        start, ends = len(content), np.frombuffer(ends, np.int64, len(part) + 1)
        # The system moves large memory without copying it.
        content.resize(start + ends[-1], refcheck=False)
        content[start:] = np.frombuffer(letters, np.uint8, ends[-1]) if ends[-1] else 0
        offsets[piece.start + 1 : piece.stop + 1] = start + ends[1:]
    whole = pa.LargeStringArray.from_buffers(n_rows, pa.py_buffer(offsets), pa.py_buffer(content))
    column = pa.chunked_array([whole]).to_pandas().array
    release_freed()
    return column


def empty_texts(n_rows: int) -> Texts:
    """A column of empty strings."""
    return lambda rows: np.full(len(range(*rows.indices(n_rows))), "", object)


# Digests -----------------------------------------------------------------------------------------


def digest_of_rows(table: pd.DataFrame) -> str:
    """What `digest` says of ``table.to_numpy().tolist()``, in pieces."""
    state = hashlib.sha256(b"[")
    for piece in row_pieces(len(table)):
        told = json.dumps(table.iloc[piece].to_numpy().tolist(), default=str)
        state.update(((", " if piece.start else "") + told[1:-1]).encode())
    state.update(b"]")
    release_freed()
    return state.hexdigest()[:16]
