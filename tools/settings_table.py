"""Write docs/reference/settings.md from the settings themselves.

python tools/settings_table.py           rewrite the page
python tools/settings_table.py --check   fail where it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from einthoven.files import write_text
from einthoven.settings import Settings, allowed_values, setting_group, setting_names

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "settings.md"
INTRODUCTION = """# Settings

Written by `tools/settings_table.py`. Each is a flag of the commands that it concerns, an
environment variable of this name, and a lower-case line of `einthoven.toml`; a flag beats the
environment, which beats the file. `einthoven config` prints the values in force and their origin.
"""


def settings_page() -> str:
    groups = dict.fromkeys(setting_group(info) for info in Settings.model_fields.values())
    parts = [INTRODUCTION]
    for group in groups:
        rows = [setting_row(name) for name in setting_names([group])]
        header = "| setting | what it does | default | takes |\n|---|---|---|---|"
        parts.append(f"## {group.capitalize()}\n\n{header}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def setting_row(name: str) -> str:
    info = Settings.model_fields[name]
    default = "" if info.default is None else f"`{info.default}`" if info.default != "" else ""
    return f"| `{name.upper()}` | {info.description} | {default} | {allowed_values(name)} |"


def main() -> int:
    if "--check" not in sys.argv:
        write_text(PAGE, settings_page())
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == settings_page():
        return 0
    print(f"{PAGE.name} is stale; run `python tools/settings_table.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
