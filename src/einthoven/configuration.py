"""Settings from flags, environment and a TOML file, with every problem reported at once.

A value comes from a flag, else the environment (the upper-case field name), else a TOML file, else
the default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from einthoven.errors import ConfigError
from einthoven.settings import (
    LABEL_SET_NAMES,
    LISTED_NAMES,
    Settings,
    allowed_values,
    did_you_mean,
    listed_parts,
    without_password,
)

CONFIG_NAME = "einthoven.toml"


@dataclass(frozen=True)
class LoadedSettings:
    """Settings and, for each name, where its value came from."""

    settings: Settings
    origins: Mapping[str, str] = field(default_factory=dict)


def load_settings(
    flags: Mapping[str, Any] | None = None,
    config_path: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
    flag_origin: str = "flag",
) -> LoadedSettings:
    """Merge flags, environment and TOML file, and check everything at once.

    Args:
        flags: field name to value; None counts as not given.
        config_path: a TOML file; by default ``einthoven.toml`` in the workspace, if any.
        defaults: a command's own, in place of those of `Settings`.
        flag_origin: what ``flags`` are called when something is wrong with them.

    Raises:
        ConfigError: lists every problem: the value found, where, and what is allowed.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    environment = _from_environment()
    own = dict(defaults or {})
    root = Path({"root": workspace_root(), **own, **environment, **given}["root"])
    path = config_path or root / CONFIG_NAME
    file_values = _from_toml(path, required=config_path is not None)
    values: dict[str, Any] = own | {"root": root}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, source in (
        (path.name, file_values),
        ("environment", environment),
        (flag_origin, given),
    ):
        values.update(source)
        origins.update(dict.fromkeys(source, origin))
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(explain_problems(error, values, origins)) from error
    return LoadedSettings(settings, origins)


def workspace_root() -> Path:
    """The current folder, or its parent when that is ``notebooks/``."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def _from_environment() -> dict[str, Any]:
    return {
        name: os.environ[name.upper()]
        for name in Settings.model_fields
        if os.environ.get(name.upper())
    }


def _from_toml(path: Path, required: bool) -> dict[str, Any]:
    if not path.exists() and not required:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


# Problems ---------------------------------------------------------------------------------------


def explain_problems(
    error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]
) -> str:
    """One line per problem, under a line that counts them."""
    lines: dict[str, str] = {}
    for problem in error.errors():
        name = str(problem["loc"][0])
        lines.setdefault(name, _explain(name, problem, values.get(name), origins.get(name, "")))
    noun = "setting" if len(lines) == 1 else "settings"
    body = "\n".join(f"  {line}" for line in lines.values())
    return f"{len(lines)} {noun} cannot be used:\n{body}"


def _explain(name: str, problem: Any, value: Any, origin: str) -> str:
    if problem["type"] == "extra_forbidden":
        return (
            f"{name} ({origin}) is not a setting{did_you_mean(name.lower(), Settings.model_fields)}"
        )
    hint = ""
    if problem["type"] == "literal_error" and isinstance(value, str):
        choices = get_args(Settings.model_fields[name].annotation)
        hint = did_you_mean(value, choices)
    if name == "label_set":
        hint = did_you_mean(str(value), LABEL_SET_NAMES)
    if name in LISTED_NAMES:
        unknown = [part for part in listed_parts(value) if part not in LISTED_NAMES[name]]
        hint = did_you_mean((unknown or [""])[0], LISTED_NAMES[name])
    shown = value
    if isinstance(value, str):
        shown = without_password(value) if value.strip() else repr(value)
    return f"{name.upper()} is {shown} ({origin}); use {allowed_values(name)}{hint}"
