"""The page of `sniper report` in a real browser: headless Chromium of the distribution."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager

import pytest

from sniper.tools.report import main
from tests.tools.report_case import HOSTILE_CLASS, HOSTILE_FILE, write_case, write_log

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the driver of the browser is missing: pip install playwright"
)

# A browser of a distribution looks up hosts of its maker at its start, which is nobody's business.
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync",
          "--no-first-run", "--disable-gpu", "--disable-quic")  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    # Root may not use the sandbox; the page is our own.
    flags = [*_QUIET, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    overrides = write_case(root)
    write_log(root)
    path = root / "report.html"
    arguments = ["--cfg", "sniper_mobilenetv2_toy", "--out", str(path), "--score", "0.4"]
    assert main([*arguments, *overrides]) == 0
    return path.as_uri()


@contextmanager
def opened(browser, address, width=1280, scheme="light"):
    """The page in a window; afterwards nothing may have been asked for or complained about."""
    said, asked = [], []
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    context.close()


def count(page):
    """The words of the live region, once they are new."""
    page.wait_for_timeout(120)
    assert page.get_attribute("#tile-count", "aria-live") == "polite"
    return page.inner_text("#tile-count")


def test_filters_change_the_tiles(browser, address):
    with opened(browser, address) as page:
        shown = page.locator("#tiles > li")
        # In each image one of wrong class and two missed; six alarms, four boxes that are off.
        assert count(page) == "12 of 12 images, 46 errors that fit."
        page.select_option("#filter-cause", label="nothing there")
        assert count(page) == "6 of 12 images, 6 errors that fit." and shown.count() == 6
        page.get_by_label("Least score").fill("0.46")
        assert count(page) == "0 of 12 images, 0 errors that fit." and shown.count() == 0
        page.get_by_role("button", name="Reset").click()
        assert count(page) == "12 of 12 images, 46 errors that fit."
        page.select_option("#filter-class", label="dog")
        page.select_option("#filter-cause", label="wrong class")
        # 34 px large: medium, and of the finest and the middle level.
        assert count(page) == "12 of 12 images, 12 errors that fit."
        for place, fitting in ((1, 0), (2, 12), (3, 0)):
            page.select_option("#filter-size", index=place)
            assert count(page).startswith(f"{fitting} of 12")
        page.select_option("#filter-size", index=0)
        for place, fitting in ((1, 12), (2, 12), (3, 0)):
            page.select_option("#filter-level", index=place)
            assert count(page).startswith(f"{fitting} of 12")
        page.get_by_role("button", name="Reset").click()
        page.select_option("#filter-order", label="name")
        count(page)
        names = page.locator("#tiles b").all_text_contents()
        numbers = [int(name.removesuffix(".jpg").split()[-1]) for name in names]
        assert numbers == sorted(numbers, key=str)
        # Names are shown as they are.
        assert page.evaluate("window.hit") is None
        assert names[0].startswith(HOSTILE_FILE)
        assert HOSTILE_CLASS in page.locator("#filter-class option").all_text_contents()


def test_nothing_is_wider_than_the_window(browser, address):
    with opened(browser, address) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for width, scheme in ((1280, "light"), (390, "dark"), (390, "light")):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            # What scrolls by itself can be reached with the keyboard and has a name.
            areas = page.evaluate(
                "[...document.querySelectorAll('.wide')]"
                ".filter((one) => one.scrollWidth > one.clientWidth + 1)"
                ".map((one) => [one.tabIndex, one.getAttribute('aria-label') !== null])"
            )
            assert areas and all(area == [0, True] for area in areas)


def test_names_keyboard_dialog_and_sorting(browser, address):
    with opened(browser, address, 390) as page:
        everything = page.locator("body").aria_snapshot()
        roles = "button|combobox|slider|link|img|region|navigation|form|table|figure"
        assert len(re.findall(rf"- (?:{roles})(?= \")", everything)) > 60
        assert re.findall(rf"- (?:{roles})(?! \").*", everything) == []
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.focus("#filter-cause")
        walked = []
        for _ in range(7):
            walked.append(page.evaluate("document.activeElement.id"))
            page.keyboard.press("Tab")
        names = "cause class size level order score reset".split()
        assert walked == [f"filter-{name}" for name in names]
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        enlarge(page)
        sort(page)


def enlarge(page):
    """A picture is enlarged, the next one too, and the focus comes back to it."""
    page.locator("#tiles button").nth(1).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    first = page.inner_text("#dialog-title")
    assert first.startswith(HOSTILE_FILE)
    assert dialog.is_visible() and page.locator("#dialog-body tbody tr").count() >= 2
    assert page.locator("#dialog-body svg rect").count() >= 4
    page.keyboard.press("ArrowRight")
    second = page.inner_text("#dialog-title")
    assert second != first
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert second in page.evaluate("document.activeElement.textContent")


def sort(page):
    """A table is sorted by the buttons in its head."""
    table = page.get_by_role("table", name="By class, worst first")
    names = table.locator("tbody th")
    before = names.all_text_contents()
    head = table.get_by_role("button", name="AP50")
    head.click()
    assert table.locator("th[aria-sort=descending]").count() == 1
    assert names.all_text_contents() != before
    head.click()
    assert table.locator("th[aria-sort=ascending]").count() == 1


@pytest.mark.slow
def test_a_thousand_tiles_scroll(browser, tmp_path):
    overrides = write_case(tmp_path, images=1000)
    path = tmp_path / "report.html"
    arguments = ["--cfg", "sniper_mobilenetv2_toy", "--out", str(path), "--worst", "1000"]
    assert main([*arguments, "--score", "0.4", *overrides]) == 0
    with opened(browser, path.as_uri(), 390) as page:
        assert count(page).startswith("1000 of 1000 images")
        assert page.locator("#tiles > li").count() == 1000
        # Only what comes near the window is drawn.
        drawn = "document.querySelectorAll('#tiles svg rect').length"
        assert page.evaluate(drawn) < 100
        for index in (300, 600, 999):
            tile = page.locator("#tiles > li").nth(index)
            tile.scroll_into_view_if_needed()
            page.wait_for_timeout(200)
            assert tile.locator("svg rect").count() >= 2
            assert tile.locator("img").evaluate("one => one.complete && one.naturalWidth > 0")
        assert 0 < page.evaluate(drawn) < 2000
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.select_option("#filter-cause", label="nothing there")
        assert count(page).startswith("500 of 1000 images")
