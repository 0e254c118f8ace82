"""HL7 annotated ECG (aECG): the XML in which drug trials send ECGs to the FDA.

Layout: HL7 aECG Implementation Guide, 2005-03-21 (Brown and Badilini). A ``series`` holds
``sequenceSet``s: one sequence of times, and one per lead with ``origin``, ``scale`` and ``digits``.
Beats that a program has averaged are in a ``derivedSeries``, which is not read.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from einthoven.errors import RecordError
from einthoven.formats.content import (
    FileContent,
    check_factor,
    factor_of_unit,
    finite_number,
    split_numbers,
    stack_leads,
)
from einthoven.formats.vendor_xml import left_out_remark
from einthoven.formats.xml_tree import child, child_text, descendants

AECG_LEAD_CODE = "MDC_ECG_LEAD_"
SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class _AecgSet(NamedTuple):
    fs: float | None
    leads: tuple[str, ...]
    rows: list[np.ndarray]


def read_aecg(root: Element) -> FileContent:
    """The recording of an ``AnnotatedECG`` file: of its sequence sets the one with most leads.

    Raises:
        RecordError: there is none, or it cannot be understood.
    """
    derived = {
        id(sequence_set)
        for series in descendants(root, "derivedSeries")
        for sequence_set in descendants(series, "sequenceSet")
    }
    sets = [one for one in descendants(root, "sequenceSet") if id(one) not in derived]
    read = [_read_sequence_set(sequence_set) for sequence_set in sets]
    best = max(read, key=lambda one: len(one.leads), default=None)
    if best is None or not best.leads:
        raise RecordError("the annotated ECG has no sequence of a lead")
    others = []
    if len(read) > 1:
        others.append(f"{len(read) - 1} of {len(read)} sequence sets, with fewer leads or later")
    if derived:
        others.append("averaged beats")
    signal = stack_leads(best.rows, best.leads, best.fs)
    return FileContent(signal, best.fs, best.leads, left_out_remark("the rhythm strip", others))


def _read_sequence_set(sequence_set: Element) -> _AecgSet:
    fs, leads, rows = None, [], []
    for sequence in descendants(sequence_set, "sequence"):
        code = child(sequence, "code")
        name = "" if code is None else code.get("code", "")
        value = child(sequence, "value")
        if value is None:
            continue
        if name.startswith("TIME_"):
            fs = _aecg_fs(value)
        elif child(value, "digits") is not None:
            leads.append(name)
            rows.append(_aecg_lead(value, name))
    return _AecgSet(fs, tuple(leads), rows)


def _aecg_fs(value: Element) -> float | None:
    increment = child(value, "increment")
    if increment is None:
        return None
    unit = increment.get("unit", "s").strip()
    step = finite_number(increment.get("value"), "the time increment")
    if unit not in SECONDS_PER_UNIT or step <= 0:
        raise RecordError(f"the time increment is {step:g} {unit[:10]}; seconds are needed")
    # 0.002 s are 500 Hz, not 499.99999.
    return round(1 / (step * SECONDS_PER_UNIT[unit]), 6)


def _aecg_lead(value: Element, name: str) -> np.ndarray:
    """Millivolts: origin + scale × digits."""
    terms = []
    for tag in ("origin", "scale"):
        term = child(value, tag)
        if term is None:
            raise RecordError(f"{name} has no {tag}")
        number = finite_number(term.get("value"), f"the {tag} of {name}")
        terms.append(number * factor_of_unit(term.get("unit", ""), f"the {tag} of {name}"))
    origin, scale = terms
    check_factor(scale)
    digits = split_numbers(child_text(value, "digits") or "", name)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(digits * np.float32(scale) + np.float32(origin), np.float32)
