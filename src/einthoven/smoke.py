"""The smoke test: every stage from the store to the report, on few records, each with a verdict.

It tells in a minute or two whether a machine, a store and these settings carry a whole run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import torch

from einthoven.batches import (
    lead_spread,
    list_windows,
    open_windows,
    plan_epoch,
    standardize_batch,
    training_batches,
)
from einthoven.checkpoint import hardware, versions
from einthoven.cluster_training import train_on_engine
from einthoven.console import format_table, log, plural
from einthoven.errors import ConfigError, DataError, EinthovenError, RecordError, RunStopped
from einthoven.evaluation import evaluate_detailed
from einthoven.figures.scores import score_figure_names
from einthoven.files import Workspace, read_json, write_json
from einthoven.inference import choose_device
from einthoven.labelling import read_mapping
from einthoven.prediction import load_best_model, predict_sample, run_inference_examples
from einthoven.readers.registry import read_signal
from einthoven.records import LEADS
from einthoven.report.writing import write_report
from einthoven.runs import check_store_settings, chosen_records, device_batch_size, run_splits
from einthoven.scopes import metrics_path, predictions_path
from einthoven.settings import Settings
from einthoven.store import MICROVOLTS_PER_MILLIVOLT, Store, open_store, stored_signal
from einthoven.summary import figure_text

# `predict_sample` on a record's own file and its stored prediction may differ by this: other
# batches are other sums, and a GPU rounds coarsely.
SAMPLE_TOLERANCE = 5e-3


def smoke_results_path(workspace: Workspace) -> Path:
    """Where the results of the last smoke test lie."""
    return workspace.root / "logs" / "smoke_test_results.json"


def run_smoke_test(settings: Settings, origins: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Go through every stage from the store to the report, on the records of this mode.

    Writes ``logs/smoke_test_results.json``, also where a stage fails; those after it do not run.

    Returns:
        What the file holds; docs/reference/files.md describes it.

    Raises:
        RunStopped: Ctrl-C or SIGTERM came while it trained; the results are written.
    """
    test = SmokeTest(settings, origins or {})
    started = datetime.now().astimezone()
    stages: list[dict[str, Any]] = [
        {"stage": name, "verdict": "not run", "seconds": 0.0} for name in SMOKE_STAGES
    ]
    try:
        for stage in stages:
            run_smoke_stage(test, stage)
            if stage["verdict"] == "failed":
                break
    finally:
        results = describe_smoke_test(test, stages, started)
        write_json(smoke_results_path(settings.workspace), results)
    return results


def run_smoke_stage(test: SmokeTest, stage: dict[str, Any]) -> None:
    """Run one stage and enter its verdict, its time, and what was found or went wrong.

    Errors are logged, those that no user can mend with their traceback.

    Raises:
        RunStopped: Ctrl-C or SIGTERM came.
    """
    started = time.perf_counter()
    # Unless it comes to an end.
    stage |= {"verdict": "failed", "error": "stopped before its end"}
    try:
        stage["found"] = SMOKE_STAGES[stage["stage"]](test)
        stage["verdict"] = "passed"
        del stage["error"]
    except RunStopped:
        raise
    except EinthovenError as error:
        stage["error"] = str(error)
        log.error("%s: %s", stage["stage"], error)
    except Exception as error:
        stage["error"] = f"{type(error).__name__}: {error}"
        # A full disk says enough by itself; anything else needs the place where it happened.
        is_outside = isinstance(error, OSError) and error.filename is not None
        log.error("%s: %s", stage["stage"], stage["error"], exc_info=not is_outside)
    finally:
        stage["seconds"] = round(time.perf_counter() - started, 3)


def describe_smoke_test(
    test: SmokeTest, stages: Sequence[Mapping[str, Any]], started: datetime
) -> dict[str, Any]:
    """What ``smoke_test_results.json`` holds."""
    try:
        device = choose_device(test.settings.device)
    except ConfigError:
        # A stage has failed for it.
        device = torch.device("cpu")
    is_passed = all(stage["verdict"] == "passed" for stage in stages)
    return {
        "verdict": "passed" if is_passed else "failed",
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(sum(stage["seconds"] for stage in stages), 3),
        "n_records": test.n_records,
        "stages": list(stages),
        "label_set": test.settings.label_set,
        "run": test.settings.workspace.checkpoints_dir.as_posix(),
        "versions": versions(),
        "hardware": hardware(device),
    }


def smoke_summary(results: Mapping[str, Any], path: Path) -> str:
    """A smoke test's stages as a table, and what it comes to."""
    rows = [
        [
            stage["stage"],
            stage["verdict"],
            f"{stage['seconds']:.1f} s",
            (stage.get("found") or stage.get("error", "")).partition("\n")[0],
        ]
        for stage in results["stages"]
    ]
    table = format_table(["stage", "verdict", "time", "found"], rows)
    return f"{table}\nSmoke test {results['verdict']} in {results['seconds']:.0f} s: {path}"


# Its stages ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmokeTest:
    """What the stages of a smoke test share; what one of them found is at hand for the next."""

    settings: Settings
    origins: Mapping[str, str]

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings.workspace)

    @cached_property
    def splits(self) -> dict[str, Any]:
        return run_splits(self.settings, self.store)

    @cached_property
    def chosen(self) -> dict[str, np.ndarray]:
        return chosen_records(self.settings, self.store, self.splits)

    @property
    def n_records(self) -> int:
        """Records of all splits; 0 as long as no stage has chosen them."""
        return sum(map(len, vars(self).get("chosen", {}).values()))


def smoke_store(test: SmokeTest) -> str:
    path = test.settings.workspace.manifest_path
    if not path.exists():
        raise DataError(
            f"there is no store ({path}); run `einthoven prepare` with these settings first, or "
            "`einthoven demo`, which makes archives and a store of its own in demo/"
        )
    store = test.store
    check_store_settings(test.settings, store, test.splits)
    size = f"{plural(store.target_samples, 'sample')} at {store.target_fs} Hz"
    return f"{plural(len(store.manifest), 'record')} in windows of {size}"


def smoke_splits(test: SmokeTest) -> str:
    sizes = ", ".join(f"{len(rows)} {split}" for split, rows in test.chosen.items())
    return f"{plural(test.n_records, 'record')} used ({sizes}), no patient in two splits"


def smoke_batches(test: SmokeTest) -> str:
    settings, device = test.settings, choose_device(test.settings.device)
    rows = test.chosen["train"][: device_batch_size(settings, device)]
    listed = list_windows(test.store, rows)
    source = open_windows(test.store, listed, device, "memory")
    crop = min(settings.crop, test.store.target_samples)
    plan = plan_epoch(listed, crop, settings.seed, epoch=0)
    (batch,) = training_batches(source, listed, plan, [plan.order], crop=crop)
    scale = lead_spread(source, listed).to(device)
    x_BLS = standardize_batch(batch.signal, batch.n_valid, settings.standardize, scale)
    if not torch.isfinite(x_BLS).all():
        raise DataError("a batch holds values that are no numbers; run `einthoven prepare` again")
    return f"one of {' × '.join(map(str, x_BLS.shape))} on {device}, spread {x_BLS.std():.2f}"


def smoke_training(test: SmokeTest) -> str:
    train_on_engine(test.settings, test.origins)
    history = read_json(test.settings.workspace.checkpoints_dir / "training_history.json")
    last = history[-1]
    scores = {"F1": last["val_f1_macro"], "AUROC": last["val_auroc_macro"]}
    told = [f"validation {name} {value:.3f}" for name, value in scores.items() if value is not None]
    return ", ".join([plural(len(history), "epoch"), f"loss {last['train_loss']:.3f}", *told])


def smoke_evaluation(test: SmokeTest) -> str:
    metrics = evaluate_detailed(test.settings)
    figure = figure_text(metrics["headline"]["auroc"]["macro"])
    return f"{plural(metrics['n'], 'test record')}, macro AUROC {figure}"


def smoke_examples(test: SmokeTest) -> str:
    examples = run_inference_examples(test.settings)["examples"]
    n_right = sum(example["is_right"] for example in examples)
    return f"{plural(len(examples), 'record')} predicted and drawn, {n_right} right"


def smoke_figures(test: SmokeTest) -> str:
    folder = test.settings.workspace.figures_dir
    metrics = read_json(metrics_path(test.settings.workspace))
    drawn = score_figure_names(metrics["task"] == "single", bool(metrics["subgroups"]))
    wanted = (*drawn, "training_curves", "inference_example_01")
    absent = [name for name in wanted if not any(folder.glob(f"{name}_*.png"))]
    if absent:
        raise DataError(f"figures are not there: {', '.join(absent)}; look into {folder}")
    paths = sorted(folder.glob("*.png"))
    empty = [path.name for path in paths if np.ptp(matplotlib.image.imread(path)) == 0]
    if empty:
        raise DataError(f"figures are empty: {', '.join(empty)}; look into {folder}")
    return f"{plural(len(paths), 'figure')}, whole and not empty"


def smoke_prediction(test: SmokeTest) -> str:
    """A record's own file, through `predict_sample`, gives what evaluation has stored of it."""
    trained = load_best_model(test.settings)
    table = pd.read_parquet(predictions_path(test.settings.workspace))
    row = table[table["split"] == "test"].iloc[0]
    signal, fs, leads, source = recorded_or_stored(test, str(row["record"]))
    prediction = predict_sample(trained, signal, fs, leads)
    said = ", ".join(prediction.decisions) or "none of the labels"
    told = f"{row['record']} from {source}: {said}"
    if test.settings.test_time_augment != "none":
        return f"{told} (evaluated on several views, so not compared)"
    if source != "its archive" and trained.input.bandpass:
        return f"{told} (filtered twice, so not compared)"
    difference = max(
        abs(value - row[f"probability_{label}"])
        for label, value in prediction.probabilities.items()
    )
    if not difference <= SAMPLE_TOLERANCE:
        raise DataError(
            f"{row['record']}: its probabilities from {source} differ by {difference:.2g} from "
            "those of its evaluation; where the archive has changed, run `einthoven prepare`"
        )
    return f"{told}, as evaluated (to {max(difference, 1e-7):.0e})"


def recorded_or_stored(
    test: SmokeTest, record: str
) -> tuple[np.ndarray, float, tuple[str, ...], str]:
    """Signal in millivolts, rate, leads of a record, and where they are from."""
    workspace = test.settings.workspace
    if workspace.mapping_path.exists():
        mapping = read_mapping(workspace.mapping_path)
        is_it = (mapping["archive"] + "/" + mapping["record_id"]) == record
        for entry in mapping[is_it].itertuples():
            folder = test.settings.archives_dir / str(entry.folder)
            try:
                return *read_signal(str(entry.reader), folder, str(entry.path)), "its archive"
            except RecordError as error:
                log.info("%s: %s; its stored signal is used", record, error)
    index = int(pd.Index(test.store.manifest["record"]).get_loc(record))
    signal = stored_signal(test.store, index) / np.float32(MICROVOLTS_PER_MILLIVOLT)
    return signal, test.store.target_fs, LEADS, "the store"


def smoke_report(test: SmokeTest) -> str:
    path = write_report(test.settings)
    return f"{path} ({path.stat().st_size / 2**20:.1f} MiB)"


SMOKE_STAGES: dict[str, Callable[[SmokeTest], str]] = {
    "store": smoke_store,
    "splits": smoke_splits,
    "batches": smoke_batches,
    "training": smoke_training,
    "evaluation": smoke_evaluation,
    "examples": smoke_examples,
    "figures": smoke_figures,
    "prediction": smoke_prediction,
    "report": smoke_report,
}
