"""The page in a real browser: it needs nobody, runs nothing that is not its own, and reads everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chromium import Browser
from page_run import HOSTILE

pytestmark = pytest.mark.browser


def test_it_opens_from_a_file_without_a_network_an_error_or_a_request(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.messages() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("return document.querySelectorAll('[data-chart] svg').length") > 0


def test_the_state_of_a_cell_is_seen_without_scrolling(browser: Browser, page: Path) -> None:
    browser.open(page, width=1000)
    wide = "const box = document.querySelector('#cells .scroll'); return [box.scrollWidth, box.clientWidth]"
    scrolled, seen = browser.run(wide)
    assert scrolled <= seen


def test_what_an_attacker_wrote_is_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return document.querySelectorAll('img').length") == 0
    seen = browser.run("return document.body.innerText")
    assert "</script><img src=x onerror=\"document.title='owned'\"><!--{{7*7}}" in seen
    assert "owned" not in browser.driver.title.split("made_up")[0]
    assert browser.driver.title.startswith("made_up </script>")
    assert "\u202e" in HOSTILE
    assert "\u202e" not in browser.run("return document.documentElement.outerHTML")


def test_what_an_attacker_wrote_is_text_in_charts_and_their_tooltips(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    evil = "</script><img src=x onerror=\"document.title='owned'\">{a|b}{c}"
    escaped = json.dumps(evil).replace("<", "\\u003c")
    renamed = tmp_path / "renamed.html"
    renamed.write_text(page.read_text().replace('"name":"dense"', f'"name":{escaped}'))
    browser.open(renamed)
    drawn = "return [...document.querySelectorAll('[data-chart=pareto] text')].map((one) => one.textContent)"
    assert evil in browser.run(drawn), "the legend"
    browser.run(
        "echarts.getInstanceByDom(document.querySelector('[data-chart=pareto]'))"
        ".dispatchAction({ type: 'showTip', seriesIndex: 0, dataIndex: 1 })"
    )
    browser.driver.execute_async_script("const done = arguments[0]; setTimeout(() => requestAnimationFrame(done), 50)")
    shown = [text.replace("\u200b", "") for text in browser.run(drawn)]
    assert shown.count(evil) == 2, "the legend, and the tooltip"
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.driver.title != "owned"
    assert browser.messages() == []


def test_a_script_that_is_not_its_own_does_not_run(browser: Browser, page: Path, tmp_path: Path) -> None:
    """The policy is what stops it: the same line without the policy runs."""
    evil = "<script>document.title = 'owned'</script></body>"
    text = page.read_text()
    guarded, open_door = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(text.replace("</body>", evil))
    open_door.write_text(text.replace("</body>", evil).replace("Content-Security-Policy", "x"))
    browser.open(guarded)
    assert browser.driver.title != "owned"
    assert any("Content Security Policy" in message for message in browser.messages())
    browser.open(open_door)
    assert browser.driver.title == "owned"


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_the_page_does_not_scroll_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return document.getElementById('cells').getBoundingClientRect().width") > 0.8 * width - 400


def test_in_the_dark_the_page_and_its_charts_are_dark_and_readable(browser: Browser, page: Path) -> None:
    contrast = """
      const light = (text) => {
        const part = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
      };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      const inks = [...document.querySelectorAll('p, li, td, th, summary, .soft, dt, .state')];
      const against = inks.map((one) => light(getComputedStyle(one).color));
      return [paper, Math.min(...against.map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)))];
    """
    papers = {}
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        papers[scheme], least = browser.run(contrast)
        assert least >= 4.5, "WCAG 2, level AA"
    assert papers["light"] > 0.9 > 0.1 > papers["dark"]
    assert browser.chart("ratio")["legend"][0]["textStyle"]["color"] == "#e6e9ec"


def test_it_prints_in_light_colours_on_paper_without_what_paper_cannot_do(browser: Browser, page: Path) -> None:
    browser.open(page, scheme="dark")
    browser.run("""
      const drawn = () => [...document.querySelectorAll('[data-chart] svg')];
      const widths = () => drawn().map((one) => Number(one.getAttribute('width')));
      const ratio = () => echarts.getInstanceByDom(document.querySelector('[data-chart=ratio]')).getOption();
      window.addEventListener('beforeprint', () => {
        window.printed = { widest: Math.max(...widths()), ink: ratio().legend[0].textStyle.color };
      });
    """)
    pdf = browser.command("Page.printToPDF", printBackground=True)["data"]
    assert len(pdf) > 50_000
    assert browser.run("return window.printed") == {"widest": 680, "ink": "#1c2024"}
    browser.command("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return document.getElementById('which').offsetParent") is None
    browser.command("Emulation.setEmulatedMedia", media="")


def test_without_javascript_every_value_is_there_to_read(browser: Browser, page: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page, scripts=False)

        def found(selector: str) -> int:
            root = browser.command("DOM.getDocument", depth=1)["root"]["nodeId"]  # the driver's own look makes ids anew
            return len(browser.command("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])

        assert found("figure") == found("figure table caption") == 3 + 3 * 7
        assert found("[data-chart] *") == 0
        assert found("section.inside[hidden]") == 0
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_a_cell_is_chosen_with_the_keyboard(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    assert browser.chart("cell-2-ttft") is None
    browser.run("document.getElementById('which').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    shown = browser.run(
        "return [...document.querySelectorAll('section.inside')].filter((one) => !one.hidden).map((one) => one.id)"
    )
    assert shown == ["cell-2"]
    assert browser.chart("cell-2-ttft")["series"]


def test_a_screen_reader_is_told_what_everything_is(browser: Browser, page: Path) -> None:
    browser.open(page)
    nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
    named = {role: [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == role] for role in
             ("image", "combobox", "table", "main", "heading")}  # fmt: skip
    assert len(named["image"]) == browser.run("return document.querySelectorAll('[data-chart] > *:first-child').length")
    assert all("its values are in the table below" in name for name in named["image"])
    assert named["combobox"] == ["Cell:"]
    assert all(named["table"])
    assert len(named["main"]) == 1
    assert "Verdict" in named["heading"]
    assert browser.run("return document.querySelectorAll('th:not([scope])').length") == 0
