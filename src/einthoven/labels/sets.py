"""Label sets: the classes that a model learns, and which codes mean which class."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from einthoven.errors import ConfigError
from einthoven.files import digest
from einthoven.labels.codes import CODE_SYSTEMS, canonical_codes
from einthoven.labels.meanings import (
    ALONE_BESIDE,
    FIVE_LABELS,
    FIVE_PRECEDENCE,
    NORMAL_IF_ALONE,
    CodeTable,
    challenge_table,
    five_table,
    superclass_table,
)
from einthoven.labels.scp import SCP_STATEMENTS, ScpStatement
from einthoven.labels.snomed import CHALLENGE_2021, SNOMED
from einthoven.settings import did_you_mean

# What a label set is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class MappedCodes:
    """What a record's codes mean in a label set.

    Attributes:
        labels: in the label set's order; empty where the record is unlabelled.
        quality: how much the labels can be trusted; ``""`` or e.g. ``"rhythm_only"``.
        unmapped: the codes that the set knows nothing of, as written.
    """

    labels: tuple[str, ...]
    quality: str
    unmapped: tuple[str, ...]


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task and the table from codes to them.

    Attributes:
        name: as in the setting ``LABEL_SET``; the file's name for a user's own.
        labels: the classes, in the order of the model's outputs.
        single: does a record have one label by default?
        table: code, as `canonical_codes` gives it, to labels; empty for a code that means none.
        qualities: code to label quality.
        precedence: which of several labels a single-label task keeps, first come; empty for none.
        exclusive: a label that holds only where no other does.
        if_alone: codes that count only where all others of the record are among ``beside``.
    """

    name: str
    labels: tuple[str, ...]
    single: bool
    table: Mapping[str, tuple[str, ...]]
    qualities: Mapping[str, str] = field(default_factory=dict)
    precedence: tuple[str, ...] = ()
    exclusive: str = ""
    if_alone: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()

    def map_codes(self, codes: Sequence[str]) -> MappedCodes:
        """What a record's codes mean.

        >>> load_label_set("five").map_codes(["snomed:426783006", "snomed:164889003"]).labels
        ('AF',)
        """
        stated = {code: self._keys(code) for code in codes}
        keys = {key for known in stated.values() for key in known}
        is_alone = keys <= self.beside
        found: set[str] = set()
        for key in keys:
            if is_alone or key not in self.if_alone:
                found.update(self.table.get(key) or self._own_label(key))
        if len(found) > 1:
            found.discard(self.exclusive)
        qualities = {self.qualities[key] for key in keys if key in self.qualities}
        return MappedCodes(
            tuple(label for label in self.labels if label in found),
            ";".join(sorted(qualities)) if found else "",
            tuple(code for code, known in stated.items() if not self._knows(known)),
        )

    def _knows(self, keys: Sequence[str]) -> bool:
        return all(key in self.table or self._own_label(key) for key in keys)

    def _own_label(self, key: str) -> tuple[str, ...]:
        label = known_label(key.removeprefix("own:"), self.labels) if key[:4] == "own:" else None
        return (label,) if label else ()

    def _keys(self, code: str) -> tuple[str, ...]:
        """A written code as keys of the table; keys that are not in it are not known."""
        if code in self.table:
            return (code,)
        keys = canonical_codes(code)
        written = keys[0].removeprefix("own:")
        if written == keys[0] or self._knows(keys):
            return keys
        # A user's own label may also be a code, or an abbreviation or name of codes.
        if written.partition(":")[0] in CODE_SYSTEMS[:-1]:
            return canonical_codes(written)
        aliases = code_aliases().get(written, ())
        # An abbreviation that two code systems use differently is not guessed at.
        return aliases if len({self.table.get(alias) for alias in aliases}) == 1 else keys

    @property
    def fingerprint(self) -> str:
        """Changes when the labels or the meaning of any code do."""
        rules = [self.precedence, self.exclusive, sorted(self.if_alone), sorted(self.beside)]
        return digest([self.labels, self.table, self.qualities, self.single, rules])


@lru_cache(maxsize=1)
def code_aliases() -> dict[str, tuple[str, ...]]:
    """Abbreviation or name, lower-cased, to the SNOMED CT and SCP-ECG codes that it stands for."""
    aliases: dict[str, set[str]] = {}
    for code, names in SNOMED.items():
        for name in filter(None, names):
            aliases.setdefault(name.lower(), set()).add(f"snomed:{code}")
    for statement in SCP_STATEMENTS:
        for name in (statement.code, statement.description):
            aliases.setdefault(name.lower(), set()).add(f"scp:{statement.code}")
    return {name: tuple(sorted(codes)) for name, codes in aliases.items()}


def reduce_to_single(labels: Sequence[str], label_set: LabelSet) -> str | None:
    """The one label of a single-label task, or None where the record has none or cannot choose.

    By the set's precedence; a set without one takes a record's only label.

    >>> reduce_to_single(["AF", "OTHER", "MI"], load_label_set("five"))
    'MI'
    """
    for label in label_set.precedence:
        if label in labels:
            return label
    return labels[0] if len(labels) == 1 else None


# The sets ----------------------------------------------------------------------------------------


def _five() -> LabelSet:
    return LabelSet(
        "five",
        FIVE_LABELS,
        single=True,
        table=five_table(),
        qualities={"cinc2017:N": "rhythm_only"},
        precedence=FIVE_PRECEDENCE,
        exclusive="NORM",
        if_alone=NORMAL_IF_ALONE,
        beside=ALONE_BESIDE,
    )


def _scp_set(
    name: str, label: Callable[[ScpStatement], str], others: CodeTable | None = None
) -> LabelSet:
    table: CodeTable = dict(others or {})
    for statement in SCP_STATEMENTS:
        meant = label(statement)
        table[f"scp:{statement.code}"] = (meant,) if meant else ()
    labels = {label for meant in table.values() for label in meant}
    # Sorted as scikit-learn's MultiLabelBinarizer does in the benchmark.
    return LabelSet(
        name, tuple(sorted(labels)), False, table, if_alone=NORMAL_IF_ALONE, beside=ALONE_BESIDE
    )


def _of_kind(kind: str) -> Callable[[ScpStatement], str]:
    return lambda statement: statement.code if kind in statement.kinds else ""


def _superdiagnostic() -> LabelSet:
    return _scp_set("superdiagnostic", lambda statement: statement.superclass, superclass_table())


def _challenge_2021() -> LabelSet:
    rhythm = dict.fromkeys(("cinc2017:N", "cinc2017:A"), "rhythm_only")
    return LabelSet("challenge-2021", tuple(CHALLENGE_2021), False, challenge_table(), rhythm)


# The PTB-XL sets are those of the benchmark (Strodthoff et al. 2021, doi:10.1109/JBHI.2020.3022989,
# github.com/helme/ecg_ptbxl_benchmarking): likelihood plays no part.
LABEL_SETS: dict[str, Callable[[], LabelSet]] = {
    "five": _five,
    "superdiagnostic": _superdiagnostic,
    "subdiagnostic": lambda: _scp_set("subdiagnostic", lambda statement: statement.subclass),
    "diagnostic": lambda: _scp_set("diagnostic", _of_kind("D")),
    "form": lambda: _scp_set("form", _of_kind("F")),
    "rhythm": lambda: _scp_set("rhythm", _of_kind("R")),
    "all": lambda: _scp_set("all", lambda statement: statement.code),
    "challenge-2021": _challenge_2021,
}


def load_label_set(name_or_csv_path: str) -> LabelSet:
    """A label set by its name, or from a CSV of the user's own.

    Raises:
        ConfigError: no such set or file, or every problem of the file, line by line.
    """
    name = name_or_csv_path.strip()
    if name.lower() in LABEL_SETS:
        return LABEL_SETS[name.lower()]()
    path = Path(name)
    if path.suffix.lower() != ".csv":
        raise ConfigError(
            f"LABEL_SET is {name!r}; use {', '.join(LABEL_SETS)}, or the path of a CSV with the "
            f"columns code and label{did_you_mean(name.lower(), LABEL_SETS)}"
        )
    return label_set_from_csv(path)


# A user's own ------------------------------------------------------------------------------------


def label_set_from_csv(path: Path) -> LabelSet:
    """A multi-label set from a CSV with the columns ``code,label[,quality]``.

    A code may have several lines, one per label; an empty label says that the code is known and
    means none. The labels' order is that of their first appearance.

    Raises:
        ConfigError: the file is not there, or every line that cannot be used and why.
    """
    rows, problems = _label_set_rows(path)
    table: CodeTable = {}
    qualities: dict[str, str] = {}
    for line, (written, label, quality) in rows:
        system, _, code = written.partition(":")
        if system.lower() not in CODE_SYSTEMS or not code:
            systems = ", ".join(CODE_SYSTEMS)
            hint = did_you_mean(system.lower(), CODE_SYSTEMS)
            problems.append(
                f"line {line}: the code {written!r} is not system:code, with one of the systems "
                f"{systems}{hint}"
            )
        elif ";" in label:
            problems.append(f"line {line}: the label {label!r} holds a semicolon; use a line each")
        else:
            key = _csv_key(written)
            table[key] = tuple(dict.fromkeys((*table.get(key, ()), *filter(None, [label]))))
            if quality:
                qualities[key] = quality
    labels = tuple(dict.fromkeys(label for meant in table.values() for label in meant))
    if len(labels) < 2 and not problems:
        problems.append(f"found {len(labels)} different labels; at least two are needed")
    if problems:
        raise ConfigError(f"the label set {path} cannot be used:\n  " + "\n  ".join(problems))
    name = f"own-{path.stem}" if path.stem in LABEL_SETS else path.stem
    return LabelSet(name, labels, False, table, qualities)


def _csv_key(written: str) -> str:
    """The form in which a code is looked up; AHA codes with modifiers keep them."""
    system, _, code = written.partition(":")
    keys = canonical_codes(written)
    if system.lower() == "aha" and keys != (f"aha:{code.strip()}",):
        return f"aha:{code.strip()}"
    return keys[0]


def _label_set_rows(path: Path) -> tuple[list[tuple[int, tuple[str, str, str]]], list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"the label set {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the label set {path} is not UTF-8 text: {error}") from error
    reader = csv.reader(io.StringIO(text), delimiter=_csv_delimiter(text))
    header = [name.strip().lower() for name in next(reader, [])]
    if not {"code", "label"} <= set(header):
        raise ConfigError(
            f"the label set {path} starts with {','.join(header) or 'nothing'!r}; its first line "
            "must name the columns code,label (and quality, if any)"
        )
    rows, problems = [], []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < 2 or len(cells) > len(header):
            problems.append(
                f"line {reader.line_num}: found {len(cells)} cells, expected {len(header)}"
            )
            continue
        named = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        values = (named.get("code", ""), named.get("label", ""), named.get("quality", ""))
        rows.append((reader.line_num, values))
    return rows, problems


def _csv_delimiter(text: str) -> str:
    header = re.split(r"\r?\n", text, maxsplit=1)[0]
    return max(",;\t", key=header.count)


def known_label(written: str, labels: Iterable[str]) -> str | None:
    """The label that a person wrote, whatever its case; None where there is none of that name."""
    return next((label for label in labels if label.lower() == written.strip().lower()), None)
