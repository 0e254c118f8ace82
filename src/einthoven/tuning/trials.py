"""One trial: an ordinary run with proposed settings, given up where it promises little."""

from __future__ import annotations

import errno
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.console import log
from einthoven.errors import DataError, EinthovenError, RunGivenUp, RunStopped
from einthoven.files import Workspace, read_json, write_text
from einthoven.run_folder import OWNER_FILE
from einthoven.settings import Settings
from einthoven.training import train_production
from einthoven.tuning.halves import score_halves
from einthoven.tuning.storage import import_optuna, storage_errors
from einthoven.tuning.study import Search, hand_on, signs_of_life

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

# What takes room in a trial's folder, and is of no use once the trial is over and not the best.
BULKY_FILES = (
    "best_model.pth", "last_checkpoint.pth", "previous_checkpoint.pth", "damaged_checkpoint.pth",
)  # fmt: skip

# So many trials that fail before one has a score tell of a mistake that all of them share.
MOST_FAILURES_AT_FIRST = 3


def run_trial(search: Search, trial: Trial, origins: Mapping[str, str]) -> None:
    """Train and score one trial, and tell the study; a trial that was cut off goes on.

    Raises:
        RunStopped: Ctrl-C or SIGTERM came; the trial is put back to be gone on with.
    """
    settings = settings_of_trial(search, trial)
    n_over = len(search.trials("COMPLETE", "PRUNED"))
    log.info(
        "Trial %d, %d of %d are over: %s",
        trial.number + 1, n_over, search.settings.trials, in_words(trial.params),
    )  # fmt: skip
    try:
        with signs_of_life(search, trial):
            _train_and_tell(search, trial, settings, origins)
    except left_to_another():
        log.warning(
            "Trial %d gave no sign of life for too long, so another process has taken it over; "
            "this one leaves it",
            trial.number + 1,
        )
    except BaseException as error:
        blamed = isinstance(error, Exception) and not is_of_machine(error)
        hand_on(search, trial.number, "it could not go on" if blamed else "it was stopped", blamed)
        raise
    remove_bulky_files(search)


def settings_of_trial(search: Search, trial: Trial | FrozenTrial) -> Settings:
    """A trial's own settings; its run keeps its name when another trial goes on with it."""
    run = trial.user_attrs.get("run")
    if run is None:
        run = f"{search.name}-trial-{trial.number + 1:04d}"
        # A frozen trial is over; only one at work is given a name.
        trial.set_user_attr("run", run)
    values = {name: getattr(search.settings, name) for name in Settings.model_fields}
    return Settings.model_validate(values | trial.params | {"run_name": run})


def _train_and_tell(
    search: Search, trial: Trial, settings: Settings, origins: Mapping[str, str]
) -> None:
    begun, facts = time.monotonic(), dict.fromkeys(trial.params, "tune")
    report_earlier_epochs(trial, settings)
    pruned = import_optuna().trial.TrialState.PRUNED
    try:
        if not trial.should_prune():
            told = after_epoch(trial, settings)
            train_production(settings, {**origins, **facts}, told, take_run(settings))
            note_scores(search, trial, settings)
            trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
            search.study.tell(trial, history_score(settings))
            return
        why = "given up"
    except RunGivenUp:
        why = "given up"
    except Exception as error:
        if is_of_machine(error) or isinstance(error, left_to_another()):
            raise
        # With other settings training may well go on, even where this is a defect of ours.
        known = isinstance(error, EinthovenError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        log.error("Trial %d has failed: %s", trial.number + 1, why, exc_info=not known)
        refuse_to_fail_always(search, error)
    trial.set_user_attr("why", why)
    trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
    # The sampler counts a trial without a score among the worst, which a failed one is.
    search.study.tell(trial, state=pruned)


def is_of_machine(error: Exception) -> bool:
    """Whether a trial ended for a reason that the next one would meet as well."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return isinstance(error, (RunStopped, *storage_errors()))


def left_to_another() -> type[Exception]:
    """What says that another process has taken a trial over."""
    found: type[Exception] = import_optuna().exceptions.UpdateFinishedTrialError
    return found


def take_run(settings: Settings) -> Callable[[], None]:
    """Make a run's folder this process's; returns what refuses to write there once it is not.

    A process that was suspended for long finds its run gone on with, or finished, by another one.
    """
    path, token = settings.workspace.checkpoints_dir / OWNER_FILE, secrets.token_hex(16)
    write_text(path, f"{token}\n")

    def refuse_if_taken() -> None:
        if not path.exists() or path.read_text(encoding="utf-8").strip() != token:
            raise left_to_another()(f"another process has taken over {path.parent}")

    return refuse_if_taken


def refuse_to_fail_always(search: Search, error: Exception) -> None:
    """Stop a search of which no trial succeeds."""
    failed = [t for t in search.trials("PRUNED") if t.user_attrs.get("why") != "given up"]
    if len(failed) + 1 >= MOST_FAILURES_AT_FIRST and not search.trials("COMPLETE"):
        raise error


def in_words(params: Mapping[str, Any]) -> str:
    """A trial's settings on one line.

    >>> in_words({"lr": 0.00123456, "loss": "focal"})
    'lr 0.00123, loss focal'
    """
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


# Epochs ------------------------------------------------------------------------------------------


def after_epoch(trial: Trial, settings: Settings) -> Any:
    """What training calls after each epoch: tells the study, and asks whether to go on."""

    def tell(epoch: int, score: float) -> None:
        if math.isfinite(score):
            trial.report(score, epoch)
        # After the last epoch nothing is left to save by giving up.
        if epoch < settings.epochs and trial.should_prune():
            log.info("Trial %d is given up after epoch %d", trial.number + 1, epoch)
            raise RunGivenUp(f"below the median of the other trials at epoch {epoch}")

    return tell


def epoch_scores(settings: Settings) -> dict[int, float]:
    """The score of each epoch that a run has finished; empty before the first."""
    path = settings.workspace.checkpoints_dir / "training_history.json"
    rows = read_json(path) if path.exists() else []
    scores = {row["epoch"]: row[f"val_{settings.best_metric}_macro"] for row in rows}
    return {epoch: score for epoch, score in scores.items() if score is not None}


def report_earlier_epochs(trial: Trial, settings: Settings) -> None:
    """Tell the study what another trial of this run had reached before it was cut off."""
    for epoch, score in epoch_scores(settings).items():
        trial.report(score, epoch)


def history_score(settings: Settings) -> float:
    """The score of a finished run's best epoch: what `train_production` picked it by.

    Raises:
        DataError: no epoch has one.
    """
    scores = epoch_scores(settings)
    if not scores:
        raise DataError(
            f"no epoch has a validation {settings.best_metric}: no class of the validation split "
            "can be scored"
        )
    return max(scores.values())


def note_scores(search: Search, trial: Trial, settings: Settings) -> None:
    """Keep with a trial what its best model says of both halves of the validation split."""
    scores = epoch_scores(settings)
    trial.set_user_attr("epochs", max(scores, default=0))
    trial.set_user_attr("best_epoch", max(scores, key=lambda epoch: scores[epoch], default=0))
    for half, figure in score_halves(settings).items():
        trial.set_user_attr(half, figure)


# Disk --------------------------------------------------------------------------------------------


def best_trial(search: Search) -> FrozenTrial | None:
    """The finished trial with the highest score; of equals the first."""
    return best_of(search.trials())


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """As `best_trial`, of trials that have been read."""
    finished = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def remove_bulky_files(search: Search) -> None:
    """Delete models and checkpoints of all trials that are over, but for the best one's."""
    # Read once: another process may finish a better one at any moment.
    over = search.trials("COMPLETE", "PRUNED")
    best = best_of(over)
    for trial in over:
        if trial is not best and "run" in trial.user_attrs:
            folder = Workspace(search.settings.root, trial.user_attrs["run"]).checkpoints_dir
            unlink_all(folder)


def unlink_all(folder: Path) -> None:
    """Delete what takes room in a run's folder."""
    for name in BULKY_FILES:
        (folder / name).unlink(missing_ok=True)
