"""A signal from anywhere, brought into the form that the store has and models take.

The steps are those of `einthoven prepare`, by the same functions in the same order. Arrays in,
arrays out; what was done and what is doubtful is said in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einthoven.checkpoint import ModelInput
from einthoven.console import plural
from einthoven.errors import RecordError
from einthoven.quality import check_length, check_signal, fill_missing, quality_flags
from einthoven.records import LEADS, lead_name, standard_leads
from einthoven.signal import preprocess, to_microvolts, window_starts


@dataclass(frozen=True)
class PreparedSample:
    """A signal in the form in which models take it.

    Attributes:
        microvolts: ``(12, sample)`` int16 in standard order, at the model's rate.
        leads_present: recorded, or computed from two limb leads; the others are zero.
        recorded_fs: hertz.
        seconds: the recording's length.
        steps: what was done to the signal, in order.
        warnings: what may mislead the model, or a reader.
    """

    microvolts: np.ndarray
    leads_present: tuple[str, ...]
    recorded_fs: float
    seconds: float
    steps: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare_sample(
    signal: np.ndarray, fs: float, leads: Sequence[str], model_input: ModelInput
) -> PreparedSample:
    """Bring a signal into the store's form, as `einthoven prepare` does with every record.

    Args:
        signal: ``(lead, sample)`` millivolts, NaN where there is no value.
        fs: hertz.
        leads: one name per row.
        model_input: what the model takes.

    Raises:
        RecordError: it cannot be used, with the reason.
    """
    recorded, fs = _checked_shape(signal, fs, leads), float(fs)
    ordered, present = standard_leads(recorded, leads)
    filled, now_present, missing = fill_missing(ordered, present)
    check_signal(filled, fs)
    flags = quality_flags(filled, now_present, missing)
    microvolts = to_microvolts(preprocess(filled, fs, model_input.fs, model_input.bandpass))
    n_samples = microvolts.shape[1]
    return PreparedSample(
        microvolts=microvolts,
        leads_present=_named_leads(now_present),
        recorded_fs=fs,
        seconds=recorded.shape[1] / fs,
        steps=(*_lead_steps(leads, present), *_signal_steps(n_samples, fs, model_input)),
        warnings=(
            *signal_remarks({**flags, "leads_present": ",".join(_named_leads(now_present))}),
            *_length_warnings(n_samples, fs, model_input),
        ),
    )


def _checked_shape(signal: np.ndarray, fs: float, leads: Sequence[str]) -> np.ndarray:
    """``(lead, sample)`` float32, in memory of our own kind."""
    array = np.asarray(signal)
    if array.ndim != 2:
        raise RecordError(f"the signal has shape {array.shape}; (lead, sample) is needed")
    if len(leads) != len(array) and len(leads) == array.shape[1]:
        raise RecordError(
            f"the signal has shape {array.shape} for {plural(len(leads), 'lead name')}; it is "
            "(sample, lead), and (lead, sample) is needed: transpose it"
        )
    check_length(array.shape[1], fs)
    return np.ascontiguousarray(array, np.float32)


def _named_leads(present: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, there in zip(LEADS, present, strict=True) if there)


def _lead_steps(leads: Sequence[str], present: np.ndarray) -> list[str]:
    names = [lead_name(written) for written in leads]
    others = [written for written, name in zip(leads, names, strict=True) if name is None]
    there = [name for name in names if name is not None]
    computed = [name for name in _named_leads(present) if name not in there]
    steps = []
    if others:
        steps.append(f"left out, as none of the twelve leads: {', '.join(others)}")
    if there != [name for name in LEADS if name in there]:
        steps.append("leads put in standard order")
    if computed:
        steps.append(f"computed from two limb leads: {', '.join(computed)}")
    return steps


def _signal_steps(n_samples: int, fs: float, model_input: ModelInput) -> list[str]:
    steps = []
    if fs != model_input.fs:
        steps.append(f"resampled from {fs:g} to {model_input.fs} Hz")
    if model_input.bandpass:
        steps.append("band-pass from {:g} to {:g} Hz".format(*model_input.bandpass))
    if n_samples > model_input.window:
        n_windows = len(window_starts(n_samples, model_input.window))
        each = f"{model_input.window / model_input.fs:g} s"
        steps.append(f"cut into {n_windows} windows of {each}; their probabilities are averaged")
    return steps


def _length_warnings(n_samples: int, fs: float, model_input: ModelInput) -> list[str]:
    warnings = []
    if n_samples < model_input.crop:
        warnings.append(
            f"shorter than the {model_input.crop / model_input.fs:g} s that the model looks at at "
            "once: zeros fill the rest"
        )
    if fs < model_input.fs:
        warnings.append(
            f"recorded at {fs:g} Hz for a model of {model_input.fs} Hz: fine waves are lost"
        )
    return warnings


def signal_remarks(facts: Mapping[str, Any]) -> list[str]:
    """What is doubtful about a signal, in words.

    Args:
        facts: ``leads_present`` and what `quality_flags` gives, as a manifest's row has them.
    """
    present = str(facts["leads_present"]).split(",")
    absent = [name for name in LEADS if name not in present]
    flags = str(facts["quality"]).split(";")
    said = {
        "absent": f"absent, zero for the model: {', '.join(absent)}" if absent else "",
        "flat_lead": f"flat: {str(facts['flat_leads']).replace(',', ', ')}",
        "clipped": f"cut off at the recorder's limit: {facts['clipped_fraction']:.0%} of a lead",
        "lead_law": (
            f"the limb leads contradict each other by {facts['lead_law_residual_mv']:.2f} mV: are "
            "electrodes or lead names swapped?"
        ),
        "missing": f"without a value: {facts['missing_fraction']:.1%} of the samples, interpolated",
    }
    return [text for flag, text in said.items() if text and (flag == "absent" or flag in flags)]
