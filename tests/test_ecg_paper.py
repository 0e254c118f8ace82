"""ECG paper: true to scale, complete, and readable whatever the record."""

from __future__ import annotations

from datetime import datetime

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from einthoven.figures.ecg_paper import plot_ecg
from einthoven.figures.saving import figure_stamp, save_figure
from einthoven.records import LEADS
from einthoven.synthetic.ecg import synthesize
from einthoven.synthetic.patients import draw_patient

FS = 100.0


def a_record(kind: str = "sinus") -> np.ndarray:
    rng = np.random.default_rng(0)
    return synthesize(kind, draw_patient(rng), FS, 10, rng)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def traces(figure: Figure) -> list[np.ndarray]:
    """``(sample, 2)`` millimetres of each long line."""
    lines = (line.get_xydata() for line in figure.axes[0].lines)
    return [np.asarray(line) for line in lines if len(line) > 6]


def mm_on_page(figure: Figure) -> tuple[float, float]:
    """How long one unit of the axes is, in millimetres, across and along."""
    inches = figure.get_size_inches() * 25.4
    axes = figure.axes[0]
    return (inches[0] / np.ptp(axes.get_xlim()), inches[1] / np.ptp(axes.get_ylim()))


@pytest.mark.parametrize("layout", ["3x4", "12x1"])
def test_a_square_millimetre_is_square_and_a_millimetre(layout):
    assert mm_on_page(plot_ecg(a_record(), FS, layout=layout)) == pytest.approx((1, 1), rel=1e-6)


@pytest.mark.parametrize(("layout", "n_traces", "length_mm"), [("3x4", 13, 250), ("12x1", 12, 250)])
def test_paper_runs_at_25_mm_per_second(layout, n_traces, length_mm):
    drawn = traces(plot_ecg(a_record(), FS, layout=layout))
    assert len(drawn) == n_traces
    assert np.ptp(drawn[-1][:, 0]) == pytest.approx(length_mm, abs=0.5)
    assert np.diff(drawn[0][:, 0]) == pytest.approx(25 / FS)


def test_a_millivolt_is_ten_millimetres_and_so_is_the_pulse():
    signal = np.zeros((12, 1000), np.float32)
    signal[:, 100:110] = 1.0
    figure = plot_ecg(signal, FS)
    assert np.ptp(traces(figure)[0][:, 1]) == pytest.approx(10)
    pulse = np.asarray(figure.axes[0].lines[0].get_xydata())
    assert np.ptp(pulse[:, 1]) == 10 and pulse[3, 0] - pulse[2, 0] == 0.2 * 25


def test_columns_show_consecutive_quarters_of_the_record():
    signal = np.zeros((12, 1000), np.float32)
    signal[LEADS.index("V1"), 600] = 1.0
    tallest = [trace for trace in traces(plot_ecg(signal, FS)) if np.ptp(trace[:, 1]) > 5]
    assert len(tallest) == 1
    assert tallest[0][tallest[0][:, 1].argmax(), 0] == pytest.approx(10 + 25 * 6.0)


def test_every_lead_is_named_and_the_caption_gives_speed_gain_and_rate():
    written = texts(plot_ecg(a_record(), FS, title="ptb-xl/1"))
    assert {*LEADS, "ptb-xl/1"} <= set(written)
    assert any("25 mm/s" in text and "10 mm/mV" in text and "100 Hz" in text for text in written)


def test_absent_leads_are_marked_and_not_drawn():
    figure = plot_ecg(a_record(), FS, leads_present=("I", "II", "III", "aVR", "aVL", "aVF"))
    assert texts(figure).count("not recorded") == 6
    assert len(traces(figure)) == 7


def test_leads_are_placed_by_name():
    signal = np.zeros((2, 1000), np.float32)
    signal[0, 900] = 1.0
    figure = plot_ecg(signal, FS, leads=("V5", "II"))
    tall = [trace for trace in traces(figure) if np.ptp(trace[:, 1]) > 5]
    assert tall[0][tall[0][:, 1].argmax(), 0] == pytest.approx(10 + 25 * 9.0)
    assert texts(figure).count("not recorded") == 10


@pytest.mark.parametrize(("height_mv", "gain"), [(1.5, "10 mm/mV"), (5, "5 mm/mV"), (9, "2.5 mm")])
def test_tall_leads_lower_the_gain_and_say_so(height_mv, gain):
    signal = a_record()
    signal[7] *= height_mv / np.abs(signal[7]).max()
    assert any(gain in text for text in texts(plot_ecg(signal, FS)))


def test_a_spike_neither_shrinks_the_page_nor_crosses_it():
    signal = a_record()
    signal[8, 600] = 300.0
    figure = plot_ecg(signal, FS)
    assert any("10 mm/mV" in text for text in texts(figure))
    assert max(np.ptp(trace[:, 1]) for trace in traces(figure)) < 60
    assert any("taller than their row are cut off" in text for text in texts(figure))


def test_a_sheet_on_which_nothing_is_cut_says_nothing_of_it():
    assert not any("cut off" in text for text in texts(plot_ecg(a_record(), FS)))


def test_a_single_lead_runs_over_several_rows():
    figure = plot_ecg(np.tile(a_record()[:1], 3), FS)
    assert len(traces(figure)) == 3
    assert texts(figure).count("I") == 3


@pytest.mark.parametrize("n_samples", [0, 1, 137, 999, 3000])
@pytest.mark.parametrize("layout", ["3x4", "12x1"])
def test_any_length_can_be_drawn(tmp_path, n_samples, layout):
    figure = plot_ecg(np.resize(a_record(), (12, n_samples)), FS, layout=layout)
    assert save_figure(figure, tmp_path, "ecg", "x").stat().st_size > 5000


def test_gaps_flat_leads_and_empty_leads_can_be_drawn(tmp_path):
    signal = a_record()
    signal[0] = np.nan
    signal[1, 200:400] = np.nan
    signal[2] = 0.0
    figure = plot_ecg(signal, FS)
    assert save_figure(figure, tmp_path, "ecg", "x").exists()
    assert any("10 mm/mV" in text for text in texts(figure))


def test_saved_figures_are_stamped_png_of_150_dpi_and_reproducible(tmp_path):
    stamp = figure_stamp(datetime(2026, 3, 1, 9, 5, 7))
    path = save_figure(plot_ecg(a_record(), FS), tmp_path / "figures", "ecg", stamp)
    assert path.name == "ecg_20260301-090507.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert image.width == pytest.approx(270 / 25.4 * 150, abs=2)
    first = path.read_bytes()
    assert save_figure(plot_ecg(a_record(), FS), tmp_path / "figures", "ecg", stamp) == path
    assert path.read_bytes() == first
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_drawing_touches_nothing_global():
    backend, parameters = matplotlib.get_backend(), dict(matplotlib.rcParams)
    plot_ecg(a_record(), FS)
    assert matplotlib.get_backend() == backend and dict(matplotlib.rcParams) == parameters
