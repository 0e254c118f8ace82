"""What trackers are told of a run: one flat name for each setting and each score.

Both trackers group by what stands before the slash: ``train/loss``, ``val/f1_macro``, and a group
for each score of single labels, such as ``val_f1/AF``.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from einthoven.errors import DataError
from einthoven.files import read_json
from einthoven.settings import Settings

# What lies beside the scores of the whole test split; thresholds were chosen on validation.
_SCORES_OF_OTHERS = ("headline", "archives", "validation", "uncalibrated")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def epoch_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The scores of one row of the training history; those that do not exist are left out.

    >>> epoch_numbers({"epoch": 2, "lr": 0.1, "val_loss": 0.5, "val_per_class": {"AF": {"f1": 1}}})
    {'train/lr': 0.1, 'val/loss': 0.5, 'val_f1/AF': 1.0}
    """
    named: dict[str, Any] = {}
    for key, value in row.items():
        split, _, rest = key.partition("_")
        if isinstance(value, Mapping):
            named |= _label_numbers(split, value)
        elif key != "epoch":
            named[f"{split}/{rest}" if split in ("train", "val") else f"train/{key}"] = value
    return _existing(named)


def _label_numbers(split: str, per_label: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{split}_{score}/{plain_name(label)}": value
        for label, scores in per_label.items()
        if isinstance(scores, Mapping)
        for score, value in scores.items()
        if score != "support"  # the same in every epoch
    }


def score_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scores of ``test_metrics.json`` with the ends of their intervals.

    All pooled and for each label; of the headline and of each of several archives the averages.

    >>> figure = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}
    >>> for name, number in score_numbers({"n": 40, "f1": {"macro": figure}}).items():
    ...     print(name, number)
    test/n 40.0
    test/f1_macro 0.9
    test/f1_macro_low 0.8
    test/f1_macro_high 0.95
    """
    archives = metrics.get("archives", {})
    parts = {"test": metrics, "test_headline": metrics.get("headline", {})}
    if len(archives) > 1:
        parts |= {f"test_{plain_name(name)}": scores for name, scores in archives.items()}
    named: dict[str, Any] = {}
    for part, scores in parts.items():
        named[f"{part}/n"] = scores.get("n")
        for name, figure in _figures_of(part, scores):
            named[name] = figure["value"]
            named |= {f"{name}_{end}": figure.get(end) for end in ("low", "high")}
    return _existing(named)


def _figures_of(part: str, scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for metric, found in scores.items():
        if not isinstance(found, Mapping) or metric in _SCORES_OF_OTHERS:
            continue
        if "value" in found:
            yield f"{part}/{metric}", found
            continue
        for average, figure in found.items():
            if average == "per_class" and part == "test":
                for label, of_label in figure.items():
                    yield f"test_{metric}/{plain_name(label)}", of_label
            elif isinstance(figure, Mapping) and "value" in figure:
                yield f"{part}/{metric}_{average}", figure


def described_settings(settings: Settings) -> dict[str, str]:
    """Every setting of a run and what else ``run.json`` says, as text.

    Where its maker keeps the records is nobody's business: a tracker may be a server.
    """
    run: dict[str, Any] = {"settings": settings.model_dump(mode="json")}
    with contextlib.suppress(OSError, DataError):
        run |= read_json(settings.workspace.checkpoints_dir / "run.json")
    values = {k: v for k, v in run["settings"].items() if k not in ("root", "dataset_dir")}
    for key, value in run.items():
        if isinstance(value, Mapping) and key not in ("settings", "origins"):
            values |= {f"{key}.{name}": item for name, item in value.items()}
        elif not isinstance(value, Mapping):
            values[key] = value
    return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def plain_name(name: str) -> str:
    """A label or archive in letters that both trackers take.

    >>> plain_name("1dAVb"), plain_name("ST/T change")
    ('1dAVb', 'ST_T_change')
    """
    return _NOT_IN_NAMES.sub("_", name)


def _existing(named: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in named.items()
        if isinstance(value, Real) and math.isfinite(value)
    }
