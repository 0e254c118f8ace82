"""A study that several processes work on: who has which trial, and what becomes of a lost one.

Nothing compares two machines' clocks. A process that works on a trial counts signs of life up; one
whose count stands still for `SECONDS_UNTIL_LOST` of the onlooker's own time has died.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from einthoven.console import log
from einthoven.errors import ConfigError
from einthoven.files import changes_between
from einthoven.settings import Settings
from einthoven.tuning.space import Space, distributions_of, space_in_words, start_of
from einthoven.tuning.storage import (
    import_optuna,
    storage_in_words,
    storage_place,
    study_name,
    unseen_study,
)

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SECONDS_BETWEEN_SIGNS = 10.0
SECONDS_UNTIL_LOST = 60.0
SECONDS_FOR_FACTS = 20.0
FACTS = "einthoven"

# What a trial that was ended to be put back is marked with, and the one that is in its place.
PUT_BACK = "put_back"
AFTER = "after"

# So many times in a row a trial may end without a signal, and without an epoch more than before.
MOST_TRIES = 3


@dataclass
class Search:
    """A search as one process sees it.

    Attributes:
        settings: of every trial, but for what is varied.
        seen: number of a trial that another process works on, to its last sign of life and when
            this process first saw it.
    """

    settings: Settings
    space: Space
    study: Study
    storage: BaseStorage
    seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return study_name(self.settings)

    def trials(self, *states: str) -> list[FrozenTrial]:
        """The trials in these states, as they are now."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not states or trial.state.name in states]

    def counted(self) -> list[FrozenTrial]:
        """The trials that count; a failed one's place was given to another."""
        return [trial for trial in self.trials() if trial.state.name != "FAIL"]


# Coming in ---------------------------------------------------------------------------------------


def join_study(
    settings: Settings,
    space: Space,
    facts: Mapping[str, str],
    storage: BaseStorage,
    may_begin: bool = True,
) -> Search:
    """Open the study, or begin it with the settings in force as its first trial.

    Args:
        facts: everything beside the space that a trial's score depends on.
        may_begin: not where another machine has begun it. One that does not see it would search by
            itself, in the same folders of runs.

    Raises:
        ConfigError: the study of this name is another search, or not there and not to be begun.
    """
    optuna = import_optuna()
    facts = dict(facts) | {f"space of {k}": v for k, v in space_in_words(space).items()}
    named = {
        "study_name": study_name(settings), "storage": storage,
        "sampler": NumberedSampler(settings.seed), "pruner": make_pruner(settings),
    }  # fmt: skip
    if may_begin:
        with suppress(optuna.exceptions.DuplicatedStudyError):
            study = optuna.create_study(direction="maximize", **named)
            put_first_trial(study, settings, space)
            study.set_user_attr(FACTS, facts)
            return Search(settings, space, study, storage)
    try:
        study = optuna.load_study(**named)
    except KeyError:
        raise unseen_study(settings) from None
    refuse_other_search(settings, wait_for_facts(study, settings), facts)
    search = Search(settings, space, study, storage)
    warn_of_other_machines(search)
    return search


def put_first_trial(study: Study, settings: Settings, space: Space) -> None:
    """Have the settings in force tried before all others, as far as they are of the space."""
    start = start_of(space, settings)
    study.enqueue_trial(start, user_attrs={"is_default": set(start) == set(space)})


def wait_for_facts(study: Study, settings: Settings) -> dict[str, str]:
    """What the process that began the study has said of it; it may be about to."""
    until = time.monotonic() + SECONDS_FOR_FACTS
    while FACTS not in study.user_attrs:
        if time.monotonic() > until:
            raise ConfigError(
                f"the study {study.study_name!r} in {storage_in_words(settings)} was not made by "
                "`einthoven tune`, or was cut off as it began; use another --run-name"
            )
        time.sleep(0.2)
    return dict(study.user_attrs[FACTS])


def refuse_other_search(
    settings: Settings, then: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Refuse a study over other data, settings or values, whose scores are of another kind.

    Raises:
        ConfigError: names each difference.
    """
    changes = changes_between(then, now)
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        raise ConfigError(
            f"the study {study_name(settings)!r} in {storage_in_words(settings)} is another "
            f"search:\n{lines}\nGive this one a name of its own (--run-name NAME), or use that "
            "one's settings"
        )


def warn_of_other_machines(search: Search) -> None:
    """SQLite's locks do not hold between machines that share a disk."""
    if not storage_place(search.settings).startswith("sqlite"):
        return
    workers = [trial.user_attrs.get("worker", "") for trial in search.trials("RUNNING")]
    hosts = {worker.rpartition(", process")[0] for worker in workers} - {"", platform.node()}
    if hosts:
        log.warning(
            "%s has trials of this study in hand, which lies in SQLite: between machines its file "
            "may be damaged, or trials lost. If it is still at work, stop it or this one, and give "
            "STUDY_STORAGE a .journal file or a PostgreSQL database",
            ", ".join(sorted(hosts)),
        )


def make_pruner(settings: Settings) -> Any:
    """Gives up what is below the median, from half of the epochs on; see docs/how-to/tune.md."""
    optuna = import_optuna()
    if settings.tune_pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=5,
        n_warmup_steps=settings.epochs // 2,
        # Looked at after every epoch, a trial as good as the others falls below them at some time.
        interval_steps=max(1, settings.epochs // 8),
        n_min_trials=5,
    )


class NumberedSampler:
    """Optuna's TPE, seeded anew for each trial from the trial's number.

    One seed for all processes would let each of them begin with the same trials; a seed of its own
    for each process would make a search of one process depend on where it was stopped.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tpe = self._seeded(0)

    def _seeded(self, number: int) -> Any:
        samplers = import_optuna().samplers
        seed = (self.seed * 1_000_003 + number) % 2**32
        return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.tpe = self._seeded(trial.number)
        self.tpe.before_trial(study, trial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tpe, name)


# Trials ------------------------------------------------------------------------------------------


def next_trial(search: Search) -> Trial | None:
    """A trial to work on: a lost one, else a new one; None when the search has all it should have.

    Two processes that begin the last trial at once both get one; the later steps back.
    """
    for lost in lost_trials(search):
        hand_on(search, lost.number, "its process has died", is_blamed=True)
    for left in left_behind(search):
        put_trial_back(search, left)
    n_trials = search.settings.trials
    if not search.trials("WAITING") and len(search.counted()) >= n_trials:
        return None
    trial = search.study.ask(distributions_of(search.space))
    before = [other for other in search.counted() if other.number < trial.number]
    if len(before) >= n_trials:
        search.study.tell(trial, state=_state("FAIL"))
        return None
    if has_earlier_twin(search, trial):
        search.study.tell(trial, state=_state("FAIL"))
        return next_trial(search)
    trial.set_user_attr("worker", f"{platform.node()}, process {os.getpid()}")
    return trial


def _state(name: str) -> Any:
    return import_optuna().trial.TrialState[name]


def lost_trials(search: Search) -> list[FrozenTrial]:
    """Trials whose process has shown no sign of life for as long as this one watches."""
    now, lost = time.monotonic(), []
    for trial in search.trials("RUNNING"):
        sign = trial.user_attrs.get("sign", 0)
        last, since = search.seen.get(trial.number, (-1, now))
        if last != sign:
            search.seen[trial.number] = (sign, now)
        elif now - since > SECONDS_UNTIL_LOST:
            lost.append(trial)
    return lost


def wait_for_others(search: Search) -> bool:
    """Whether, of the trials that others work on, one has been lost; until that is clear."""
    first = {trial.number: trial.user_attrs.get("sign", 0) for trial in search.trials("RUNNING")}
    if first:
        log.info("%d more in other processes; looking whether they go on", len(first))
    while first:
        if lost_trials(search):
            return True
        time.sleep(min(1.0, SECONDS_BETWEEN_SIGNS))
        running = {t.number: t.user_attrs.get("sign", 0) for t in search.trials("RUNNING")}
        first = {number: sign for number, sign in first.items() if running.get(number) == sign}
    return bool(search.trials("WAITING"))


def hand_on(search: Search, number: int, why: str, is_blamed: bool = False) -> None:
    """End a trial that is not finished, and put one in its place that goes on with its run.

    Args:
        is_blamed: whether the trial itself may be what ended it; `MOST_TRIES` such ends fail it.
    """
    optuna, trial = import_optuna(), search.trials()[number]
    tries = count_tries(trial, is_blamed)
    is_failed = tries["tries"] >= MOST_TRIES
    study_id = search.storage.get_study_id_from_name(search.name)
    trial_id = search.storage.get_trial_id_from_study_id_trial_number(study_id, number)
    try:
        if is_failed:
            told = f"ended {MOST_TRIES} times, the last time because {why}"
            search.storage.set_trial_user_attr(trial_id, "why", told)
        else:
            # Should this process be killed before it has put the trial back, another one does it.
            search.storage.set_trial_user_attr(trial_id, PUT_BACK, tries)
        # Only one of several processes can end it.
        state = _state("PRUNED" if is_failed else "FAIL")
        search.storage.set_trial_state_values(trial_id, state=state)
    except optuna.exceptions.UpdateFinishedTrialError:
        return
    if is_failed:
        log.error("Trial %d has failed: it has %s", number + 1, told)
        return
    put_trial_back(search, search.trials()[number])
    log.info("Trial %d is put back to be gone on with: %s", number + 1, why)


def put_trial_back(search: Search, trial: FrozenTrial) -> None:
    """Put a trial in the place of one that was ended, to go on with its run."""
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    kept = {k: v for k, v in trial.user_attrs.items() if k in ("run", "is_default")}
    tries = trial.user_attrs[PUT_BACK]
    search.study.enqueue_trial(params, user_attrs={**kept, **tries, AFTER: trial.number})


def left_behind(search: Search) -> list[FrozenTrial]:
    """Trials that were ended to be put back, by a process that was killed in between.

    Or that is about to do it: then there are twins, of which the later one steps back.
    """
    trials = search.trials()
    followed = {trial.user_attrs.get(AFTER) for trial in trials}
    return [
        trial for trial in trials
        if trial.state.name == "FAIL" and PUT_BACK in trial.user_attrs
        and trial.number not in followed
    ]  # fmt: skip


def has_earlier_twin(search: Search, trial: Trial) -> bool:
    """Whether another trial was put in the same one's place before this one was."""
    after = trial.user_attrs.get(AFTER)
    return after is not None and any(
        other.user_attrs.get(AFTER) == after
        for other in search.trials()
        if other.number < trial.number
    )


def count_tries(trial: FrozenTrial, is_blamed: bool) -> dict[str, int]:
    """How often a trial has ended and by which epoch; an epoch more than before begins anew.

    A machine that is taken away now and then must not fail a trial that gets on meanwhile.
    """
    epochs = max(trial.intermediate_values, default=0)
    before, reached = trial.user_attrs.get("tries", 0), trial.user_attrs.get("reached", 0)
    tries = 0 if epochs > reached else before
    return {"tries": tries + is_blamed, "reached": max(epochs, reached)}


@contextmanager
def signs_of_life(search: Search, trial: Trial) -> Iterator[None]:
    """Within, others can see that somebody works on this trial."""
    done = threading.Event()

    def tell() -> None:
        sign = 0
        while not done.wait(SECONDS_BETWEEN_SIGNS):
            sign += 1
            try:
                trial.set_user_attr("sign", sign)
            except import_optuna().exceptions.UpdateFinishedTrialError:
                # Another process has taken it over: nobody looks any more.
                break
            # Whatever it is, training goes on: the next report meets it too, where it can be told.
            except Exception as error:
                log.debug("no sign of life could be given: %s", type(error).__name__)
        # A database's session belongs to the thread that has used it.
        getattr(search.storage, "remove_session", bool)()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
