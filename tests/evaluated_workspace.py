"""A small workspace as `prepare` and training leave it, with a model that is right mostly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from einthoven import evaluated, evaluation
from einthoven.calibration.maps import Calibration, no_calibration
from einthoven.files import write_csv, write_json, write_parquet
from einthoven.records import LEADS
from einthoven.settings import Settings
from einthoven.store import MANIFEST_COLUMNS, Store
from einthoven.views import PLAIN_VIEW, RecordView

N_SAMPLES = 200


@dataclass
class FakeModel:
    """What evaluation asks of a trained model."""

    labels: tuple[str, ...]
    single: bool
    thresholds: dict[str, float]
    calibration: Calibration
    conformal: dict[str, dict[str, float]]
    threshold_rule: str = "best_f1"
    threshold_sets: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def with_rule(self, rule: str) -> FakeModel:
        return replace(self, threshold_rule=rule)


def make_workspace(
    root: Path, labels: tuple[str, ...], *, single: bool, archives: dict[str, int]
) -> Settings:
    """Write mapping, store, splits, history and run.json of an already trained run."""
    settings = Settings(
        root=root, label_set="five", bootstrap_resamples=100, target_samples=N_SAMPLES
    )
    workspace = settings.workspace
    manifest = _manifest(labels, single, archives)
    rng = np.random.default_rng(1)
    workspace.records_dir.mkdir(parents=True)
    windows = rng.normal(0, 100, (len(manifest), 12, N_SAMPLES)).astype(np.int16)
    np.save(workspace.records_dir / "part.npy", windows)
    write_parquet(workspace.manifest_path, manifest)
    rejected = pd.DataFrame(
        {"archive": ["sph"], "record_id": ["A9"], "path": ["A9.h5"], "reason": ["<no signal>"]}
    )
    columns = ["archive", "record_id"]
    write_csv(workspace.mapping_path, pd.concat([manifest[columns], rejected[columns]]))
    write_csv(workspace.rejected_path, rejected)
    coverage = pd.DataFrame(
        {"archive": ["sph"], "kind": ["unmapped code"], "name": ["scp:<i>"], "count": [3]}
    )
    write_csv(workspace.mapping_path.with_name("label_coverage.csv"), coverage)
    splits = {
        name: manifest["record"][manifest["fold"].isin(folds)].tolist()
        for name, folds in (("train", range(1, 9)), ("val", [9]), ("test", [10]))
    }
    write_json(workspace.splits_path, {"seed": 0, "audit": {"n_duplicates": 0}, **splits})
    _write_training(settings, labels, single)
    return settings


def _manifest(labels: tuple[str, ...], single: bool, archives: dict[str, int]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "record": f"{archive}/{number:05d}", "archive": archive, "record_id": f"{number:05d}",
            "patient_id": f"p{number // 2}", "patient_group": f"{archive}/p{number // 2}",
            "fold": 1 + number // 2 % 10,
            "labels": [labels[rng.integers(len(labels))]]
            if single
            else [label for label in labels if rng.random() < 0.4] or [labels[0]],
        }
        for archive, n in archives.items()
        for number in range(n)
    ]  # fmt: skip
    manifest = pd.DataFrame(rows)
    constant = {
        "duplicate_of": "", "shard": "part", "n_windows": 1, "n_samples": N_SAMPLES, "fs": 100.0,
        "leads_present": ",".join(LEADS), "quality": "", "sex": "", "age": 50.0,
        "device": "", "site": "",
    }  # fmt: skip
    manifest = manifest.assign(row=range(len(manifest)), **constant)
    manifest = manifest.reindex(columns=list(MANIFEST_COLUMNS))
    manifest.attrs = {"target_fs": 100, "target_samples": N_SAMPLES, "digest": "d"}
    return manifest


def _write_training(settings: Settings, labels: tuple[str, ...], single: bool) -> None:
    folder = settings.workspace.checkpoints_dir
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_f1_macro",
             "val_f1_weighted", "val_auroc_macro", "lr", "seconds")  # fmt: skip
    history = [{"epoch": e, **{name: 1 / e for name in names}} for e in (1, 2, 3)]
    write_json(folder / "training_history.json", history)
    run = {
        "settings": settings.model_dump(mode="json"), "origins": {"label_set": "flag"},
        "versions": {"torch": "2"}, "hardware": {"device": "cpu"},
        "labels": list(labels), "single": single,
    }  # fmt: skip
    write_json(folder / "run.json", run)
    settings.workspace.best_model_path.write_bytes(b"a model")


def draw_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures be written at a few dots per inch, where a test does not look at them."""
    drawn = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path, **how: drawn(self, path, **(how | {"dpi": 20}))
    )


def fake_model(monkeypatch: pytest.MonkeyPatch, labels: tuple[str, ...], *, single: bool) -> None:
    """Let evaluation meet a model that knows the truth, but for some noise."""
    thresholds = {} if single else dict.fromkeys(labels, 0.4)
    nothing = no_calibration(labels, "a model that was never trained")
    calibration = replace(nothing, method="temperature" if single else "platt", reason=None)
    model = FakeModel(labels, single, thresholds, calibration, {"0.9": dict.fromkeys(labels, 0.2)})

    def predict(
        trained: FakeModel,
        store: Store,
        rows: np.ndarray,
        views: Sequence[RecordView] = (PLAIN_VIEW,),
    ) -> np.ndarray:
        truth = [[label in carried for label in labels] for carried in store.manifest["labels"]]
        noise = np.random.default_rng(2).normal(size=np.shape(truth))
        odds = np.exp(2.5 * np.array(truth) + noise - 1.2)
        shares = odds / odds.sum(axis=1, keepdims=True) if single else odds / (1 + odds)
        return np.asarray(shares[rows], np.float32)

    monkeypatch.setattr(evaluated, "check_same_data", lambda trained, data: None)
    monkeypatch.setattr(evaluation, "load_trained_model", lambda path, device: model)
    monkeypatch.setattr(evaluated, "predict_records", predict)


def make_evaluated_workspace(
    root: Path,
    labels: tuple[str, ...],
    *,
    single: bool,
    archives: dict[str, int],
    with_figures: bool = False,
) -> Settings:
    """A workspace whose model, which knows the truth but for some noise, has been evaluated."""
    settings = make_workspace(root, labels, single=single, archives=archives)
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch)
        fake_model(patch, labels, single=single)
        if not with_figures:
            patch.setattr(evaluation, "save_score_figures", lambda *arguments: [])
        evaluation.evaluate_detailed(settings)
    return settings
