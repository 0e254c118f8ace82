"""All checks in their order, and what a person or a program reads of them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from einthoven.console import plural
from einthoven.errors import EinthovenError
from einthoven.files import Workspace
from einthoven.preflight.data import (
    check_archives,
    check_classes,
    check_duplicates,
    check_mapping,
    check_shard_files,
    check_split_seed,
    check_store,
)
from einthoven.preflight.libraries import check_libraries
from einthoven.preflight.machine import (
    check_device,
    check_disk,
    check_memory,
    check_port,
    check_prepare_memory,
    check_writing,
)
from einthoven.preflight.opened import NOT_MADE, Check, Opened, Verdict
from einthoven.settings import Settings

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Look:
    """A subject that is looked at.

    Attributes:
        checks: what finds out; it may raise an error that a user can mend.
        path: the file that `einthoven run` makes and that it looks at, if any.
        needs: subjects that must have been opened for it.
    """

    subject: str
    checks: Callable[[Opened], Iterator[Check]]
    path: Callable[[Workspace], Path] | None = None
    needs: tuple[str, ...] = ()


LOOKS = (
    Look("archives", check_archives),
    Look("labels", check_mapping, lambda workspace: workspace.mapping_path),
    Look("store", check_store, lambda workspace: workspace.manifest_path),
    Look("shards", check_shard_files, needs=("store",)),
    Look("splits", check_split_seed, lambda workspace: workspace.splits_path, ("store",)),
    Look("duplicates", check_duplicates, needs=("store", "splits")),
    Look("classes", check_classes, needs=("store", "splits")),
    Look("device", check_device),
    Look("memory", check_memory, needs=("device",)),
    Look("memory", check_prepare_memory),
    Look("writing", check_writing),
    Look("disk", check_disk),
    Look("libraries", check_libraries),
    Look("port", check_port),
)


def run_preflight_checks(settings: Settings, port: int | None = None) -> list[Check]:
    """Look at archives, labels, store, splits, machine and libraries; no file stays behind.

    What no command has made yet is a warning. What is wrong with one subject hides no other: a
    check is left out only where what it looks at is not made yet or cannot be opened.

    Args:
        port: that `einthoven serve` will want; None looks at none.
    """
    opened = Opened(settings, port)
    checks: list[Check] = []
    closed: set[str] = set()
    for look in LOOKS:
        if closed.isdisjoint(look.needs):
            found, is_open = _checks_of(look, opened)
            checks += found
        if not closed.isdisjoint(look.needs) or not is_open:
            closed.add(look.subject)
    return checks


def _checks_of(look: Look, opened: Opened) -> tuple[list[Check], bool]:
    """What a look finds, and whether what it looks at could be opened."""
    if look.path and not look.path(opened.workspace).exists():
        return [Check(look.subject, "warning", NOT_MADE)], False
    checks: list[Check] = []
    try:
        for check in look.checks(opened):
            checks.append(check)
    except EinthovenError as error:
        found, _, advice = str(error).partition("; ")
        checks.append(Check(look.subject, "failed", found, advice))
        return checks, False
    return checks, True


def worst_verdict(checks: Sequence[Check]) -> Verdict:
    """``failed`` where any check has failed, else ``warning`` where any warns."""
    return max((check.verdict for check in checks), key=VERDICTS.index, default="passed")


# What is read of them ----------------------------------------------------------------------------

NARROWEST, WIDEST = 60, 120


def checks_as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """What ``einthoven check --json`` prints."""
    return {
        "verdict": worst_verdict(checks),
        "counts": {v: sum(check.verdict == v for check in checks) for v in VERDICTS},
        "checks": [asdict(check) for check in checks],
    }


def format_checks(checks: Sequence[Check], width: int = 0) -> str:
    """A line per check, what to do below it, and at the end how many of each verdict there are.

    Args:
        width: characters of a line; 0 is the terminal's.
    """
    width = width or min(max(shutil.get_terminal_size((100, 24)).columns, NARROWEST), WIDEST)
    longest = max((len(check.subject) for check in checks), default=0)
    margin = " " * (len("verdict") + 2 + longest + 2)
    lines = [f"{'verdict':<9}{'subject':<{longest + 2}}found"]
    for number, check in enumerate(checks):
        head = f"{check.verdict:<9}{check.subject:<{longest + 2}}"
        lines += _wrapped(check.found, head, margin, width)
        after = checks[number + 1] if number + 1 < len(checks) else None
        # Several checks of one subject may call for the same.
        if check.advice and (after is None or after.advice != check.advice):
            lines += _wrapped(check.advice, margin + "-> ", margin + "   ", width)
    n_passed, n_warnings, n_failed = checks_as_json(checks)["counts"].values()
    return "\n".join(
        [*lines, "", f"{n_passed} passed, {plural(n_warnings, 'warning')}, {n_failed} failed"]
    )


def _wrapped(text: str, first: str, margin: str, width: int) -> list[str]:
    # A message of several lines keeps them; a path or a command is not cut.
    rows = [
        textwrap.wrap(
            part, width, initial_indent=margin if number else first, subsequent_indent=margin,
            break_long_words=False, break_on_hyphens=False,
        )
        for number, part in enumerate(text.splitlines())
    ]  # fmt: skip
    return [line for row in rows for line in row]
