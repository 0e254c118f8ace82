"""What is asked of a download, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from einthoven.download.ledger import SourceState, write_state
from einthoven.settings import Settings
from einthoven.sources import Source


@dataclass(frozen=True)
class Wanted:
    """What is asked for: how many records (0: all), of which rate (0: all), all hashed anew?"""

    records: int = 0
    rate: int = 0
    verify: bool = False


@dataclass
class Outcome:
    """How the download of one source ended.

    Attributes:
        paths: of the files that were asked for.
        is_local: whether a zip was unpacked, and nothing fetched.
    """

    source: Source
    folder: Path
    state: SourceState
    is_local: bool = False
    paths: list[str] = field(default_factory=list)
    n_files: int = 0
    n_fetched: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def note_begun(self) -> None:
        """Keep that something of this source is on its way."""
        write_state(self.folder, self.state)


def source_folder(source: Source, settings: Settings) -> Path:
    """Where an archive's files go."""
    return settings.archives_dir / source.folder
