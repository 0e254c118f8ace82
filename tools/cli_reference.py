"""Write docs/reference/cli.md from the commands themselves.

python tools/cli_reference.py           rewrite the page
python tools/cli_reference.py --check   fail where it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from einthoven.cli import RESUMED
from einthoven.files import write_text
from einthoven.settings import setting_names
from einthoven.stages import STAGES, OwnOption, Stage

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"
INTRODUCTION = """# Commands

Written by `tools/cli_reference.py`. `einthoven COMMAND --help` says the same. Beside its own
options a command takes [settings](settings.md) as flags: `EPOCHS` is `--epochs 50`, a switch such
as `BY_ARCHIVE` is `--by-archive` or `--no-by-archive`. `--config FILE` names a TOML file of
settings; without it `einthoven.toml` in the workspace is read, if it is there.

| exit code | means |
|---|---|
| 0 | done, or up to date |
| 1 | something could not be done, or a check, file, part or stage failed; the message says what |
| 2 | a setting or flag cannot be used; all of them are listed |
| 130, 143 | stopped by Ctrl-C, by SIGTERM |

Stopped, these keep what they have done, and go on with the same command: RESUMED.
"""


def cli_page() -> str:
    resumed = ", ".join(f"`{name}`" for name in RESUMED)
    lines = ["| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#einthoven-{name}) | {stage.help} |" for name, stage in STAGES.items()]
    parts = [INTRODUCTION.replace("RESUMED", resumed), "\n".join(lines) + "\n"]
    parts += [command_section(name, stage) for name, stage in STAGES.items()]
    return "\n".join(parts)


def command_section(name: str, stage: Stage) -> str:
    """A command: how it is called, its own options, and the groups of settings that it takes."""
    words = "".join(f" {argument_word(word)}" for word in stage.words)
    parts = [
        f"## `einthoven {name}`\n",
        f"{stage.help}.\n",
        f"```text\neinthoven {name}{words} [OPTIONS]\n```\n",
    ]
    if stage.options:
        header = "| option | takes | what it says | default |\n|---|---|---|---|"
        parts.append(header + "\n" + "\n".join(map(option_row, stage.options)) + "\n")
    parts.append(f"Settings: {settings_taken(stage)}.\n")
    return "\n".join(parts)


def argument_word(word: str) -> str:
    """A word as the usage line has it.

    >>> argument_word("paths..."), argument_word("name?"), argument_word("first")
    ('PATHS...', '[NAME]', 'FIRST')
    """
    if word.endswith("?"):
        return f"[{word[:-1].upper()}]"
    return word.upper()


def option_row(option: OwnOption) -> str:
    default = "" if option.default in (None, "") else f"`{option.default}`"
    return f"| `{option.flag}` | {taken(option)} | {option.help} | {default} |"


def taken(option: OwnOption) -> str:
    """What an option takes, in words."""
    kind = option.kind
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange):
        return f"{kind.min} or more" if kind.max is None else f"{kind.min} to {kind.max}"
    if isinstance(kind, click.Path):
        return "a path"
    return {bool: "", str: "text", float: "a number", int: "a whole number"}[kind]


def settings_taken(stage: Stage) -> str:
    """The groups with links; a few settings are named one by one."""
    groups = dict.fromkeys(stage.groups)
    names = setting_names(groups)
    linked = ", ".join(f"[{group}](settings.md#{group})" for group in groups)
    flags = [f"`--{name.replace('_', '-')}`" for name in names]
    return f"those of {linked}: {', '.join(flags)}" if len(flags) <= 12 else f"those of {linked}"


def main() -> int:
    if "--check" not in sys.argv:
        write_text(PAGE, cli_page())
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == cli_page():
        return 0
    print(f"{PAGE.name} is stale; run `python tools/cli_reference.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
