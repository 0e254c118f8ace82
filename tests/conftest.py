"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two workers of pytest-xdist on two cores: more threads each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real records to test against; they are no part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real records of ../shared/data are not here")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that happen to be in the caller's environment are no part of a test."""
    from einthoven.settings import Settings

    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
