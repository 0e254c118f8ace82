"""The spine of master_pipeline.ipynb: its story, and the cells that run something.

An ordinary script, too: ``python notebooks/master_pipeline.py`` does what the notebook does, with
the installed package. ``make notebook`` builds the notebook from it and from the package's source.
"""

# %% [markdown]
# # Einthoven: from raw 12-lead ECG archives to a trained, evaluated classifier
#
# The whole line in one notebook: archives → labels → store → training → evaluation → figures →
# prediction. Every line of code that it needs is in its cells; no `.py` file of ours is needed,
# only the packages that section 2 names.
#
# **Research software, not a medical device.** What it says of a recording must not be used to
# diagnose or treat anybody.
#
# **Just run it** (*Run → Run All Cells*). As it stands it does the quick smoke run: every stage on
# 256 records. With no archives in `Dataset/` it makes small synthetic ones and says so; then all of
# it takes about a minute. `RUN_MODE`, in the cell below or in the environment, decides how much is
# trained on, so that nothing long starts by accident:
#
# | `RUN_MODE` | what is trained and evaluated | where | what is labelled and prepared first |
# |---|---|---|---|
# | `smoke` (as it stands) | 256 records, one epoch | section 12 | every archive found |
# | `medium` | 5,000 records, every epoch | section 12 | every archive found |
# | `full` | everything: for production | section 13 | every archive found |
#
# **With archives of your own, the first execution takes longer than a minute, also in `smoke`**:
# the modes share one store, and sections 4 and 5 label and prepare everything that is found, once.
# That is about two minutes per 50,000 records and core where the disk keeps up (section 5 has the
# numbers). `ECG_PREPROCESS_LIMIT=2000` prepares a stratified subset of about 2,000 records first.
#
# A second execution skips what is done and goes on with what was stopped.
#
# **Contents:** 1 configuration · 2 environment · 3 utilities · 4 label mapping · 5 preprocessing ·
# 6 data set and model · 7 training · 8 evaluation · 9 visualisation · 10 inference ·
# 11 pre-flight check · 12 quick smoke run and medium run · 13 full production training ·
# 14 runbook
#
# The code of each section stands folded under a heading, *The code*; a click on its arrow unfolds
# it, and a click on three dots unfolds a cell. It is
# the source of the `einthoven` package, module by module, put here by `tools/build_notebook.py`:
# change it there, not here. Left out, because they are no part of this line: the HTTP server, the
# command line, downloading of archives and the search for hyperparameters.

# %% [markdown]
# ## 1. Configuration
#
# Every setting, with its default. Change a value here, or give an environment variable of the same
# name, which wins: `RUN_MODE=full EPOCHS=50 jupyter nbconvert …`. A setting that is left at its
# default may also come from `einthoven.toml` in the workspace. `None` is unset.
#
# `RUN_MODE` says how many records are trained on. How many are prepared, in every mode, is for
# `ARCHIVES` and `ECG_PREPROCESS_LIMIT` to say.
#
# The batch size is chosen by the device: `BATCH_SIZE_GPU` on a GPU, `BATCH_SIZE_CPU` elsewhere;
# with `AUTO_BATCH = True` it is halved by itself where memory runs out, and twice as many batches
# make a step.

# %%
# Settings: written by tools/build_notebook.py

# Workspace
# Workspace that everything is written to (None: this folder, or the one above notebooks/)
ROOT = None
RUN_NAME = ""  # Folder of this run's checkpoints, figures and report
RUN_MODE = "smoke"  # How much is run: smoke 256 records, medium 5,000, full everything
SEED = 0  # Seed of weights, batches and bootstrap

# Archives
DATASET_DIR = None  # Folder that holds the archives (unset: Dataset in the workspace)
ARCHIVES = ""  # Archives to use (unset: all that are found)

# Download
MIRROR = ""  # Address that takes the place of an archive's own (unset: where it is published)
DOWNLOAD_CONNECTIONS = 4  # Files that are fetched at the same time
DOWNLOAD_RATE = 0.0  # Most megabytes per second that are fetched (0: as many as come)

# Labels
LABEL_SET = "five"  # Classes to learn
TASK = "auto"  # One label per record, or any number (auto: as the label set says)

# Prepare
TARGET_FS = 100  # Sampling rate of the model's input, hertz
TARGET_SAMPLES = None  # Samples of the model's window (unset: 10 seconds)
BANDPASS = False  # Filter records with a zero-phase band-pass
BANDPASS_LOW_HZ = 0.5  # High-pass edge of the band-pass, hertz (0: none)
BANDPASS_HIGH_HZ = 40.0  # Low-pass edge of the band-pass, hertz
ECG_PREPROCESS_LIMIT = 0  # Prepare a stratified subset of about this many records (0: all)
SPLIT_SEED = 0  # Seed of folds and of subsets; SEED leaves them alone
PREPARE_WORKERS = 0  # Processes that prepare records (0: one per core)

# Cluster
ENGINE = "local"  # Who prepares and trains: this machine, or a Ray cluster
RAY_ADDRESS = ""  # Ray cluster, HOST:PORT or auto (unset: one is started on this machine)
# Folder or bucket that finished chunks are shared through, such as s3://bucket/folder
STORE_URL = ""
TRAIN_WORKERS = 0  # Processes of the cluster that train one model (0: one per GPU, or one)

# Machine
DEVICE = "auto"  # Where the model computes (auto: a CUDA GPU where there is one)

# Train
# Test split: folds such as 3 or 1,2, or an archive, which then trains nowhere (unset: 10)
HOLD_OUT = ""
MODEL_NAME = "resnet1d_views"  # Architecture
# Samples of a crop that the model trains on (unset: 2.5 seconds; 0: the window)
CROP_SAMPLES = None
# Divide each lead by its spread over the training split, over the record, or over the lead
STANDARDIZE = "dataset"
# Augmentations of training batches: none, light, strong, or a list
AUGMENT = "amplitude_scale,time_warp"
BATCH_SIZE_CPU = 64  # Records per batch on a CPU
BATCH_SIZE_GPU = 64  # Records per batch on a GPU
EPOCHS = 33  # Passes over the training split
LR = 0.005  # Largest learning rate
WEIGHT_DECAY = 0.05  # AdamW's decoupled weight decay
GRAD_ACCUM_STEPS = 1  # Batches summed into one optimizer step
AUTO_BATCH = False  # When memory runs out, halve the batch and double the accumulation
CLIP_NORM = 1.0  # Largest global gradient norm (0: gradients are left alone)
SCHEDULER_TYPE = "one_cycle"  # Learning-rate schedule
EMA_DECAY = 0.995  # Decay per step of the weights' moving average that is evaluated (0: none)
LOSS = "entropy"  # Loss: (binary) cross-entropy, or one that turns down easy answers
LABEL_SMOOTHING = 0.0  # Share of each target that is spread over the other answers
CLASS_WEIGHTS = "auto"  # Weigh classes by inverse frequency (auto: where records have one label)
EARLY_STOP_PATIENCE = 0  # Epochs without a better validation score before stopping (0: never)
BEST_METRIC = "f1"  # Validation score, macro, that picks the best epoch
MIXED_PRECISION = "auto"  # Arithmetic of the forward pass (auto: reduced on a GPU, full on a CPU)
RESIDENCY = "auto"  # Where the windows are kept (auto: as near to the model as they fit)
NUM_WORKERS = 0  # Threads that read batches ahead when the store is not in memory
CHECKPOINT_MINUTES = 10.0  # Minutes between saves within an epoch (0: only at the end of each)
TRACKING = "auto"  # Trackers: auto (those installed), none, or tensorboard and mlflow
DRY_RUN = False  # Stop after ten steps, to see that everything works
FRESH = False  # Start this run over, replacing what it has written

# Evaluate
BOOTSTRAP_RESAMPLES = 1000  # Resamples of patients behind each 95 % interval
TEST_TIME_AUGMENT = "none"  # Average predictions over changed copies of a record: none, or a list
CONFORMAL_COVERAGE = "none"  # Give conformal sets that hold the true label this often

# Decisions
THRESHOLD_RULE = "best_f1"  # How the probability is chosen from which a label is decided

# Crossval
FOLDS = 5  # Parts that the patients are dealt to
BY_ARCHIVE = False  # Hold out one archive after the other instead (of 100 labelled records)

# Tune
TRIALS = 30  # Trials of the search, over all its processes
TUNE_MINUTES = 0.0  # Minutes after which this process begins no new trial (0: no limit)
TUNE_PRUNER = "median"  # Give up trials that are below the median of the others at an epoch
# Where processes share a search: URL of a database, or a .journal file (unset: SQLite)
STUDY_STORAGE = ""

# Console
QUIET = False  # Print only results, warnings and errors

# %% [markdown]
# ## 2. Environment
#
# Packages, the machine, seeds (set in section 3, once the settings are checked). Nothing is
# installed; what is missing is named with the line that installs it.

# %% [folded]
import asyncio
import importlib.util
import os
import platform
import random
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

REQUIRED_PACKAGES = {
    "click": "click", "h5py": "h5py", "jinja2": "jinja2", "joblib": "joblib",
    "matplotlib": "matplotlib", "numpy": "numpy", "pandas": "pandas", "psutil": "psutil",
    "pyarrow": "pyarrow", "pydantic": "pydantic", "sklearn": "scikit-learn", "scipy": "scipy",
    "torch": "torch", "tqdm": "tqdm", "wfdb": "wfdb",
}  # fmt: skip
lacking = [
    package
    for module_name, package in REQUIRED_PACKAGES.items()
    if importlib.util.find_spec(module_name) is None
]
if lacking:
    raise ModuleNotFoundError(
        f"packages are missing; install them and run this cell again:\n"
        f"    {sys.executable} -m pip install {' '.join(lacking)}"
    )

# On Windows, Jupyter needs an event loop that Python does not choose by itself.
if sys.platform == "win32" and sys.version_info < (3, 14):
    asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())

# %% [folded]
import numpy as np
import pandas as pd
import psutil
import torch


def seed_generators(seed):
    """Seed Python, NumPy and torch, for cells of your own.

    What trains here draws from (SEED, epoch, record) and never from these.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def free_disk(folder):
    """What is free on the disk of a folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return f"{shutil.disk_usage(there).free / 2**30:.0f} GiB free"


def machine_facts():
    """What this machine has, as a table."""
    gib = 2**30
    facts = {
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "CPU": f"cores: {psutil.cpu_count(logical=False) or os.cpu_count()}, "
        f"threads for torch: {torch.get_num_threads()}",
        "memory": f"{psutil.virtual_memory().available / gib:.1f} GiB free of "
        f"{psutil.virtual_memory().total / gib:.1f}",
        "GPU": "none: everything runs on the CPU",
        "disk, here": f"{free_disk(Path.cwd())} (50 GiB are recommended for all public archives)",
        "packages": ", ".join(
            f"{name} {version_of(name)}"
            for name in ("torch", "numpy", "pandas", "scipy", "scikit-learn", "wfdb")
        ),
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        facts["GPU"] = f"{gpu.name}, {gpu.total_memory / gib:.1f} GiB, CUDA {torch.version.cuda}"
    elif torch.backends.mps.is_available():
        facts["GPU"] = "Apple's (DEVICE = mps uses it)"
    return pd.DataFrame({"what": list(facts), "found": list(facts.values())})


def show(thing):
    """Show a table or picture in the notebook; a script prints it."""
    is_table = isinstance(thing, pd.DataFrame)
    if "ipykernel" not in sys.modules:
        print(thing.to_string(index=False) if is_table else thing)
        return
    from IPython.display import HTML, Image, display

    if is_table:
        text = thing.to_html(index=False, justify="left", float_format="{:.3f}".format, border=0)
        # Left-aligned text and lines that may be broken, which the notebook's own tables lack.
        style = ' style="text-align: left; white-space: normal"'
        display(HTML(text.replace("<td>", f"<td{style}>").replace("<th>", f"<th{style}>")))
    else:
        display(Image(filename=str(thing)))


# %%
show(machine_facts())

# %% [markdown]
# ## 3. Utilities
#
# Errors that say what to do, progress bars and tables, files that appear whole or not at all,
# `Settings` (every knob with its bounds), worker processes that end when this notebook ends.

# %%
from einthoven.version import *
from einthoven.errors import *
from einthoven.console import *
from einthoven.resources import *
from einthoven.outputs import *
from einthoven.files import *
from einthoven.settings import *
from einthoven.configuration import *
from einthoven.interruption import *
from einthoven.distributed import *
from einthoven.workers import *

# %% [markdown]
# ### The settings in force
#
# Checked all at once: a wrong value, or a name that does not exist, is told with what is allowed.
# Below them, what follows from them on this machine.


# %% [folded]
def load_notebook_settings():
    """Settings from the environment, else the first cell, else einthoven.toml, else defaults."""
    given = {name: globals()[name.upper()] for name in Settings.model_fields}
    edited = {
        name: value
        for name, value in given.items()
        if (name == "run_mode" or value != Settings.model_fields[name].default)
        and not os.environ.get(name.upper())
    }
    return load_settings(edited, flag_origin="notebook")


def settings_table(wanted):
    """The settings that are not at their defaults, and where they are from."""
    names = ["root", *(name for name in wanted.origins if wanted.origins[name] != "default")]
    names = list(dict.fromkeys(names))
    return pd.DataFrame(
        {
            "setting": [name.upper() for name in names],
            "value": [str(getattr(wanted.settings, name)) for name in names],
            "from": [wanted.origins[name] for name in names],
        }
    )


def consequences(wished):
    """What follows from the settings on this machine, as a table."""
    on_gpu = wished.device == "cuda" or (wished.device == "auto" and torch.cuda.is_available())
    batch_size = wished.batch_size_gpu if on_gpu else wished.batch_size_cpu
    facts = {
        "workspace": str(wished.root.resolve()),
        "its disk": free_disk(wished.root),
        "batch size": f"{batch_size} ({'GPU' if on_gpu else 'CPU'})",
        "seed": str(wished.seed),
    }
    return pd.DataFrame({"what": list(facts), "found": list(facts.values())})


# %%
loaded = load_notebook_settings()
setup_logging(loaded.settings.quiet)
seed_generators(loaded.settings.seed)
show(settings_table(loaded))
show(consequences(loaded.settings))

# %% [markdown]
# ## 4. Label mapping
#
# Each archive has a reader that lists its records and reads them; each archive's codes (SNOMED CT,
# SCP-ECG, the Challenges' letters, PTB's texts) become labels of the chosen set. The result is
# `logs/unified_label_mapping.csv`, a row per record found; its column `labels` may be edited, and
# edits hold. The generator of synthetic archives is here too, with the resampling it needs.

# %%
from einthoven.signal import *
from einthoven.records import *
from einthoven.labels.others import *
from einthoven.labels.scp import *
from einthoven.labels.snomed import *
from einthoven.labels.codes import *
from einthoven.labels.meanings import *
from einthoven.labels.sets import *
from einthoven.labels.mapping import *
from einthoven.columns import *
from einthoven.labels.edits import *
from einthoven.readers.fields import *
from einthoven.readers.wfdb_header import *
from einthoven.readers.wfdb_files import *
from einthoven.readers.challenge import *
from einthoven.readers.challenge2017 import *
from einthoven.readers.tables import *
from einthoven.readers.cpsc2018 import *
from einthoven.readers.sph import *
from einthoven.readers.own import *
from einthoven.readers.ptbdb import *
from einthoven.readers.ptbxl import *
from einthoven.readers.registry import *
from einthoven.download.ledger import *
from einthoven.labelling import *
from einthoven.synthetic.patients import *
from einthoven.synthetic.morphology import *
from einthoven.synthetic.classes import *
from einthoven.synthetic.rhythm import *
from einthoven.synthetic.ecg import *
from einthoven.synthetic.wfdb_writing import *
from einthoven.synthetic.archives import *

# %% [markdown]
# ### Find the archives and map their codes
#
# Where no archive lies in the workspace's `Dataset` folder and `DATASET_DIR` is not set, three
# synthetic archives are made in a workspace of their own, so that they never mix with real ones.
#
# *Time: seconds for the synthetic archives; listing all public archives takes minutes on a slow
# disk. Disk: 60 MB for the synthetic archives.*


# %% [folded]
def settings_with_data(wished):
    """The settings as they are; those of a demo where there is no archive and none is named."""
    folder = wished.archives_dir
    if wished.dataset_dir is not None or (folder.is_dir() and find_archives(folder)[0]):
        return wished
    demo = wished.model_copy(update={"root": wished.root / "notebook_demo"})
    print(
        f"NO ARCHIVES in {folder}, and DATASET_DIR is not set: SYNTHETIC archives are used, and "
        f"everything is written to {demo.root}.\nScores on them say nothing about real patients."
    )
    write_synthetic_archives(demo.archives_dir, seed=demo.seed)
    return demo


def archive_counts(listed):
    """Records, patients and labelled records of each archive."""
    by_archive = listed.assign(is_labelled=listed["labels"] != "").groupby("archive")
    counts = {
        "records": by_archive.size(),
        "patients": by_archive["patient_id"].nunique(),
        "with a label": by_archive["is_labelled"].sum(),
    }
    return pd.DataFrame(counts).reset_index()


# %%
settings = settings_with_data(loaded.settings)
mapping = label_archives(settings)
show(archive_counts(mapping))

# %% [markdown]
# ## 5. Preprocessing
#
# Records are read, put into lead order by name, checked, resampled to `TARGET_FS`, cut into windows
# of `TARGET_SAMPLES` and stored as int16 microvolts. A record that cannot be used is listed with
# its reason; copies of one recording are found from the signal; patients are split so that none is
# on two sides.

# %%
from einthoven.quality import *
from einthoven.positional import *
from einthoven.store import *
from einthoven.audit.sketches import *
from einthoven.audit.verification import *
from einthoven.dealing import *
from einthoven.shards import *
from einthoven.chunks import *
from einthoven.split_records import *
from einthoven.splits import *
from einthoven.holdout import *
from einthoven.cluster.connection import *
from einthoven.cluster.desk import *
from einthoven.cluster.chunk_store import *
from einthoven.cluster.tasks import *
from einthoven.making import *
from einthoven.prepare import *

# %% [markdown]
# ### Prepare the store
#
# **Long with all archives, in every `RUN_MODE`**: everything that is found is prepared, once, unless
# `ECG_PREPROCESS_LIMIT` names a number of records or `ARCHIVES` some archives; what is prepared
# already is skipped. *Time: one core prepares about 650 records of 500 Hz per second
# (measured on an AMD EPYC, files in the page cache; `benchmarks/results/prepare.json`), so 50,000
# records take two minutes on one core (extrapolated) or as long as the disk needs to read them;
# `PREPARE_WORKERS` processes share the work. Memory: below 1 GB per process. Disk: 24 kB per 10 s
# at 100 Hz, 1.2 GB for 50,000 records.* May be stopped at any moment; it goes on after the last
# finished chunk.

# %% [folded]
import copyreg
import functools


def cached_again(function, options):
    """A function with a cache of its own, in the process that unpacks it."""
    return functools.lru_cache(**options)(function)


def pack_cached(cached):
    """What a cached function is made of."""
    return cached_again, (cached.__wrapped__, cached.cache_parameters())


# What worker processes call is defined in this notebook and goes to them by value; but Python sends
# a function that has a cache by its name, which they do not know.
copyreg.pickle(functools._lru_cache_wrapper, pack_cached)

# %%
prepared = prepare_archives(settings)
print(
    f"{prepared.n_found:,} records found = {prepared.n_stored:,} stored + "
    f"{prepared.n_rejected:,} rejected + {prepared.n_not_selected:,} not selected; "
    f"{prepared.n_pairs:,} pairs hold one recording"
)

# %% [markdown]
# ## 6. Data set and model
#
# Windows come as int16 batches from the GPU, from memory or from disk, whichever is nearest and has
# room; augmentation and standardisation happen on the device. Eleven architectures; `MODEL_NAME`
# chooses. A model file holds all that predicting needs: weights, labels, leads, rate, calibration,
# thresholds.

# %%
from einthoven.residency import *
from einthoven.batches import *
from einthoven.augment.draws import *
from einthoven.augment.recorded import *
from einthoven.augment.heart import *
from einthoven.augment.mixtures import *
from einthoven.augment.recorder import *
from einthoven.augment.batch import *
from einthoven.models.resnet1d import *
from einthoven.models.cnn2d import *
from einthoven.models.convnext1d import *
from einthoven.models.se_resnet1d import *
from einthoven.models.crnn import *
from einthoven.models.xresnet1d import *
from einthoven.models.inception1d import *
from einthoven.models.patch_transformer import *
from einthoven.models.resnet1d_views import *
from einthoven.models.s4d import *
from einthoven.models.registry import *
from einthoven.models.costs import *
from einthoven.calibration.maps import *
from einthoven.metrics import *
from einthoven.checkpoint import *

# %% [markdown]
# ### The architectures
#
# Parameters, and operations for one crop, with this run's labels.


# %% [folded]
def model_table(n_classes, n_samples):
    """Parameters and cost of every architecture."""
    rows = []
    for name in MODELS:
        model = build_model(name, n_leads=len(LEADS), n_classes=n_classes)
        rows.append(
            {
                "MODEL_NAME": name + (" (chosen)" if name == settings.model_name else ""),
                "parameters": f"{count_parameters(model):,}",
                "million operations": f"{count_flops(model, len(LEADS), n_samples) / 1e6:,.0f}",
            }
        )
    return pd.DataFrame(rows)


# %%
show(model_table(len(load_label_set(settings.label_set).labels), settings.crop))

# %% [markdown]
# ## 7. Training
#
# `train_production`: AdamW, a learning-rate schedule, mixed precision on a GPU, gradient
# accumulation and clipping, a moving average of the weights, early stopping. Randomness is a
# function of (seed, epoch, record), so a run that is stopped (*Kernel → Interrupt* saves first) or
# killed goes on and ends, on a CPU, with the same bits. The code of calibration is here, because
# the end of training fits it on half of the validation split.

# %%
from einthoven.views import *
from einthoven.inference import *
from einthoven.objective import *
from einthoven.challenge_score import *
from einthoven.runs import *
from einthoven.run_folder import *
from einthoven.averaging import *
from einthoven.tally import *
from einthoven.run_state import *
from einthoven.tracking.event_file import *
from einthoven.tracking.mlflow_run import *
from einthoven.tracking.numbers import *
from einthoven.tracking.trackers import *
from einthoven.shortage import *
from einthoven.step import *
from einthoven.calibration.conformal import *
from einthoven.calibration.fitting import *
from einthoven.calibration.thresholds import *
from einthoven.calibration.settling import *
from einthoven.validation import *
from einthoven.training import *

# %% [markdown]
# ### Ten steps, to see that it works
#
# A dry run writes nothing. *Time: seconds on a CPU once the windows are read.*

# %%
train_production(settings.model_copy(update={"dry_run": True}))

# %% [markdown]
# ## 8. Evaluation
#
# Scores with 95 % intervals from a bootstrap over patients, per archive before pooled, by subgroup,
# at thresholds that were set on the validation split. An absent class is reported as absent.
# (`evaluate_detailed`, which also draws, stands at the end of section 9, after the plots it draws;
# `metrics` and `calibration` stand in 6 and 7, which need them.)

# %%
from einthoven.calibration.reliability import *
from einthoven.bootstrap import *
from einthoven.scoring import *
from einthoven.subgroups import *
from einthoven.scopes import *
from einthoven.external import *
from einthoven.evaluated import *
from einthoven.supplements import *
from einthoven.summary import *
from einthoven.comparison.scored_runs import *

# %% [markdown]
# ## 9. Visualisation
#
# ECG paper, training curves, confusion matrix, per-class scores, ROC and precision-recall curves,
# reliability, thresholds, subgroups; then `evaluate_detailed`, cross-validation, and the report: one
# HTML page about a run.

# %%
from einthoven.figures.style import *
from einthoven.figures.curves import *
from einthoven.figures.ecg_paper import *
from einthoven.figures.prediction import *
from einthoven.figures.saving import *
from einthoven.figures.forest import *
from einthoven.figures.reliability import *
from einthoven.figures.thresholds import *
from einthoven.figures.scores import *
from einthoven.figures.explanation import *
from einthoven.evaluation import *
from einthoven.cluster_training import *
from einthoven.crossval import *
from einthoven.report.parts import *
from einthoven.report.own_splits import *
from einthoven.report.run_files import *
from einthoven.report.decision_tables import *
from einthoven.report.score_tables import *
from einthoven.report.crossval_tables import *
from einthoven.report.data_card import *
from einthoven.report.run_tables import *
from einthoven.report.verdict import *
from einthoven.report.cautions import *
from einthoven.report.curves import *
from einthoven.report.model_card import *
from einthoven.report.page import *
from einthoven.report.script import *
from einthoven.report.pictures import *
from einthoven.samples import *
from einthoven.examples import *
from einthoven.report.gallery import *
from einthoven.report.sections import *
from einthoven.report.writing import *

# %% [markdown]
# ### A stored record on ECG paper
#
# The first with twelve leads and a label; where there is none, the one with most leads.


# %% [folded]
SECONDS_DRAWN = 10


def record_to_draw(manifest):
    """The first record with most leads that hold a signal, rather one with a label."""
    n_leads = manifest["leads_present"].map(names_in) - manifest["flat_leads"].map(names_in)
    return int((2 * n_leads + (manifest["labels"].map(len) > 0)).to_numpy().argmax())


def names_in(listed):
    """How many names a list with commas holds."""
    return len(list(filter(None, str(listed).split(","))))


def draw_stored_record(wanted):
    """A record of the store as a cardiologist would see it; drawn anew when the store changes."""
    store = open_store(wanted.workspace)
    number = record_to_draw(store.manifest)
    row = store.manifest.iloc[number]
    title = f"{row['record']}: {', '.join(row['labels']) or 'no label of this set'}"
    seconds = row["n_samples"] / store.target_fs
    title += f" (first {SECONDS_DRAWN} s of {seconds:.0f})" if seconds > SECONDS_DRAWN else ""
    folder = wanted.workspace.root / "artifacts" / "figures"
    path = folder / f"stored_record_{digest([store.digest, title])[:8]}.png"
    if path.exists():
        return path
    figure = plot_ecg(
        stored_signal(store, number)[:, : SECONDS_DRAWN * store.target_fs]
        / MICROVOLTS_PER_MILLIVOLT,
        store.target_fs,
        leads_present=str(row["leads_present"]).split(","),
        title=title,
    )
    for earlier in folder.glob("stored_record_*.png"):
        earlier.unlink()
    write_figure(figure, path)
    return path


# %%
show(draw_stored_record(settings))

# %% [markdown]
# ## 10. Inference
#
# `load_best_model`, `predict_sample`, `run_inference_examples`; files of fifteen formats;
# explanations (which leads and beats carried an answer, with captum); export to ONNX and others.
# They are used on this run's model at the end of section 13.

# %%
from einthoven.prediction import *
from einthoven.explain.beats import *
from einthoven.explain.crops import *
from einthoven.explain.methods import *
from einthoven.explain.shares import *
from einthoven.explain.explanation import *
from einthoven.formats.content import *
from einthoven.formats.xml_tree import *
from einthoven.formats.vendor_xml import *
from einthoven.formats.aecg import *
from einthoven.formats.arrays import *
from einthoven.formats.dicom import *
from einthoven.formats.edf import *
from einthoven.formats.hdf5_file import *
from einthoven.formats.scp_huffman import *
from einthoven.formats.scp import *
from einthoven.formats.ishne import *
from einthoven.formats.matlab_file import *
from einthoven.formats.text_table import *
from einthoven.formats.detection import *
from einthoven.formats.sierra import *
from einthoven.formats.wfdb_record import *
from einthoven.formats.reading import *
from einthoven.formats.hints import *
from einthoven.explain.command import *
from einthoven.exporting.facts import *
from einthoven.exporting.graph import *
from einthoven.exporting.onnx_model import *
from einthoven.exporting.formats import *
from einthoven.exporting.integers import *
from einthoven.exporting.writing import *
from einthoven.exporting.command import *
from einthoven.file_prediction import *

# %% [markdown]
# ## 11. Pre-flight check
#
# What is there, what is missing or wrong, and what to do next, in seconds. Before a medium or full
# run, anything that failed stops the notebook: here, and again where such a run begins.

# %%
from einthoven.preflight.estimates import *
from einthoven.preflight.opened import *
from einthoven.preflight.data import *
from einthoven.preflight.libraries import *
from einthoven.preflight.machine import *
from einthoven.preflight.checks import *


# %% [folded]
def stop_where_checks_fail(wanted):
    """Show the pre-flight check; before a medium or full run, what failed stops the notebook."""
    checks = run_preflight_checks(wanted)
    print(format_checks(checks))
    if worst_verdict(checks) == "failed" and wanted.run_mode != "smoke":
        raise DataError("the pre-flight check failed; see what to do above")


# %%
stop_where_checks_fail(settings)

# %% [markdown]
# ## 12. Quick smoke run, medium run
#
# `RUN_MODE` decides which one runs; the others say that they are left out. To run another by hand,
# uncomment the last line of its cell: it has a pre-flight check of its own, and the gallery, the
# example and the table of artifacts at the end of section 13 show the run that came last.

# %%
from einthoven.smoke import *
from einthoven.modes import *


# %% [folded]
# The settings of the run that came last: what stands below section 13 shows that one.
shown_run = settings


def run_and_show(run_mode_wanted):
    """Train, evaluate, draw and report in a mode, and show it; skips or resumes what is there."""
    global shown_run
    if settings.dry_run:
        print("DRY_RUN: ten steps were taken in section 7, and that is all")
        return
    wanted = settings.model_copy(update={"run_mode": run_mode_wanted})
    origins = dict(loaded.origins)
    if run_mode_wanted != settings.run_mode:
        origins["run_mode"] = "notebook"
    if run_mode_wanted == "smoke":
        results = run_smoke_test(smoke_settings(wanted), origins)
        print(smoke_summary(results, smoke_results_path(wanted.workspace)))
        if results["verdict"] != "passed":
            raise DataError("the smoke run failed; the stages above say where")
    else:
        refuse_other_run(wanted)
        stop_where_checks_fail(wanted)
        run_mode(wanted, origins)
        write_report(wanted)
    shown_run = wanted
    show_figures(wanted)


def smoke_settings(wanted):
    """A smoke run trains anew, but for one of these settings and data that is finished."""
    store, chosen = open_data(wanted)
    data = data_fingerprint(store, chosen)
    inputs = run_inputs(wanted, data, choose_device(wanted.device))
    is_done = not step_changes(wanted.workspace.step_path("train"), inputs)
    return wanted if is_done else settings_of_mode(wanted)


def show_figures(wanted):
    """Each figure of a run, as it was last drawn, and its scores in words."""
    metrics = read_json(metrics_path(wanted.workspace))
    print(f"\n{evaluation_summary(metrics)}\n")
    names = score_figure_names(metrics["task"] == "single", bool(metrics["subgroups"]))
    if len(read_json(wanted.workspace.checkpoints_dir / "training_history.json")) == 1:
        print("Of one epoch, the training curves are single dots; lines begin with the second.\n")
    for name in ("training_curves", *names):
        drawn = sorted(wanted.workspace.figures_dir.glob(f"{name}_*.png"))
        if drawn:
            show(drawn[-1])


# %% [markdown]
# ### QUICK SMOKE RUN
#
# Every stage on 256 records, one epoch, each with its verdict. Its scores say nothing yet, and of
# one epoch a training curve is a single dot.
#
# *Time, once the store is prepared: 15 s on two cores of an AMD EPYC (measured); no GPU needed. Memory: 0.8 GB (measured).
# Disk: 45 MB.*

# %%
if settings.run_mode == "smoke":
    run_and_show("smoke")
else:
    print(f"RUN_MODE is {settings.run_mode}: the smoke run is left out")
# run_and_show("smoke")  # uncomment to run it whatever RUN_MODE is

# %% [markdown]
# ### MEDIUM RUN
#
# 5,000 records, every epoch.
#
# > **GPU recommended; long on a CPU.** *Time: eight folds of ten train, so 132,000 records pass in
# > 33 epochs; on one CPU core that is 7.3 min to 16 min, on a GPU less (extrapolated). Measured are
# > 302 and 135 records/s of one thread of an AMD EPYC: training steps alone on a quiet machine
# > (`benchmarks/results/train_throughput.json`), and a whole `einthoven train` of 2,368 records with
# > validation and scores, beside other work (`benchmarks/results/run_steps.json`). Memory and GPU memory: 2 GB each (estimated;
# > section 11 says what this run needs). Disk: 100 MB beside the store.*

# %%
if settings.run_mode == "medium":
    run_and_show("medium")
else:
    print(f"RUN_MODE is {settings.run_mode}: the medium run is left out")
# run_and_show("medium")  # uncomment to run it whatever RUN_MODE is

# %% [markdown]
# ## 13. FULL PRODUCTION TRAINING
#
# Everything that is in the store. Stop it with *Kernel → Interrupt*: it saves, and this cell goes
# on from there when it is run again, also in a new kernel.
#
# > **GPU-intensive and long.** *Time, 50,000 records and `EPOCHS = 33` with `resnet1d_views`:
# > 1,320,000 records pass; at the 302 to 135 records/s of one CPU core (measured as above) 73 min to
# > 2.7 h on one core, 9.1 min to 41 min on eight, 6.9 min on an L4, V100 or A100 with the default
# > batch of 64, where the host is the limit (all extrapolated, none measured; the runbook in `docs/`
# > says how, and gives 20 epochs). Evaluation with 1,000 resamples: minutes. Memory: the store (1.2 GB) and 2 GB. GPU memory: the store and 2 GB (estimated); where it does not fit it is
# > streamed. Disk: 100 MB beside the store; 50 GB for all public archives.*

# %%
if settings.run_mode == "full":
    run_and_show("full")
else:
    print(f"RUN_MODE is {settings.run_mode}: full production training is left out")
# run_and_show("full")  # uncomment to run it whatever RUN_MODE is

# %% [markdown]
# ### ECG gallery
#
# Records of the test split with the model's answer: its most confident right decision, its worst
# errors, its least certain record, and one of each class drawn at random.

# %%
examples = [] if settings.dry_run else run_inference_examples(shown_run)["examples"]
for example in examples:
    show(shown_run.workspace.figures_dir / example["figure"])

# %% [markdown]
# ### The trained model, used
#
# One recording, from its archive's own file, through `predict_sample`. The model file alone is
# enough; it takes any rate and any leads that it knows by name.


# %% [folded]
def answer_of_recording(wanted, record):
    """A record's own file as a run's model answers it, as a table."""
    trained = load_best_model(wanted)
    is_it = (mapping["archive"] + "/" + mapping["record_id"]) == record
    entry = mapping[is_it].iloc[0]
    folder = wanted.archives_dir / str(entry["folder"])
    signal, fs, leads = read_signal(str(entry["reader"]), folder, str(entry["path"]))
    answer = predict_sample(trained, signal, fs, leads)
    print(f"{record}: {signal.shape[0]} leads, {fs:g} Hz, {signal.shape[1] / fs:.1f} s")
    return pd.DataFrame(
        {
            "label": list(answer.probabilities),
            "probability": list(answer.probabilities.values()),
            "decided": ["yes" if name in answer.decisions else "" for name in answer.probabilities],
            "in the archive": [
                "yes" if name in str(entry["labels"]).split(";") else ""
                for name in answer.probabilities
            ],
        }
    )


# %%
if examples:
    show(answer_of_recording(shown_run, examples[0]["record"]))

# %% [markdown]
# ### Artifacts
#
# Everything that this run has written, relative to the workspace.


# %% [folded]
def artifact_table(wanted):
    """The files of a run: what each is, where it lies, its size."""
    workspace = wanted.workspace
    files = {
        "labels of every record found": workspace.mapping_path,
        "the store's manifest": workspace.manifest_path,
        "records that cannot be used, and why": workspace.rejected_path,
        "splits and duplicate audit": workspace.splits_path,
        "the best model, alone enough to predict": workspace.best_model_path,
        "what a stopped run goes on from": workspace.checkpoints_dir / "last_checkpoint.pth",
        "settings, versions and hardware of the run": workspace.checkpoints_dir / "run.json",
        "one row per epoch": workspace.checkpoints_dir / "training_history.json",
        "scores of the test split": metrics_path(workspace),
        "probability and decision of every record": predictions_path(workspace),
        "inference examples": examples_path(workspace),
        "the report, one page": workspace.report_path,
        "the model card": workspace.model_card_path,
    }
    folders = {
        "signals, int16 microvolts": workspace.records_dir,
        "figures": workspace.figures_dir,
    }
    found = [(what, path, [path]) for what, path in files.items() if path.is_file()]
    found += [
        (what, path, [inner for inner in path.iterdir() if inner.is_file()])
        for what, path in folders.items()
        if path.is_dir()
    ]
    return pd.DataFrame(
        {
            "what": [what for what, _, _ in found],
            "path": [path.relative_to(workspace.root).as_posix() for _, path, _ in found],
            "files": [len(inner) for _, _, inner in found],
            "size": [file_size_text(sum(p.stat().st_size for p in inner)) for _, _, inner in found],
        }
    )


def file_size_text(n_bytes):
    """Bytes in a unit that reads well."""
    return f"{n_bytes / 2**20:,.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 1024:,.1f} KiB"


# %%
print(f"Workspace: {shown_run.root.resolve()}")
print(f"RUN_MODE: {shown_run.run_mode}")
show(artifact_table(shown_run))
print(DISCLAIMER)

# %% [markdown]
# ## 14. Runbook
#
# **In JupyterLab**: `jupyter lab notebooks/master_pipeline.ipynb`, set `RUN_MODE` in section 1,
# *Run → Run All Cells*. Images can be kept small by clearing outputs before the notebook is saved.
#
# **Headless**, in bash:
#
# ```bash
# pip install "einthoven[notebook]"        # or the packages of section 2 and jupyterlab
# # smoke: as it stands
# jupyter nbconvert --to notebook --execute notebooks/master_pipeline.ipynb \
#     --ExecutePreprocessor.timeout=-1 --output executed.ipynb
# # everything, on archives of your own
# RUN_MODE=full DATASET_DIR=/data/ecg RUN_NAME=first \
#     jupyter nbconvert --to notebook --execute notebooks/master_pipeline.ipynb \
#     --ExecutePreprocessor.timeout=-1 --output executed.ipynb
# ```
#
# in PowerShell:
#
# ```powershell
# $env:RUN_MODE = "full"; $env:DATASET_DIR = "D:\ecg"; $env:RUN_NAME = "first"
# jupyter nbconvert --to notebook --execute notebooks\master_pipeline.ipynb `
#     --ExecutePreprocessor.timeout=-1 --output executed.ipynb
# ```
#
# `--output` is relative to the notebook's folder. A page without the code of the package:
# `jupyter nbconvert --to html --TagRemovePreprocessor.enabled=True
# --TagRemovePreprocessor.remove_cell_tags package notebooks/executed.ipynb`.
#
# **What to expect**, under `ROOT` (the current folder, or its parent when that is `notebooks/`; the
# folder `notebook_demo` in it where the archives are synthetic):
#
# ```text
# Dataset/<archive>/                          raw records, never written to
# logs/unified_label_mapping.csv              a row per record found; labels may be edited
# logs/smoke_test_results.json                each stage of the smoke run, with verdict and time
# artifacts/processed/records/*.npy           signals; manifest.parquet and splits.json beside them
# artifacts/processed/rejected.csv            records that cannot be used, with the reason
# artifacts/processed/checkpoints/<run>/      best_model.pth, test_metrics.json, predictions.parquet …
# artifacts/figures/<run>/*.png               every figure and the gallery
# artifacts/<run>/report.html                 one page about it all
# ```
#
# `<run>` is `RUN_NAME`, else `smoke` or `medium`, else nothing. A finished run is never written
# over, but for smoke runs, which are tests and give way to the next: the same settings skip it,
# others stop and say what differs; give another `RUN_NAME`, or `FRESH = True` to replace it.
#
# **When something goes wrong**
#
# | what you see | what to do |
# |---|---|
# | `… does not fit` (out of memory) | `AUTO_BATCH = True`, or the values that the message names |
# | training is slow on a CPU | a smaller `MODEL_NAME` (`crnn`), fewer `EPOCHS`, `ECG_PREPROCESS_LIMIT` |
# | F1 stays low | look at the class table in the pre-flight check and at `label_coverage.csv`; a coarser `LABEL_SET`, more records |
# | `there is no store` | run section 5, with the settings of this run |
# | `holds a finished run with other settings` | another `RUN_NAME`, or `FRESH = True` |
# | a worker process was killed | fewer `PREPARE_WORKERS`, and run section 5 again: finished chunks are kept |
# | a kernel that died | run all cells again: everything goes on from where it was |
#
# **Next**: `einthoven serve` for an API and a page, `einthoven explain` for which leads and beats
# carried an answer, `einthoven export` for ONNX, `einthoven crossval` for scores of every record;
# see the project's `docs/`.
