"""The report in a real browser: it is drawn, asks for nothing, and fits the reader's screen."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.findings import invalid, warning
from pytest_syslat.report.files import write_reports

from .report_runs import StoredRun

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
# The last three keep it from asking for what nobody asked it for.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
STRICT = "sandbox; default-src 'none'; img-src 'self'; style-src 'self';"
"""As Jenkins serves artifacts."""

# One browser serves all of these tests.
pytestmark = pytest.mark.xdist_group("browser")

LOOK = """
const shown = element => {
  const box = element.getBoundingClientRect();
  return box.width + box.height > 0;  // A straight line has one of them.
};
return [...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg');
  const box = svg.getBoundingClientRect();
  const drawn = [...svg.querySelectorAll('path, use')].filter(shown);
  const words = [...svg.querySelectorAll('text')];
  return {
    title: figure.querySelector('h3').textContent,
    width: box.width, height: box.height, drawn: drawn.length,
    lines: drawn.filter(each => each.tagName === 'path'
      && getComputedStyle(each).stroke !== 'none').length,
    smallest: Math.min(...words.map(each =>
      parseFloat(getComputedStyle(each).fontSize) * box.width / svg.viewBox.baseVal.width)),
    outside: words.filter(each => {
      const its = each.getBoundingClientRect();
      return its.left < box.left - 4 || its.right > box.right + 4;
    }).map(each => each.textContent),
  };
});
"""


@pytest.fixture(scope="module", autouse=True)
def real_browser() -> None:
    """Without a browser nothing here can run: a failure in CI, a skip elsewhere."""
    if CHROMIUM and DRIVER:
        return
    problem = "no Chromium here (apt-get install chromium chromium-driver)"
    if os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of plot, a refused trial and a long name."""
    run = StoredRun(
        agents=("auditd", "daemonset:a-namespace/an-agent-with-a-long-name"),
        blocks=4,
        both=True,
        attribute=True,
        budgets=("*:p50<=+20%", "*:user<=+1us"),
        findings={
            "connect-auditd-trial1": [warning("other-load", "others used 9% of it")],
            "connect-auditd-trial2": [invalid("throttled", "a quota held it up")],
        },
        costs={"openat-auditd-trial1": AgentCost(100.0, 1.0, 4.0, 3_000_000, 2, ("a",), dropped=5)},
    )
    return write_reports(run.write(tmp_path_factory.mktemp("run")))[0]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def screen(chrome: Chrome, width: int, scheme: str = "light") -> None:
    chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    chrome.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "", "features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )


def requested(chrome: Chrome) -> list[str]:
    """Addresses that were asked for since this was last called."""
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]  # type: ignore[no-untyped-call]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def colour(chrome: Chrome, selector: str, name: str) -> tuple[float, ...]:
    value: str = chrome.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector,
        name,
    )
    return tuple(float(part) for part in value.partition("(")[2].rstrip(")").split(",")[:3])


def luminance(rgb: tuple[float, ...]) -> float:
    """Relative luminance after WCAG 2."""
    linear = [
        part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in rgb
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_it_asks_for_nothing_and_complains_of_nothing(chrome: Chrome, page: Path) -> None:
    screen(chrome, 1400)
    requested(chrome)
    chrome.get_log("browser")  # type: ignore[no-untyped-call]
    chrome.get(page.as_uri())
    assert chrome.title.startswith("2 of 8 judged figures are invalid")
    # The empty icon is named in the page itself, so that none is looked for.
    assert [url for url in requested(chrome) if not url.startswith("data:")] == [page.as_uri()]
    assert chrome.get_log("browser") == []  # type: ignore[no-untyped-call]
    assert chrome.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_plots_are_there_and_nothing_overflows(chrome: Chrome, page: Path, width: int) -> None:
    screen(chrome, width)
    chrome.get(page.as_uri())
    plots: list[dict[str, Any]] = chrome.execute_script(LOOK)
    assert len(plots) == 2 * 7
    for plot in plots:
        assert plot["width"] >= 280, plot
        assert plot["height"] >= 60, plot
        assert plot["lines"] >= 3, plot
        assert plot["drawn"] >= 5, plot
        # On a phone, too, its words can be read, and none is cut off.
        assert plot["smallest"] >= 8.5, plot
        assert plot["outside"] == [], plot
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    # Wide tables scroll in their own frame, also by keyboard.
    chrome.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    unreachable = chrome.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.tabIndex !== 0).length"
    )
    assert unreachable == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(chrome: Chrome, page: Path, scheme: str) -> None:
    screen(chrome, 768, scheme)
    chrome.get(page.as_uri())
    paper = colour(chrome, "figure", "backgroundColor")
    assert (luminance(paper) < 0.1) == (scheme == "dark")
    for selector, name in (
        ("figure text.f-ink", "fill"),
        ("figure text.f-muted", "fill"),
        ("figcaption", "color"),
        (".badge.inconclusive", "color"),
        ("summary", "color"),
    ):
        assert contrast(colour(chrome, selector, name), paper) >= 4.5, selector
    for number in range(3):
        assert contrast(colour(chrome, f"path.s-arm{number}", "stroke"), paper) >= 3
    assert (
        contrast(colour(chrome, "p.run", "color"), colour(chrome, "body", "backgroundColor")) > 4.5
    )


def test_print_is_light_and_has_all_plots(chrome: Chrome, page: Path) -> None:
    screen(chrome, 768, "dark")
    chrome.get(page.as_uri())
    chrome.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert luminance(colour(chrome, "figure", "backgroundColor")) > 0.9
    assert luminance(colour(chrome, "figure text.f-ink", "fill")) < 0.1
    assert chrome.execute_script(
        "return getComputedStyle(document.querySelector('nav')).display"
    ) == ("none")
    assert all(plot["height"] > 60 for plot in chrome.execute_script(LOOK))
    printed = chrome.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_the_keyboard_reaches_the_verdicts_first(chrome: Chrome, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    screen(chrome, 768)
    chrome.get(page.as_uri())
    chrome.switch_to.active_element.send_keys(Keys.TAB)
    focused = chrome.switch_to.active_element
    assert focused.text == "Skip to the verdicts"
    assert focused.rect["x"] >= 0
    details = chrome.find_element("css selector", "figure details summary")
    details.send_keys(Keys.ENTER)
    assert chrome.find_element("css selector", "figure details").get_attribute("open")


class _Strict(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", STRICT)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = functools.partial(_Strict, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_under_a_policy_that_forbids_styles_the_plots_stay(chrome: Chrome, page: Path) -> None:
    screen(chrome, 1400)
    with served(page.parent) as address:
        chrome.get(f"{address}/report.html")
        plots: list[dict[str, Any]] = chrome.execute_script(LOOK)
        assert colour(chrome, "path.s-arm1", "stroke") == (0, 104, 168)
        assert not chrome.execute_script(
            "return getComputedStyle(document.body).getPropertyValue('--ink')"
        ), "the page's own style sheet was not kept off"
    assert len(plots) == 2 * 7
    for plot in plots:
        assert plot["width"] == 330, plot
        assert plot["lines"] >= 3, plot
        assert plot["smallest"] >= 9, plot
