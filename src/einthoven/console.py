"""What a person sees while a command runs: log lines, progress bars, tables.

A terminal gets tqdm bars; anything else (a file, a pipe, a CI log) gets plain lines, at most one
every few seconds.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

log = logging.getLogger("einthoven")

SECONDS_BETWEEN_PLAIN_LINES = 10.0


def setup_logging(quiet: bool = False) -> None:
    """Send log lines to standard error; ``quiet`` leaves only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False


def progress(items: Iterable[T], *, desc: str, total: int | None = None, unit: str) -> Iterator[T]:
    """Yield ``items`` unchanged while showing how far they are.

    Nothing is shown when the log is quiet.
    """
    if total is None and isinstance(items, Sequence):
        total = len(items)
    if not log.isEnabledFor(logging.INFO):
        yield from items
    elif sys.stderr.isatty() or "ipykernel" in sys.modules:
        yield from tqdm(items, desc=desc, total=total, unit=unit, leave=False)
    else:
        yield from _plain_progress(items, desc, total, unit)


def _plain_progress(items: Iterable[T], desc: str, total: int | None, unit: str) -> Iterator[T]:
    started = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_PLAIN_LINES:
            said = now
            of_total = f"{done:,} of {total:,}" if total else f"{done:,}"
            log.info("%s: %s %s, %.0f s", desc, of_total, unit, now - started)


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a plain-text table: numbers right-aligned, everything else left-aligned.

    >>> print(format_table(["archive", "records"], [["ptb-xl", 21837], ["sph", 25770]]))
    archive  records
    ptb-xl    21,837
    sph       25,770
    """
    rows = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[c], int | float) for row in rows)
        for c in range(len(header))
    ]
    lines = [list(header), *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def plural(count: int, noun: str) -> str:
    """Count a noun, with its plural.

    >>> plural(1, "record"), plural(2094, "record")
    ('1 record', '2,094 records')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
