"""Codes as archives write them, brought to the one form that the label sets look up."""

from __future__ import annotations

import re

from einthoven.labels.others import AHA_MODIFIER, AHA_STATEMENTS, CINC2017, CPSC2018, ptb_class
from einthoven.labels.scp import SCP
from einthoven.labels.snomed import SNOMED

CODE_SYSTEMS = ("snomed", "aha", "scp", "cinc2017", "cpsc2018", "ptb", "own")

# Says nothing: known, and no evidence for or against any label.
SILENT_CODE = "ptb:"


def canonical_codes(code: str) -> tuple[str, ...]:
    """What a written code states, each in the form that the label sets look up.

    PTB-XL's likelihood is dropped, 0 included: it means not stated, never absent. AHA statements
    lose their modifiers. PTB Diagnostic's text becomes its class.

    >>> canonical_codes("scp:AFIB=0"), canonical_codes("aha:145+362"), canonical_codes("aha:60+310")
    (('scp:AFIB',), ('aha:145',), ('aha:60',))
    >>> canonical_codes("ptb:Bundle-branch block")
    ('ptb:bundle branch block',)
    """
    system, _, written = code.strip().partition(":")
    system, written = system.lower().strip(), written.strip()
    if system == "scp":
        return (f"scp:{written.partition('=')[0].strip().upper()}",)
    if system == "aha":
        return _aha_statements(written)
    if system == "ptb":
        diagnosis = ptb_class(written)
        return (f"ptb:{written.lower() if diagnosis is None else diagnosis}",)
    if system == "own":
        return (f"own:{written.lower()}",)
    return (f"{system}:{written}",)


def _aha_statements(written: str) -> tuple[str, ...]:
    # A statement of its own may follow a plus: 145+226 is an ST deviation, consider ischemia.
    parts = [part.strip() for part in re.split(r"[+;]", written) if part.strip()]
    stated = [part for part in parts if not AHA_MODIFIER.fullmatch(part)]
    return tuple(f"aha:{part}" for part in stated or parts)


def code_name(code: str) -> str:
    """What a code means, in words; empty for one that no table knows.

    >>> code_name("snomed:164889003"), code_name("scp:NORM=80"), code_name("aha:30+308")
    ('atrial fibrillation', 'normal ECG', 'atrial premature complex(es)')
    """
    names = []
    for key in canonical_codes(code):
        system, _, written = key.partition(":")
        if system == "snomed" and written in SNOMED:
            names.append(SNOMED[written][1])
        elif system == "scp" and written in SCP:
            names.append(SCP[written].description)
        elif system in _NAMES_OF_SYSTEM:
            names.append(_NAMES_OF_SYSTEM[system].get(written, ""))
    return ", ".join(name for name in names if name)


_NAMES_OF_SYSTEM = {"aha": AHA_STATEMENTS, "cinc2017": CINC2017, "cpsc2018": CPSC2018}

# Every code of every table, in the form that the label sets look up.
KNOWN_CODES: tuple[str, ...] = (
    *(f"snomed:{code}" for code in SNOMED),
    *(f"scp:{code}" for code in SCP),
    *(f"aha:{code}" for code in AHA_STATEMENTS),
    *(f"cinc2017:{code}" for code in CINC2017),
    *(f"cpsc2018:{code}" for code in CPSC2018),
)
