"""Search on a Ray cluster whose head has no GPU and whose other node has one; for tests.

python tests/cluster_tune.py ROOT STEP...

``ROOT`` holds a tiny store. No GPU is needed: Ray is told that the second node has one, and what
asks torch for its device is replaced (``searched``, and ``confirmed`` after it), or finds that
torch can use none (``refused``). Ray's giving of that GPU to trials, and all that follows from the
device, are real.
Writes ``ROOT/told-STEP.txt``, and ``ROOT/asked-PID.txt`` for each process that was asked.
"""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from cluster_train import Lines
from ray_nodes import start_cluster
from tuning_process import search_settings, write_space

from einthoven.console import log
from einthoven.errors import EinthovenError
from einthoven.settings import Settings
from einthoven.tuning import command, confirmation
from einthoven.tuning.command import tune
from einthoven.tuning.confirmation import confirm_best
from einthoven.tuning.devices import TrialDevice, device_here
from einthoven.tuning.on_ray import gathered_crew
from einthoven.tuning.storage import tuning_dir

SPACE = "[lr]\nlow = 0.0005\nhigh = 0.05\nlog = true\n\n[batch_size_gpu]\nchoices = [8, 16]\n"


def searched_settings(root: Path, **changes: Any) -> Settings:
    usual = {
        "device": "auto", "engine": "ray", "trials": 2, "epochs": 2, "model_name": "se_resnet1d",
        "study_storage": str(root / "study.journal"),
    }  # fmt: skip
    return search_settings(root, **(usual | changes))


def pretended_gpu(root: Path) -> Any:
    """Says that this process trains on a GPU, and notes which one Ray has given it."""

    # Within, so that Ray sends it to the other processes as it is.
    def say(settings: Settings) -> TrialDevice:
        import ray

        given = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        (root / f"asked-{os.getpid()}.txt").write_text(",".join(given))
        return TrialDevice("cuda", "torch.bfloat16", "pretended", "worker")

    return say


def told_by(step: str, settings: Settings) -> str:
    """What a step has to say at its end."""
    probe = device_here if step == "refused" else pretended_gpu(settings.root)
    command.gathered_crew = partial(gathered_crew, probe=probe)
    confirmation.gathered_crew = command.gathered_crew
    try:
        if step == "confirmed":
            make_best_another(tuning_dir(settings) / "best.toml")
            return confirm_best(settings, {}, 1)
        return tune(settings, {}, write_space(settings.root, SPACE))
    except EinthovenError as error:
        return f"{type(error).__name__}: {error}"


def make_best_another(path: Path) -> None:
    """The default settings may have been the best, and need no confirmation."""
    path.write_text(re.sub("^lr = .*$", "lr = 0.004", path.read_text(), flags=re.MULTILINE))


NAMES = {"searched": "searched", "confirmed": "searched", "refused": "refused"}


def main() -> None:
    root, *steps = Path(sys.argv[1]), *sys.argv[2:]
    lines = Lines()
    log.handlers[:] = [lines]
    log.setLevel("INFO")
    cluster, _ = start_cluster(2, n_gpus=1)
    try:
        for step in steps:
            settings = searched_settings(root, ray_address=cluster.address)
            told = told_by(step, settings.model_copy(update={"run_name": NAMES[step]}))
            (root / f"told-{step}.txt").write_text("\n".join([*lines.said, told]))
            lines.said.clear()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
