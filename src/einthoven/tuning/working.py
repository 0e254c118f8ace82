"""What one process does for a search: trial after trial, until all are done or its time is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from einthoven.console import log
from einthoven.run_folder import run_inputs
from einthoven.runs import data_fingerprint
from einthoven.settings import Settings
from einthoven.training import open_data
from einthoven.tuning.devices import TrialDevice
from einthoven.tuning.results import log_best, write_progress
from einthoven.tuning.space import Space, batch_setting
from einthoven.tuning.study import Search, next_trial, wait_for_others
from einthoven.tuning.trials import run_trial


def search_facts(settings: Settings, space: Space, device: TrialDevice) -> dict[str, str]:
    """What every trial's score depends on beside the space, by which searches are told apart.

    Args:
        device: what trials train on, here or on other machines.

    Raises:
        DataError: there is no usable store.
    """
    store, chosen = open_data(settings)
    data = data_fingerprint(store, {split: chosen[split] for split in ("train", "val")})
    inputs: dict[str, Any] = run_inputs(settings, data, device.torch_device)
    # Of a GPU that this machine may not have.
    inputs["arithmetic"] = device.arithmetic
    varied = set(space)
    if batch_setting(device.torch_device) in space:
        varied.add("batch_size")
    return {name: str(value) for name, value in inputs.items() if name not in varied}


def work_on(search: Search, origins: Mapping[str, str]) -> None:
    """Run trials until the search has all it should have, or this process's time is over."""
    begun, minutes = time.monotonic(), search.settings.tune_minutes
    while True:
        if 0 < minutes <= (time.monotonic() - begun) / 60:
            log.info("TUNE_MINUTES are over; the same command goes on")
            return
        trial = next_trial(search)
        if trial is not None:
            run_trial(search, trial, origins)
            write_progress(search)
            log_best(search, trial.number)
        elif not wait_for_others(search):
            return
