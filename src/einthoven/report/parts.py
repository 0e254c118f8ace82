"""What a report is built of: tables of text, pictures, charts; parts of sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from einthoven.summary import NO_SCORE_SHOWN, difference_text, figure_text, is_too_small

# What stands in a table where a score does not exist.
NO_SCORE = "none"


@dataclass(frozen=True)
class ReportTable:
    """A table of text.

    Attributes:
        rows: sortable; ``footer`` rows stay below them.
        note: stands under the table.
        flagged: numbers of the rows that ask for attention.
        is_list: its rows are not of one kind, so that sorting them would say nothing.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    footer: Sequence[Sequence[str]] = ()
    flagged: frozenset[int] = frozenset()
    is_list: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG as base64, and what it shows.

    Attributes:
        width: pixels of the page where there is room.
        least_width: where there is less than this, it scrolls: its type would be too small.
    """

    data: str
    caption: str
    width: int
    least_width: int


@dataclass(frozen=True)
class CurveSeries:
    """One line of a chart.

    Attributes:
        x, y: its points.
        at: what the read-out says of each point beside x and y, such as a threshold; may be empty.
        note: stands behind the name in the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    at: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class CurveChart:
    """Lines on one pair of axes, drawn by `chart_markup`.

    Attributes:
        id: unique on the page.
        x_range, y_range: of the axes.
        series: drawn in this order.
        lit: numbers of the series drawn in colour from the start; the others are grey.
        is_stepped: between two points the line keeps the later y.
        diagonal: a dashed line from corner to corner.
        marks: x to the text of a vertical line.
    """

    id: str
    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    series: Sequence[CurveSeries]
    lit: frozenset[int]
    is_stepped: bool = False
    diagonal: bool = False
    marks: Mapping[float, str] = field(default_factory=dict)
    caption: str = ""


@dataclass(frozen=True)
class ReportPart:
    """A piece of a section; ``folded`` is the line under which a table or picture hides."""

    heading: str = ""
    text: str = ""
    table: ReportTable | None = None
    picture: Picture | None = None
    charts: Sequence[CurveChart] = ()
    folded: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A section of the page."""

    id: str
    title: str
    parts: Sequence[ReportPart]


# Figures of test_metrics.json ------------------------------------------------------------------


def figure_in(scores: Mapping[str, Any] | None, *keys: str) -> Mapping[str, Any] | None:
    """A figure by its path in ``test_metrics.json``; None where something on the way is not there.

    >>> figure_in({"auroc": {"macro": {"value": 0.9}}}, "auroc", "macro")
    {'value': 0.9}
    >>> figure_in({"auroc": None}, "auroc", "macro") is None
    True
    """
    found: Any = scores
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) and "value" in found else None


def figure_cell(figure: Mapping[str, Any] | None) -> str:
    """A figure for a table: value and interval, ``none`` without a value, a dash without either."""
    if figure is None:
        return NO_SCORE_SHOWN
    return figure_text({"low": None, "high": None, **figure})


def value_of(figure: Mapping[str, Any] | None) -> float | None:
    """The value of a figure, where there is one."""
    return None if figure is None or figure["value"] is None else float(figure["value"])


def lacks_records(part: Mapping[str, Any]) -> bool:
    """Whether scores stem from so few records that no table shows them."""
    return is_too_small({"n": part.get("n") or 0})


def difference_cell(figure: Mapping[str, Any] | None) -> str:
    """A difference with its sign and interval.

    >>> difference_cell({"value": -0.05, "low": -0.08, "high": 0.02})
    '−0.050 (−0.080 to +0.020)'
    """
    if figure is None:
        return NO_SCORE_SHOWN
    return difference_text({"low": None, "high": None, **figure}).replace("-", "−")


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names in a row, the first few of many.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
