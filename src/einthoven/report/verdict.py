"""How a report opens: what was trained on what, how good it is, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from einthoven.console import plural
from einthoven.evaluation import SCORE_TITLES, figure_text, headline_how, is_too_small
from einthoven.metrics import MIN_POSITIVES_TO_TUNE
from einthoven.report.tables import RunFiles
from einthoven.scoring import HEADLINE_SCORES, MIN_RECORDS_FOR_HEADLINE
from einthoven.synthetic.archives import is_synthetic

# A test split smaller than this gives intervals too wide to choose between models.
SMALL_TEST_SPLIT = 200

CHANCE_AUROC = 0.5

# What was trained, how good it is --------------------------------------------------------------


def verdict_sentence(files: RunFiles) -> str:
    """What was trained on what, in one sentence."""
    if files.run is None:
        return "No model has been trained in this workspace yet."
    settings = files.run.get("settings", {})
    n_train = len((files.splits or {}).get("train", ()))
    n_train = files.run.get("n_train", n_train)
    archives = _trained_archives(files)
    n_labels = len(files.run.get("labels", ())) or len((files.metrics or {}).get("labels", ()))
    task = "one label" if files.run.get("single") else "any number of labels"
    return (
        f"{settings.get('model_name', 'A model')}, trained on {plural(n_train, 'record')} of "
        f"{archives}, tells the {n_labels} classes of label set {settings.get('label_set', '')} "
        f"apart ({task} per record).{_part_scored(files)}"
    )


def _part_scored(files: RunFiles) -> str:
    """Which archives the headline is of, where it is not of all."""
    headline = (files.metrics or {}).get("headline", {})
    if not headline.get("left_out"):
        return ""
    names, left_out = (", ".join(headline[key]) for key in ("archives", "left_out"))
    of = f"those of {names} alone" if len(headline["archives"]) == 1 else f"means over {names}"
    return f" Its headline scores are {of}, without {left_out}."


def _trained_archives(files: RunFiles) -> str:
    if files.manifest is None or files.splits is None:
        return "unknown archives"
    chosen = files.manifest["record"].isin(files.splits["train"])
    names = sorted(files.manifest.loc[chosen, "archive"].unique())
    return f"{plural(len(names), 'archive')} ({', '.join(names)})"


def headline_rows(files: RunFiles) -> list[tuple[str, str, str]]:
    """Title, value and interval of each headline score."""
    if files.metrics is None:
        return []
    headline = files.metrics["headline"]
    if is_too_small(headline):
        return []
    rows = []
    for metric, average in HEADLINE_SCORES:
        if metric not in headline:
            continue
        figure = headline[metric][average] if average else headline[metric]
        value, _, interval = figure_text(figure).partition(" ")
        rows.append((SCORE_TITLES[metric, average], value, interval.strip("()")))
    return rows


def headline_note(files: RunFiles) -> str:
    """How the headline was averaged, over what, and from which seed."""
    if files.metrics is None:
        return "The model has not been evaluated: run `einthoven evaluate`."
    metrics, headline = files.metrics, files.metrics["headline"]
    if is_too_small(headline):
        n = plural(headline["n"], "record")
        return f"The test split has {n}: too few for a score that says anything."
    return (
        f"Test split, {headline_how(headline)}; {plural(headline['n'], 'record')} of "
        f"{plural(headline['n_patient_groups'], 'patient')}. 95 % intervals from "
        f"{metrics['resamples']:,} resamples of patients, seed {metrics['seed']}."
    )


# What to know before trusting it ---------------------------------------------------------------


def report_warnings(files: RunFiles) -> list[str]:
    """What a reader must know before trusting the headline."""
    return [*_run_warnings(files), *_score_warnings(files), *_data_warnings(files)]


def _run_warnings(files: RunFiles) -> list[str]:
    warnings = []
    settings = (files.run or {}).get("settings", {})
    dataset_dir = settings.get("dataset_dir") or Path(settings.get("root", "")) / "Dataset"
    if is_synthetic(Path(dataset_dir)):
        warnings.append("Synthetic records: these scores say nothing about real patients.")
    mode = settings.get("run_mode", "full")
    if mode != "full":
        warnings.append(f"A {mode} run, on a part of the records: it shows that the line works.")
    if files.metrics is not None and files.metrics.get("model") != files.model_digest:
        warnings.append("The model file has changed since these scores; run `einthoven evaluate`.")
    return warnings + _training_warnings(files)


def _training_warnings(files: RunFiles) -> list[str]:
    if files.run is None or not files.history:
        return []
    warnings = []
    device = files.run.get("hardware", {}).get("device", "")
    name = "batch_size_gpu" if device.startswith("cuda") else "batch_size_cpu"
    wished = files.run["settings"].get(name, 0)
    smallest = min(row.get("batch_size", wished) for row in files.history)
    if smallest < wished:
        warnings.append(
            f"Memory ran out in training: batches were cut from {wished} to {smallest} records, as "
            "many to a step as before. Batch statistics differ from those of a machine that has "
            "the memory, and so do the bits of the result."
        )
    skipped = sum(row.get("skipped_steps") or 0 for row in files.history)
    if skipped:
        warnings.append(
            f"{plural(skipped, 'training step')} left out: loss or gradient was not finite."
        )
    return warnings


def _score_warnings(files: RunFiles) -> list[str]:
    if files.metrics is None:
        return []
    warnings, support = [], files.metrics["support"]
    low = files.metrics["headline"]["auroc"]["macro"]["low"]
    if low is not None and low <= CHANCE_AUROC:
        warnings.append("Not shown to be better than chance: the interval of macro AUROC has 0.5.")
    if files.metrics["n"] < SMALL_TEST_SPLIT:
        n = plural(files.metrics["n"], "record")
        warnings.append(f"A small test split of {n}: look at the intervals, not at the values.")
    absent = [label for label, n in support.items() if n == 0]
    if absent:
        warnings.append(f"Absent from the test split, so without any score: {_listed(absent)}.")
    rare = [f"{label} ({n})" for label, n in support.items() if 0 < n < MIN_POSITIVES_TO_TUNE]
    if rare:
        warnings.append(
            f"Fewer than {MIN_POSITIVES_TO_TUNE} positives in the test split: {_listed(rare)}."
        )
    left_out = files.metrics["headline"]["left_out"]
    if left_out:
        warnings.append(
            f"Fewer than {MIN_RECORDS_FOR_HEADLINE} test records, so not part of the headline: "
            f"{_listed(list(left_out))}."
        )
    return warnings


def _data_warnings(files: RunFiles) -> list[str]:
    warnings = []
    if files.rejected is not None and len(files.rejected):
        warnings.append(f"{plural(len(files.rejected), 'record')} rejected; see Data.")
    if files.manifest is not None:
        unlabelled = int((files.manifest["labels"].map(len) == 0).sum())
        if unlabelled:
            share = unlabelled / len(files.manifest)
            warnings.append(
                f"{plural(unlabelled, 'stored record')} ({100 * share:.1f} %) without a label of "
                "this set: neither trained on nor scored."
            )
    return warnings


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
