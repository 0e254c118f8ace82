"""Where the processes of a search share what they know: SQLite, a database server or a journal."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from einthoven.console import log
from einthoven.errors import ConfigError, DataError
from einthoven.files import Workspace
from einthoven.settings import Settings, allowed_values, without_password

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Made = TypeVar("Made")

TUNED_RUN = "tune"
JOURNAL_SUFFIX = ".journal"
SECONDS_FOR_A_LOCK = 60
TRIES = 5


def study_name(settings: Settings) -> str:
    """What a search is called: ``RUN_NAME``, or ``tune``."""
    return settings.run_name or TUNED_RUN


def tuning_dir(settings: Settings) -> Path:
    """The folder of a search's results."""
    return Workspace(settings.root).root / "artifacts" / "tuning" / study_name(settings)


def import_optuna() -> Any:
    """Optuna, told to be quiet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "`einthoven tune` needs Optuna, which is not installed: pip install 'einthoven[tuning]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def storage_place(settings: Settings) -> str:
    """Where the study lies, as Optuna takes it: a URL, or the path of a journal."""
    given = settings.study_storage
    if not given:
        return f"sqlite:///{(tuning_dir(settings) / 'study.db').as_posix()}"
    # SQLAlchemy would look for an older driver by itself.
    for plain in ("postgresql://", "postgres://"):
        given = given.replace(plain, "postgresql+psycopg://", 1)
    return given


def storage_in_words(settings: Settings) -> str:
    """Where the study lies, for people: without a password."""
    return without_password(settings.study_storage) or str(tuning_dir(settings) / "study.db")


def unseen_study(settings: Settings) -> ConfigError:
    """What to say where a study that was begun elsewhere is not to be found."""
    return ConfigError(
        f"machine {platform.node()} does not see the study {study_name(settings)!r} in "
        f"{storage_in_words(settings)}; put STUDY_STORAGE on a disk that all machines of the "
        "cluster see, by its whole path, or in a database"
    )


@contextmanager
def open_storage(settings: Settings, may_begin: bool = True) -> Iterator[BaseStorage]:
    """The storage of a search.

    Args:
        may_begin: whether it is made where there is none.

    Raises:
        ConfigError: Optuna or a database's driver is not installed, the URL makes no sense, or
            there is no such file and none may be made.
        DataError: it cannot be reached.
    """
    optuna, place = import_optuna(), storage_place(settings)
    told = storage_in_words(settings)
    path = Path(place.removeprefix("sqlite:///"))
    if not may_begin and (path.suffix == JOURNAL_SUFFIX or place.startswith("sqlite")):
        if not path.exists():
            raise unseen_study(settings)
    storage: Any = None
    try:
        if place.endswith(JOURNAL_SUFFIX):
            storage = _open_journal(optuna, Path(place))
        else:
            storage = _open_database(optuna, place, told)
        yield storage
    except storage_errors() as error:
        raise DataError(
            f"the study in {told} cannot be reached or used: {_first_line(error, settings)}; "
            "the same command goes on from where its trials were saved"
        ) from error
    finally:
        if hasattr(storage, "engine"):
            storage.remove_session()
            storage.engine.dispose()


def _open_journal(optuna: Any, path: Path) -> Any:
    journal = optuna.storages.journal
    # A lock file rather than a link: it works on every system, and on network drives.
    lock = journal.JournalFileOpenLock(str(path))
    with _told_as_storages():
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = journal.JournalFileBackend(str(path), lock_obj=lock)
    return optuna.storages.JournalStorage(_ToldJournal(backend))


@contextmanager
def _told_as_storages() -> Iterator[None]:
    """Within, a file that cannot be used is an error of the storage, as a database's are.

    Raised as it is, it would be taken for the trial's that is at work. `ValueError` is a file that
    is no journal, `RuntimeError` a lock that another process has taken for forgotten.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise import_optuna().exceptions.StorageInternalError(str(error)) from error


class _ToldJournal:
    """A journal's backend, with the storage's errors in place of the file's."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        with _told_as_storages():
            return list(self.backend.read_logs(log_number_from))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with _told_as_storages():
            self.backend.append_logs(logs)


def _open_database(optuna: Any, url: str, told: str) -> Any:
    """Connect; processes that make the tables at once get in each other's way for a moment."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        with _told_as_storages():
            Path(url.partition("///")[2]).parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": SECONDS_FOR_A_LOCK}}
    from sqlalchemy.exc import ArgumentError, DBAPIError

    passing = (optuna.exceptions.StorageInternalError, DBAPIError)
    try:
        return stubbornly(
            lambda: optuna.storages.RDBStorage(url, engine_kwargs=options), passing, 0.3
        )
    except ImportError as error:
        # Optuna's own error does not name what is missing; the one behind it does.
        missing = error.name or getattr(error.__cause__ or error.__context__, "name", None)
        raise ConfigError(
            f"STUDY_STORAGE is {told}, whose driver is not installed"
            f"{f' ({missing})' if missing else ''}; for PostgreSQL: pip install 'einthoven[tuning]'"
        ) from error
    except (ValueError, ArgumentError) as error:
        raise ConfigError(
            f"STUDY_STORAGE is {told}, which is no database's URL: use "
            f"{allowed_values('study_storage')}"
        ) from error


def storage_errors() -> tuple[type[Exception], ...]:
    """What is raised where a study's storage cannot be reached or used."""
    from sqlalchemy.exc import SQLAlchemyError

    return (import_optuna().exceptions.StorageInternalError, SQLAlchemyError)


def _first_line(error: BaseException, settings: Settings) -> str:
    """What went wrong, without the password that a driver may have put there."""
    cause = error.__cause__ or error
    # Some errors, such as a lock's that ran out of time, have no text.
    said = str(cause).strip().splitlines() or [type(cause).__name__]
    told = without_password(said[0])
    given = settings.study_storage
    if without_password(given) == given:
        return told
    place = given.partition("://")[2]
    secret = (place.rpartition("@")[0] or place).partition(":")[2]
    return told.replace(secret, "***") if secret else told


def stubbornly(do: Callable[[], Made], errors: tuple[type[Exception], ...], pause_s: float) -> Made:
    """Try again what fails for a moment: a lock, tables in the making, a server that restarts."""
    for tried in range(1, TRIES):
        try:
            return do()
        except errors as error:
            log.debug("Once more in %.1f s: %s", pause_s * tried, type(error).__name__)
            time.sleep(pause_s * tried)
    return do()
