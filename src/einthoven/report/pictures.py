"""Figures as PNG inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from einthoven.figures.saving import FIGURE_DPI
from einthoven.report.parts import Picture

# So many pixels of the page show one inch of a figure.
PIXELS_PER_INCH = 82

# Spread over all that a picture holds, so that a rare one, such as of a small bar, is kept.
MOST_COLORS = 128


def newest_figure(figures_dir: Path, name: str) -> Path | None:
    """The latest figure of a name; the stamps in file names sort by time."""
    found = [path for path in figures_dir.glob(f"{name}_*.png") if path.is_file()]
    return max(found, key=lambda path: path.name, default=None)


def picture_of(figure: Figure, caption: str, dpi: int = FIGURE_DPI) -> Picture:
    """A figure as a PNG inside the page."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return embed_picture(buffer.getvalue(), caption, dpi)


def slim_png(png: bytes) -> bytes:
    """The same picture in a quarter of the bytes: few colours serve plots and ECG paper."""
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(
            MOST_COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def embed_picture(png: bytes, caption: str, dpi: int = FIGURE_DPI) -> Picture:
    """A PNG for the page, at a size at which its smallest type can be read."""
    # The width is the first field of a PNG's first chunk.
    width = int.from_bytes(png[16:20], "big") / dpi * PIXELS_PER_INCH
    encoded = base64.b64encode(slim_png(png)).decode()
    return Picture(encoded, caption, round(width), round(0.88 * width))
