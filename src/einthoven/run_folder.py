"""A run's folder: which run it holds, and whether this one may go on there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import torch

from einthoven.console import log
from einthoven.errors import CheckpointError
from einthoven.files import Workspace, changes_between, read_json, step_changes
from einthoven.labels.sets import load_label_set
from einthoven.runs import arithmetic, device_batch_size
from einthoven.settings import Settings, setting_names

# Settings of these groups that cannot change a result, or whose effect is seen elsewhere: in the
# batch size that the device gets, or in the records that were prepared.
WITHOUT_EFFECT = {
    "prepare_workers", "num_workers", "dry_run", "fresh", "batch_size_cpu", "batch_size_gpu",
    "ecg_preprocess_limit", "residency", "checkpoint_minutes", "tracking", "auto_batch",
}  # fmt: skip

# What a run that was killed while it wrote leaves behind.
UNFINISHED_FILES = (".*-????????.pth", ".*-????????.json", ".*-????????.parquet")

# In a search's run: which process may write there.
OWNER_FILE = "trial_owner.txt"

# What training, evaluation and report write into a run's three folders.
CHECKPOINT_FILES = (
    ".steps/train.json", ".steps/evaluate.json", ".steps/examples.json",
    ".steps/report.json",
    "last_checkpoint.pth", "previous_checkpoint.pth", "damaged_checkpoint.pth", "best_model.pth",
    "run.json", "training_history.json", "not_finite.json", "tracking.json", OWNER_FILE,
    "metrics_epoch_*.json", "test_metrics.json", "predictions.parquet", "inference_examples.json",
    *UNFINISHED_FILES,
)  # fmt: skip
FIGURE_FILES = "*_[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9].png"

# Which run ---------------------------------------------------------------------------------------


def run_inputs(settings: Settings, data: str, device: torch.device) -> dict[str, Any]:
    """Everything that a run's result depends on; ``data`` is its `data_fingerprint`."""
    names = [n for n in setting_names(["labels", "prepare", "train"]) if n not in WITHOUT_EFFECT]
    return {
        "seed": settings.seed,
        "run_mode": settings.run_mode,
        **{name: getattr(settings, name) for name in names},
        "classes": ", ".join(load_label_set(settings.label_set).labels),
        "device": device.type,
        "batch_size": device_batch_size(settings, device),
        "arithmetic": str(arithmetic(settings, device)),
        "data": data,
    }


def is_finished(settings: Settings, inputs: Mapping[str, Any]) -> bool:
    """Whether this very run is finished already.

    Raises:
        CheckpointError: the folder holds a finished run with other settings.
    """
    stamp_path = settings.workspace.step_path("train")
    is_whole = stamp_path.exists() and settings.workspace.best_model_path.exists()
    if settings.fresh or not is_whole:
        return False
    changes = step_changes(stamp_path, inputs)
    if changes:
        raise CheckpointError(other_run_message(settings, "finished", changes))
    log.info("Training is up to date (%s)", settings.workspace.best_model_path)
    return True


def refuse_other_run(settings: Settings) -> None:
    """Refuse a run folder whose run has other settings, before anything is made anew for it.

    Raises:
        CheckpointError: names each difference.
    """
    path = settings.workspace.checkpoints_dir / "run.json"
    if settings.fresh or settings.dry_run or not path.exists():
        return
    stored = read_json(path)["settings"]
    now = settings.model_dump(mode="json")
    names = setting_names(["labels", "prepare", "train"])
    effective = [n for n in names if n not in WITHOUT_EFFECT]
    effective += ["archives", "ecg_preprocess_limit", "run_mode", "seed"]
    then = {name: stored[name] for name in effective if name in stored}
    changes = changes_between(then, {name: now[name] for name in then})
    if changes:
        raise CheckpointError(other_run_message(settings, "finished or stopped", changes))


def other_run_message(settings: Settings, state: str, changes: list[str]) -> str:
    """Why a run's folder cannot be used for these settings, and the two ways on."""
    lines = "\n".join(f"  {change}" for change in changes)
    return (
        f"{settings.workspace.checkpoints_dir} holds a {state} run with other settings or data:\n"
        f"{lines}\nGive this one a name of its own (--run-name NAME), replace that one (--fresh), "
        "or use its settings again"
    )


def plain_inputs(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Inputs as text, which a checkpoint holds without classes of ours."""
    return {name: str(value) for name, value in inputs.items()}


def clear_run(workspace: Workspace) -> None:
    """Delete what an earlier run of this name wrote: checkpoints, scores, figures and report."""
    # Stamps go first: a run that is half deleted is not finished.
    shutil.rmtree(workspace.checkpoints_dir / "evaluations", ignore_errors=True)
    written = [path for name in CHECKPOINT_FILES for path in workspace.checkpoints_dir.glob(name)]
    pages = [workspace.report_path, workspace.model_card_path]
    for path in [*written, *workspace.figures_dir.glob(FIGURE_FILES), *pages]:
        path.unlink(missing_ok=True)
