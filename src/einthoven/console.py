"""What a person sees while a command runs: log lines, progress bars, tables.

A terminal gets tqdm bars, a notebook too, in its own output; anything else (a file, a pipe, a CI
log) gets plain lines, at most one every few seconds.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

from tqdm import tqdm

T = TypeVar("T")

log = logging.getLogger("einthoven")

SECONDS_BETWEEN_PLAIN_LINES = 10.0
SECONDS_BETWEEN_STATUS = 0.5
# Of few items, a quarter; of many, this share and no fewer than these.
SHARE_BEFORE_ESTIMATE = 0.02
ITEMS_BEFORE_ESTIMATE = 10


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that ``torchrun`` has started."""
    return not os.environ.get("WORLD_SIZE") or os.environ.get("RANK", "") in ("", "0")


def is_in_notebook() -> bool:
    """Whether a notebook's kernel runs this."""
    return "ipykernel" in sys.modules


def setup_logging(quiet: bool = False) -> None:
    """Send log lines to standard error; ``quiet`` leaves only warnings and errors.

    A notebook, which shows standard error on red, gets them as ordinary output. Of several
    processes that do the same, only the first says anything.
    """
    handler = logging.StreamHandler(sys.stdout if is_in_notebook() else sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not is_first_process():
        log.setLevel(logging.CRITICAL)
    log.propagate = False


def progress(
    items: Iterable[T],
    *,
    desc: str,
    total: int | None = None,
    unit: str,
    first: int = 0,
    status: Callable[[], str] = str,
) -> Iterator[T]:
    """Yield ``items`` unchanged while showing how far they are, and how long it will take yet.

    Nothing is shown when the log is quiet.

    Args:
        first: how many of ``total`` were done before.
        status: a few words of how it goes, asked for whenever something is shown.
    """
    if total is None and isinstance(items, Sequence):
        total = len(items)
    if not log.isEnabledFor(logging.INFO):
        yield from items
    elif sys.stderr.isatty() or is_in_notebook():
        yield from _bar(items, desc, total, unit, first, status)
    else:
        yield from _plain_progress(items, desc, total, unit, first, status)


def _bar(
    items: Iterable[T],
    desc: str,
    total: int | None,
    unit: str,
    first: int,
    status: Callable[[], str],
) -> Iterator[T]:
    where: dict[str, Any] = {}
    if is_in_notebook():
        # What is over before the delay leaves no trace.
        where = {"file": NotebookLine(), "ncols": 100, "mininterval": 0.5, "delay": 0.5}
    with tqdm(desc=desc, total=total, unit=unit, initial=first, leave=False, **where) as bar:
        said = 0.0
        for item in items:
            yield item
            now = time.monotonic()
            if now - said >= SECONDS_BETWEEN_STATUS:
                said = now
                bar.set_postfix_str(status(), refresh=False)
            bar.update()


class NotebookLine(io.TextIOBase):
    """A line of a notebook's output that is drawn again in its place, and empty in the end.

    Widgets do so too, but a notebook that was executed and saved shows what they began with.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def write(self, text: str) -> int:
        from IPython import display as notebook

        shown, display = {"text/plain": text.strip()}, cast(Any, notebook.display)
        if self._handle is not None:
            self._handle.update(shown, raw=True)
        elif text.strip():
            self._handle = display(shown, raw=True, display_id=True)
        return len(text)


def _plain_progress(
    items: Iterable[T],
    desc: str,
    total: int | None,
    unit: str,
    first: int,
    status: Callable[[], str],
) -> Iterator[T]:
    started = said = time.monotonic()
    for done, item in enumerate(items, first + 1):
        yield item
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_PLAIN_LINES:
            said = now
            passed = now - started
            of_total = f"{done:,} of {total:,}" if total else f"{done:,}"
            left = time_left(done - first, total - done, passed) if total else ""
            words = f"  {status()}" if status() else ""
            log.info("%s: %s %s, %.0f s%s%s", desc, of_total, unit, passed, left, words)


def time_left(n_done: int, n_left: int, seconds: float) -> str:
    """How long the rest will take, in words; nothing before enough is done to tell.

    The first items come late: processes start, files are opened.

    >>> time_left(1, 2367, 14.0), time_left(592, 1776, 30.0)
    ('', ', 90 s left')
    """
    n_all = n_done + n_left
    is_enough = n_done >= SHARE_BEFORE_ESTIMATE * n_all and n_done >= min(
        ITEMS_BEFORE_ESTIMATE, n_all / 4
    )
    return f", {seconds / n_done * n_left:.0f} s left" if is_enough else ""


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
