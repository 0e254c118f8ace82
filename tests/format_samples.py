"""Small files in every format, built from the formats' descriptions: no recorder was involved.

Each builder takes ``(lead, sample)`` millivolts, hertz and names, and gives the file's bytes. For
MUSE and ISHNE these are the only files that the readers were ever tested on.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable, Sequence

import numpy as np

from einthoven.formats.scp import scp_checksum
from einthoven.formats.scp_huffman import default_huffman_table
from einthoven.records import LEADS

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
STEP_MV = 0.005  # of all the files of integers here: 5 µV


def steps_of(signal: np.ndarray) -> np.ndarray:
    """The integers that a recorder of 5 µV would store."""
    return np.round(signal / STEP_MV).astype(np.int16)


def build_npy(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    file = io.BytesIO()
    np.save(file, signal)
    return file.getvalue()


def build_npz(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(
        file, signal=signal.T, fs=np.array(fs), units=np.array("mV"), leads=np.array(leads)
    )
    return file.getvalue()


def build_csv(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    rows = [",".join(["time", *(f"{lead} [mV]" for lead in leads)])]
    for sample, values in enumerate(signal.T):
        rows.append(",".join([f"{sample / fs:.4f}", *(f"{value:.4f}" for value in values)]))
    return ("\n".join(rows) + "\n").encode()


def build_mat4(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, {"val": signal, "fs": float(fs)}, format="4")
    return file.getvalue()


def build_mat5(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    named = np.array(list(leads), object)
    savemat(file, {"signal": signal, "fs": fs, "leads": named}, do_compression=True)
    return file.getvalue()


def build_mat73(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    """MATLAB writes columns first, and a block of 512 bytes before HDF5 begins."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as hdf5:
        hdf5["val"] = signal.T
        hdf5["fs"] = np.array([[fs]])
    data = bytearray(file.getvalue())
    data[:19] = b"MATLAB 7.3 MAT-file"
    return bytes(data)


def build_hdf5(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as hdf5:
        dataset = hdf5.create_dataset("records/ecg", data=signal, compression="gzip")
        dataset.attrs["fs"] = fs
        dataset.attrs["units"] = "mV"
        dataset.attrs["leads"] = list(leads)
    return file.getvalue()


def build_edf(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    """EDF+C: data records of a second, and a signal of annotations after the leads."""
    n_leads, n_records = len(leads), int(signal.shape[1] // fs)
    names = [*(f"ECG {lead}" for lead in leads), "EDF Annotations"]
    n_each = [int(fs)] * n_leads + [30]
    low, high = -32768 * STEP_MV, 32767 * STEP_MV
    start = ["0", "X X X X", "Startdate X X X X", "01.01.00", "00.00.00"]
    widths = [8, 80, 80, 8, 8]
    tail = [str(256 * (len(names) + 1)), "EDF+C", str(n_records), "1", str(len(names))]
    head = _fixed(start, widths) + _fixed(tail, [8, 44, 8, 8, 4])
    columns = [
        (names, 16), ([""] * len(names), 80), (["mV"] * n_leads + [""], 8),
        ([f"{low:.3f}"] * n_leads + ["-1"], 8), ([f"{high:.3f}"] * n_leads + ["1"], 8),
        (["-32768"] * len(names), 8), (["32767"] * len(names), 8), ([""] * len(names), 80),
        (list(map(str, n_each)), 8), ([""] * len(names), 32),
    ]  # fmt: skip
    head += b"".join(_fixed(values, [width] * len(values)) for values, width in columns)
    records = []
    for number in range(n_records):
        part = slice(number * int(fs), (number + 1) * int(fs))
        records += [row[part].astype("<i2").tobytes() for row in steps_of(signal)]
        records.append(f"+{number}\x14\x14\0".encode().ljust(60, b"\0"))
    return head + b"".join(records)


def _fixed(values: Sequence[str], widths: Sequence[int]) -> bytes:
    return b"".join(
        value.ljust(width)[:width].encode() for value, width in zip(values, widths, strict=True)
    )


def build_dicom(
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str] = LEADS,
    *,
    unit: str = "uV",
    baseline: float = 0.0,
    scheme: str = "MDC",
) -> bytes:
    """A 12-lead ECG with its rhythm and, before it, a median beat that must not be taken."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta, dataset.Modality = meta, "ECG"
    beat = _dicom_group(signal[:, :600] * 0, fs, leads, unit, baseline, scheme)
    beat.MultiplexGroupLabel, beat.WaveformOriginality = "MEDIAN BEAT", "DERIVED"
    rhythm = _dicom_group(signal, fs, leads, unit, baseline, scheme)
    rhythm.MultiplexGroupLabel, rhythm.WaveformOriginality = "RHYTHM", "ORIGINAL"
    dataset.WaveformSequence = [beat, rhythm]
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


MDC_CODES = {name: number for number, name in [
    (1, "I"), (2, "II"), (3, "V1"), (4, "V2"), (5, "V3"), (6, "V4"), (7, "V5"), (8, "V6"),
    (61, "III"), (62, "aVR"), (63, "aVL"), (64, "aVF"),
]}  # fmt: skip


def _dicom_group(signal, fs, leads, unit, baseline, scheme):
    from pydicom.dataset import Dataset

    per_mv = {"uV": 1000.0, "mV": 1.0, "V": 0.001}[unit]
    group = Dataset()
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = signal.shape
    group.SamplingFrequency, group.WaveformBitsAllocated = f"{fs:g}", 16
    group.WaveformSampleInterpretation = "SS"
    group.WaveformData = steps_of(signal - baseline).T.astype("<i2").tobytes()
    channels = []
    for lead in leads:
        source, units, channel = Dataset(), Dataset(), Dataset()
        prefix = "2:" if scheme == "MDC" else "5.6.3-9-"
        source.CodeValue, source.CodingSchemeDesignator = f"{prefix}{MDC_CODES[lead]}", scheme
        source.CodeMeaning = "a lead"
        units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [units]
        channel.ChannelSensitivity = f"{STEP_MV * per_mv:g}"
        channel.ChannelSensitivityCorrectionFactor = "1"
        channel.ChannelBaseline, channel.WaveformBitsStored = f"{baseline * per_mv:g}", 16
        channels.append(channel)
    group.ChannelDefinitionSequence = channels
    return group


def build_scp(
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str] = LEADS,
    *,
    differences: int = 0,
    huffman: bool = False,
    flags: int = 0,
    bimodal: int = 0,
) -> bytes:
    """Rhythm data alone, plain or as Huffman-coded differences of first or second order."""
    codes = {"I": 1, "II": 2, **{f"V{n}": n + 2 for n in range(1, 7)},
             "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}  # fmt: skip
    steps = steps_of(signal).astype(np.int64)
    coded = []
    for row in steps:
        for order in range(differences):
            row[order + 1 :] = np.diff(row[order:])
        coded.append(_huffman_bytes(row) if huffman else row.astype("<i2").tobytes())
    n_samples = signal.shape[1]
    section3 = bytes([len(leads), flags]) + b"".join(
        struct.pack("<IIB", 1, n_samples, codes[lead]) for lead in leads
    )
    section6 = struct.pack("<HHBB", round(STEP_MV * 1e6), round(1e6 / fs), differences, bimodal)
    section6 += b"".join(struct.pack("<H", len(part)) for part in coded) + b"".join(coded)
    bodies = {3: section3, 6: section6}
    if huffman:
        bodies[2] = struct.pack("<H", 19999)
    return _scp_file(bodies)


def _scp_file(bodies: dict[int, bytes]) -> bytes:
    numbers = sorted(bodies)
    place = 6 + 16 + 10 * (1 + len(numbers))
    pointers, sections = [struct.pack("<HII", 0, place - 6, 7)], []
    for number in numbers:
        body = bodies[number] + b"\0" * (len(bodies[number]) % 2)
        pointers.append(struct.pack("<HII", number, len(body) + 16, place + 1))
        sections.append(_scp_section(number, body, b"\0" * 6))
        place += len(body) + 16
    content = _scp_section(0, b"".join(pointers), b"SCPECG") + b"".join(sections)
    sized = struct.pack("<I", len(content) + 6) + content
    return struct.pack("<H", scp_checksum(sized)) + sized


def _scp_section(number: int, body: bytes, reserved: bytes) -> bytes:
    head = struct.pack("<HIBB6s", number, len(body) + 16, 20, 20, reserved)
    return struct.pack("<H", scp_checksum(head + body)) + head + body


def _huffman_bytes(values: np.ndarray) -> bytes:
    plain = {
        code.value: f"{code.prefix:0{code.n_bits}b}"
        for code in default_huffman_table().values()
        if not code.extra
    }
    bits = []
    for value in values.tolist():
        if value in plain:
            bits.append(plain[value])
        elif -128 <= value < 128:
            bits.append("1111111110" + f"{value & 0xFF:08b}")
        else:
            bits.append("1111111111" + f"{value & 0xFFFF:016b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def build_ishne(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    names = ["", "", "X", "Y", "Z", *LEADS]
    codes = [names.index(lead) for lead in leads] + [0] * (12 - len(leads))
    steps = steps_of(signal)
    note = b"recorded for a test "
    start = 522 + len(note)
    sizes = struct.pack("<IIIIH", len(note), steps.size, 522, start, 1)
    people = b"".join([b"A".ljust(40, b"\0"), b"B".ljust(40, b"\0"), b"1".ljust(20, b"\0")])
    days = struct.pack("<HH12H", 1, 1, 1, 1, 1960, 1, 1, 2020, 1, 1, 2020, 0, 0, 0)
    rows = struct.pack("<H12h12h12h", len(leads), *codes, *[0] * 12, *[round(STEP_MV * 1e6)] * 12)
    rest = struct.pack("<H40sH80s80s88s", 0, b"test", int(fs), b"", b"", b"")
    header = sizes + people + days + rows + rest + note
    assert len(header) == start - 10
    return (
        b"ISHNE1.0"
        + struct.pack("<H", scp_checksum(header))
        + header
        + (steps.T.astype("<i2").tobytes())
    )


def build_muse(signal: np.ndarray, fs: float, leads: Sequence[str] = EIGHT) -> bytes:
    """Eight leads, as MUSE stores them, after median beats that must not be taken."""
    waves = [
        f"<Waveform><WaveformType>{kind}</WaveformType><SampleBase>{fs:g}</SampleBase>"
        f"<SampleExponent>0</SampleExponent>{_muse_leads(part, leads)}</Waveform>"
        for kind, part in (("Median", signal[:, :600] * 0), ("Rhythm", signal))
    ]
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n'
        f"<RestingECG><MuseInfo/><PatientDemographics/>{''.join(waves)}</RestingECG>"
    ).encode("latin-1")


def _muse_leads(signal: np.ndarray, leads: Sequence[str]) -> str:
    rows = [
        f"<LeadData><LeadByteCountTotal>{2 * len(row)}</LeadByteCountTotal>"
        f"<LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal>"
        f"<LeadAmplitudeUnitsPerBit>{STEP_MV * 1000:.2f}</LeadAmplitudeUnitsPerBit>"
        "<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
        f"<LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize>"
        f"<WaveFormData>\n{base64.encodebytes(row.astype('<i2').tobytes()).decode()}</WaveFormData>"
        "</LeadData>"
        for lead, row in zip(leads, steps_of(signal), strict=True)
    ]
    return "".join(rows)


def build_cardiosoft(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    rows = "".join(
        f'<WaveformData lead="{lead}">\t\t{",".join(map(str, row))}</WaveformData>'
        for lead, row in zip(leads, steps_of(signal), strict=True)
    )
    strip = (
        f'<StripData><SampleRate units="Hz">{fs:g}</SampleRate>'
        f'<Resolution units="uVperLsb">{STEP_MV * 1000:g}</Resolution>{rows}</StripData>'
    )
    return (
        f'<?xml version="1.0" encoding="ISO8859-1"?><CardiologyXML>{strip}</CardiologyXML>'.encode()
    )


def build_schiller(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    rows = "".join(
        f"<channel><name>{lead}</name><data>{','.join(map(str, row))}</data>"
        f"<datastype>COMMASEPARATE</datastype><samplecount>{len(row)}</samplecount></channel>"
        for lead, row in zip(leads, steps_of(signal), strict=True)
    )
    return (
        '<?xml version="1.0"?><com.xiriuz.sema.xml.schillerEDI.SchillerEDI><eventdata><event>'
        f"<wavedata><type>ECG_RHYTHMS</type><resolution><samplerate><exponent>1</exponent><value>"
        f"{fs:g}</value></samplerate><yres><unitperbit>{STEP_MV * 1000:g}</unitperbit><units>UV"
        f"</units></yres></resolution>{rows}</wavedata></event></eventdata>"
        "</com.xiriuz.sema.xml.schillerEDI.SchillerEDI>"
    ).encode()


def build_aecg(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    rows = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/>'
        '<value xsi:type="SLIST_PQ">'
        f'<origin value="0" unit="uV"/><scale value="{STEP_MV * 1000:g}" unit="uV"/>'
        f"<digits>{' '.join(map(str, row))}</digits></value></sequence></component>"
        for lead, row in zip(leads, steps_of(signal), strict=True)
    )
    return (
        '<AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><component><series>'
        '<code code="RHYTHM"/><component><sequenceSet><component><sequence>'
        f'<code code="TIME_RELATIVE"/><value xsi:type="GLIST_PQ"><head value="0" unit="s"/>'
        f'<increment value="{1 / fs:g}" unit="s"/></value></sequence></component>'
        f"{rows}</sequenceSet></component></series></component></AnnotatedECG>"
    ).encode()


def build_sierra(signal: np.ndarray, fs: float, leads: Sequence[str] = LEADS) -> bytes:
    """Version 1.04: XLI, its dictionary unused (each byte is its own code)."""
    rows = steps_of(signal).astype(np.int64)
    if len(rows) >= 6:
        one, two, three, avr, avl, avf = rows[:6].copy()
        rows[2:6] = [
            two - one - three, -avr - (one + two) // 2,
            (one - three) // 2 - avl, (two + three) // 2 - avf,
        ]  # fmt: skip
    data = b"".join(_xli_lead(row) for row in rows)
    return (
        '<?xml version="1.0" encoding="utf-16"?><restingecgdata '
        'xmlns="http://www3.medical.philips.com"><waveforms><parsedwaveforms dataencoding="Base64" '
        f'compression="XLI" numberofleads="{len(leads)}" leadlabels="{" ".join(leads)}" '
        f'durationperchannel="{signal.shape[1] / fs * 1000:g}" samplespersecond="{fs:g}" '
        f'resolution="{STEP_MV * 1000:g}">{base64.encodebytes(data).decode()}</parsedwaveforms>'
        "</waveforms></restingecgdata>"
    ).encode("utf-16")


def _xli_lead(row: np.ndarray) -> bytes:
    # x[n] = 2 x[n-1] - x[n-2] - d[n-1], where d is stored 64 too high, and d[1] in the header.
    second = 2 * row[1:-1] - row[:-2] - row[2:]
    stored = np.concatenate([row[:2], second[1:] + 64, [64]]).astype(np.int16).view(np.uint16)
    spelled = np.concatenate([stored >> 8, stored & 0xFF])
    bits = "".join(f"{value:010b}" for value in spelled.tolist()) + "1" * 10
    bits += "0" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return struct.pack("<iHh", len(body), 0, int(second[0])) + body


# Name in the tests to (format, builder, leads that it writes).
BUILT: dict[str, tuple[str, Callable[..., bytes], Sequence[str]]] = {
    "ecg.npz": ("npz", build_npz, LEADS),
    "ecg.csv": ("csv", build_csv, LEADS),
    "v4.mat": ("matlab", build_mat4, LEADS),
    "v5.mat": ("matlab", build_mat5, LEADS),
    "v73.mat": ("hdf5", build_mat73, LEADS),
    "ecg.h5": ("hdf5", build_hdf5, LEADS),
    "ecg.edf": ("edf", build_edf, LEADS),
    "ecg.dcm": ("dicom", build_dicom, LEADS),
    "ecg.scp": ("scp", build_scp, LEADS),
    "holter.ecg": ("ishne", build_ishne, LEADS),
    "muse.xml": ("muse", build_muse, EIGHT),
    "cardiosoft.xml": ("cardiosoft", build_cardiosoft, LEADS),
    "schiller.xml": ("schiller", build_schiller, LEADS),
    "aecg.xml": ("aecg", build_aecg, LEADS),
    "sierra.xml": ("sierra", build_sierra, LEADS),
}
