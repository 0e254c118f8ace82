"""Records prepared per second: ours against the loop that a competent user writes.

    python benchmarks/prepare.py --records ../shared/data/ptb-xl/records500

Both take the same 500 Hz WFDB records to 100 Hz with a zero-phase band-pass of 0.5 to 40 Hz, on one
core, in turns, several times over. The user's loop fills one preallocated float32 array in memory;
ours is what a worker process of `einthoven prepare` does: checks, quality flags and sketches for
the duplicate audit included, an int16 shard flushed to the disk. The same run verifies that both
give the same signals, up to what the two filters' responses differ by. Prints the ratio; writes
``results/prepare.json``.
"""

from __future__ import annotations

import os

# Before numpy is there: one core each.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import butter, firwin, freqz, resample_poly, sosfiltfilt, sosfreqz

from einthoven.files import write_json
from einthoven.shards import prepare_chunk
from einthoven.signal import preprocess

FS, TARGET_FS, N_WINDOW = 500, 100, 1000
BAND = (0.5, 40.0)
SIGNAL_SETTINGS = {"target_fs": TARGET_FS, "target_samples": N_WINDOW, "band": BAND}
BUTTERWORTH = butter(3, BAND, "bandpass", fs=TARGET_FS, output="sos")

# The two paths -----------------------------------------------------------------------------------


def prepare_as_users_do(paths: list[Path], out: np.ndarray) -> None:
    """The loop to beat: ``out`` is ``(record, 12, 1000)`` float32 millivolts."""
    for row, path in enumerate(paths):
        signal = wfdb.rdrecord(str(path)).p_signal.T.astype(np.float32)
        signal = resample_poly(signal, TARGET_FS, FS, axis=1)
        out[row] = sosfiltfilt(BUTTERWORTH, signal, axis=1)


def prepare_as_we_do(paths: list[Path], records_dir: Path) -> None:
    """A shard of int16 microvolts on the disk, and its table, as a worker of `prepare` makes it."""
    sources = [("ptb-xl", str(path.parent), path.name, "") for path in paths]
    prepare_chunk(str(records_dir), "shard", sources, SIGNAL_SETTINGS)


# Timing ------------------------------------------------------------------------------------------


def time_in_turns(paths: list[Path], n_repeats: int, n_chunk: int) -> np.ndarray:
    """Seconds for all records, ``(repeat, 2)``: users' loop, ours; chunk by chunk, taking turns."""
    out = np.zeros((n_chunk, 12, N_WINDOW), np.float32)
    seconds = np.zeros((n_repeats, 2))
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(-1, n_repeats):  # the first round warms caches and does not count
            for start in range(0, len(paths), n_chunk):
                chunk = paths[start : start + n_chunk]
                users = stopwatch(prepare_as_users_do, chunk, out)
                ours = stopwatch(prepare_as_we_do, chunk, Path(folder))
                if repeat >= 0:
                    seconds[repeat] += users, ours
    return seconds


def stopwatch(work: Callable[..., None], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


# Same signals? -----------------------------------------------------------------------------------


def compare_signals(paths: list[Path]) -> dict[str, float]:
    """Differences in µV rms over the middle four seconds, which no edge reaches.

    As measured, and with what the two filters' responses predict taken off.
    """
    users = np.zeros((len(paths), 12, N_WINDOW), np.float32)
    prepare_as_users_do(paths, users)
    with tempfile.TemporaryDirectory() as folder:
        prepare_as_we_do(paths, Path(folder))
        ours = np.load(Path(folder) / "shard.npy")
    measured = ours - users * 1000
    raw = np.stack([wfdb.rdrecord(str(path)).p_signal.T for path in paths]) * 1000
    inside = slice(3 * TARGET_FS, 7 * TARGET_FS)
    unexplained = (measured - predict_difference(raw))[..., inside]
    per_record = np.sqrt((unexplained**2).mean(axis=(1, 2)))
    return {
        "signal_rms_uv": rms(ours[..., inside]),
        "difference_rms_uv": rms(measured[..., inside]),
        "unexplained_rms_uv": rms(unexplained),
        "unexplained_rms_uv_worst_record": float(per_record.max()),
    }


def predict_difference(raw: np.ndarray) -> np.ndarray:
    """What ours less theirs should be, from the responses alone, at 100 Hz."""
    mirrored = np.concatenate([raw, raw[..., ::-1]], axis=-1)
    n_source, n_target = mirrored.shape[-1], mirrored.shape[-1] * TARGET_FS // FS
    frequencies = np.fft.rfftfreq(n_target, 1 / TARGET_FS)
    impulse = np.zeros((1, n_source), np.float32)
    impulse[0, n_source // 2] = 1
    kernel = preprocess(impulse, FS, TARGET_FS, BAND)[0] * (FS / TARGET_FS)
    ours = np.fft.rfft(np.roll(kernel, -n_target // 2)).real
    spectrum = np.fft.rfft(mirrored)[..., : len(frequencies)]
    difference = (ours - users_response(frequencies)) * spectrum * (TARGET_FS / FS)
    return np.fft.irfft(difference, n_target)[..., :N_WINDOW]


def users_response(frequencies: np.ndarray) -> np.ndarray:
    """Of `resample_poly` with its default window, then `sosfiltfilt`."""
    down = FS // TARGET_FS
    antialias = firwin(20 * down + 1, 1 / down, window=("kaiser", 5.0))
    resampling = np.abs(freqz(antialias, worN=frequencies, fs=FS)[1])
    return resampling * np.abs(sosfreqz(BUTTERWORTH, frequencies, fs=TARGET_FS)[1]) ** 2


def rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))


# Report ------------------------------------------------------------------------------------------


def describe_machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    names = ("numpy", "scipy", "wfdb", "einthoven")
    return {
        "cpu": cpu,
        "cores_used": 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def run_benchmark() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("../shared/data/ptb-xl/records500"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=125, help="records per turn")
    options = parser.parse_args()
    paths = [path.with_suffix("") for path in sorted(options.records.rglob("*.hea"))]
    if not paths:
        parser.error(f"no .hea file under {options.records}")
    seconds = time_in_turns(paths, options.repeats, options.chunk)
    users, ours = (len(paths) / np.median(seconds, axis=0)).round(1)
    ratios = seconds[:, 0] / seconds[:, 1]
    difference = compare_signals(paths[:50])
    print(f"{len(paths)} records of 12 leads, 500 to {TARGET_FS} Hz, {options.repeats} repeats")
    print(f"users' loop {users:,.0f} records/s, ours {ours:,.0f} records/s on one core")
    print(f"ratio {np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})")
    for name, value in difference.items():
        print(f"{name}: {value:.2f}")
    write_json(
        Path(__file__).parent / "results" / "prepare.json",
        {
            "records": len(paths),
            "repeats": options.repeats,
            "records_per_second": {"users_loop": users, "ours": ours},
            "ratio": {"median": np.median(ratios), "low": ratios.min(), "high": ratios.max()},
            "seconds": seconds,
            "same_signals": difference,
            "machine": describe_machine(),
        },
    )


if __name__ == "__main__":
    run_benchmark()
