"""Which format a file is in: by its content first, by its suffix where the content says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from einthoven.errors import RecordError
from einthoven.formats.dicom import DICOM_MAGIC
from einthoven.formats.edf import EDF_MAGIC
from einthoven.formats.hdf5_file import is_hdf5
from einthoven.formats.ishne import ISHNE_MAGIC
from einthoven.formats.matlab_file import MAT5_MAGIC, is_mat4
from einthoven.formats.scp import is_scp
from einthoven.formats.text_table import table_head
from einthoven.formats.xml_tree import root_name


class FileFormat(NamedTuple):
    """A format that `read_recording` reads.

    Attributes:
        title: as people call it.
        suffixes: that its files usually have; the content decides.
        parser: what takes the file apart.
        extra: of the package that has to be installed; empty where the core suffices.
        verified: on real files; otherwise on files built from the format's description.
    """

    title: str
    suffixes: tuple[str, ...]
    parser: str
    extra: str = ""
    verified: bool = True


FILE_FORMATS: dict[str, FileFormat] = {
    "wfdb": FileFormat(
        "WFDB (PhysioNet)", (".hea", ".dat", ".mat"), "own; wfdb for rare encodings"
    ),
    "csv": FileFormat("CSV, TSV", (".csv", ".tsv", ".txt"), "pandas"),
    "npy": FileFormat("NumPy array", (".npy",), "numpy, never pickle"),
    "npz": FileFormat("NumPy arrays", (".npz",), "numpy, never pickle"),
    "matlab": FileFormat("MATLAB 4 to 7", (".mat",), "scipy, after own checks"),
    "hdf5": FileFormat("HDF5, MATLAB 7.3", (".h5", ".hdf5", ".mat"), "h5py"),
    "edf": FileFormat("EDF, EDF+", (".edf",), "own"),
    "dicom": FileFormat("DICOM waveform", (".dcm",), "pydicom", "formats"),
    "scp": FileFormat("SCP-ECG", (".scp", ".ecg"), "own"),
    "aecg": FileFormat("HL7 annotated ECG", (".xml",), "own over defusedxml", "formats"),
    "cardiosoft": FileFormat("GE CardioSoft XML", (".xml",), "own over defusedxml", "formats"),
    "muse": FileFormat("GE MUSE XML", (".xml",), "own over defusedxml", "formats", False),
    "sierra": FileFormat("Philips Sierra XML", (".xml",), "own over defusedxml", "formats"),
    "schiller": FileFormat("Schiller XML", (".xml",), "own over defusedxml", "formats"),
    "ishne": FileFormat("ISHNE Holter", (".ecg", ".ishne"), "own", "", False),
}

XML_ROOTS = {
    "AnnotatedECG": "aecg", "CardiologyXML": "cardiosoft", "RestingECG": "muse",
    "restingecgdata": "sierra", "com.xiriuz.sema.xml.schillerEDI.SchillerEDI": "schiller",
    "SchillerEDI": "schiller",
}  # fmt: skip

# The bytes that tell every format but a table of numbers.
HEAD_BYTES = 4096

NOT_READ = {
    b"\xffBIOSEMI": "a BDF file (24 bits)", b"%PDF": "a PDF", b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image", b"GIF8": "an image", b"ANN  1.0": "ISHNE annotations",
    b"MFR ": "an MFER file",
}  # fmt: skip


def detect_format(data: bytes, path: Path) -> str:
    """The name in `FILE_FORMATS` of a file's format.

    Args:
        data: its content, or as much of it as there is.
        path: its name.

    Raises:
        RecordError: it is in none of them; says what was found.
    """
    found = format_of_content(data, path.suffix.lower())
    if found:
        return found
    known = ", ".join(one.title for one in FILE_FORMATS.values())
    raise RecordError(f"{_what_was_found(data)}; known are: {known}")


def format_of_content(data: bytes, suffix: str = "") -> str:
    """The name of the format that a file's first bytes tell; empty where they tell none."""
    start, magic = DICOM_MAGIC
    signs = {
        "dicom": data[start : start + len(magic)] == magic,
        "ishne": data.startswith(ISHNE_MAGIC),
        "npy": data.startswith(b"\x93NUMPY"),
        "npz": data.startswith(b"PK\x03\x04"),
        "hdf5": is_hdf5(data),
        "edf": data.startswith(EDF_MAGIC),
        "matlab": data.startswith(MAT5_MAGIC) or is_mat4(data),
        "scp": is_scp(data),
    }
    for name, is_there in signs.items():
        if is_there:
            return name
    root = root_name(data[:HEAD_BYTES])
    if root:
        return XML_ROOTS.get(root, "")
    # A data set without the preamble begins with its first element: group 2 or 8.
    if suffix in (".dcm", ".dicom") and data[:1] in (b"\x02", b"\x08"):
        return "dicom"
    return "csv" if table_head(data) is not None else ""


def _what_was_found(data: bytes) -> str:
    if not data:
        return "the file is empty"
    root = root_name(data[:HEAD_BYTES])
    if root:
        return f"the XML's root element is {root[:60]!r}, of no known format"
    for magic, words in NOT_READ.items():
        if data.startswith(magic):
            return f"the file is {words}, which is not read"
    return f"the file's first bytes, {data[:12]!r}, are those of no known format"
