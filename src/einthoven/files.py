"""Files of a workspace: where they lie, written whole or not at all, redone only when needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.errors import DataError

if TYPE_CHECKING:
    # Settings need this module, and a command's --help must not wait for pandas.
    import pandas as pd

# Places -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workspace:
    """Where each file of a workspace lies.

    Checkpoints, figures and report of a named run lie in a folder of that name; archives, mapping
    and store are shared by all runs.
    """

    root: Path
    run_name: str = ""

    @property
    def mapping_path(self) -> Path:
        return self.root / "logs" / "unified_label_mapping.csv"

    @property
    def processed_dir(self) -> Path:
        return self.root / "artifacts" / "processed"

    @property
    def records_dir(self) -> Path:
        return self.processed_dir / "records"

    @property
    def manifest_path(self) -> Path:
        return self.processed_dir / "manifest.parquet"

    @property
    def rejected_path(self) -> Path:
        return self.processed_dir / "rejected.csv"

    @property
    def splits_path(self) -> Path:
        return self.processed_dir / "splits.json"

    @property
    def checkpoints_dir(self) -> Path:
        return self.processed_dir / "checkpoints" / self.run_name

    @property
    def best_model_path(self) -> Path:
        return self.checkpoints_dir / "best_model.pth"

    @property
    def figures_dir(self) -> Path:
        return self.root / "artifacts" / "figures" / self.run_name

    @property
    def report_path(self) -> Path:
        return self.root / "artifacts" / self.run_name / "report.html"

    @property
    def model_card_path(self) -> Path:
        return self.report_path.with_name("model_card.md")

    def step_path(self, step: str) -> Path:
        """Where the stamp of a finished step lies; see `step_changes`."""
        of_run = step in ("train", "evaluate", "examples", "report")
        folder = self.checkpoints_dir if of_run else self.processed_dir
        return folder / ".steps" / f"{step}.json"


# Whole or not at all ----------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` on success.

    The bytes reach the disk before the name does, so that a crash leaves the old file or the new
    one and never a part. On an error the old file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    # Of the usual mode, for shared disks; tempfile's are for their owner alone.
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield beside
        sync_file(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes have reached the disk."""
    with path.open("rb+") as written:
        os.fsync(written.fileno())


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; NaN and infinities, which JSON has not, become null."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes of a value."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path} is not readable as JSON ({error}); delete it to remake it"
        ) from error


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, whole or not at all."""
    with atomic_path(path) as beside:
        table.to_parquet(beside, index=False)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with atomic_path(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return value


# Redone only when needed ------------------------------------------------------------------------

# What `step_changes` says of a step that never finished; a first run need not be told.
NOT_DONE_YET = ("not done yet",)
FILE_ABSENT = "absent"
_DIGEST = re.compile(f"[0-9a-f]{{16}}|{FILE_ABSENT}")


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that name a JSON-like value."""
    text = json.dumps(_finite(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Sixteen hexadecimal digits that name a file's bytes, or ``absent``."""
    if not path.exists():
        return FILE_ABSENT
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def step_changes(stamp_path: Path, inputs: Mapping[str, Any]) -> list[str]:
    """What has changed since a step last finished, as lines to print; empty when nothing has.

    Args:
        stamp_path: what `stamp_step` wrote when the step finished.
        inputs: everything that the step's result depends on, by names that read well before
            "has changed".
    """
    if not stamp_path.exists():
        return list(NOT_DONE_YET)
    return changes_between(
        read_json(stamp_path), json.loads(json.dumps(_finite(inputs), default=str))
    )


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of plain values, a line for each name.

    >>> changes_between({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
    ['lr: 0.1 -> 0.2']
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [_told_change(name, before, now) for name in names]


def _told_change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What a person makes nothing of, a digest, is only said to have changed."""
    if name not in before or name not in now:
        return f"{name}: {'new' if name in now else 'left out'}"
    if now[name] == FILE_ABSENT:
        return f"{name} is gone"
    if _DIGEST.fullmatch(str(before[name])) and _DIGEST.fullmatch(str(now[name])):
        return f"{name} has changed"
    return f"{name}: {before[name]} -> {now[name]}"


def stamp_step(stamp_path: Path, inputs: Mapping[str, Any]) -> None:
    """Record that a step has finished with these inputs."""
    write_text(stamp_path, json.dumps(_finite(inputs), indent=2, default=str) + "\n")
