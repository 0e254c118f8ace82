"""What a person says of files that do not say it themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from einthoven.errors import ConfigError, RecordError
from einthoven.formats.content import HIGHEST_FS
from einthoven.formats.reading import Recording, read_recording
from einthoven.readers.wfdb_header import millivolts_per_unit
from einthoven.records import LEADS, lead_name


@dataclass(frozen=True)
class ReadingHints:
    """Hertz, units and leads of files that do not state them; None leaves it to the file."""

    fs: float | None = None
    units: str | None = None
    leads: tuple[str, ...] | None = None

    def read(self, path: Path) -> Recording:
        """Read a file; see `read_recording`."""
        return read_recording(path, fs=self.fs, units=self.units, leads=self.leads)


NO_HINTS = ReadingHints()


def reading_hints(fs: float | None, units: str | None, leads: str | None) -> ReadingHints:
    """Hints as they are written on a command line, leads with commas between them.

    Raises:
        ConfigError: one of them cannot be meant.
    """
    names = tuple(name.strip() for name in leads.split(",")) if leads else None
    try:
        for name in names or ():
            lead_name(name)
    except RecordError as error:
        raise ConfigError(f"--leads: {error}; use {', '.join(LEADS)}") from error
    if fs is not None and not 0 < fs <= HIGHEST_FS:
        raise ConfigError(f"--fs is {fs:g}; use hertz, above 0 and at most {HIGHEST_FS:,.0f}")
    try:
        millivolts_per_unit(units or "mV")
    except RecordError as error:
        raise ConfigError(f"--units: {error}") from error
    return ReadingHints(fs, units, names)
