"""The training loop, as a table of contents.

Randomness is a function of (seed, epoch, record) or (seed, step), never of what ran before, so two
runs with one seed end with the same weights, and so does one that was killed and gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch

from einthoven.batches import Batch, plan_epoch, training_batches
from einthoven.checkpoint import write_checkpoint
from einthoven.console import log, plural, progress
from einthoven.distributed import (
    Processes,
    joined_processes,
    largest_of_processes,
    own_device,
    processes_here,
    share_of,
    wait_for_processes,
)
from einthoven.errors import MemoryShortage, RunStopped
from einthoven.files import stamp_step, write_json
from einthoven.inference import choose_device
from einthoven.interruption import StopRequest, held_signals
from einthoven.resources import is_out_of_memory, keep_freed_memory, peak_memory_mb
from einthoven.run_folder import is_finished, run_inputs
from einthoven.run_state import (
    TrainState,
    clear_old_run,
    describe_run,
    new_state,
    place_in_run,
    resume_or_start,
    save_epoch,
    save_state,
)
from einthoven.runs import (
    Run,
    check_store_settings,
    chosen_records,
    data_fingerprint,
    is_mapping_newer,
    micro_batches,
    open_run,
    run_splits,
    step_bounds,
)
from einthoven.settings import Settings
from einthoven.shortage import accumulated_batches, make_room, shortage_advice
from einthoven.step import train_step
from einthoven.store import Store, open_store
from einthoven.tally import MAX_SKIPPED_IN_A_ROW, diverged_error
from einthoven.tracking.trackers import Trackers, open_trackers, parse_tracking
from einthoven.validation import settle_decisions, validate

DRY_RUN_STEPS = 10

# Steps between two looks at numbers of the device. On a GPU a look waits for all that is queued;
# on a CPU there is nothing to wait for.
STEPS_PER_LOOK = {"cpu": 1, "cuda": 25, "mps": 25}


# Told the number of an epoch that is finished and saved, and its score by ``BEST_METRIC``.
AfterEpoch = Callable[[int, float], None]

# Called before anything is written to the run's folder; what it raises ends the run without.
BeforeSave = Callable[[], None]


def train_production(
    settings: Settings,
    origins: Mapping[str, str] | None = None,
    after_epoch: AfterEpoch | None = None,
    before_save: BeforeSave = lambda: None,
) -> None:
    """Train on the train split, keep the epoch that scores best on the validation split.

    Writes ``best_model.pth``, ``last_checkpoint.pth``, ``training_history.json`` and one
    ``metrics_epoch_*.json`` per epoch into the run's checkpoints folder. A run that was stopped,
    at whatever moment, goes on where it last saved and ends with the same bits (on a CPU); one that
    is finished is left alone. Under ``torchrun`` all processes train one model.

    Args:
        origins: setting to where its value came from.
        after_epoch: what it raises ends the run, which has been saved and can go on.
        before_save: what it raises ends the run, and nothing more is written to its folder.

    Raises:
        SplitError: the splits share a patient.
        DataError: there is no store, it was prepared with other settings, a split has no record, or
            ten steps in a row had a gradient that was not finite.
        CheckpointError: the run's folder holds a run with other settings.
        MemoryShortage: a batch does not fit; says what would.
        RunStopped: Ctrl-C or SIGTERM came; the state is saved.
        ConfigError: a tracker that is asked for is not installed, or settings do not go together.
    """
    parse_tracking(settings.tracking)
    store, chosen = open_data(settings)
    processes = processes_here()
    device = own_device(choose_device(settings.device), processes)
    with joined_processes(processes, device):
        train_together(
            settings, store, chosen, device, processes, origins or {}, after_epoch, before_save
        )


def train_together(
    settings: Settings,
    store: Store,
    chosen: Mapping[str, np.ndarray],
    device: torch.device,
    processes: Processes,
    origins: Mapping[str, str],
    after_epoch: AfterEpoch | None = None,
    before_save: BeforeSave = lambda: None,
) -> None:
    """Train, among processes that have joined; nothing of the model outlives their group."""
    data = data_fingerprint(store, chosen)
    inputs = run_inputs(settings, data, device)
    if not settings.dry_run and is_finished(settings, inputs):
        return
    run = open_run(settings, store, chosen, data, device, processes)
    state = new_state(run)
    state.before_save = before_save
    keep_freed_memory()
    if settings.dry_run:
        dry_run(run, state)
        return
    begin_run(run, state, inputs, origins)
    with held_signals() as request, run_trackers(run, state) as trackers:
        train_epochs(run, state, inputs, request, trackers, after_epoch)
        finish_run(run, state, inputs)
        trackers.log_model(run.workspace.best_model_path, state.best_epoch)
    if request.signal_number:
        raise stopped_by(request.signal_number, run, state)


def open_data(settings: Settings) -> tuple[Store, dict[str, np.ndarray]]:
    """The store, checked, and the rows of its manifest that each split has."""
    store = open_store(settings.workspace)
    splits = run_splits(settings, store)
    check_store_settings(settings, store, splits)
    if is_mapping_newer(settings.workspace):
        log.warning("The labels have changed since the store was made; run `einthoven prepare`")
    return store, chosen_records(settings, store, splits)


def begin_run(
    run: Run, state: TrainState, inputs: Mapping[str, Any], origins: Mapping[str, str]
) -> None:
    """Go on with a stopped run or start a new one, and say what run this is."""
    wait_for_processes(run.processes)
    if run.processes.is_first:
        state.before_save()
        clear_old_run(run)
    wait_for_processes(run.processes)
    resume_or_start(run, state, inputs)
    if run.processes.is_first:
        path = run.workspace.checkpoints_dir / "run.json"
        write_json(path, describe_run(run, origins))


def run_trackers(run: Run, state: TrainState) -> Trackers:
    """The trackers of this run; only the first process tells anyone."""
    return open_trackers(run.settings, state.history) if run.processes.is_first else Trackers()


def train_epochs(
    run: Run,
    state: TrainState,
    inputs: Mapping[str, Any],
    request: StopRequest,
    trackers: Trackers,
    after_epoch: AfterEpoch | None = None,
) -> None:
    """Train until the last epoch, or until patience ends; save after each."""

    def after_look() -> None:
        save_or_stop(run, state, inputs, request)

    while state.epoch < run.n_epochs and not state.is_stalled(run.settings.early_stop_patience):
        row = train_epoch(run, state, after_look) | validate(run, state.predictor)
        improved = state.finish_epoch(row, run.settings.best_metric)
        save_epoch(run, state, inputs, improved)
        trackers.log_epoch(state.history[-1])
        log.info(epoch_line(run, state, improved))
        signal_number = largest_of_processes(request.signal_number, run.processes)
        if signal_number:
            raise stopped_by(signal_number, run, state)
        if after_epoch is not None:
            after_epoch(state.epoch, state.history[-1][f"val_{run.settings.best_metric}_macro"])


# An epoch ---------------------------------------------------------------------------------------


def train_epoch(
    run: Run, state: TrainState, after_look: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The rest of one pass over the training split; returns its part of the history row.

    Args:
        after_look: called whenever the epoch's figures are up to date, between two steps.
    """
    state.parallel.train()
    while state.step_in_epoch < run.steps_per_epoch:
        try:
            train_steps(run, state, after_look)
        except MemoryShortage:
            make_room(run, state)
    return {
        **state.tally.row(),
        "lr": state.optimizer.param_groups[0]["lr"],
        "batch_size": state.batch_size,
        "grad_accum_steps": accumulated_batches(run, state.batch_size),
        **peak_memory_mb(run.device),
    }


def train_steps(run: Run, state: TrainState, after_look: Callable[[], None]) -> None:
    """Take the epoch's steps from where it stands.

    Raises:
        MemoryShortage: a batch does not fit; the steps before it are counted.
        DataError: too many steps in a row had to be left out.
    """
    before = time.perf_counter() - state.tally.seconds
    unread: list[tuple[torch.Tensor, np.ndarray]] = []
    steps = progress(
        steps_of_epoch(run, state), desc=f"Epoch {state.epoch + 1}/{run.n_epochs}",
        total=run.steps_per_epoch, first=state.step_in_epoch, unit="steps",
        status=lambda: live_status(run, state),
    )  # fmt: skip
    for records, parts, batches in steps:
        figures = try_step(run, state, batches, len(parts), len(records))
        if figures is None:
            look_at_figures(run, state, unread)
            raise MemoryShortage(f"a batch of {state.batch_size} records does not fit")
        unread.append((figures, records))
        state.step_in_epoch += 1
        is_end = state.step_in_epoch == run.steps_per_epoch
        if len(unread) >= STEPS_PER_LOOK[run.device.type] or is_end:
            look_at_figures(run, state, unread)
            state.tally.seconds = time.perf_counter() - before
            after_look()


def try_step(
    run: Run, state: TrainState, batches: Iterator[Batch], n_batches: int, n_records: int
) -> torch.Tensor | None:
    """A step's figures, or None where memory ran out."""
    # Not handled within `except`: the error holds every tensor of the step that failed.
    try:
        return train_step(run, state, batches, n_batches, n_records)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


Step = tuple[np.ndarray, list[np.ndarray], Iterator[Batch]]


def steps_of_epoch(run: Run, state: TrainState) -> Iterator[Step]:
    """From where the epoch stands, each step's records, their parts, and these as batches."""
    plan = plan_epoch(run.train.listed, run.input.crop, run.settings.seed, state.epoch)
    bounds = step_bounds(len(plan.order), run.records_per_step)[state.step_in_epoch :]
    steps = [plan.order[start:stop] for start, stop in pairwise(bounds)]
    parts = [micro_batches(records, state.batch_size) for records in steps]
    batches = training_batches(
        run.train.source,
        run.train.listed,
        plan,
        [share_of(records, run.processes) for step in parts for records in step],
        crop=run.input.crop,
        n_workers=run.settings.num_workers,
    )
    for records, step in zip(steps, parts, strict=True):
        yield records, step, islice(batches, len(step))


def look_at_figures(
    run: Run, state: TrainState, unread: list[tuple[torch.Tensor, np.ndarray]]
) -> None:
    """Read what steps have left on the device, and count it; the only wait for the device.

    Raises:
        DataError: too many steps in a row had a gradient that was not finite.
    """
    if not unread:
        return
    figures = torch.stack([figures for figures, _ in unread]).cpu().tolist()
    first = state.step - len(unread) + 1
    for number, (row, (_, records)) in enumerate(zip(figures, unread, strict=True), first):
        state.tally.add(row, len(records))
        if not state.tally.n_skipped_in_a_row:
            state.skipped.clear()
            continue
        state.skipped.append((number, row, records))
        if state.tally.n_skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            path = write_not_finite(run, state)
            raise diverged_error(run.settings.lr, state.epoch + 1, path)
    unread.clear()


def write_not_finite(run: Run, state: TrainState) -> str:
    """Write which records the steps held that had to be left out; returns where."""
    path = run.workspace.checkpoints_dir / "not_finite.json"
    names = run.store.manifest["record"]
    steps = [
        {
            "step": number,
            "loss": str(loss),
            "gradient_norm": str(norm),
            "records": names.iloc[run.train.records[records]].tolist(),
        }
        for number, (loss, _, norm, _), records in state.skipped
    ]
    if run.processes.is_first:
        state.before_save()
        write_json(path, {"epoch": state.epoch + 1, "steps": steps})
    return str(path)


def save_or_stop(
    run: Run, state: TrainState, inputs: Mapping[str, Any], request: StopRequest
) -> None:
    """Between two steps: save when it is time to, and stop when somebody has asked for it."""
    minutes = run.settings.checkpoint_minutes
    is_due = 0 < minutes <= (time.monotonic() - state.saved_at) / 60
    # Read once: a signal that comes after this has to wait for the next look, or it would stop a
    # run that has not been saved.
    signal_number = largest_of_processes(request.signal_number, run.processes)
    if is_due or signal_number:
        save_state(run, state, inputs)
    if signal_number:
        raise stopped_by(signal_number, run, state)


def stopped_by(signal_number: int, run: Run, state: TrainState) -> RunStopped:
    """How a run ends that a signal has stopped, now that its state is saved."""
    how = "the same command without --fresh" if run.settings.fresh else "the same command"
    return RunStopped(
        f"stopped {place_in_run(run, state)}, and saved; {how} goes on from here",
        exit_code=128 + signal_number,
    )


def dry_run(run: Run, state: TrainState) -> None:
    """Ten steps, to see that everything works; nothing is written."""
    state.parallel.train()
    losses: list[float] = []
    while len(losses) < DRY_RUN_STEPS:
        for records, parts, batches in islice(steps_of_epoch(run, state), DRY_RUN_STEPS):
            figures = try_step(run, state, batches, len(parts), len(records))
            if figures is None:
                raise MemoryShortage(shortage_advice(run, state))
            losses.append(float(figures[0]) / len(records))
        state.epoch += 1
    del losses[DRY_RUN_STEPS:]
    log.info(
        "Dry run: %s, loss %.3f -> %.3f; nothing was written",
        plural(len(losses), "step"),
        losses[0],
        losses[-1],
    )


# What a person sees -----------------------------------------------------------------------------


def live_status(run: Run, state: TrainState) -> str:
    """Loss so far, the last epoch's F1, learning rate and speed."""
    tally = state.tally
    last = f"  F1 {state.history[-1]['val_f1_macro']:.3f}" if state.history else ""
    speed = tally.n_records / tally.seconds if tally.seconds else 0
    lr = state.optimizer.param_groups[0]["lr"]
    return f"loss {tally.mean_loss:.4f}{last}  lr {lr:.1e}  {speed:,.0f} records/s"


def epoch_line(run: Run, state: TrainState, improved: bool) -> str:
    """One line for the log."""
    row = state.history[-1]
    skipped = row["skipped_steps"]
    return (
        f"Epoch {state.epoch:>3}/{run.n_epochs}  loss {row['train_loss']:.4f}  "
        f"val loss {row['val_loss']:.4f}  F1 {row['val_f1_macro']:.3f}  "
        f"AUROC {row['val_auroc_macro']:.3f}  lr {row['lr']:.1e}  "
        f"{row['records_per_s']:,.0f} records/s"
        + (f"  {plural(skipped, 'step')} left out, gradient not finite" if skipped else "")
        + ("  best so far" if improved else "")
    )


# The end ----------------------------------------------------------------------------------------


def finish_run(run: Run, state: TrainState, inputs: Mapping[str, Any]) -> None:
    """Calibrate the best model and set its thresholds, and stamp the run as finished."""
    path, values = run.workspace.best_model_path, dict(state.best)
    state.predictor.load_state_dict(values["weights"])
    values |= settle_decisions(run, state.predictor)
    if state.average is not None:
        state.model.load_state_dict(values["raw_weights"])
        values["raw_validation"] = validate(run, state.model)
    if run.processes.is_first:
        state.before_save()
        write_checkpoint(path, values)
        stamp_step(run.workspace.step_path("train"), inputs)
    log.info(
        "Best epoch %d of %d (validation %s %.3f): %s",
        state.best_epoch,
        state.epoch,
        run.settings.best_metric,
        state.best_score,
        path,
    )
