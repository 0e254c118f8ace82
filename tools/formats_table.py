"""Write docs/reference/formats.md: what is read, and how it fared on real files.

python tools/formats_table.py DATA           read the files of DATA, rewrite the page
python tools/formats_table.py DATA --check   fail where the page is stale

Each real file is read by `read_recording` and by something that shares no code with it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from einthoven.errors import RecordError
from einthoven.files import write_text
from einthoven.formats.detection import FILE_FORMATS
from einthoven.formats.reading import Recording, read_recording
from einthoven.quality import lead_law_residual
from einthoven.readers.wfdb_files import load_wfdb
from einthoven.records import LEADS, lead_name, standard_leads

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "reference" / "formats.md"
# What the files themselves do not say.
SAID = {".edf": {"leads": ("I",)}, ".h5": {"fs": 500.0}}
AGREES_UV = 1.0

Reading = tuple[str, np.ndarray] | None

INTRODUCTION = """# File formats

Written by `tools/formats_table.py`. `read_recording(path)` of `einthoven.formats.reading` reads one
file in any of these; `einthoven predict` and `einthoven serve` use it. A format is told by a file's
content: a wrong or missing suffix does not matter. `extra` is what has to be installed besides the
core: `pip install 'einthoven[formats]'`.
"""

RULES = """
## What has to be said

- **Sampling rate.** Arrays without a rate beside them (CSV without a column of times, `.npy`, most
  `.mat` and `.h5`) need `fs`. A file that states its rate keeps it, and a remark says so.
- **Units.** Where a file states none, millivolts are taken if a typical lead spans 0.02 to 50 mV,
  and a remark says so. Otherwise the reason names the span and asks for `units` (V, mV, uV, nV).
- **Leads.** Names count, never positions; "MDC_ECG_LEAD_AVR", "Lead II", "ECG V1", "C4" are known.
  An array of twelve rows or columns without names is taken in standard order, with a remark. A file
  with none of the twelve leads (an EDF signal called "ECG") needs `leads`. Other signals are left
  out with a remark. "-aVR" is aVR upside down and is not taken for aVR.
- **Arrays.** The signal is called `val`, `ecg`, `signal`, `data` …, or is the only array; `fs`,
  `units` and `leads` beside it, or as attributes in HDF5, are used.

## What is left out

- Of several signals in a file (rhythm and averaged beats) the rhythm is taken, with a remark.
- A pulse of 1 mV in all leads at the end, which Philips recorders append (0.4 s), is cut off with a
  remark: a model would take it for a wave.
- What EDF files mark as not recorded at their end is cut off.
- SCP-ECG with bimodal compression or with an averaged beat subtracted is refused by name: no real
  file was at hand to check a reader against. So are BDF, µ-law DICOM and deflated DICOM.
- Recordings over an hour (Holter) are refused by their length.

## Safety

No file can make a reader run code, fetch anything, write to the disk or fill the memory: files over
256 MiB (DICOM 96, tables 64, XML 32) are refused; sizes that a header announces are checked before
memory is asked for; archives and compressed matrices are unpacked only to a limit; NumPy files are
never unpickled; XML may declare neither entities nor external references, and its elements are
counted, as are the parts of DICOM and MATLAB files; HDF5 links, external storage and virtual data
sets are not followed. Every truncated or altered file of the tests gives a recording or a reason,
and nothing else. The parsers of HDF5, MATLAB and tables are compiled code outside this project: a
service should read uploads in a process of its own, as `einthoven serve` does. A file near these
limits takes seconds, and up to a gigabyte of memory.

Readers of our own stand where the available ones fall short. ecgdatakit knows neither CardioSoft
nor Schiller, refuses a real SCP-ECG file that counts its samples from 0, and keeps Philips'
calibration pulse; edflib refuses discontinuous EDF+ and takes paths only. The tests and this page
hold ours against both.

## Folders

`find_recordings` yields one path for each recording: a WFDB record by its header, segments of a
longer one not at all. Hidden files, links that lead out of the folder, and files of no known format
are passed by. A `.csv`, `.tsv` or `.txt` counts as a recording where its second line has only
numbers and its first one names a lead (or only numbers, in at most 16 columns), so that tables of
labels are passed by; named as a file it is always tried.
"""


# Other readings --------------------------------------------------------------------------------


def other_reading(path: Path, recording: Recording) -> Reading:
    """The same signal, read by other code: its name, and ``(lead, sample)`` millivolts."""
    readers: dict[str, Callable[[Path], Reading]] = {
        "dicom": read_by_pydicom, "edf": read_by_pyedflib, "wfdb": read_by_wfdb,
        "cardiosoft": read_cardiosoft_by_hand, "schiller": read_schiller_by_hand,
        "hdf5": read_by_h5py, "matlab": read_by_scipy,
    }  # fmt: skip
    return readers.get(recording.format, read_by_ecgdatakit)(path)


def read_by_ecgdatakit(path: Path) -> Reading:
    from ecgdatakit import FileParser
    from ecgdatakit.exceptions import ECGDataKitError

    try:
        leads = FileParser().parse(str(path)).leads
    except ECGDataKitError:
        return None
    factors = {"mV": 1.0, "uV": 1e-3}
    return "ecgdatakit", np.stack([np.asarray(x.samples) * factors[x.units] for x in leads])


def read_by_pydicom(path: Path) -> Reading:
    import pydicom

    dataset = pydicom.dcmread(path)
    return "pydicom's own decoder", dataset.waveform_array(0).T / 1000  # all are in µV


def read_by_pyedflib(path: Path) -> Reading:
    import pyedflib

    with pyedflib.EdfReader(str(path)) as file:
        return "edflib", np.stack([file.readSignal(k) for k in range(file.signals_in_file)])


def read_by_wfdb(path: Path) -> Reading:
    matrix = path.with_suffix(".mat")
    if matrix.exists():
        from scipy.io import loadmat

        # The Challenge's own gain, which early Georgia headers give wrongly (`read_wfdb_header`).
        return "scipy, at 1000/mV", loadmat(matrix)["val"] / 1000
    return "wfdb", load_wfdb().rdrecord(str(path.with_suffix(""))).p_signal.T


def read_cardiosoft_by_hand(path: Path) -> Reading:
    strip = re.search(r"<StripData>.*?</StripData>", path.read_text("latin-1"), re.DOTALL)[0]
    step = float(re.search(r'units="uVperLsb">([\d.]+)<', strip)[1]) / 1000
    rows = re.findall(r'<WaveformData lead="\w+">([^<]+)<', strip)
    return "numbers picked from the text", step * numbers_of(rows)


def read_schiller_by_hand(path: Path) -> Reading:
    text = path.read_text("latin-1").partition("<type>ECG_RHYTHMS</type>")[2]
    return "numbers picked from the text", numbers_of(re.findall(r"<data>([^<]+)<", text)) / 1000


def numbers_of(rows: list[str]) -> np.ndarray:
    return np.array([[int(word) for word in row.split(",") if word.strip()] for row in rows])


def read_by_h5py(path: Path) -> Reading:
    import h5py

    with h5py.File(path) as file:
        return "h5py", np.asarray(file["ecg"], float)


def read_by_scipy(path: Path) -> Reading:
    from scipy.io import loadmat

    return "scipy", np.asarray(loadmat(path)["ECG"]["data"][0, 0], float)


# Heart rates -----------------------------------------------------------------------------------

# How files write the rate that the recorder measured itself.
STATED_RATES = (
    r'<VentricularRate units="BPM">(\d+)<', r"<meanventrate>(\d+)<",
    r"<name>HR</name>\s*<value>(\d+)<", r'MDC_ECG_HEART_RATE"[^>]*/>\s*<value[^>]*value="(\d+)"',
)  # fmt: skip


def stated_rate(path: Path) -> float | None:
    data = path.read_bytes()
    if path.suffix == ".dcm":
        import pydicom

        for note in pydicom.dcmread(path).get("WaveformAnnotationSequence", []):
            names = [code.CodeMeaning for code in note.get("ConceptNameCodeSequence", [])]
            if "Ventricular Heart Rate" in names:
                return float(note.NumericValue)
        return None
    text = data.decode("utf-16" if data[:2] == b"\xff\xfe" else "latin-1", "replace")
    found = (re.search(pattern, text) for pattern in STATED_RATES)
    return next((float(match[1]) for match in found if match), None)


def heart_rate(signal: np.ndarray, fs: float) -> float:
    """Beats per minute, from the steepest moments of all leads together."""
    from scipy.signal import butter, find_peaks, sosfiltfilt

    sos = butter(2, [5, 20], "bandpass", fs=fs, output="sos")
    energy = (sosfiltfilt(sos, np.nan_to_num(signal), axis=1) ** 2).sum(axis=0)
    smooth = np.convolve(energy, np.ones(int(0.1 * fs)), "same")
    peaks, _ = find_peaks(smooth, height=0.3 * np.percentile(smooth, 99), distance=int(0.3 * fs))
    return 60 * fs / float(np.mean(np.diff(peaks))) if len(peaks) > 2 else float("nan")


# The page --------------------------------------------------------------------------------------


def real_files(data: Path) -> list[Path]:
    """The files of single formats, and one record of each archive whose files are of one."""
    single = [
        path
        for path in sorted((data / "formats").rglob("*"))
        if path.suffix.lower() in (".dcm", ".edf", ".xml", ".scp", ".hea")
    ]
    archives = (
        "ptbdb/*/*.hea", "ptb-xl/records500/*/*.hea", "challenge-2021/training/*/*/*.hea",
        "cpsc2018/TrainingSet1/*.mat", "sph/records/*.h5",
    )  # fmt: skip
    return single + [sorted(data.glob(pattern))[0] for pattern in archives]


def file_row(path: Path, data: Path) -> str:
    recording = read_recording(path, **SAID.get(path.suffix, {}))
    signal = recording.signal
    ordered, present = standard_leads(signal, recording.leads)
    n_standard = sum(lead_name(name) in LEADS for name in recording.leads)
    law = 1000 * lead_law_residual(np.nan_to_num(ordered), present)
    is_checked = {lead_name(name) for name in recording.leads} >= set(LEADS[:3])
    found, stated = heart_rate(signal, recording.fs), stated_rate(path)
    told, difference = compare_readings(path, recording)
    is_right = judge(difference, law if is_checked else None, found, stated)
    cells = [
        path.relative_to(data).as_posix(), recording.format,
        f"{len(recording.leads)} ({n_standard})",
        f"{recording.fs:g}", f"{signal.shape[1] / recording.fs:.2f}",
        f"{np.nanmax(np.abs(signal)):.3f}", f"{law:.0f}" if is_checked else "–",
        f"{found:.0f} / {stated:.0f}" if stated else f"{found:.0f} / –", told, is_right,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def compare_readings(path: Path, recording: Recording) -> tuple[str, float | None]:
    """What the other reading is and how far it differs, in words and in µV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = other_reading(path, recording)
    if other is None:
        return "none", None
    name, signal = other
    signal = signal[:, : recording.signal.shape[1]]
    difference = 1000 * float(np.nanmax(np.abs(signal - recording.signal)))
    return f"{name}: {difference:.2f} µV", difference


def judge(difference: float | None, law: float | None, found: float, stated: float | None) -> str:
    """``right`` where another reading agrees and nothing contradicts it."""
    if difference is not None and difference > AGREES_UV:
        return "differs from the other reading"
    if law is not None and law > 20:
        return "contradicts the limb-lead laws"
    if stated and abs(found - stated) > 0.05 * stated:
        return "contradicts the stated heart rate"
    return "right" if difference is not None else "plausible"


def real_file_words(name: str, is_verified: bool) -> str:
    if name in ("csv", "npy", "npz"):
        return "written by programs, not recorders: round trips"
    return "verified" if is_verified else "unverified: built files only"


def formats_page(data: Path) -> str:
    lines = [INTRODUCTION, "| format | name | suffixes | parser | extra | real files |"]
    lines.append("|---|---|---|---|---|---|")
    for name, one in FILE_FORMATS.items():
        verdict = real_file_words(name, one.verified)
        suffixes = ", ".join(f"`{suffix}`" for suffix in one.suffixes)
        cells = [one.title, f"`{name}`", suffixes, one.parser, one.extra or "–", verdict]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Real files", "", HOW_CHECKED, ""]
    lines.append(
        "| file | format | leads (of the twelve) | Hz | seconds | peak mV | laws µV | "
        "rate/min found / stated | other reading, largest difference | verdict |"
    )
    lines.append("|---|---|---|---:|---:|---:|---:|---|---|---|")
    lines += [file_row(path, data) for path in real_files(data)]
    return "\n".join(lines) + "\n" + RULES


HOW_CHECKED = """Laws: how far I + III = II and Goldberger's equations are violated, a check of lead
order and scale (recorders round to 5 µV). Rate: beats counted in what was read, against what the
recorder wrote into the file. "right": another reading agrees and nothing contradicts; "plausible":
there is no other reading. MUSE and ISHNE have no real file: they are read as their descriptions
have it, and only files built from these were tried."""


def main() -> int:
    paths = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    data = paths[0] if paths else PROJECT.parent / "shared" / "data"
    if not (data / "formats").is_dir():
        print(f"no real files in {data}", file=sys.stderr)
        return 2
    try:
        page = formats_page(data)
    except RecordError as error:
        print(f"a real file cannot be read: {error}", file=sys.stderr)
        return 1
    if "--check" not in sys.argv:
        write_text(PAGE, page)
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.name} is stale; run `python tools/formats_table.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
