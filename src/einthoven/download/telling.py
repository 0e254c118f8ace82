"""What `einthoven download` and `einthoven archives` say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from einthoven.console import format_table, plural
from einthoven.download.ledger import SourceState, read_state, state_words
from einthoven.download.outcome import Outcome, source_folder
from einthoven.readers.registry import find_archives
from einthoven.settings import Settings
from einthoven.sources import SOURCES, Source, find_source, size_words

MOST_TOLD = 20


def download_summary(outcomes: Sequence[Outcome]) -> str:
    """What was fetched, what was not and why, what to cite, and what to do next."""
    return "\n".join(line for outcome in outcomes for line in _outcome_lines(outcome))


def _outcome_lines(outcome: Outcome) -> list[str]:
    source, failed = outcome.source, outcome.failed
    there = outcome.n_files - len(failed)
    lines = [
        f"{source.name} {source.version}: {there:,} of {plural(outcome.n_files, 'file')} there, "
        f"{outcome.n_fetched:,} of them new, in {outcome.folder} "
        f"({outcome.seconds:.0f} s)"
    ]
    lines += [f"  {reason}" for reason in list(failed.values())[:MOST_TOLD]]
    if len(failed) > MOST_TOLD:
        lines.append(f"  ... and {len(failed) - MOST_TOLD:,} more")
    if not outcome.state.is_verified:
        lines.append(f"  Nothing of it is verified; `{outcome.state.command}` does that.")
    elif failed and outcome.is_local:
        lines.append(f"  `{outcome.state.command}` fetches what is missing.")
    elif failed:
        lines.append("  The same command fetches what is missing.")
    lines.append(f"  Licence: {source.licence}. Cite {source.citation}, {doi_address(source)}")
    return lines


def doi_address(source: Source) -> str:
    """The address of what is to be cited."""
    return f"https://doi.org/{source.doi}"


def archive_rows(settings: Settings) -> list[dict[str, Any]]:
    """Every source as plain values, and whether it is in this workspace's data folder."""
    found = find_archives(settings.archives_dir)[0] if settings.archives_dir.is_dir() else []
    by_hand = {archive.name for archive in found}
    rows = []
    for source in SOURCES.values():
        state = _whole_or_own_state(source, settings)
        words = state_words(state)
        if state is None and source.name in by_hand:
            words = "there, not by download"
        rows.append(asdict(source) | {"size": size_words(source), "state": words})
    return rows


def _whole_or_own_state(source: Source, settings: Settings) -> SourceState | None:
    """A tranche is there when the whole Challenge is."""
    folder = source_folder(source, settings)
    whole = read_state(folder, source.project) if source.part else None
    return whole if whole and whole.is_whole else read_state(folder, source.name)


def archives_said(settings: Settings, name: str, as_json: bool) -> str:
    """All sources, or the one of a name, as a table or as JSON.

    Raises:
        ConfigError: no source has the name.
    """
    rows = archive_rows(settings)
    if name:
        rows = [row for row in rows if row["name"] == find_source(name).name]
    if as_json:
        return json.dumps(rows, indent=2, ensure_ascii=False)
    if name:
        return _one_archive(rows[0])
    table = format_table(
        ["archive", "records", "size", "licence", "access", "here"],
        [[r["name"], r["records"], r["size"], r["licence"], r["access"], r["state"]] for r in rows],
    )
    return (
        f"{table}\n`einthoven download NAME` fetches one, `einthoven archives NAME` says what to "
        "cite. ~ is estimated."
    )


def _one_archive(row: dict[str, Any]) -> str:
    facts = {
        "title": row["title"], "version": row["version"], "records": f"{row['records']:,}",
        "size": f"{row['size']} ({row['size_from']})", "licence": row["licence"],
        "access": row["access"], "page": row["page"], "cite": row["citation"],
        "doi": f"https://doi.org/{row['doi']}", "verified by": row["verified"],
        "reader": row["reader"], "here": row["state"],
    }  # fmt: skip
    return format_table([row["name"], ""], [[key, value] for key, value in facts.items()])
