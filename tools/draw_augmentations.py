"""Draw the docs' figure of augmentations: one synthetic ECG before (grey) and after (colour).

    python tools/draw_augmentations.py [path]

Writes ``augmentations.png`` (few colours, to keep the repository small).
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from einthoven.augment.batch import AUGMENTED_SHARE, augment_batch, parse_augment
from einthoven.augment.draws import Draws
from einthoven.figures.style import PALETTE, style_axes
from einthoven.records import LEADS
from einthoven.synthetic.ecg import synthesize
from einthoven.synthetic.patients import draw_patient

FS = 500
SECONDS = 2.5
PATIENT_SEED = 38
PARTNER_SEED = 5
BEFORE_COLOR, AFTER_COLOR = "#b4b4b4", PALETTE[0]


@dataclass(frozen=True)
class Panel:
    """One example.

    Attributes:
        epoch: of seed 0, in which the first record draws a good example.
        leads: that are shown, ``spacing`` millivolts apart.
        seconds: the part of the crop that is shown.
    """

    title: str
    epoch: int
    leads: tuple[str, ...] = ("I", "II", "V5")
    spacing: float = 1.7
    seconds: tuple[float, float] = (0.0, SECONDS)


BEAT = (0.4, 1.1)
PANELS = {
    "vcg_rotation": Panel(
        "VCG rotation: the heart turned in the chest (one beat)", 0, seconds=BEAT
    ),
    "amplitude_scale": Panel("Amplitude scale (one beat)", 15, seconds=BEAT),
    "time_warp": Panel("Time warp: faster first, then slower", 0),
    "time_shift": Panel("Time shift: what leaves comes in again", 4),
    "sign_flip": Panel("Sign flip: single-lead records only", 1, ("I",), 2.4),
    "mixup": Panel("Mixup: another record added, labels too", 5),
    "cutmix": Panel("Cutmix: a stretch of another record", 7),
    "baseline_wander": Panel("Baseline wander", 17),
    "muscle_noise": Panel("Muscle noise (lead I, enlarged)", 17, ("I",), 0.4, (0.75, 1.15)),
    "mains_noise": Panel("Mains (lead I, enlarged; not at 100 Hz)", 20, ("I",), 0.4, (0.75, 1.15)),
    "lead_dropout": Panel("Lead dropout", 0),
    "time_mask": Panel("Time mask", 2),
    "light": Panel("Preset light", 21),
    "strong": Panel("Preset strong", 8),
}


def recording(kind: str, seed: int) -> np.ndarray:
    """Ten seconds of ``(12, sample)`` microvolts."""
    patient = draw_patient(np.random.default_rng(seed), mean_age=50)
    signal = synthesize(kind, patient, FS, 10, np.random.default_rng(seed), noise=0.15)
    return np.round(1000 * signal)


def augmented_crop(name: str, crops: np.ndarray, epoch: int) -> np.ndarray:
    """The first of two records after an augmentation or a preset."""
    signal = torch.from_numpy(crops.astype(np.int16))
    if name == "sign_flip":
        signal[:, 1:] = 0
    draws = Draws(0, epoch, np.arange(2))
    n_valid = torch.full((2,), signal.shape[-1])
    after, _ = augment_batch(signal, torch.eye(2), n_valid, parse_augment(name), draws, FS)
    return after[0].numpy()


def draw_traces(axes: Axes, signal: np.ndarray, panel: Panel, color: str, width: float) -> None:
    """The panel's leads below one another."""
    times = np.arange(signal.shape[1]) / FS
    for row, lead in enumerate(panel.leads):
        trace = signal[LEADS.index(lead)] / 1000
        axes.plot(times, trace - panel.spacing * row, color=color, linewidth=width)


def finish_panel(axes: Axes, panel: Panel) -> None:
    """Name the leads instead of voltages, and draw a millivolt as high as it is."""
    style_axes(axes)
    lowest = -panel.spacing * (len(panel.leads) - 0.45)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlim(panel.seconds)
    axes.set_ylim(lowest, 0.9 * panel.spacing)
    axes.set_yticks([-panel.spacing * row for row in range(len(panel.leads))], panel.leads)
    axes.tick_params(labelcolor="#333333", length=0)
    bar = 0.1 if panel.spacing < 1 else 1
    right = panel.seconds[1]
    axes.plot([right, right], [lowest, lowest + bar], color="black", linewidth=3, clip_on=False)
    axes.annotate(
        f"{bar} mV", (right, lowest + bar / 2), (-5, 0), textcoords="offset points",
        ha="right", va="center", fontsize=8,
    )  # fmt: skip


def draw_augmentation(axes: Axes, name: str, crops: np.ndarray) -> None:
    """One augmentation on one record."""
    panel = PANELS[name]
    draw_traces(axes, crops[0], panel, BEFORE_COLOR, 1.8)
    draw_traces(axes, augmented_crop(name, crops, panel.epoch), panel, AFTER_COLOR, 0.9)
    finish_panel(axes, panel)


def draw_random_crop(axes: Axes, signal: np.ndarray, start: int, n_samples: int) -> None:
    """The window and the crop of it that one epoch shows."""
    panel = Panel("Random crop: another 2.5 s in each epoch", 0, seconds=(0, 10))
    inside = np.full_like(signal, np.nan)
    inside[:, start : start + n_samples] = signal[:, start : start + n_samples]
    draw_traces(axes, signal, panel, BEFORE_COLOR, 0.9)
    draw_traces(axes, inside, panel, AFTER_COLOR, 0.9)
    finish_panel(axes, panel)


def draw_figure() -> Figure:
    """Small multiples, in the order in which augmentations are applied."""
    n_samples = round(SECONDS * FS)
    signals = np.stack([recording("sinus", PATIENT_SEED), recording("lbbb", PARTNER_SEED)])
    start = round(1.3 * FS)
    crops = signals[:, :, start : start + n_samples]
    figure = Figure(figsize=(13, 16), layout="constrained")
    grid = figure.subplots(5, 3)
    draw_random_crop(grid.flat[0], signals[0], start, n_samples)
    for axes, name in zip(grid.flat[1:], PANELS, strict=True):
        draw_augmentation(axes, name, crops)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=9)
    return figure


def write_small_png(figure: Figure, path: Path) -> None:
    """A palette of colours instead of all of them."""
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    drawn.seek(0)
    small = Image.open(drawn).convert("RGB").quantize(32, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    small.save(path, optimize=True)


if __name__ == "__main__":
    missing = set(AUGMENTED_SHARE) - set(PANELS)
    assert not missing, missing
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/augmentations.png")
    write_small_png(draw_figure(), target)
    print(f"{target}  {target.stat().st_size // 1000} kB")
