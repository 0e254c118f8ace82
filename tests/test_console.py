import logging
import time

import pytest

from einthoven import console
from einthoven.console import format_table, log, progress, setup_logging, time_left


def test_progress_yields_everything_in_order():
    setup_logging()
    assert list(progress(range(5), desc="Counting", unit="numbers")) == [0, 1, 2, 3, 4]


def test_without_a_terminal_progress_is_plain_lines(monkeypatch, caplog):
    setup_logging()
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0)
    log.addHandler(caplog.handler)
    list(progress(range(2), desc="Counting", unit="numbers"))
    assert "Counting: 1 of 2 numbers" in caplog.messages[0]


@pytest.mark.parametrize(
    ("n_done", "n_all", "is_told"),
    [(1, 2368, False), (47, 2368, False), (48, 2368, True), (9, 100, False), (10, 100, True),
     (1, 3, True), (1, 8, False), (2, 8, True)],
)  # fmt: skip
def test_the_time_left_is_told_once_enough_is_done_to_tell(n_done, n_all, is_told):
    assert bool(time_left(n_done, n_all - n_done, 60.0)) == is_told


def test_a_line_of_progress_has_no_estimate_from_its_first_item(monkeypatch, caplog):
    setup_logging()
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0)
    log.addHandler(caplog.handler)
    list(progress(range(100), desc="Counting", unit="numbers", first=50))
    is_told = ["s left" in message for message in caplog.messages]
    assert is_told[:10] == [False] * 9 + [True]


@pytest.fixture
def notebook_output(monkeypatch):
    """What a notebook's cell shows of a line that is drawn again in its place."""
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(console, "is_in_notebook", lambda: True)
    return shown


def test_in_a_notebook_a_bar_is_drawn_in_its_place_and_leaves_nothing(notebook_output):
    setup_logging()
    for _ in progress(range(3), desc="Counting", unit="numbers"):
        time.sleep(0.6)
    assert any("Counting:" in text for text in notebook_output)
    assert notebook_output[-1] == ""


def test_in_a_notebook_what_is_over_at_once_shows_no_bar(notebook_output):
    setup_logging()
    list(progress(range(3), desc="Counting", unit="numbers"))
    assert notebook_output == []


def test_in_a_notebook_log_lines_are_no_errors(notebook_output, capsys):
    setup_logging()
    log.info("Prepared")
    assert capsys.readouterr() == ("Prepared\n", "")


def test_quiet_shows_no_progress(monkeypatch, caplog):
    setup_logging(quiet=True)
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0)
    log.addHandler(caplog.handler)
    assert list(progress(range(3), desc="Counting", unit="numbers")) == [0, 1, 2]
    assert caplog.messages == []
    assert log.level == logging.WARNING


def test_a_table_without_rows_is_its_header():
    assert format_table(["a", "b"], []) == "a  b"
