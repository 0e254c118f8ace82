"""`einthoven tune`: search settings with Optuna, in as many processes as share a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from einthoven.console import log
from einthoven.errors import ConfigError
from einthoven.settings import Settings, allowed_values
from einthoven.tracking.trackers import parse_tracking
from einthoven.tuning.devices import TrialDevice, device_here
from einthoven.tuning.on_ray import gathered_crew, refuse_sqlite_between_machines
from einthoven.tuning.results import search_summary, write_figures, write_progress
from einthoven.tuning.space import choose_space, space_as_toml
from einthoven.tuning.storage import JOURNAL_SUFFIX, open_storage, storage_in_words, study_name
from einthoven.tuning.study import Search, join_study
from einthoven.tuning.working import search_facts, work_on

# What a trial's name adds to the study's.
LONGEST_STUDY_NAME = 40


def tune(
    settings: Settings, origins: Mapping[str, str] | None = None, space_path: Path | None = None
) -> str:
    """Train with one proposal of settings after the other, and keep those that score best.

    The score is ``BEST_METRIC`` on the half of the validation split that picks the epoch. The test
    split is not touched. Several processes with the same study share its trials; a search that was
    stopped goes on. Writes into ``artifacts/tuning/<study>``: docs/how-to/tune.md.

    Args:
        origins: setting to where its value came from; what is not a default is not varied.
        space_path: TOML file of what to vary, instead of the default space.

    Returns:
        A summary for people.

    Raises:
        ConfigError: settings that cannot be searched with, or the study is another search.
        DataError: there is no usable store, or the study's storage cannot be reached.
        RunStopped: Ctrl-C or SIGTERM came; the trial can be gone on with.
    """
    settings = settings.model_copy(update={"run_name": study_name(settings)})
    check_search_settings(settings)
    if settings.engine == "local":
        device = device_here(settings)
        return search_with(work_on, device, settings, origins or {}, space_path)
    with gathered_crew(settings) as crew:
        refuse_sqlite_between_machines(settings, crew.n_machines)
        return search_with(crew.search, crew.device, settings, origins or {}, space_path)


def search_with(
    work: Callable[[Search, Mapping[str, str]], None],
    device: TrialDevice,
    settings: Settings,
    origins: Mapping[str, str],
    space_path: Path | None,
) -> str:
    """Open or begin the study, let ``work`` be done on it, and write what it has found.

    Args:
        device: what the trials train on; on a cluster not that of this machine.
    """
    space = choose_space(settings, origins, device.torch_device, space_path)
    facts = search_facts(settings, space, device)
    with open_storage(settings) as storage:
        search = join_study(settings, space, facts, storage)
        log.info("Study %s in %s", search.name, storage_in_words(settings))
        work(search, origins)
        write_progress(search)
        return search_summary(search, write_figures(search))


def space_of_search(settings: Settings, origins: Mapping[str, str], space_path: Path | None) -> str:
    """What `tune` would vary with these settings, as a TOML file."""
    if settings.engine == "local":
        device = device_here(settings)
    else:
        with gathered_crew(settings) as crew:
            device = crew.device
    return space_as_toml(choose_space(settings, origins, device.torch_device, space_path))


def check_search_settings(settings: Settings) -> None:
    """Refuse what makes no sense of a search.

    Raises:
        ConfigError: says what to do instead.
    """
    parse_tracking(settings.tracking)
    given = settings.study_storage
    if given and not given.endswith(JOURNAL_SUFFIX) and "://" not in given:
        raise ConfigError(
            f"STUDY_STORAGE is {given}; allowed is {allowed_values('study_storage')}. Anything "
            "else would be a search that no other process sees"
        )
    if settings.fresh:
        raise ConfigError(
            "FRESH would delete trials that other processes may be at; begin a search anew under "
            "another --run-name"
        )
    if settings.dry_run or settings.run_mode == "smoke":
        what = "a dry run" if settings.dry_run else "a smoke test"
        raise ConfigError(f"{what} has no score to search by; use `einthoven train`")
    if len(settings.run_name) > LONGEST_STUDY_NAME:
        raise ConfigError(
            f"RUN_NAME is {settings.run_name}, too long here; use {LONGEST_STUDY_NAME} letters at "
            "most"
        )
