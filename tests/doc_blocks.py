"""The code blocks of README and docs, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/**/*.md")],
    key=lambda path: path.as_posix(),
)
SHELLS = ("bash", "sh", "console", "shell")
# What a block may be of; another word would pass by the tests unseen.
LANGUAGES = (*SHELLS, "powershell", "python", "text", "csv", "toml", "json", "html", "")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, what it holds, and why it is not run, if it is not."""

    page: Path
    line: int
    language: str
    text: str
    reason: str

    @property
    def place(self) -> str:
        return f"{page_name(self.page)}:{self.line}"

    @property
    def is_code(self) -> bool:
        return self.language in (*SHELLS, "powershell", "python")


def page_name(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return parse_blocks(page, page.read_text(encoding="utf-8"))


def parse_blocks(page: Path, text: str) -> list[Block]:
    """The fenced blocks of a text; the line above a fence may say why it is not run."""
    blocks: list[Block] = []
    above, fence, start, language, body = "", "", 0, "", []
    for number, line in enumerate(text.splitlines(), 1):
        opening = re.match(r"\s*(`{3,})\s*([^`\s]*)", line)
        if fence:
            if opening and opening[1] == fence and not opening[2]:
                said = NOT_RUN.fullmatch(above.strip())
                reason = said["reason"] if said else ""
                blocks.append(Block(page, start, language, "\n".join(body), reason))
                above, fence, body = "", "", []
            else:
                body.append(line)
        elif opening:
            fence, start, language = opening[1], number, opening[2]
        else:
            above = line
    assert not fence, f"{page}: the block of line {start} does not end"
    return blocks


def command_lines(block: Block) -> list[list[str]]:
    """The commands of a shell block, each as its words; prompts, comments and joined lines gone.

    PowerShell has its own mark for a line that goes on, and its own way to set a variable.
    """
    text = block.text
    if block.language == "powershell":
        text = text.replace("`\n", " ").replace("\\", "/")
        text = re.sub(r"\$env:(\w+) = (\S+)", r"export \1=\2", text)
    else:
        text = text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    commands = []
    for line in text.splitlines():
        words: list[str] = []
        for word in split_words(line):
            if word in ("&&", ";"):
                commands.append(words)
                words = []
            else:
                words.append(word)
        commands.append(words)
    return [words for words in commands if words]


def split_words(line: str) -> list[str]:
    """A line's words as a shell has them; ``;``, ``|``, ``>`` and ``&&`` are words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&><")
    lexer.wordchars += "$%@{}[]!^,:+"
    lexer.commenters = "#"
    return list(lexer)


def einthoven_words(words: list[str]) -> list[str] | None:
    """What is given to ``einthoven`` in a command, by whatever way it is called; else None.

    >>> einthoven_words(["EPOCHS=1", ".venv/bin/einthoven", "train"])
    ['train']
    """
    rest = list(words)
    while rest and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", rest[0]):
        rest.pop(0)
    if not rest:
        return None
    program = Path(rest[0]).name.removesuffix(".exe")
    if program == "einthoven":
        return rest[1:]
    for number, word in enumerate(rest[:-1]):
        if word == "-m" and rest[number + 1] == "einthoven":
            return rest[number + 2 :]
    return None
