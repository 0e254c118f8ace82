"""What a reader must know before trusting the scores of a run, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from einthoven.console import plural
from einthoven.metrics import DEFAULT_THRESHOLD, MIN_POSITIVES_TO_TUNE
from einthoven.report.decision_tables import labels_left_at_half, pool_reason, worse_subgroups
from einthoven.report.parts import figure_in, lacks_records, listed, value_of
from einthoven.report.run_files import RunFiles, scored_split
from einthoven.report.score_tables import evaluation_title, shown_evaluations
from einthoven.report.verdict import headline_of
from einthoven.scoring import MIN_RECORDS_FOR_HEADLINE
from einthoven.synthetic.archives import is_synthetic

# A test split smaller than this gives intervals too wide to choose between models.
SMALL_TEST_SPLIT = 200

CHANCE_AUROC = 0.5

# ``grave``: the scores do not say how good this model is; ``care``: they do, with a reserve;
# ``note``: good to know.
CautionLevel = Literal["grave", "care", "note"]
CAUTION_ORDER: tuple[CautionLevel, ...] = ("grave", "care", "note")


@dataclass(frozen=True)
class Caution:
    """One thing to know, in a sentence or two."""

    level: CautionLevel
    text: str


def report_warnings(files: RunFiles) -> list[Caution]:
    """What a reader must know before trusting the headline, the gravest first."""
    found = [*_run_cautions(files), *_training_cautions(files), *_data_cautions(files)]
    found += _evaluation_cautions(files)
    if files.metrics is not None:
        metrics = files.metrics
        found = [
            *_use_cautions(metrics),
            *_size_cautions(metrics),
            *_calibration_cautions(metrics),
            *_subgroup_cautions(files),
            *found,
        ]
    return sorted(found, key=lambda caution: CAUTION_ORDER.index(caution.level))


def _run_cautions(files: RunFiles) -> Iterator[Caution]:
    dataset_dir = files.settings.get("dataset_dir")
    root = Path(files.settings.get("root") or "")
    if is_synthetic(Path(dataset_dir) if dataset_dir else root / "Dataset"):
        yield Caution("grave", "Synthetic records: these scores say nothing about real patients.")
    mode = files.settings.get("run_mode", "full")
    if mode != "full":
        text = f"A {mode} run, on a part of the records: it shows that the line works."
        yield Caution("grave", text)
    if files.metrics is not None and files.metrics.get("model") != files.model_digest:
        text = "The model file has changed since these scores; run `einthoven evaluate`."
        yield Caution("grave", text)


def _training_cautions(files: RunFiles) -> Iterator[Caution]:
    if files.run is None or not files.history:
        return
    device = str((files.run.get("hardware") or {}).get("device", ""))
    name = "batch_size_gpu" if device.startswith("cuda") else "batch_size_cpu"
    wished = files.settings.get(name, 0)
    smallest = min(row.get("batch_size", wished) for row in files.history)
    if smallest < wished:
        yield Caution(
            "note",
            f"Memory ran out in training: batches were cut from {wished} to {smallest} records, as "
            "many to a step as before. Batch statistics differ from those of a machine that has "
            "the memory, and so do the bits of the result.",
        )
    skipped = sum(row.get("skipped_steps") or 0 for row in files.history)
    if skipped:
        steps = plural(skipped, "training step")
        yield Caution("note", f"{steps} left out: loss or gradient was not finite.")


# Scores ----------------------------------------------------------------------------------------


def _use_cautions(metrics: Mapping[str, Any]) -> Iterator[Caution]:
    n = metrics.get("n_trained_on")
    if "n_trained_on" in metrics and n is None:
        yield Caution("care", _unknown_use(metrics))
    if n:
        yield Caution(
            "grave",
            f"{n:,} of the {plural(metrics.get('n') or 0, 'scored record')} are of patients that "
            "the model was trained on: these scores flatter and say nothing about new patients.",
        )
    n_validated = metrics.get("n_validated_on")
    if n_validated:
        yield Caution(
            "care",
            f"{n_validated:,} of the {plural(metrics.get('n') or 0, 'scored record')} are of "
            "patients of the validation split, who picked the epoch or set thresholds: these "
            "scores flatter.",
        )
    low = (figure_in(headline_of(metrics), "auroc", "macro") or {}).get("low")
    if low is not None and low <= CHANCE_AUROC:
        text = "Not shown to be better than chance: the interval of macro AUROC has 0.5."
        yield Caution("grave", text)


def _unknown_use(metrics: Mapping[str, Any]) -> str:
    reason = metrics.get("n_trained_on_reason")
    return (
        "Nobody can tell whether the model was trained on some of the scored records"
        f"{f' ({reason})' if reason else ''}: they may flatter."
    )


def _evaluation_cautions(files: RunFiles) -> Iterator[Caution]:
    """The same of the scores on other records, which the headline knows nothing of."""
    for name, scores in shown_evaluations(files).items():
        for caution in _use_of_evaluation(scores):
            yield Caution(
                "note", f"On other records, {evaluation_title(scores)} ({name}): {caution}"
            )


def _use_of_evaluation(scores: Mapping[str, Any]) -> Iterator[str]:
    total = plural(scores.get("n") or 0, "record")
    if "n_trained_on" in scores and scores["n_trained_on"] is None:
        yield _unknown_use(scores)
    if scores.get("n_trained_on"):
        yield (
            f"{scores['n_trained_on']:,} of the {total} are of patients that the model was trained "
            "on, so the scores flatter."
        )
    if scores.get("n_validated_on"):
        yield (
            f"{scores['n_validated_on']:,} of the {total} are of patients of the validation split, "
            "who picked the epoch or set thresholds, so the scores flatter."
        )


def _size_cautions(metrics: Mapping[str, Any]) -> Iterator[Caution]:
    n, support = metrics.get("n") or 0, metrics.get("support") or {}
    split = scored_split(metrics)
    if n < SMALL_TEST_SPLIT:
        text = (
            f"Only {plural(n, 'record')} scored ({split}): look at the intervals, not the values."
        )
        yield Caution("care", text)
    absent = [label for label, count in support.items() if count == 0]
    if absent:
        text = f"Absent from the {split}, so without any score: {listed(absent)}."
        yield Caution("care", text)
    rare = [f"{label} ({k})" for label, k in support.items() if 0 < k < MIN_POSITIVES_TO_TUNE]
    if rare:
        text = f"Fewer than {MIN_POSITIVES_TO_TUNE} positives in the {split}: {listed(rare)}."
        yield Caution("care", text)
    left_out = headline_of(metrics).get("left_out")
    if left_out:
        yield Caution(
            "care",
            f"Fewer than {MIN_RECORDS_FOR_HEADLINE} test records, so not part of the headline: "
            f"{listed(list(left_out))}.",
        )


def _calibration_cautions(metrics: Mapping[str, Any]) -> Iterator[Caution]:
    found = metrics.get("calibration")
    if not found:
        return
    if found.get("method") == "none":
        why = f" ({found['reason']})" if found.get("reason") else ""
        yield Caution(
            "care",
            f"Not calibrated{why}: a probability of 0.8 does not mean that 8 of 10 such records "
            "have the label.",
        )
    if found.get("pooled"):
        names = listed([str(label) for label in found["pooled"]])
        reason = pool_reason(metrics.get("task") == "single")
        yield Caution("care", f"{reason}, so calibrated with the pool: {names}.")
    untuned = labels_left_at_half(metrics)
    if untuned:
        yield Caution(
            "care",
            "Too few positives or negatives to set a threshold, so decided at "
            f"{DEFAULT_THRESHOLD}: {listed(untuned)}.",
        )
    yield from _unhelpful_calibration(metrics)


def _unhelpful_calibration(metrics: Mapping[str, Any]) -> Iterator[Caution]:
    """A calibration that made things worse on the records scored."""
    is_fitted = (metrics.get("calibration") or {}).get("method") in ("platt", "temperature")
    if not is_fitted or lacks_records(metrics):
        return
    before, after = (
        value_of(figure_in(part, "expected_calibration_error", "macro"))
        for part in (metrics.get("uncalibrated"), metrics)
    )
    if before is not None and after is not None and round(after, 3) > round(before, 3):
        yield Caution(
            "care",
            "Calibration did not help on these records: expected calibration error "
            f"{before:.3f} before, {after:.3f} after.",
        )


# More worse subgroups than this are counted.
MOST_SUBGROUPS_NAMED = 5


def _first_of(names: list[str]) -> str:
    more = len(names) - MOST_SUBGROUPS_NAMED
    named = "; ".join(names[:MOST_SUBGROUPS_NAMED])
    return f"{named}; and {more} more" if more > 0 else named


def _subgroup_cautions(files: RunFiles) -> Iterator[Caution]:
    worse = worse_subgroups(files)
    if worse:
        yield Caution("care", f"Worse than on the rest of the records: {_first_of(worse)}.")


def _data_cautions(files: RunFiles) -> Iterator[Caution]:
    if files.own.problem:
        yield Caution("care", f"This run's splits cannot be told: {files.own.problem}.")
    if files.rejected is not None and len(files.rejected):
        yield Caution("note", f"{plural(len(files.rejected), 'record')} rejected; see Data.")
    if files.manifest is not None:
        unlabelled = int((files.manifest["labels"].map(len) == 0).sum())
        if unlabelled:
            share = unlabelled / len(files.manifest)
            yield Caution(
                "note",
                f"{plural(unlabelled, 'stored record')} ({100 * share:.1f} %) without a label of "
                "this set: neither trained on nor scored.",
            )
