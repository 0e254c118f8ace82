"""Errors that a user can cause, and can mend.

::

    EinthovenError
    ├── ConfigError      a setting, flag or command that cannot be used
    ├── DataError        an archive, mapping, store or manifest that cannot be used
    │   ├── RecordError  one record that cannot be read; the run goes on without it
    │   └── SplitError   splits that share a patient, or cannot be made
    ├── DownloadError    a file that cannot be fetched, or is not what its archive says
    ├── CheckpointError  a checkpoint that is damaged or belongs to another run
    ├── ExportError      an exported model that does not answer as its model does
    ├── MemoryShortage   a batch that does not fit into memory
    ├── ProcessLost      another process of the same job has died
    ├── RunStopped       a signal has asked the run to stop; it has saved its state
    └── RunGivenUp       a search has ended the run, which promises less than others did

Each message says what was found and what to do. Anything else that is raised is a defect of ours.
"""


class EinthovenError(Exception):
    """Base of everything that a user can cause.

    Attributes:
        is_of_one_process: whether the other processes of the job may not have met it.
    """

    is_of_one_process = False


class ConfigError(EinthovenError):
    """A setting, flag or command cannot be used."""


class DataError(EinthovenError):
    """An archive, mapping, store or manifest cannot be used."""


class RecordError(DataError):
    """One record cannot be read; the message is the reason in ``rejected.csv``."""


class SplitError(DataError):
    """Splits share a patient, or cannot be made."""


class DownloadError(EinthovenError):
    """A file cannot be fetched, or is not what its archive says."""


class CheckpointError(EinthovenError):
    """A checkpoint is damaged, or belongs to another run."""


class ExportError(EinthovenError):
    """A model cannot be exported, or its exported file does not answer as it does."""


class MemoryShortage(EinthovenError):
    """A batch does not fit into the device's memory."""


class ProcessLost(EinthovenError):
    """Another process of the same job has died, or can no longer be reached."""


class RunStopped(EinthovenError):
    """A signal has asked the run to stop; its state is saved.

    Attributes:
        exit_code: what a shell expects of a command that this signal has ended.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RunGivenUp(EinthovenError):
    """A search has ended the run after an epoch, because it promises less than others did there."""
