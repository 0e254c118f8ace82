"""Checks of what is installed: versions of what is needed, and extras that are not there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from einthoven.preflight.opened import Check, Opened

# What pyproject.toml asks for, which is not there where this code lies in a notebook; a test holds
# the two together.
LEAST_PYTHON = "3.11"
LIBRARIES = {
    "click": "8.1", "h5py": "3.12", "jinja2": "3.1", "joblib": "1.5", "matplotlib": "3.9",
    "numpy": "2.0", "pandas": "2.2", "psutil": "6.0", "pyarrow": "17.0", "pydantic": "2.10",
    "requests": "2.31", "scikit-learn": "1.5", "scipy": "1.14", "torch": "2.6", "tqdm": "4.66",
    "wfdb": "4.1",
}  # fmt: skip
EXTRAS = {
    "formats": {"defusedxml": "0.7", "pydicom": "3.0"},
    "tracking": {"mlflow": "3.1", "tensorboard": "2.18"},
    "tuning": {"optuna": "4.0", "psycopg": "3.2"},
    "cluster": {"fsspec": "2024.10", "ray": "2.40"},
    "explain": {"captum": "0.7"},
    "export": {"onnx": "1.17", "onnxruntime": "1.20", "onnxscript": "0.5"},
    "serving": {
        "fastapi": "0.116", "python-multipart": "0.0.18", "starlette": "0.46", "uvicorn": "0.32",
    },
}  # fmt: skip
# Named in the report: what a result may depend on.
NAMED_LIBRARIES = ("torch", "numpy", "pandas", "scipy")


def check_libraries(opened: Opened) -> Iterator[Check]:
    """Everything needed is there and new enough; extras that are absent are named, no more."""
    del opened  # a workspace has no say in it
    python = sys.version.split()[0]
    if is_older(python, LEAST_PYTHON):
        yield Check(
            "libraries", "failed", f"Python {python}; {LEAST_PYTHON} or newer is needed",
            "make an environment with a newer Python",
        )  # fmt: skip
    wrong = list(unfit_libraries(LIBRARIES))
    for told, name, least in wrong:
        yield Check("libraries", "failed", told, f'pip install "{name}>={least}"')
    if not wrong:
        named = ", ".join(f"{name} {metadata.version(name)}" for name in NAMED_LIBRARIES)
        enough = f"all {len(LIBRARIES)} libraries are new enough"
        yield Check("libraries", "passed", f"Python {python}, {named}; {enough}")
    yield from check_extras()


def check_extras() -> Iterator[Check]:
    """Extras that are not installed, which is no fault, and what of the others is too old."""
    absent = []
    for extra, wanted in EXTRAS.items():
        there = {n: least for n, least in wanted.items() if installed_version(n) is not None}
        if len(there) < len(wanted):
            absent.append(extra)
        for told, name, least in unfit_libraries(there):
            advice = f'pip install "{name}>={least}"'
            yield Check("libraries", "warning", f"{told}, for the extra {extra}", advice)
    if absent:
        command = f'pip install "einthoven[{",".join(absent)}]"'
        found = f"optional, not installed: {', '.join(absent)} ({command} adds them)"
        yield Check("libraries", "passed", found)


def unfit_libraries(wanted: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with each library that is absent or too old, its name, its least version."""
    for name, least in wanted.items():
        version = installed_version(name)
        if version is None:
            yield f"{name} is not installed", name, least
        elif is_older(version, least):
            yield f"{name} {version} is older than {least}", name, least


def installed_version(name: str) -> str | None:
    """A library's version, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_older(version: str, least: str) -> bool:
    """Whether a version comes before another, by their leading numbers.

    >>> is_older("2.13.0+cpu", "2.6"), is_older("1.9", "1.14"), is_older("3.0rc1", "3")
    (False, True, False)
    """
    return _leading_numbers(version) < _leading_numbers(least)


def _leading_numbers(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers.group().split(".")] if numbers else []
    # 3 and 3.0 are the same.
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
