"""The page in a real browser: upload, trace, calipers, overlay, errors, token, phone, keyboard."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_ecgs import fake_ecg
from served_model import LABELS, narrow_resnet, running, write_model, write_record

from einthoven.models.registry import MODELS
from einthoven.records import LEADS
from einthoven.serving.app import create_app
from einthoven.serving.limits import ServingLimits
from einthoven.version import DISCLAIMER

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LIMITS = ServingLimits(n_readers=1, max_bytes=2**20)
# A browser writes every answer that is an error to its console; and these tests read the canvas.
REFUSED = re.compile(r"the server responded with a status of 4\d\d|willReadFrequently")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", narrow_resnet)
        yield write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def address(model_path: Path) -> Iterator[str]:
    with running(create_app(model_path, limits=LIMITS, device="cpu")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_record(tmp_path_factory.mktemp("record"), "ecg_100", 500, 10)


def opened(browser: Any, address: str, size: dict[str, int], **options: Any) -> Iterator[Any]:
    """The page; a message on the console or a request to anywhere else fails the test."""
    page = browser.new_page(viewport=size, **options)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(15_000)
    page.goto(address)
    yield page
    page.close()
    assert [text for text in said if not REFUSED.search(text)] == []
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address, DESKTOP)


def choose(page: Any, files: list[Path]) -> None:
    """Choose files, and wait for the answer or the error."""
    page.locator("#model-line:not(:empty)").wait_for()
    page.set_input_files("#file", files)
    page.locator("#result:not([hidden]), #error:not(:empty)").first.wait_for()


def picture(page: Any) -> str:
    return str(page.evaluate("document.getElementById('paper').toDataURL()"))


# A recording -------------------------------------------------------------------------------------


def test_a_record_gets_its_trace_its_probabilities_and_what_they_are_worth(
    page: Any, record: list[Path]
) -> None:
    choose(page, record)
    assert page.locator("#result-title").inner_text() == "ecg_100.hea"
    assert page.locator("#facts").inner_text() == "WFDB (PhysioNet) · 500 Hz · 10 s · 12 leads"
    rows = page.locator("#bars tbody tr")
    assert {row.locator("b").first.inner_text() for row in rows.all()} == set(LABELS)
    for row in rows.all():
        words = row.inner_text()
        is_decided = row.get_attribute("class") == "yes"
        probability, threshold = (
            float(found[1])
            for found in (re.search(r"(0\.\d{3}) (?:not )?decided", words),
                          re.search(r"threshold (0\.\d+)", words))
        )  # fmt: skip
        assert is_decided == ("not decided" not in words) == (probability >= threshold)
        assert ("test AUROC 0.900 (0.850–0.930)" in words) == ("HYP" not in words)
    assert "macro AUROC 0.900 (0.850–0.930)" in page.locator("#model-line").inner_text()
    assert "Resampled from 500 to 100 Hz" in page.locator("#steps").inner_text()
    assert page.locator("#conformal").is_visible()


def test_a_file_of_a_vendor_is_read(page: Any, shared_data: Path) -> None:
    choose(page, [shared_data / "formats" / "scp" / "Example.scp"])
    assert page.locator("#facts").inner_text() == "SCP-ECG · 500 Hz · 10 s · 12 leads"
    assert page.locator("#bars tbody tr").count() == len(LABELS)


def test_the_trace_is_drawn_where_the_samples_say(page: Any, tmp_path: Path) -> None:
    """A lead that is 1 mV from 4 to 6 s is drawn ten millimetres higher there."""
    signal = np.zeros((12, 5000), np.float32)
    signal[1, 2000:3000] = 1.0
    signal[0] = fake_ecg(0, 500, 10)[0]
    np.savez(tmp_path / "step.npz", signal=signal, fs=500, leads=list(LEADS))
    choose(page, [tmp_path / "step.npz"])
    # The rhythm strip: row 3 of 30 mm from 5 mm on, its baseline on the five-millimetre grid.
    baseline = 5 + 5 * round(3.55 * 30 / 5)
    assert ink(page, 10 + 25 * 2, baseline) and not ink(page, 10 + 25 * 2, baseline - 10)
    assert ink(page, 10 + 25 * 5, baseline - 10) and not ink(page, 10 + 25 * 5, baseline)


def ink(page: Any, x_mm: float, y_mm: float) -> bool:
    """Whether something dark is drawn within half a millimetre of a point of the paper."""
    return bool(
        page.evaluate(
            """([x, y]) => {
              const { scale, size } = paper;
              const k = scale * size.ratio;
              const ctx = paper.canvas.getContext("2d");
              const part = ctx.getImageData(x * k - k / 2, y * k - k / 2, k, k).data;
              for (let i = 0; i < part.length; i += 4) if (part[i] < 150) return true;
              return false;
            }""",
            [x_mm, y_mm],
        )
    )


def test_layout_speed_and_gain_change_the_paper(page: Any, record: list[Path]) -> None:
    choose(page, record)
    seen = [picture(page)]
    for name, value in (("layout", "12x1"), ("speed", "50"), ("gain", "20")):
        page.select_option(f"#{name}", value)
        seen.append(picture(page))
    page.click("#zoom-in")
    seen.append(picture(page))
    assert len(set(seen)) == len(seen)
    page.click("#zoom-fit")
    assert picture(page) == seen[3]


def test_a_long_recording_is_turned_over_page_by_page(page: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "long.npz", signal=fake_ecg(1, 200, 25), fs=200, leads=list(LEADS))
    choose(page, [tmp_path / "long.npz"])
    first = picture(page)
    assert page.locator("#page-text").inner_text() == "0–10 s of 25 s"
    page.click("#page-on")
    page.click("#page-on")
    assert page.locator("#page-text").inner_text() == "20–25 s of 25 s"
    assert page.locator("#page-on").is_disabled() and picture(page) != first


def test_one_lead_runs_on_from_row_to_row(page: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", signal=fake_ecg(1, 200, 25)[1:2], fs=200, leads=["II"])
    choose(page, [tmp_path / "one.npz"])
    assert page.locator("#layout option").all_inner_texts() == ["one lead, row after row"]
    assert page.locator("#pages").is_hidden()
    assert "Absent, zero for the model" in page.locator("#warnings").inner_text()


# Calipers ----------------------------------------------------------------------------------------


def on_paper(page: Any, x_mm: float, y_mm: float) -> tuple[float, float]:
    """Where a point of the paper is on the screen."""
    at = page.evaluate(
        """([x, y]) => {
          const { left, top } = paper.canvas.getBoundingClientRect();
          const { scale } = paper;
          return [left + 1 + (x - paper.x) * scale, top + 1 + (y - paper.y) * scale];
        }""",
        [x_mm, y_mm],
    )
    return at[0], at[1]


# The calibration pulse of the first row, 0.2 s and 1 mV: its lower left and upper right corners.
PULSE = ((2.0, 5 + 5 * round(0.55 * 30 / 5)), (7.0, 5 + 5 * round(0.55 * 30 / 5) - 10))


@pytest.mark.parametrize("zoom", [0, 3])
def test_calipers_measure_the_calibration_pulse(page: Any, record: list[Path], zoom: int) -> None:
    choose(page, record)
    for _ in range(zoom):
        page.click("#zoom-in")
    page.evaluate("paper.moveBy(-500, -500)")
    page.click("#tool-calipers")
    page.locator("#paper").scroll_into_view_if_needed()
    page.mouse.move(*on_paper(page, *PULSE[0]))
    page.mouse.down()
    page.mouse.move(*on_paper(page, *PULSE[1]), steps=3)
    page.mouse.up()
    ms, mv, rate = map(float, re.findall(r"[\d.]+", page.locator("#reading").inner_text())[:3])
    assert (ms, mv) == pytest.approx((200, 1), rel=0.02) and rate == pytest.approx(300, rel=0.02)
    before = picture(page)
    page.check("#march")
    assert picture(page) != before
    page.click("#caliper-clear")
    assert page.locator("#caliper-tools").is_hidden()


def test_the_keyboard_alone_measures(page: Any, record: list[Path]) -> None:
    choose(page, record)
    page.focus("#paper")
    page.keyboard.press("c")
    page.focus("#paper")
    page.keyboard.press("ArrowRight")
    reading = page.locator("#reading")
    assert reading.inner_text().startswith("200 ms · 0.50 mV · 300 per minute · from lead")
    for key in ("ArrowRight", "Shift+ArrowRight", "ArrowUp", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert reading.inner_text().startswith("245 ms · 0.63 mV")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    assert reading.inner_text().startswith("205 ms · 0.63 mV")
    page.keyboard.press("Escape")
    assert page.locator("#caliper-tools").is_hidden()


def test_a_finger_measures_and_two_fingers_zoom(
    browser: Any, address: str, record: list[Path]
) -> None:
    for page in opened(browser, address, PHONE, has_touch=True, device_scale_factor=2):
        choose(page, record)
        page.tap("#tool-calipers")
        page.locator("#paper").scroll_into_view_if_needed()
        ends = [on_paper(page, *end) for end in PULSE]
        touch(page, [("touchStart", [ends[0]]), ("touchMove", [ends[1]]), ("touchEnd", [])])
        said = re.findall(r"[\d.]+", page.locator("#reading").inner_text())[:2]
        assert list(map(float, said)) == pytest.approx([200, 1], rel=0.03)
        page.tap("#tool-pan")
        page.locator("#paper").scroll_into_view_if_needed()
        scale = page.evaluate("paper.scale")
        x, y = on_paper(page, 50, 50)
        apart, farther = [(x, y), (x + 50, y)], [(x - 25, y), (x + 75, y)]
        touch(page, [("touchStart", apart), ("touchMove", farther), ("touchEnd", [])])
        assert page.evaluate("paper.scale") == pytest.approx(2 * scale, rel=0.1)


def touch(page: Any, events: list[tuple[str, list[tuple[float, float]]]]) -> None:
    session = page.context.new_cdp_session(page)
    for kind, points in events:
        named = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": named})


# Explanation -------------------------------------------------------------------------------------


def test_an_explanation_lies_over_the_trace_and_can_be_taken_off(
    page: Any, record: list[Path]
) -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    choose(page, record)
    plain = picture(page)
    page.select_option("#explain-label", "HYP")
    page.select_option("#explain-method", "occlusion")
    page.click("#explain")
    page.locator("#explanation:not([hidden])").wait_for()
    covered = picture(page)
    assert covered != plain
    page.uncheck("#overlay")
    assert picture(page) == plain
    page.check("#overlay")
    assert picture(page) == covered
    said = page.locator("#explanation").inner_text()
    assert "What speaks for HYP" in said and "occlusion" in said and "Leads: " in said
    assert page.locator("#explain-leads tbody tr").count() == 12
    with page.expect_download() as download:
        page.click("#save-json")
    kept = json.loads(Path(download.value.path()).read_text())
    assert kept["explanation"]["label"] == "HYP"
    page.click("#hints summary")
    page.click("#again")
    page.locator("#explanation").wait_for(state="hidden")


# Keeping -----------------------------------------------------------------------------------------


def test_the_answer_is_kept_as_json_and_as_a_picture(page: Any, record: list[Path]) -> None:
    choose(page, record)
    with page.expect_download() as download:
        page.click("#save-json")
    assert download.value.suggested_filename == "ecg_100.json"
    kept = json.loads(Path(download.value.path()).read_text())
    assert kept["disclaimer"] == DISCLAIMER and set(kept["probabilities"]) == set(LABELS)
    assert kept["file"] == "ecg_100.hea" and "signal" not in kept
    with page.expect_download() as download:
        page.click("#save-png")
    written = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "ecg_100.png" and written[:4] == b"\x89PNG"
    assert len(written) > 50_000


# What goes wrong ---------------------------------------------------------------------------------


def test_a_bad_file_shows_its_error_and_no_old_trace(
    page: Any, record: list[Path], tmp_path: Path
) -> None:
    choose(page, record)
    bad = tmp_path / "letter.dcm"
    bad.write_bytes(b"DICM but not really")
    page.set_input_files("#file", [bad])
    page.locator("#error:not(:empty)").wait_for()
    assert page.locator("#result").is_hidden()
    assert "/" not in page.locator("#error").inner_text().replace("known are", "").split(";")[0]
    page.set_input_files("#file", record)
    page.locator("#result:not([hidden])").wait_for()
    assert page.locator("#error").inner_text() == ""


def test_a_header_alone_asks_for_its_signal_file(page: Any, record: list[Path]) -> None:
    choose(page, record[:1])
    assert "choose both files together" in page.locator("#error").inner_text()


def test_what_a_file_does_not_state_is_asked_for(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "ecg.csv"
    np.savetxt(path, fake_ecg(2, 200, 4).T, "%.3f", ",", header=",".join(LEADS), comments="")
    choose(page, [path])
    assert "fs" in page.locator("#error").inner_text()
    assert page.locator("#fs").is_visible()
    assert page.evaluate("document.activeElement.id") == "fs"
    page.keyboard.type("200")
    page.keyboard.press("Enter")
    page.locator("#result:not([hidden])").wait_for()
    assert "200 Hz · 4 s" in page.locator("#facts").inner_text()


def test_a_file_that_is_too_large_is_not_even_sent(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(bytes(2 * 2**20))
    choose(page, [path])
    assert "at most 1 MiB" in page.locator("#error").inner_text()


def test_a_file_can_be_dropped_anywhere(page: Any, record: list[Path]) -> None:
    page.locator("#model-line:not(:empty)").wait_for()
    files = [[path.name, list(path.read_bytes())] for path in record]
    page.evaluate(
        """(files) => {
          const dataTransfer = new DataTransfer();
          for (const [name, bytes] of files) {
            dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
          }
          const how = { dataTransfer, bubbles: true, cancelable: true };
          document.body.dispatchEvent(new DragEvent("drop", how));
        }""",
        files,
    )
    page.locator("#result:not([hidden])").wait_for()
    assert page.locator("#result-title").inner_text() == "ecg_100.hea"


def test_the_token_is_asked_for_and_used(
    browser: Any, model_path: Path, record: list[Path]
) -> None:
    app = create_app(model_path, token="secret", limits=LIMITS, device="cpu")
    with running(app) as address:
        for page in opened(browser, address, DESKTOP):
            page.locator("#token-form:not([hidden])").wait_for()
            assert page.locator("#intake").is_hidden()
            page.keyboard.type("wrong")
            page.keyboard.press("Enter")
            page.locator("#token-error:not(:empty)").wait_for()
            page.fill("#token", "secret")
            page.keyboard.press("Enter")
            page.locator("#model-line:not(:empty)").wait_for()
            choose(page, record)
            assert page.locator("#result").is_visible()
            assert page.locator("#token-form").is_hidden()


# Everybody ---------------------------------------------------------------------------------------


def test_on_a_phone_nothing_is_wider_than_the_page(
    browser: Any, address: str, record: list[Path]
) -> None:
    for page in opened(browser, address, PHONE, has_touch=True, is_mobile=True):
        for is_answered in (False, True):
            if is_answered:
                choose(page, record)
            page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
            widths = page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert widths == [PHONE["width"]] * 2
        small = page.eval_on_selector_all(
            "button, select, input[type=file]",
            "all => all.map(one => one.offsetHeight).filter(height => height && height < 24)",
        )
        assert small == []


def test_the_disclaimer_is_always_in_sight(page: Any, record: list[Path]) -> None:
    choose(page, record)
    for position in (0, 100_000):
        page.evaluate(f"window.scrollTo(0, {position})")
        assert page.locator("header .device").inner_text() == DISCLAIMER
        box = page.locator("header .device").bounding_box()
        assert 0 <= box["y"] < 100


def test_everything_can_be_reached_with_the_tab_key_and_has_a_name(
    page: Any, record: list[Path]
) -> None:
    choose(page, record)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    wanted = page.eval_on_selector_all(
        "button, select, input, canvas, a, summary",
        "all => all.filter(one => one.offsetParent && !one.disabled).length",
    )
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen: list[str] = []
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        place = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
        seen.append(page.evaluate(f"document.activeElement.tagName + {place}"))
    tags = ("BUTTON", "SELECT", "INPUT", "CANVAS", "A", "SUMMARY")
    assert len({each for each in seen if re.sub(r"\d+", "", each) in tags}) == wanted
    nameless = page.eval_on_selector_all(
        "button, select, input, canvas",
        """all => all.filter(one => !(one.textContent.trim() || one.getAttribute("aria-label")
          || one.labels && one.labels.length)).map(one => one.id)""",
    )
    assert nameless == []


def test_a_screen_reader_is_led_to_the_answer(page: Any, record: list[Path]) -> None:
    choose(page, record)
    assert page.evaluate("document.activeElement.id") == "result-title"
    told = page.locator("main").aria_snapshot()
    assert 'heading "ecg_100.hea"' in told and 'application "ECG on paper"' in told
    assert re.search(r"rowheader \"NORM normal ECG", told) and "decided" in told
