"""Where a command may write: never over what it reads, and never over a file of another kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from einthoven.errors import ConfigError


def check_outputs(
    outputs: Mapping[str, tuple[Path | None, tuple[str, ...]]], inputs: Iterable[Path]
) -> None:
    """Refuse outputs that would destroy something, before any work is done.

    Args:
        outputs: flag to the path that was given for it, and the suffixes that such a file has.
        inputs: what the command reads, the model among it.

    Raises:
        ConfigError: an output is an input, another output, no regular file, or an existing file of
            another kind.
    """
    read = {path.resolve() for path in inputs}
    written: dict[Path, str] = {}
    for flag, (path, suffixes) in outputs.items():
        if path is None:
            continue
        where = path.resolve()
        if where in read:
            raise ConfigError(f"{flag} is {shown_path(path)}, which this command reads")
        if where in written:
            raise ConfigError(f"{flag} and {written[where]} are both {shown_path(path)}")
        written[where] = flag
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise ConfigError(f"{flag} is {shown_path(path)}, which is no ordinary file")
        if path.exists() and path.suffix.lower() not in suffixes:
            raise ConfigError(
                f"{flag} is {shown_path(path)}, which is there and is no "
                f"{' or '.join(suffixes)} file; give another name"
            )
        if where.parent.exists() and not where.parent.is_dir():
            raise ConfigError(f"{flag} is {shown_path(path)}, and {where.parent} is no folder")


def shown_path(path: Path) -> str:
    """A path as text that any file and figure takes, whatever bytes its name has.

    >>> shown_path(Path("a/b.dcm"))
    'a/b.dcm'
    """
    return os.fsencode(path).decode("utf-8", "replace").replace(os.sep, "/")
