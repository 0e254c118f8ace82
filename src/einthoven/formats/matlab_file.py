"""MATLAB files of versions 4 to 7, through scipy, and what has to be known before it is asked.

scipy takes the sizes in a file's headers as they are and asks for that much memory; so they are
followed here first. Version 7.3 is HDF5 (`einthoven.formats.hdf5_file`).
Format: MathWorks, "MAT-File Format" (rev. 2023).
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

from einthoven.errors import RecordError
from einthoven.formats.arrays import content_of_arrays
from einthoven.formats.content import MAX_FILE_MB, FileContent
from einthoven.readers.cpsc2018 import CPSC2018_FS

MAT5_MAGIC = b"MATLAB 5.0 MAT-file"
MAT5_HEADER = 128
MI_COMPRESSED, MI_MATRIX, MI_INT32, MI_UINT32 = 15, 14, 5, 6
# Classes of matrices that hold others: cell, struct, object.
MX_NESTED = (1, 2, 3)
DEEPEST_MATRIX = 16
UNPACK_STEP = 2**15
MOST_ELEMENTS_OF_MATRIX = 100_000
MOST_VARIABLES = 10_000

MAT4_HEADER = struct.Struct("<5i")  # type, rows, columns, has an imaginary part, bytes of the name
MAT4_BYTES = (8, 4, 4, 2, 2, 1)  # of a value, by the second digit of its type

CPSC_REMARK = "a struct ECG without a rate: 500 Hz was taken, as in the CPSC-2018 archive"


def is_mat4(data: bytes) -> bool:
    """Do a MATLAB v4 header and a name begin here?"""
    if len(data) < MAT4_HEADER.size:
        return False
    kind, rows, columns, imaginary, n_name = MAT4_HEADER.unpack_from(data)
    name = data[MAT4_HEADER.size : MAT4_HEADER.size + max(0, min(n_name, 64))]
    is_kind = 0 <= kind < 60 and kind % 10 <= 2
    plain = name.endswith(b"\0") and name[:-1].isascii() and name[:-1].decode().isidentifier()
    return is_kind and rows > 0 and columns > 0 and imaginary in (0, 1) and plain


def read_matlab(data: bytes, told_leads: Sequence[str] = ()) -> FileContent:
    """The signal of a MATLAB file: a matrix, or the struct ``ECG`` of CPSC-2018.

    Raises:
        RecordError: it is damaged, larger than its file can be, or holds no signal.
    """
    from scipy.io import loadmat

    if data.startswith(MAT5_MAGIC[:6]):
        _check_mat5(data)
    else:
        _check_mat4(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of objects that it cannot read: no signals
            variables = loadmat(io.BytesIO(data))
    # A damaged file fails wherever scipy's parser happens to stumble.
    except Exception as error:
        raise RecordError(f"the MATLAB file is damaged ({error})") from None
    arrays = {name: value for name, value in variables.items() if not name.startswith("__")}
    struct_arrays = _single_struct(arrays)
    if struct_arrays is None:
        return content_of_arrays(arrays, told_leads)
    content = content_of_arrays(struct_arrays, told_leads)
    if content.fs is None and {"sex", "age", "data"} <= struct_arrays.keys():
        return content._replace(fs=CPSC2018_FS, remarks=(*content.remarks, CPSC_REMARK))
    return content


def _single_struct(arrays: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of the file's only variable, where that is one struct."""
    if len(arrays) != 1:
        return None
    value = next(iter(arrays.values()))
    names = getattr(getattr(value, "dtype", None), "names", None)
    if not names or value.size != 1:
        return None
    return {name: value.reshape(-1)[0][name] for name in names}


def _check_mat4(data: bytes) -> None:
    """Refuse a matrix that is larger than what is left of the file."""
    position = n_variables = 0
    while position + MAT4_HEADER.size <= len(data):
        n_variables += 1
        kind, rows, columns, imaginary, n_name = MAT4_HEADER.unpack_from(data, position)
        width = MAT4_BYTES[kind // 10] if 0 <= kind < 60 else 0
        if not width or min(rows, columns, n_name) < 0 or n_variables > MOST_VARIABLES:
            raise RecordError("the MATLAB v4 file is damaged")
        n_bytes = rows * columns * width * (2 if imaginary else 1)
        position += MAT4_HEADER.size + n_name + n_bytes
        if position > len(data):
            raise RecordError(
                f"the MATLAB v4 file is cut short: a matrix of {rows:,} × {columns:,} is announced"
            )


# Version 5 to 7 --------------------------------------------------------------------------------


def _check_mat5(data: bytes) -> None:
    """Follow every element and matrix; refuse what is larger than the bytes it comes in."""
    if len(data) < MAT5_HEADER:
        raise RecordError("the MATLAB file is cut short in its header")
    order = ">" if data[126:128] == b"MI" else "<"
    room = MAX_FILE_MB * 2**20
    position, n_variables, view = MAT5_HEADER, 0, memoryview(data)
    while position + 8 <= len(data):
        n_variables += 1
        kind, n_bytes = struct.unpack_from(order + "II", data, position)
        body = view[position + 8 : position + 8 + n_bytes]
        if len(body) < n_bytes or n_variables > MOST_VARIABLES:
            raise RecordError("the MATLAB file is cut short")
        if kind == MI_COMPRESSED:
            unpacked = _unpack(body, room)
            room -= len(unpacked)
            _check_elements(memoryview(unpacked), order)
        elif kind == MI_MATRIX:
            _check_matrix(body, order, 0)
        position += 8 + n_bytes


def _unpack(body: memoryview, room: int) -> bytes:
    stream, parts, size = zlib.decompressobj(), [], 0
    try:
        for start in range(0, len(body), UNPACK_STEP):
            # A step unpacks to a thousand times its size at most.
            part = stream.decompress(body[start : start + UNPACK_STEP])
            size += len(part)
            if size > room:
                raise RecordError(f"the MATLAB file unpacks to over {MAX_FILE_MB} MiB")
            parts.append(part)
    except zlib.error as error:
        raise RecordError(f"the MATLAB file is damaged ({error})") from None
    return b"".join(parts)


def _check_elements(body: memoryview, order: str) -> None:
    for kind, content in _elements(body, order):
        if kind == MI_MATRIX:
            _check_matrix(content, order, 0)


def _elements(body: memoryview, order: str) -> list[tuple[int, memoryview]]:
    """The elements that follow each other in some bytes: type and content."""
    found: list[tuple[int, memoryview]] = []
    position = 0
    while position + 8 <= len(body):
        kind, n_bytes = struct.unpack_from(order + "II", body, position)
        if kind >> 16:  # small: both in one word, the content in the other
            kind, n_bytes, start, step = kind & 0xFFFF, kind >> 16, position + 4, 8
        else:
            start, step = position + 8, 8 + n_bytes + (-n_bytes) % 8
        if (step == 8 and n_bytes > 4) or start + n_bytes > len(body):
            raise RecordError("the MATLAB file is damaged: an element is larger than its place")
        if len(found) == MOST_ELEMENTS_OF_MATRIX:
            raise RecordError(f"a matrix of the MATLAB file has over {len(found):,} elements")
        found.append((kind, body[start : start + n_bytes]))
        position += step
    return found


def _check_matrix(body: memoryview, order: str, depth: int) -> None:
    """Refuse a matrix with more members than it has bytes, or one too deep within others."""
    if depth > DEEPEST_MATRIX:
        raise RecordError(f"the MATLAB file has matrices more than {DEEPEST_MATRIX} deep")
    if not len(body):
        return
    parts = _elements(body, order)
    if len(parts) < 2 or parts[0][0] != MI_UINT32 or len(parts[0][1]) < 8:
        raise RecordError("the MATLAB file has a damaged matrix")
    if parts[1][0] != MI_INT32:
        return  # an opaque object, which scipy passes by
    n_dims = len(parts[1][1]) // 4
    dims = struct.unpack_from(f"{order}{n_dims}i", parts[1][1])
    if any(size < 0 for size in dims) or n_dims > 32 or math.prod(dims) > len(body):
        raise RecordError(f"the MATLAB file announces a matrix of {dims} in {len(body):,} bytes")
    (flags,) = struct.unpack_from(order + "I", parts[0][1])
    if flags & 0xFF in MX_NESTED:
        for kind, content in parts[2:]:
            if kind == MI_MATRIX:
                _check_matrix(content, order, depth + 1)
