"""What a person says of files that do not say it themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from einthoven.formats.reading import Recording, read_recording


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
    """Hints as they are written on a command line, leads with commas between them."""
    names = tuple(name.strip() for name in leads.split(",")) if leads else None
    return ReadingHints(fs, units, names)
