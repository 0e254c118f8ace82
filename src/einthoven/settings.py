"""Every knob, once: its type, bounds, default and a line of help.

`load_settings` merges flags, environment and a TOML file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from einthoven.files import Workspace

DEFAULT_FS = 100
MIN_FS = 50
MAX_FS = 1000
WINDOW_SECONDS = 10
CROP_SECONDS = 2.5

# Names only, so that a wrong one is reported with all other problems and without importing torch;
# tests hold them to `LABEL_SETS` and `MODELS`.
LABEL_SET_NAMES = (
    "five", "superdiagnostic", "subdiagnostic", "diagnostic", "form", "rhythm", "all",
    "challenge-2021",
)  # fmt: skip
AUGMENT_PRESETS = ("none", "light", "strong")
AUGMENTATION_NAMES = (
    "lead_dropout", "amplitude_scale", "time_shift", "time_warp", "baseline_wander",
    "muscle_noise", "mains_noise", "time_mask", "mixup", "cutmix", "vcg_rotation", "sign_flip",
)  # fmt: skip
TRACKER_NAMES = ("tensorboard", "mlflow")
VIEW_NAMES = ("shift", "crop", "scale", "lead_dropout")
# Folders of a workspace, and how the unnamed run is called: a run of such a name would lie in them.
RESERVED_RUN_NAMES = (
    "default", "evaluations", "processed", "figures", "external", "mlflow", "tensorboard",
    "tuning",
)  # fmt: skip
# Settings that take one word or a list with commas between.
LISTED_NAMES = {
    "augment": (*AUGMENT_PRESETS, *AUGMENTATION_NAMES),
    "tracking": ("auto", "none", *TRACKER_NAMES),
    "test_time_augment": ("none", *VIEW_NAMES),
}


def knob(default: Any, group: str, help_text: str, **bounds: Any) -> Any:
    """A setting: ``group`` is the stage it concerns, ``help_text`` one line for ``--help``."""
    return Field(default, description=help_text, json_schema_extra={"group": group}, **bounds)


class Settings(BaseModel):
    """Every knob of a run; environment names are the upper-case field names."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # Where, which, how ------------------------------------------------------------------------
    root: Path = knob(Path(), "workspace", "Workspace that everything is written to")
    run_name: str = knob(
        "", "workspace", "Folder of this run's checkpoints, figures and report",
        pattern=r"^([A-Za-z0-9_][\w.-]*)?$", max_length=64,
    )  # fmt: skip
    run_mode: Literal["smoke", "medium", "full"] = knob(
        "full", "workspace", "How much is run: smoke 256 records, medium 5,000, full everything"
    )
    seed: int = knob(0, "workspace", "Seed of weights, batches and bootstrap", ge=0, le=2**31 - 1)

    # Archives and labels -------------------------------------------------------------------------
    dataset_dir: Path | None = knob(
        None, "archives", "Folder that holds the archives (unset: Dataset in the workspace)"
    )
    archives: str = knob("", "archives", "Archives to use (unset: all that are found)")
    mirror: str = knob(
        "", "download",
        "Address that takes the place of an archive's own (unset: where it is published)",
        pattern=r"^(https?://\S+)?$",
    )  # fmt: skip
    download_connections: int = knob(
        4, "download", "Files that are fetched at the same time", ge=1, le=32
    )
    download_rate: float = knob(
        0.0, "download", "Most megabytes per second that are fetched (0: as many as come)", ge=0
    )
    label_set: str = knob("five", "labels", "Classes to learn")
    task: Literal["auto", "single", "multi"] = knob(
        "auto", "labels", "One label per record, or any number (auto: as the label set says)"
    )

    # Signal and store ----------------------------------------------------------------------------
    target_fs: int = knob(
        DEFAULT_FS, "prepare", "Sampling rate of the model's input, hertz", ge=MIN_FS, le=MAX_FS
    )
    target_samples: int = knob(
        1000, "prepare", "Samples of the model's window (unset: 10 seconds)", ge=64, le=100_000
    )
    bandpass: bool = knob(False, "prepare", "Filter records with a zero-phase band-pass")
    bandpass_low_hz: float = knob(
        0.5, "prepare", "High-pass edge of the band-pass, hertz (0: none)", ge=0, le=2
    )
    bandpass_high_hz: float = knob(
        40.0, "prepare", "Low-pass edge of the band-pass, hertz", ge=10, le=500
    )
    ecg_preprocess_limit: int = knob(
        0, "prepare", "Prepare a stratified subset of about this many records (0: all)", ge=0
    )
    split_seed: int = knob(
        0, "prepare", "Seed of folds and of subsets; SEED leaves them alone", ge=0, lt=2**31
    )
    prepare_workers: int = knob(
        0, "prepare", "Processes that prepare records (0: one per core)", ge=0, le=1024
    )

    # Cluster -------------------------------------------------------------------------------------
    engine: Literal["local", "ray"] = knob(
        "local", "cluster", "Who prepares and trains: this machine, or a Ray cluster"
    )
    ray_address: str = knob(
        "", "cluster", "Ray cluster, HOST:PORT or auto (unset: one is started on this machine)"
    )
    store_url: str = knob(
        "", "cluster",
        "Folder or bucket that finished chunks are shared through, such as s3://bucket/folder",
    )  # fmt: skip
    train_workers: int = knob(
        0, "cluster", "Processes of the cluster that train one model (0: one per GPU, or one)",
        ge=0, le=4096,
    )  # fmt: skip

    # Machine -------------------------------------------------------------------------------------
    device: str = knob(
        "auto", "machine", "Where the model computes (auto: a CUDA GPU where there is one)",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
    )  # fmt: skip

    # Training ------------------------------------------------------------------------------------
    hold_out: str = knob(
        "", "train",
        "Test split: folds such as 3 or 1,2, or an archive, which then trains nowhere (unset: 10)",
    )  # fmt: skip
    model_name: Literal[
        "resnet1d_views", "resnet1d_wang", "xresnet1d50", "xresnet1d101", "inception1d",
        "se_resnet1d", "crnn", "s4d", "convnext1d", "patch_transformer", "cnn2d",
    ] = knob("resnet1d_views", "train", "Architecture")  # fmt: skip
    crop_samples: int = knob(
        250, "train",
        "Samples of a crop that the model trains on (unset: 2.5 seconds; 0: the window)", ge=0,
    )  # fmt: skip
    standardize: Literal["dataset", "record", "lead"] = knob(
        "dataset",
        "train",
        "Divide each lead by its spread over the training split, over the record, or over the lead",
    )
    augment: str = knob(
        "amplitude_scale,time_warp",
        "train",
        "Augmentations of training batches: none, light, strong, or a list",
    )
    batch_size_cpu: int = knob(64, "train", "Records per batch on a CPU", ge=1, le=65536)
    batch_size_gpu: int = knob(64, "train", "Records per batch on a GPU", ge=1, le=65536)
    epochs: int = knob(33, "train", "Passes over the training split", ge=1, le=10_000)
    lr: float = knob(0.005, "train", "Largest learning rate", gt=0, le=1)
    weight_decay: float = knob(0.05, "train", "AdamW's decoupled weight decay", ge=0, le=1)
    grad_accum_steps: int = knob(
        1, "train", "Batches summed into one optimizer step", ge=1, le=4096
    )
    auto_batch: bool = knob(
        False, "train", "When memory runs out, halve the batch and double the accumulation"
    )
    clip_norm: float = knob(
        1.0, "train", "Largest global gradient norm (0: gradients are left alone)", ge=0
    )
    scheduler_type: Literal["cosine", "one_cycle", "step", "constant"] = knob(
        "one_cycle", "train", "Learning-rate schedule"
    )
    ema_decay: float = knob(
        0.995, "train", "Decay per step of the weights' moving average that is evaluated (0: none)",
        ge=0, lt=1,
    )  # fmt: skip
    loss: Literal["entropy", "focal", "asymmetric"] = knob(
        "entropy", "train", "Loss: (binary) cross-entropy, or one that turns down easy answers"
    )
    label_smoothing: float = knob(
        0.0, "train", "Share of each target that is spread over the other answers", ge=0, lt=0.5
    )
    class_weights: Literal["auto", "balanced", "none"] = knob(
        "auto", "train", "Weigh classes by inverse frequency (auto: where records have one label)"
    )
    early_stop_patience: int = knob(
        0, "train", "Epochs without a better validation score before stopping (0: never)", ge=0
    )
    best_metric: Literal["f1", "auroc"] = knob(
        "f1", "train", "Validation score, macro, that picks the best epoch"
    )
    mixed_precision: Literal["auto", "bf16", "fp16", "off"] = knob(
        "auto", "train", "Arithmetic of the forward pass (auto: reduced on a GPU, full on a CPU)"
    )
    residency: Literal["auto", "device", "memory", "streamed"] = knob(
        "auto", "train", "Where the windows are kept (auto: as near to the model as they fit)"
    )
    num_workers: int = knob(
        0, "train", "Threads that read batches ahead when the store is not in memory", ge=0, le=64
    )
    checkpoint_minutes: float = knob(
        10.0, "train", "Minutes between saves within an epoch (0: only at the end of each)", ge=0
    )
    tracking: str = knob(
        "auto", "train", "Trackers: auto (those installed), none, or tensorboard and mlflow"
    )
    dry_run: bool = knob(False, "train", "Stop after ten steps, to see that everything works")
    fresh: bool = knob(False, "train", "Start this run over, replacing what it has written")

    # Evaluation ----------------------------------------------------------------------------------
    bootstrap_resamples: int = knob(
        1000, "evaluate", "Resamples of patients behind each 95 % interval", ge=100, le=100_000
    )
    threshold_rule: Literal[
        "best_f1", "expected_f1", "youden", "sensitivity_80", "sensitivity_90", "sensitivity_95",
        "challenge_score", "half",
    ] = knob(
        "best_f1", "decisions", "How the probability is chosen from which a label is decided"
    )  # fmt: skip
    test_time_augment: str = knob(
        "none",
        "evaluate",
        "Average predictions over changed copies of a record: none, or a list",
    )
    conformal_coverage: Literal["none", "0.8", "0.9", "0.95", "0.99"] = knob(
        "none", "evaluate", "Give conformal sets that hold the true label this often"
    )

    # Cross-validation ----------------------------------------------------------------------------
    folds: int = knob(5, "crossval", "Parts that the patients are dealt to", ge=2, le=10)
    by_archive: bool = knob(
        False, "crossval", "Hold out one archive after the other instead (of 100 labelled records)"
    )

    # Tuning --------------------------------------------------------------------------------------
    trials: int = knob(30, "tune", "Trials of the search, over all its processes", ge=1, le=100_000)
    tune_minutes: float = knob(
        0.0, "tune", "Minutes after which this process begins no new trial (0: no limit)", ge=0
    )
    tune_pruner: Literal["median", "none"] = knob(
        "median", "tune", "Give up trials that are below the median of the others at an epoch"
    )
    study_storage: str = knob(
        "", "tune",
        "Where processes share a search: URL of a database, or a .journal file (unset: SQLite)",
        repr=False,
    )  # fmt: skip

    # Console -------------------------------------------------------------------------------------
    quiet: bool = knob(False, "console", "Print only results, warnings and errors")

    @model_validator(mode="before")
    @classmethod
    def _lengths_follow_the_rate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Windows and crops keep their seconds at whatever rate, unless they are given."""
        try:
            fs = int(values.get("target_fs", DEFAULT_FS))
        except (TypeError, ValueError):
            return values
        if not MIN_FS <= fs <= MAX_FS:
            return values
        lengths = {"target_samples": WINDOW_SECONDS * fs, "crop_samples": int(CROP_SECONDS * fs)}
        return lengths | values

    @field_serializer("study_storage")
    def _hide_password(self, value: str) -> str:
        return without_password(value)

    @field_validator("run_name")
    @classmethod
    def _run_name_is_free(cls, value: str) -> str:
        if value.lower() in RESERVED_RUN_NAMES:
            raise ValueError(_WORDS["run_name"])
        return value

    @field_validator("store_url")
    @classmethod
    def _no_password_is_kept(cls, value: str) -> str:
        # The address is written into every run's files.
        if without_password(value) != value:
            raise ValueError(_WORDS["store_url"])
        return value

    @field_validator("label_set")
    @classmethod
    def _label_set_exists(cls, value: str) -> str:
        if value not in LABEL_SET_NAMES and not Path(value).is_file():
            raise ValueError(_WORDS["label_set"])
        return value

    @field_validator("augment", "tracking", "test_time_augment")
    @classmethod
    def _names_are_known(cls, value: str, info: ValidationInfo) -> str:
        known = LISTED_NAMES[info.field_name or ""]
        if not set(listed_parts(value)) <= set(known):
            raise ValueError(_WORDS[info.field_name or ""])
        return value

    @property
    def archives_dir(self) -> Path:
        """The folder that holds the archives."""
        return self.dataset_dir or self.root / "Dataset"

    @property
    def workspace(self) -> Workspace:
        """Where each file of this run lies."""
        mode = "" if self.run_mode == "full" else self.run_mode
        return Workspace(self.root, self.run_name or mode)

    @property
    def crop(self) -> int:
        """Samples that the model sees at once."""
        return min(self.crop_samples or self.target_samples, self.target_samples)


def listed_parts(value: Any) -> list[str]:
    """The names of a setting that takes several, with commas between them."""
    return [part.strip() for part in str(value).split(",")]


def without_password(url: str) -> str:
    """A database's URL as it may be shown.

    >>> without_password("postgresql://ecg:s3cr:et@host/tuning")
    'postgresql://ecg:***@host/tuning'
    >>> without_password("postgresql://ecg:s3cret"), without_password("postgresql://host:5432/x")
    ('postgresql://ecg:***', 'postgresql://host:5432/x')
    """
    shown = re.sub(r"(://[^:/@?]*):.*@", r"\1:***@", url)
    # A host was forgotten: what follows the colon is no port, so it may be a password.
    shown = re.sub(r"(://[^:/@?\[]*):(?!\d*(?:[/?]|$))[^@]*$", r"\1:***", shown)
    return re.sub(r"(password=)[^&]*", r"\1***", shown)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean x?"``, or nothing where no known name is near.

    >>> did_you_mean("scheduler_tpye", ["scheduler_type", "seed"])
    '; did you mean scheduler_type?'
    """
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def allowed_values(name: str) -> str:
    """What a setting takes, in words.

    >>> allowed_values("epochs")
    'a whole number from 1 to 10,000'
    >>> allowed_values("best_metric")
    'f1 or auroc'
    """
    info = Settings.model_fields[name]
    choices = [str(choice) for choice in get_args(info.annotation) if isinstance(choice, str)]
    if choices:
        return " or ".join([", ".join(choices[:-1]), choices[-1]][-len(choices) :])
    if info.annotation is bool:
        return "true or false"
    if info.annotation in (int, float):
        noun = "a whole number" if info.annotation is int else "a number"
        return f"{noun} {_bounds(info)}".strip()
    return _WORDS.get(name, "a name")


_WORDS = {
    "root": "a folder",
    "dataset_dir": "a folder",
    "archives": "names with commas between them",
    "mirror": "an address that begins with http:// or https://",
    "label_set": f"{', '.join(LABEL_SET_NAMES)} or the path of a CSV file",
    "run_name": "letters, digits, dots, dashes and underscores (64 at most; not "
    + ", ".join(RESERVED_RUN_NAMES)
    + ")",
    "augment": f"{', '.join(AUGMENT_PRESETS)}, or names with commas between them: "
    + ", ".join(AUGMENTATION_NAMES),
    "tracking": "auto, none, or tensorboard and mlflow with a comma between them",
    "hold_out": "folds from 1 to 10 with commas between them, or the name of an archive",
    "test_time_augment": f"none, or names with commas between them: {', '.join(VIEW_NAMES)}",
    "device": "auto, cpu, mps, cuda or cuda:N",
    "ray_address": "HOST:PORT or auto",
    "store_url": "an address such as s3://bucket/folder, gs://bucket/folder or file:///folder, "
    "without a password (those come from the environment, such as AWS_SECRET_ACCESS_KEY)",
    "study_storage": "a URL such as postgresql://user@host/name, or the path of a .journal file",
}


def _bounds(info: FieldInfo) -> str:
    limits = {
        kind: getattr(item, kind)
        for item in info.metadata
        for kind in ("ge", "gt", "le", "lt")
        if hasattr(item, kind)
    }
    low = f"from {limits['ge']:,}" if "ge" in limits else ""
    low = f"above {limits['gt']:,}" if "gt" in limits else low
    high = f"to {limits['le']:,}" if "le" in limits else ""
    high = f"and below {limits['lt']:,}" if "lt" in limits else high
    if low.startswith("from") and not high:
        return f"of {low.removeprefix('from ')} or more"
    if low.startswith("above") and high.startswith("to"):
        high = "and at most" + high.removeprefix("to")
    return f"{low} {high}".strip()


def setting_names(groups: Iterable[str]) -> list[str]:
    """The names of the settings of some groups, in the order of `Settings`."""
    wanted = set(groups)
    return [name for name, info in Settings.model_fields.items() if setting_group(info) in wanted]


def setting_group(info: FieldInfo) -> str:
    """The stage that a setting concerns."""
    extra = info.json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else ""
