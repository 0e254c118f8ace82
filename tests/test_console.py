import logging

from einthoven import console
from einthoven.console import format_table, log, progress, setup_logging


def test_progress_yields_everything_in_order():
    setup_logging()
    assert list(progress(range(5), desc="Counting", unit="numbers")) == [0, 1, 2, 3, 4]


def test_without_a_terminal_progress_is_plain_lines(monkeypatch, caplog):
    setup_logging()
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0)
    log.addHandler(caplog.handler)
    list(progress(range(2), desc="Counting", unit="numbers"))
    assert "Counting: 1 of 2 numbers" in caplog.messages[0]


def test_quiet_shows_no_progress(monkeypatch, caplog):
    setup_logging(quiet=True)
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0)
    log.addHandler(caplog.handler)
    assert list(progress(range(3), desc="Counting", unit="numbers")) == [0, 1, 2]
    assert caplog.messages == []
    assert log.level == logging.WARNING


def test_a_table_without_rows_is_its_header():
    assert format_table(["a", "b"], []) == "a  b"
