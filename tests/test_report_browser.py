"""The report in a real browser: it renders, sorts, reads out, and asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluated_workspace import draw_coarsely
from report_workspace import FIVE, MANY, make_reported_workspace

from einthoven.report.writing import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

SECTIONS = ("scores", "calibration", "subgroups", "errors", "data", "training", "settings", "files")
PHONE = {"width": 390, "height": 844}
# A4 between margins of 12 mm, at 96 pixels to the inch.
PAPER = {"width": 703, "height": 1032}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=["five", "many"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a report of five classes, one per record; and of one of 26 that occur together."""
    single = request.param == "five"
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch)
        settings = make_reported_workspace(root, FIVE if single else MANY, single=single)
        return write_report(settings).as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The report, opened; a message on the console or a request to anywhere fails the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]


def test_every_section_renders_and_every_link_lands(page: Any) -> None:
    links = page.locator("nav a")
    assert [link.get_attribute("href") for link in links.all()] == [f"#{s}" for s in SECTIONS]
    for name in SECTIONS:
        page.click(f'nav a[href="#{name}"]')
        box = page.locator(f"#{name} h2").bounding_box()
        assert box["height"] > 10 and -1 < box["y"] < 900, name
        assert page.locator(f"#{name}").bounding_box()["height"] > 60, name


def test_every_picture_is_whole(page: Any) -> None:
    widths = page.eval_on_selector_all("img", "all => all.map(i => i.complete && i.naturalWidth)")
    assert len(widths) > 10 and all(widths)


def column(page: Any, number: int) -> list[str]:
    cells = page.locator(f"#scores table >> nth=0 >> tbody tr td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_a_click_sorts_numbers_as_numbers_and_back(page: Any) -> None:
    head = page.locator("#scores th >> nth=1")
    before = column(page, 2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 2) == sorted(before, key=int, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 2) == sorted(before, key=int)


def test_what_is_no_number_stays_last_either_way(page: Any) -> None:
    button = page.locator("#scores th >> nth=2 >> button")
    for _ in range(2):
        button.click()
        words = [text.split()[0] for text in column(page, 3)]
        assert words == sorted(words, key=lambda word: word == "none")


def test_the_keyboard_sorts_too(page: Any) -> None:
    before = column(page, 1)
    page.locator("#scores th >> nth=0 >> button").focus()
    page.keyboard.press("Enter")
    assert page.locator("#scores th >> nth=0").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, 1) != before and set(column(page, 1)) == set(before)
    assert page.locator("#scores th[aria-sort]").count() == 1


@pytest.mark.parametrize("chart", ["roc", "precision-recall", "loss"])
def test_pointing_at_a_curve_reads_it_out(page: Any, chart: str) -> None:
    figure = page.locator(f'figure[data-chart="{chart}"]')
    figure.scroll_into_view_if_needed()
    readout = figure.locator(".readout")
    assert readout.inner_text().startswith("Point at a line")
    box = figure.locator("svg >> nth=0").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.3)
    said = readout.inner_text()
    assert ("epoch" if chart == "loss" else "threshold") in said
    assert figure.locator("circle.dot").is_visible()


def test_arrow_keys_walk_along_a_curve(page: Any) -> None:
    figure = page.locator('figure[data-chart="roc"]')
    figure.locator("svg >> nth=0").focus()
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
        said.append(figure.locator(".readout").inner_text())
    assert "nothing called" in said[0] and len(set(said)) == 3
    assert said[1].split(":")[0] == said[0].split(":")[0] != said[2].split(":")[0]


def test_a_name_in_the_legend_lights_its_curve_up(page: Any) -> None:
    item = page.locator('figure[data-chart="roc"] .legend li >> nth=0')
    button, line = item.locator("button"), page.locator('figure[data-chart="roc"] [data-line="0"]')
    before = button.get_attribute("aria-pressed")
    button.click()
    assert button.get_attribute("aria-pressed") != before
    assert ("faint" in line.first.get_attribute("class")) == (before == "true")


def test_without_scripts_all_of_it_can_be_read(browser: Any, address: str, page: Any) -> None:
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(address)
    for name in SECTIONS:
        assert plain.locator(f"#{name}").inner_text().strip()
    assert plain.locator("button").count() == 0
    assert plain.locator("img").count() == page.locator("img").count()
    paths = plain.locator('figure[data-chart="roc"] svg >> nth=0 >> path')
    assert paths.count() == page.locator('figure[data-chart="roc"] .legend li').count()
    hint = "Point at a line to read it, or use the arrow keys."
    words = [p.locator("#scores").inner_text().replace(hint, "").split() for p in (plain, page)]
    assert words[0] == words[1]
    plain.context.close()


def test_on_a_phone_nothing_is_wider_than_the_page(page: Any) -> None:
    page.set_viewport_size(PHONE)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths == [PHONE["width"]] * 2


def test_on_paper_no_table_is_cut_off(page: Any) -> None:
    page.set_viewport_size(PAPER)
    page.emulate_media(media="print")
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    ends = page.eval_on_selector_all(
        "table, figure", "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert len(ends) > 20 and max(ends) <= PAPER["width"] + 1


def test_it_prints(page: Any, tmp_path: Path) -> None:
    printed = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") > 4
