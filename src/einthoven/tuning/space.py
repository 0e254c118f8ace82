"""What a search varies, and how far: a space of settings as plain data, and as a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from einthoven.configuration import explain_problems
from einthoven.errors import ConfigError
from einthoven.run_folder import WITHOUT_EFFECT
from einthoven.runs import batch_size_name, has_one_label
from einthoven.settings import CROP_SECONDS, Settings, did_you_mean, setting_names

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Among:
    """One of these values."""

    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Between:
    """Any number from ``low`` to ``high``; with ``log`` as often in each tenfold of it."""

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Among | Between]

# Settings of training that say what is learnt from or scored by, not how to learn.
NOT_SEARCHED = {"hold_out", "best_metric", "mixed_precision"}


def default_space(settings: Settings, device: torch.device) -> dict[str, Among | Between]:
    """What is searched unless somebody says otherwise; docs/how-to/tune.md gives the reasons."""
    crop = int(CROP_SECONDS * settings.target_fs)
    crops = [n for n in (crop, 2 * crop) if n < settings.target_samples]
    single = has_one_label(settings)
    return {
        "model_name": Among(
            ("resnet1d_views", "resnet1d_wang", "xresnet1d50", "inception1d", "se_resnet1d")
        ),
        "lr": Between(0.0005, 0.02, log=True),
        "weight_decay": Between(0.001, 0.3, log=True),
        "scheduler_type": Among(("one_cycle", "cosine")),
        batch_setting(device): Among((32, 64, 128, 256)),
        "crop_samples": Among((*crops, 0)),
        "augment": Among(
            ("none", "amplitude_scale,time_warp", "amplitude_scale,time_warp,mixup", "light",
             "strong")
        ),
        "loss": Among(("entropy", "focal") if single else ("entropy", "focal", "asymmetric")),
        "label_smoothing": Between(0.0, 0.1),
        "ema_decay": Among((0.0, 0.99, 0.995, 0.999)),
    }  # fmt: skip


def batch_setting(device: torch.device) -> str:
    """The setting of the batch size that this device heeds."""
    return batch_size_name(device).lower()


def searchable(device: torch.device) -> list[str]:
    """The settings that a space may name."""
    names = set(setting_names(["train"])) - WITHOUT_EFFECT - NOT_SEARCHED
    return sorted({*names, batch_setting(device)})


def choose_space(
    settings: Settings, origins: Mapping[str, str], device: torch.device, path: Path | None
) -> dict[str, Among | Between]:
    """The space of a search: the file's, or the default one without what somebody has set.

    Args:
        origins: setting to where its value came from; what is not a default stays as it is.
        path: a TOML file as `space_as_toml` writes it, which is the whole space.

    Raises:
        ConfigError: the file cannot be used, or nothing is left to search.
    """
    given = {name for name, origin in origins.items() if origin != "default"}
    if path is not None:
        space = read_space(path, settings, device)
        both = sorted(given & set(space))
        if both:
            told = ", ".join(f"{name.upper()} ({origins[name]})" for name in both)
            raise ConfigError(f"{told} is set and searched by {path} too; leave one of them out")
        return space
    space = {k: v for k, v in default_space(settings, device).items() if k not in given}
    if not space:
        raise ConfigError("every setting that could be searched is set; leave some out")
    return space


# As TOML -----------------------------------------------------------------------------------------


def space_as_toml(space: Space) -> str:
    """A space as a file that ``--space`` takes."""
    parts = []
    for name, values in space.items():
        facts = {key: value for key, value in vars(values).items() if value is not False}
        lines = [f"{key} = {toml_value(value)}" for key, value in facts.items()]
        parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts) + "\n"


def toml_value(value: Any) -> str:
    """A plain value as TOML writes it.

    >>> toml_value((True, "a", 0.5))
    '[true, "a", 0.5]'
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def read_space(path: Path, settings: Settings, device: torch.device) -> dict[str, Among | Between]:
    """The space that a TOML file describes.

    Raises:
        ConfigError: lists every problem of the file.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    space: dict[str, Among | Between] = {}
    problems = [] if tables else ["it names no setting; `einthoven tune --show-space` prints one"]
    for name, table in tables.items():
        try:
            values = _read_values(name, table, searchable(device))
            space[name] = checked_values(name, values, settings, path.name)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path} is no space to search:\n{lines}")
    return space


def _read_values(name: str, table: Any, known: list[str]) -> Among | Between:
    if name not in known:
        hint = did_you_mean(name.lower(), known)
        raise ConfigError(
            f"{name} cannot be searched{hint or ': it is none of ' + ', '.join(known)}"
        )
    if isinstance(table, dict) and set(table) == {"choices"} and isinstance(table["choices"], list):
        if table["choices"]:
            return Among(tuple(table["choices"]))
    elif isinstance(table, dict) and {"low", "high"} <= set(table) <= {"low", "high", "log"}:
        if not isinstance(table.get("log", False), bool):
            raise ConfigError(f"[{name}] has log = {table['log']!r}; use true or false, unquoted")
        return Between(table["low"], table["high"], table.get("log", False))
    raise ConfigError(f"[{name}] needs choices = [...], or low and high (and log = true)")


def checked_values(
    name: str, values: Among | Between, settings: Settings, origin: str
) -> Among | Between:
    """The values as the setting takes them, once each: ``"0.001"`` is a number, ``32.0`` is 32.

    Raises:
        ConfigError: says what it takes.
    """
    kind = Settings.model_fields[name].annotation
    if isinstance(values, Between):
        if kind not in (int, float) or not _are_numbers(values.low, values.high):
            raise ConfigError(f"[{name}] is no number; give choices = [...]")
        if values.low >= values.high or (values.log and values.low <= 0):
            need = "0 < low < high" if values.log else "low < high"
            raise ConfigError(f"[{name}] goes from {values.low} to {values.high}; use {need}")
    given = values.choices if isinstance(values, Among) else (values.low, values.high)
    taken = tuple(_taken_value(name, value, origin) for value in given)
    _refuse_values(name, taken, settings)
    return Among(taken) if isinstance(values, Among) else Between(taken[0], taken[1], values.log)


def _taken_value(name: str, value: Any, origin: str) -> Any:
    try:
        return getattr(Settings.model_validate({name: value}), name)
    except ValidationError as error:
        told = explain_problems(error, {name: value}, {name: origin})
        raise ConfigError(told.partition("\n  ")[2]) from error


def _refuse_values(name: str, taken: tuple[Any, ...], settings: Settings) -> None:
    """Refuse values that mean the same, or nothing, or that would make the search unfair."""
    twice = sorted({str(value) for value in taken if taken.count(value) > 1})
    if twice:
        raise ConfigError(f"[{name}] has {', '.join(twice)} more than once; leave it in once")
    if name == "loss" and "asymmetric" in taken and has_one_label(settings):
        raise ConfigError("[loss] asymmetric is for several labels per record; here each has one")
    window = settings.target_samples
    if name == "crop_samples" and max(taken) > window:
        raise ConfigError(
            f"[crop_samples] goes to {max(taken)}, and a window has {window} samples; use {window} "
            "at most (0: the whole window)"
        )
    if name == "epochs" and settings.tune_pruner != "none":
        raise ConfigError(
            "[epochs] cannot be searched while trials are given up by their score at an epoch: a "
            "schedule is at another point there; use --tune-pruner none"
        )


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


# For Optuna --------------------------------------------------------------------------------------


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """A space in Optuna's terms."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    def distribution(name: str, values: Among | Between) -> BaseDistribution:
        if isinstance(values, Among):
            return CategoricalDistribution(values.choices)
        if Settings.model_fields[name].annotation is int:
            return IntDistribution(int(values.low), int(values.high), log=values.log)
        return FloatDistribution(values.low, values.high, log=values.log)

    return {name: distribution(name, values) for name, values in space.items()}


def start_of(space: Space, settings: Settings) -> dict[str, Any]:
    """The settings in force, as far as they lie in the space: where a search begins."""
    return {
        name: value for name in space if is_within(value := getattr(settings, name), space[name])
    }


def is_within(value: Any, values: Among | Between) -> bool:
    """Whether a space allows a value.

    >>> is_within(0.5, Between(0, 1)), is_within("x", Among(("a", "b")))
    (True, False)
    """
    if isinstance(values, Among):
        return value in values.choices
    return bool(values.low <= value <= values.high)


def space_in_words(space: Space) -> dict[str, str]:
    """A line for each setting, by which two spaces can be compared."""
    return {
        name: ", ".join(map(str, values.choices))
        if isinstance(values, Among)
        else f"{values.low:g} to {values.high:g}{' (log)' if values.log else ''}"
        for name, values in space.items()
    }
