"""The pages in a real browser: Chromium without a screen, driven by Selenium."""

import shutil
from itertools import pairwise

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from denoiseg_flow.reporting.page import ReportData, ReportTable, build_report
from denoiseg_flow.reporting.tables.files import to_html_fragment
from denoiseg_flow.reporting.tables.layout import Cell, Panel, Table

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)
PHONE = (360, 740)
PAGES = ("report.html", "checks/nuclei_n10.html")

# Text and its contrast with what lies behind it, as WCAG 2 defines it, for text that is shown.
CONTRASTS = """
const rgba = (text) => {
  const parts = text.match(/[\\d.]+/g).map(Number);
  return parts.length < 4 ? [...parts, 1] : parts;
};
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
const light = (colour) => {
  const [r, g, b] = colour.map((c) => c / 255).map(
    (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    layers.push(rgba(getComputedStyle(one).backgroundColor));
    if (layers.at(-1)[3] === 1) break;
  }
  const page = getComputedStyle(document.documentElement).colorScheme.includes("dark") &&
    matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
  return layers.reduceRight((below, top) => over(top, below), page);
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
  if (!text || !element.checkVisibility() || element.closest("script, style")) continue;
  const ground = behind(element);
  const ink = over(rgba(getComputedStyle(element).color), ground);
  const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
  found.push([(high + 0.05) / (low + 0.05), text]);
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",  # of which containers have none, and which root may not use
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, finished):
    """Open a page of the finished study, on a screen of that size."""

    def open_page(page="report.html", size=(1200, 900), scheme="light"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get((finished / "results" / page).as_uri())
        browser.execute_script(
            "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
        )
        return browser

    open_page.folder = finished / "results"
    return open_page


@pytest.mark.parametrize("page", PAGES)
def test_nothing_goes_wrong(show, page):
    browser = show(page)
    assert browser.title
    assert browser.get_log("browser") == []


def test_every_image_loads(show):
    images = show().execute_script(
        "return [...document.images].map((one) => [one.alt, one.complete, one.naturalWidth])"
    )
    assert len(images) > 10
    for alt, complete, width in images:
        assert complete and width > 1, alt
        assert len(alt) > 5
    assert show("checks/nuclei_n10.html").execute_script("return document.images.length") == 0


def shown_comparison(browser):
    (shown,) = [
        one for one in browser.find_elements(By.CLASS_NAME, "comparison") if one.is_displayed()
    ]
    return shown


def test_slider_moves(show):
    browser = show()
    comparison = shown_comparison(browser)
    slider = comparison.find_element(By.CSS_SELECTOR, "input[type=range]")
    (over,) = [one for one in comparison.find_elements(By.CLASS_NAME, "over") if one.is_displayed()]
    assert over.value_of_css_property("clip-path") == "inset(0px 0px 0px 50%)"
    slider.send_keys(Keys.ARROW_RIGHT * 5)
    assert over.value_of_css_property("clip-path") == "inset(0px 0px 0px 55%)"
    frame = comparison.find_element(By.CLASS_NAME, "frame")
    webdriver.ActionChains(browser).move_to_element_with_offset(
        frame, -frame.size["width"] // 4, 0
    ).click_and_hold().release().perform()
    assert abs(int(slider.get_attribute("value")) - 25) <= 1
    assert "25%" in over.value_of_css_property("clip-path")


def test_layers_and_images_are_chosen(show):
    browser = show()
    comparison = shown_comparison(browser)
    for radio in comparison.find_elements(By.CSS_SELECTOR, "input[type=radio]"):
        radio.click()
        (over,) = [
            one for one in comparison.find_elements(By.CLASS_NAME, "over") if one.is_displayed()
        ]
        assert over.get_attribute("data-layer") == radio.get_attribute("value")
    choices = browser.find_elements(By.CSS_SELECTOR, "#choose-image option")
    assert len(choices) in (3, 6)  # of the best labels and denoised images, maybe of one run
    for choice in choices:
        choice.click()
        assert shown_comparison(browser).get_attribute("id") == choice.get_attribute("value")


@pytest.mark.parametrize("page", PAGES)
def test_readable_on_a_phone(show, page):
    browser = show(page, PHONE)
    wide, window, sizes = browser.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth,"
        " [...document.querySelectorAll('p, li, td, th, dd')]"
        " .map((one) => parseFloat(getComputedStyle(one).fontSize))]"
    )
    assert wide <= window == PHONE[0], "the page itself must not scroll sideways"
    assert min(sizes) >= 12
    cut_off = browser.execute_script(
        "return [...document.querySelectorAll('p, li, h1, h2, h3, summary, select, legend')]"
        ".filter((one) => one.checkVisibility() && !one.closest('nav, .scroll, .skip'))"
        ".filter((one) => one.getBoundingClientRect().right > innerWidth + 1)"
        ".map((one) => one.textContent)"
    )
    assert cut_off == []


def column(table, place):
    return [
        row.find_elements(By.CSS_SELECTOR, "th, td")[place].text
        for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]


@pytest.mark.parametrize(
    "cells, ascending",
    [
        (["0.900 ± 0.002", "0.95", "0.100 ± 0.3"], ["0.100 ± 0.3", "0.900 ± 0.002", "0.95"]),
        (
            ["+0.3 [+0.1, +0.5]", "\u22120.2 [\u22120.9, +0.5]", "+0.03", "0"],
            ["\u22120.2 [\u22120.9, +0.5]", "0", "+0.03", "+0.3 [+0.1, +0.5]"],
        ),
        (["10", "9", "1,000", "", "inf", "\u2013"], ["9", "10", "1,000", "inf", "", "\u2013"]),
        (["30.1; 29.0 (paper)", "5.5"], ["5.5", "30.1; 29.0 (paper)"]),
        (["im10", "im9", "a"], ["a", "im9", "im10"]),
        (["2.13.0", "2.2.1", "3.11.7"], ["2.2.1", "2.13.0", "3.11.7"]),
    ],
)
def test_tables_sort_by_value(browser, tmp_path, cells, ascending):
    """Up, down and as they were; missing values are last either way."""
    rows = tuple(((f"row {place}",), (Cell(text),)) for place, text in enumerate(cells))
    panel = Panel("heading", ("name",), ("value",), rows)
    made = ReportTable.of(Table("title", "caption", pd.DataFrame(), (panel,)))
    assert made.html == to_html_fragment(Table("", "", pd.DataFrame(), (panel,)))
    page = tmp_path / "report.html"
    page.write_text(build_report(ReportData("t", {}, {}, tables=[made])), encoding="utf-8")
    browser.get(page.as_uri())
    table = browser.find_element(By.CSS_SELECTOR, "#tables table")
    _, header = table.find_elements(By.CSS_SELECTOR, "thead th")
    n_known = len([text for text in cells if text not in ("", "\u2013")])
    descending = [*ascending[:n_known][::-1], *ascending[n_known:]]
    for order, shown in (("ascending", ascending), ("descending", descending), ("none", cells)):
        header.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert header.get_attribute("aria-sort") == order
        assert column(table, 1) == shown
    assert column(table, 0) == [f"row {place}" for place in range(len(cells))]


def test_one_column_at_a_time_is_sorted_and_rows_stay_together(show):
    browser = show()
    table = browser.find_element(By.CSS_SELECTOR, "#tables table")
    rows = set(zip(column(table, 0), column(table, 1), strict=True))
    for button in table.find_elements(By.CSS_SELECTOR, "thead button"):
        button.click()
        assert len(table.find_elements(By.CSS_SELECTOR, "[aria-sort]")) == 1
        assert set(zip(column(table, 0), column(table, 1), strict=True)) == rows


def test_figures_enlarge(show):
    browser = show()
    for figure in browser.find_elements(By.TAG_NAME, "figure"):
        for picture in figure.find_elements(By.CSS_SELECTOR, ".picture img"):
            button = figure.find_element(By.CSS_SELECTOR, ".enlarge")
            width = picture.size["width"]
            button.send_keys(Keys.ENTER)
            dialog = browser.find_element(By.CSS_SELECTOR, "dialog[open]")
            large = dialog.find_element(By.TAG_NAME, "img")
            assert large.get_attribute("alt") == picture.get_attribute("alt")
            assert large.size["width"] > width
            browser.switch_to.active_element.send_keys(Keys.ESCAPE)
            assert not dialog.is_displayed()
            assert browser.switch_to.active_element == button
    picture.click()
    assert dialog.is_displayed()
    large.click()
    assert not dialog.is_displayed()


def test_scores_show_the_image_that_is_chosen(show):
    browser = show(size=PHONE)
    plot = browser.find_element(By.CLASS_NAME, "scores")
    points = plot.find_elements(By.CSS_SELECTOR, ".point[data-picture]")
    slider = plot.find_element(By.CSS_SELECTOR, "input[type=range]")

    def shown():
        (picture,) = [
            one for one in plot.find_elements(By.TAG_NAME, "figure") if one.is_displayed()
        ]
        (picked,) = plot.find_elements(By.CLASS_NAME, "picked")
        assert slider.get_attribute("aria-valuetext") == picture.text
        return points.index(picked), picture.text

    assert shown()[0] == 0
    slider.send_keys(Keys.ARROW_RIGHT)
    assert shown()[0] == 1
    webdriver.ActionChains(browser).move_to_element(points[-1]).perform()
    place, text = shown()
    assert place == len(points) - 1 == int(slider.get_attribute("value"))
    scores = pd.read_csv(show.folder / "tables/metrics.csv")
    name, value = text.split(": AP ")
    assert (scores[scores["image"] == name]["value"].round(3) == float(value)).any()


def test_without_a_script_everything_is_there(show):
    browser = show()
    pictures = len(browser.find_elements(By.CSS_SELECTOR, ".thumbnails img"))
    assert pictures > 1
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(browser.current_url)
        shown = [one for one in browser.find_elements(By.TAG_NAME, "img") if one.is_displayed()]
        closed = browser.find_elements(By.CSS_SELECTOR, "details img, .over[hidden]")
        assert len(shown) == len(browser.find_elements(By.TAG_NAME, "img")) - len(closed)
        assert not browser.find_elements(By.CSS_SELECTOR, "th button, .enlarge, dialog")
        assert len(browser.find_elements(By.CSS_SELECTOR, ".comparison")) in (3, 6)
        for label in browser.find_elements(By.CSS_SELECTOR, ".scores .range"):
            assert not label.is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_text_stands_out(show, page, scheme):
    contrasts = show(page, scheme=scheme).execute_script(CONTRASTS)
    assert len(contrasts) > 50
    ratio, text = min(contrasts)
    assert ratio >= 4.5, text


def test_by_keyboard_and_with_a_screen_reader(show):
    browser = show()
    browser.switch_to.active_element.send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert first.text == "Skip to the summary" and first.rect["x"] >= 0
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('input, select, button, [tabindex], section, nav')]"
        ".filter((one) => !one.labels?.length && !one.ariaLabel && !one.querySelector('h2')"
        " && !(one.tagName === 'BUTTON' && one.textContent.trim())"
        " && one.tagName !== 'PRE').map((one) => one.outerHTML.slice(0, 80))"
    )
    assert unnamed == []
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
