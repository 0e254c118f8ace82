"""Draw the docs' gallery: one synthetic recording of each class on ECG paper.

    python tools/draw_class_gallery.py [folder]

Writes ``synthetic_<class>.png`` (sixteen colours, to keep the repository small).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from einthoven.figures.ecg_paper import plot_ecg
from einthoven.synthetic.ecg import synthesize
from einthoven.synthetic.patients import draw_patient

GALLERY = {
    "sinus": "Normal sinus rhythm",
    "bradycardia": "Sinus bradycardia",
    "tachycardia": "Sinus tachycardia",
    "afib": "Atrial fibrillation",
    "flutter": "Atrial flutter",
    "pvc": "Ventricular premature beats",
    "pac": "Atrial premature beats",
    "lbbb": "Complete left bundle branch block",
    "rbbb": "Complete right bundle branch block",
    "irbbb": "Incomplete right bundle branch block",
    "av_block_1": "First-degree AV block",
    "lvh": "Left ventricular hypertrophy with strain",
    "st_depression": "ST depression",
    "t_inversion": "T wave inversion",
    "mi_inferior_acute": "Acute inferior infarction",
    "mi_inferior_old": "Old inferior infarction",
    "mi_anterior_acute": "Acute anterior infarction",
    "mi_anterior_old": "Old anterior infarction",
    "mi_lateral_acute": "Acute lateral infarction",
    "mi_lateral_old": "Old lateral infarction",
}
PATIENT_SEED = 38
FS = 500.0


def draw_kind(kind: str, images_dir: Path) -> Path:
    """One class, drawn from the same person as all others."""
    patient = draw_patient(np.random.default_rng(PATIENT_SEED), mean_age=50)
    signal = synthesize(kind, patient, FS, 10, np.random.default_rng(PATIENT_SEED), noise=0.35)
    figure = plot_ecg(signal, FS, title=f"{GALLERY[kind]} (synthetic)")
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    path = images_dir / f"synthetic_{kind}.png"
    drawn.seek(0)
    small = Image.open(drawn).convert("RGB").quantize(16, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    return path


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    for name in GALLERY:
        written = draw_kind(name, folder)
        print(f"{written}  {written.stat().st_size // 1000} kB")
