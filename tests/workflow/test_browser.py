"""The pages in a real browser: Chromium without a screen, driven by Selenium."""

import shutil
from itertools import pairwise

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

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
        "return [...document.querySelectorAll('input, select, [tabindex], section, nav')]"
        ".filter((one) => !one.labels?.length && !one.ariaLabel && !one.querySelector('h2')"
        " && one.tagName !== 'PRE').map((one) => one.outerHTML.slice(0, 80))"
    )
    assert unnamed == []
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
