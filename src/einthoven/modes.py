"""What `einthoven train` does in each ``RUN_MODE``.

``full`` and ``medium`` train, score the test split, draw every figure and the inference examples.
``smoke`` does so on few records as a test, with a verdict and a time for each stage. A dry run is
ten steps of training and nothing after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from einthoven.cluster_training import train_on_engine
from einthoven.distributed import processes_here
from einthoven.evaluation import evaluate_detailed
from einthoven.files import read_json
from einthoven.prediction import run_inference_examples
from einthoven.settings import Settings
from einthoven.smoke import run_smoke_test, smoke_results_path, smoke_summary
from einthoven.summary import evaluation_summary


@dataclass(frozen=True)
class ModeOutcome:
    """What came of `run_mode`.

    Attributes:
        summary: for a person; empty after a dry run.
        is_passed: false where a stage of a smoke test failed.
    """

    summary: str = ""
    is_passed: bool = True


def run_mode(settings: Settings, origins: Mapping[str, str] | None = None) -> ModeOutcome:
    """Train, and do all that the run mode does after it; each step skips what is up to date.

    Under ``torchrun`` the first process alone does what comes after training.

    Args:
        origins: setting to where its value came from.

    Raises:
        EinthovenError: as `train_on_engine`, `evaluate_detailed` and `run_inference_examples`; the
            stages of a smoke test raise none of them, but say so in the outcome.
        RunStopped: Ctrl-C or SIGTERM came while it trained.
    """
    settings = settings_of_mode(settings)
    is_first = processes_here().is_first
    if settings.run_mode == "smoke" and is_first and not settings.dry_run:
        results = run_smoke_test(settings, origins)
        summary = smoke_summary(results, smoke_results_path(settings.workspace))
        return ModeOutcome(summary, results["verdict"] == "passed")
    train_on_engine(settings, origins)
    if settings.dry_run or not is_first:
        return ModeOutcome()
    metrics = evaluate_detailed(settings)
    run_inference_examples(settings)
    return ModeOutcome(evaluation_summary(metrics))


def settings_of_mode(settings: Settings) -> Settings:
    """A smoke test trains anew, in place of an earlier smoke test but of no other run.

    What is up to date is skipped everywhere else; a test that skips tests nothing.
    """
    described = settings.workspace.checkpoints_dir / "run.json"
    if settings.run_mode != "smoke" or not described.exists():
        return settings
    earlier = read_json(described)["settings"].get("run_mode")
    return settings.model_copy(update={"fresh": True}) if earlier == "smoke" else settings
