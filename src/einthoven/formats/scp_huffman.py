"""The Huffman codes of SCP-ECG (EN 1064, section 2)."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from einthoven.errors import RecordError

# This number of tables stands for the standard's own table, which is then not written out.
SCP_DEFAULT_TABLE = 19999
SCP_CODE = struct.Struct("<BBBhI")  # bits of the prefix, of all, mode, value, prefix reversed
MOST_HUFFMAN_CODES = 4096
MOST_PREFIX_BITS = 32


class HuffmanCode(NamedTuple):
    """One code: its prefix of so many bits, then ``extra`` bits that are the value itself.

    Where ``is_value`` is false, the code switches to table number ``value``, counted from 1.
    """

    n_bits: int
    prefix: int
    extra: int
    value: int
    is_value: bool


HuffmanTable = dict[tuple[int, int], HuffmanCode]


def default_huffman_table() -> HuffmanTable:
    """The standard's table: 0 is ``0``, ±n is n ones, a zero and the sign; the rest is plain."""
    codes = [HuffmanCode(1, 0, 0, 0, True)]
    for size in range(1, 9):
        prefix = ((1 << size) - 1) << 2
        codes.append(HuffmanCode(size + 2, prefix, 0, size, True))
        codes.append(HuffmanCode(size + 2, prefix | 1, 0, -size, True))
    codes.append(HuffmanCode(10, 0b1111111110, 8, 0, True))
    codes.append(HuffmanCode(10, 0b1111111111, 16, 0, True))
    return {(code.n_bits, code.prefix): code for code in codes}


def read_huffman_tables(body: bytes) -> list[HuffmanTable]:
    """The tables of section 2.

    Raises:
        RecordError: they are damaged.
    """
    if len(body) < 2:
        raise RecordError("the SCP-ECG file's Huffman tables are cut short")
    (n_tables,) = struct.unpack_from("<H", body)
    if n_tables == SCP_DEFAULT_TABLE:
        return [default_huffman_table()]
    tables: list[HuffmanTable] = []
    position = 2
    for _ in range(n_tables):
        if position + 2 > len(body):
            raise RecordError("the SCP-ECG file's Huffman tables are cut short")
        (n_codes,) = struct.unpack_from("<H", body, position)
        position += 2
        end = position + n_codes * SCP_CODE.size
        if n_codes > MOST_HUFFMAN_CODES or end > len(body):
            raise RecordError("the SCP-ECG file's Huffman tables are cut short")
        codes = [_read_code(body, at) for at in range(position, end, SCP_CODE.size)]
        tables.append({(code.n_bits, code.prefix): code for code in codes})
        position = end
    if not tables:
        raise RecordError("the SCP-ECG file announces no Huffman table")
    return tables


def _read_code(body: bytes, position: int) -> HuffmanCode:
    n_bits, n_all, mode, value, reversed_prefix = SCP_CODE.unpack_from(body, position)
    if not 0 < n_bits <= MOST_PREFIX_BITS or not n_bits <= n_all <= n_bits + 32:
        raise RecordError(f"the SCP-ECG file has a Huffman code of {n_bits} in {n_all} bits")
    # The first bit of the stream is the lowest of the number.
    prefix = int(f"{reversed_prefix & ((1 << n_bits) - 1):0{n_bits}b}"[::-1], 2)
    return HuffmanCode(n_bits, prefix, n_all - n_bits, value, mode == 1)


def decode_huffman(data: bytes, n_values: int, tables: list[HuffmanTable]) -> np.ndarray:
    """So many values from a stream of bits, most significant first; fewer where it ends; int64.

    Raises:
        RecordError: a code is not in the table.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
    values: list[int] = []
    table, position, n_bits = tables[0], 0, len(bits)
    while len(values) < n_values and position < n_bits:
        code, position = _next_code(bits, position, table)
        if code is None:
            break
        if not code.is_value:
            if not 1 <= code.value <= len(tables):
                raise RecordError(f"the SCP-ECG file has no Huffman table {code.value}")
            table = tables[code.value - 1]
            continue
        if code.extra:
            if position + code.extra > n_bits:
                break
            values.append(_signed(bits[position : position + code.extra]))
            position += code.extra
        else:
            values.append(code.value)
    return np.array(values, np.int64)


def _next_code(bits: list[int], start: int, table: HuffmanTable) -> tuple[HuffmanCode | None, int]:
    """The next code and where it ends; None where the stream ends within it."""
    prefix = 0
    for position in range(start, min(start + MOST_PREFIX_BITS, len(bits))):
        prefix = (prefix << 1) | bits[position]
        code = table.get((position - start + 1, prefix))
        if code is not None:
            return code, position + 1
    if start + MOST_PREFIX_BITS > len(bits):
        return None, len(bits)
    raise RecordError("the SCP-ECG file is damaged: a Huffman code is not in its table")


def _signed(bits: list[int]) -> int:
    number = int("".join(map(str, bits)), 2)
    return number - (1 << len(bits)) if bits[0] else number
