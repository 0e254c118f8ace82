"""Why a model says what it says of one recording: which leads, moments and beats carried it.

What is explained are the model's log-odds of one label before calibration, for each crop that the
prediction is averaged over; where crops overlap, what they say of a sample is averaged. An
explanation says what the model has used, not what is true of the patient.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from einthoven.checkpoint import TrainedModel
from einthoven.console import progress
from einthoven.errors import ConfigError, DataError
from einthoven.explain.beats import beat_bounds, find_beats
from einthoven.explain.crops import average_overlapping, predicted_crops, standardised_crop
from einthoven.explain.methods import (
    CROP_EXPLAINERS,
    SUM_TOLERANCE,
    SUM_TOLERANCE_SHARE,
    CropAttribution,
    LabelLogOdds,
    import_captum,
    repeatable_gradients,
)
from einthoven.explain.shares import (
    BeatShare,
    CarriedShare,
    SegmentShare,
    beat_shares,
    lead_shares,
    leading_segments,
    name_beats,
    name_leads,
)
from einthoven.figures.ecg_paper import PaperLayout
from einthoven.figures.explanation import DrawnExplanation, plot_explanation
from einthoven.prediction import SamplePrediction, first_capital, predict_sample
from einthoven.records import LEADS
from einthoven.settings import did_you_mean
from einthoven.store import MICROVOLTS_PER_MILLIVOLT
from einthoven.version import DISCLAIMER

ExplainMethod = Literal["integrated_gradients", "grad_cam", "occlusion"]

# How a reader is told what was done.
METHOD_NAMES = {
    "integrated_gradients": "integrated gradients (baseline: every lead at its mean)",
    "grad_cam": "Grad-CAM on the last convolutional map",
    "occlusion": "occlusion of 0.2 s of one lead at a time by the lead's mean",
}

# A recording has so few crops that a progress bar would only flicker.
_CROPS_WITHOUT_BAR = 40


@dataclass(frozen=True)
class SumCheck:
    """Whether integrated gradients sum to what they must (Sundararajan et al. 2017).

    Attributes:
        difference: log-odds of the signal less those of the baseline, mean over crops.
        found: sum of the attribution of a crop, mean over crops.
        largest_error: of a crop, in log-odds.
        n_steps: the most that a crop needed.
        is_met: whether every crop's error is at most 0.05 log-odds or 2 % of its difference.
    """

    difference: float
    found: float
    largest_error: float
    n_steps: int
    is_met: bool

    def values(self) -> dict[str, Any]:
        """Plain values, ready to be written as JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Explanation:
    """What carried one label of one recording.

    Attributes:
        label: what is explained.
        method: one of `CROP_EXPLAINERS`.
        attribution: ``(12, sample)`` float32 log-odds, at the model's rate over the whole
            recording; above zero speaks for the label.
        fs: hertz, of the attribution.
        tells_leads: False where the method knows moments only; all leads then have equal parts.
        leads: share of each lead; empty without ``tells_leads``.
        beats: share of each whole heartbeat; empty where none was found.
        segments: the pieces that carry most.
        sum_check: of integrated gradients, otherwise None.
        n_crops: that were explained and averaged.
        prediction: what the model says of the recording, with the signal as it took it.
    """

    label: str
    method: str
    attribution: np.ndarray
    fs: int
    tells_leads: bool
    leads: dict[str, CarriedShare]
    beats: tuple[BeatShare, ...]
    segments: tuple[SegmentShare, ...]
    sum_check: SumCheck | None
    n_crops: int
    prediction: SamplePrediction

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know before trusting it."""
        said = {
            "the method tells moments, not leads: all are shaded alike": not self.tells_leads,
            "no heartbeats were found": not self.beats,
            "integrated gradients do not sum to the difference that they explain: take shares as "
            "rough": self.sum_check is not None and not self.sum_check.is_met,
            f"{self.label} was not decided; this says what speaks for and against it": self.label
            not in self.prediction.decisions,
        }
        return tuple(text for text, is_so in said.items() if is_so)

    def values(self, max_points: int | None = None) -> dict[str, Any]:
        """Plain values, ready to be written as JSON.

        Args:
            max_points: of each lead's attribution at most, by means over equal pieces of time; all
                of its samples by default. 1,000 points make about 100 kB.
        """
        sample = self.prediction.sample
        return {
            "disclaimer": DISCLAIMER,
            "label": self.label,
            "probability": self.prediction.probabilities[self.label],
            "is_decided": self.label in self.prediction.decisions,
            "method": self.method,
            "method_in_words": METHOD_NAMES[self.method],
            "explains": "log-odds of the label before calibration; above zero speaks for it",
            "seconds": sample.seconds,
            "n_crops": self.n_crops,
            "leads_present": list(sample.leads_present),
            "leads": {lead: carried.values() for lead, carried in self.leads.items()},
            "beats": [beat.values() for beat in self.beats],
            "segments": [segment.values() for segment in self.segments],
            "sum_check": self.sum_check.values() if self.sum_check else None,
            "attribution": _attribution_values(self.attribution, self.fs, max_points),
            "summary": list(self.summary()),
            "remarks": list(self.remarks),
            "warnings": list(sample.warnings),
        }

    def summary(self) -> tuple[str, ...]:
        """Which leads and beats carried it, in words."""
        present = len(self.prediction.sample.leads_present)
        leads = [f"Leads: {name_leads(self.leads, present)}"] if self.leads else []
        return (*leads, f"Beats: {name_beats(self.beats)}")


def _attribution_values(attribution: np.ndarray, fs: int, max_points: int | None) -> dict[str, Any]:
    """Three significant digits of log-odds per second: that unit is the same for any step."""
    n_samples = attribution.shape[1]
    step = max(1, -(-n_samples // max_points)) if max_points else 1
    starts = np.arange(0, n_samples, step)
    sums = np.add.reduceat(attribution.astype(np.float64), starts, axis=1)
    per_second = sums / np.diff(starts, append=n_samples) * fs
    return {
        "unit": "log-odds per second",
        "step_s": step / fs,
        "largest": float(f"{np.abs(per_second).max():.3g}"),
        "by_lead": {
            lead: [float(f"{value:.3g}") for value in row.tolist()]
            for lead, row in zip(LEADS, per_second, strict=True)
        },
    }


# Making one --------------------------------------------------------------------------------------


def explain_sample(
    trained: TrainedModel,
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str],
    label: str | None = None,
    method: ExplainMethod = "integrated_gradients",
) -> Explanation:
    """Predict one recording and say which of its leads, moments and beats carried a label.

    Args:
        trained: of `load_best_model`.
        signal: ``(lead, sample)`` millivolts, NaN where there is no value.
        fs: hertz.
        leads: one name per row.
        label: one of the model's; by default the decided one with the highest probability, or the
            likeliest where none is decided.
        method: ``integrated_gradients``, ``grad_cam`` or ``occlusion``.

    Raises:
        ConfigError: label or method is not known, the model has no map for Grad-CAM, or captum is
            not installed.
        RecordError: the signal cannot be an ECG in millivolts, or a lead's name is not known.
        DataError: the model gives probabilities or attributions that are no numbers.
    """
    _check_choices(trained, label, method)
    return explain_prediction(trained, predict_sample(trained, signal, fs, leads), label, method)


def explain_prediction(
    trained: TrainedModel,
    prediction: SamplePrediction,
    label: str | None = None,
    method: ExplainMethod = "integrated_gradients",
) -> Explanation:
    """As `explain_sample`, for a recording that is predicted already."""
    _check_choices(trained, label, method)
    label = label or leading_label(prediction)
    sample = prediction.sample
    starts = predicted_crops(sample.microvolts.shape[1], trained.input).tolist()
    crops = _explain_crops(trained, sample.microvolts, starts, label, method)
    attribution = average_overlapping(
        [crop.values.numpy() for crop in crops], starts, sample.microvolts.shape[1]
    )
    if not np.isfinite(attribution).all():
        raise DataError("the attribution holds values that are no numbers; try another method")
    tells_leads = method != "grad_cam"
    beats = find_beats(sample.microvolts / MICROVOLTS_PER_MILLIVOLT, trained.fs)
    bounds = beat_bounds(beats, attribution.shape[1])
    shares = beat_shares(attribution, trained.fs, beats, bounds) if len(beats) else ()
    return Explanation(
        label=label,
        method=method,
        attribution=attribution,
        fs=trained.fs,
        tells_leads=tells_leads,
        leads=lead_shares(attribution) if tells_leads else {},
        beats=shares,
        segments=leading_segments(attribution, trained.fs, shares, tells_leads),
        sum_check=_check_sums(crops) if method == "integrated_gradients" else None,
        n_crops=len(crops),
        prediction=prediction,
    )


def leading_label(prediction: SamplePrediction) -> str:
    """The decided label with the highest probability; the likeliest where none is decided."""
    candidates = prediction.decisions or tuple(prediction.probabilities)
    return max(candidates, key=lambda label: prediction.probabilities[label])


def _check_choices(trained: TrainedModel, label: str | None, method: str) -> None:
    if method not in CROP_EXPLAINERS:
        hint = did_you_mean(method, CROP_EXPLAINERS)
        raise ConfigError(
            f"method {method!r} is not known{hint or '.'} Known: {', '.join(CROP_EXPLAINERS)}"
        )
    if label is not None and label not in trained.labels:
        hint = did_you_mean(label, trained.labels)
        raise ConfigError(
            f"label {label!r} is none of the model's{hint or '.'} It has "
            f"{', '.join(trained.labels)}"
        )
    import_captum()


def _explain_crops(
    trained: TrainedModel, microvolts: np.ndarray, starts: Sequence[int], label: str, method: str
) -> list[CropAttribution]:
    # A copy: Grad-CAM hooks into layers, and another thread may be predicting with the same model.
    network = copy.deepcopy(trained.model).eval().requires_grad_(False)
    explained = LabelLogOdds(network, trained.labels.index(label), trained.single)
    is_long = len(starts) > _CROPS_WITHOUT_BAR
    shown = progress(starts, desc="Explaining", unit="crops") if is_long else starts
    crops = []
    with repeatable_gradients(network):
        for start in shown:
            x_BLS, n_recorded = standardised_crop(microvolts, start, trained.input, trained.device)
            crop = CROP_EXPLAINERS[method](explained, x_BLS, trained.fs)
            kept = crop.values[:, :n_recorded].clone()
            crops.append(CropAttribution(kept, crop.difference, crop.n_steps))
    return crops


def _check_sums(crops: Sequence[CropAttribution]) -> SumCheck:
    sums = np.array([float(crop.values.double().sum()) for crop in crops])
    differences = np.array([crop.difference for crop in crops])
    errors = np.abs(sums - differences)
    allowed = np.maximum(SUM_TOLERANCE, SUM_TOLERANCE_SHARE * np.abs(differences))
    return SumCheck(
        difference=float(differences.mean()),
        found=float(sums.mean()),
        largest_error=float(errors.max()),
        n_steps=max(crop.n_steps for crop in crops),
        is_met=bool((errors <= allowed).all()),
    )


# Showing one -------------------------------------------------------------------------------------


def draw_explanation(
    explanation: Explanation, title: str = "", layout: PaperLayout = "3x4"
) -> Figure:
    """Draw the recording with what carried the label behind its trace; see `plot_explanation`."""
    prediction = explanation.prediction
    sample = prediction.sample
    decided = "decided" if explanation.label in prediction.decisions else "not decided"
    drawn = DrawnExplanation(
        label=explanation.label,
        answer=f"probability {prediction.probabilities[explanation.label]:.3f}, {decided}",
        method=METHOD_NAMES[explanation.method],
        lead_shares={
            lead: (carried.share_for, carried.share - carried.share_for)
            for lead, carried in explanation.leads.items()
        },
        beats=[(beat.peak_s, beat.carried.share) for beat in explanation.beats],
        summary=explanation.summary(),
        remarks=[first_capital(text) for text in (*explanation.remarks, *sample.warnings)],
    )
    return plot_explanation(
        sample.microvolts / MICROVOLTS_PER_MILLIVOLT,
        explanation.attribution,
        explanation.fs,
        drawn,
        leads_present=sample.leads_present,
        title=title,
        layout=layout,
    )


def explain_recording(
    trained: TrainedModel,
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str],
    label: str | None = None,
    method: ExplainMethod = "integrated_gradients",
    title: str = "",
    layout: PaperLayout = "3x4",
) -> tuple[dict[str, Any], Figure]:
    """Everything about one recording: the explanation as JSON values, and as a figure.

    Args:
        title: above the figure, such as the file's name.
        layout: of the figure.

    Raises:
        ConfigError, RecordError, DataError: as `explain_sample`.
    """
    explanation = explain_sample(trained, signal, fs, leads, label, method)
    return explanation.values(), draw_explanation(explanation, title, layout)
