"""Write the table of sources into docs/how-to/download.md from the sources themselves.

python tools/sources_table.py           rewrite the table
python tools/sources_table.py --check   fail where it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from einthoven.files import write_text
from einthoven.sources import SOURCES, Source, size_words

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "download.md"
BEGIN, END = "<!-- sources: begin, written by tools/sources_table.py -->", "<!-- sources: end -->"


def sources_table() -> str:
    lines = [
        "| archive | records | size | licence | cite | files are verified by |",
        "|---|---:|---:|---|---|---|",
    ]
    # The tranches have the licence and the citation of the whole.
    lines += [source_row(source) for source in SOURCES.values() if not source.part]
    lines += ["", "| tranche of the Challenge | records | size |", "|---|---:|---:|"]
    lines += [
        f"| `{source.name}` | {source.records:,} | {size_words(source)} |"
        for source in SOURCES.values()
        if source.part
    ]
    return "\n".join(lines) + "\n"


def source_row(source: Source) -> str:
    cells = [
        f"[`{source.name}`]({source.page}) {source.version}", f"{source.records:,}",
        size_words(source), source.licence,
        f"{source.citation}, [{source.doi}](https://doi.org/{source.doi})", source.verified,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def page_with_table(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{sources_table()}\n{END}{after}"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    if page == page_with_table(page):
        return 0
    if "--check" in sys.argv:
        print(f"{PAGE.name} is stale; run `python tools/sources_table.py`", file=sys.stderr)
        return 1
    write_text(PAGE, page_with_table(page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
