"""The page as Debian's headless Chromium shows it, opened from a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from parbench.report.page import write_report
from parbench.results.store import read_run
from tests.report.test_page import CROWDED, HOSTILE, STORED, made_up
from tests.support.browser import Browser, find_chromium

WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    try:
        find_chromium()
    except LookupError as missing:
        pytest.skip(str(missing))
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report([read_run(STORED)], tmp_path_factory.mktemp("report"), ("html",)).as_uri()


@pytest.fixture
def opened(browser: Browser, page: str) -> Browser:
    browser.screen(WIDTHS["desk"])
    browser.open(page)
    return browser


def visible_fields(browser: Browser, column: str) -> list[str]:
    """The sort keys of a column in the visible rows, from top to bottom."""
    return browser.evaluate(
        f"""(() => {{
          const headers = [...document.querySelectorAll("#cells thead th")];
          const index = headers.findIndex((header) => header.textContent.trim() === "{column}");
          return [...document.querySelectorAll("#cells tbody tr:not([hidden])")].map(
            (row) => row.cells[index].dataset.sort);
        }})()"""
    )


def press(browser: Browser, column: str) -> None:
    browser.evaluate(
        f"""[...document.querySelectorAll("#cells thead button")].find(
          (button) => button.textContent.trim() === "{column}").click()"""
    )


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_without_an_error_or_a_request_and_fits_the_window(browser, page, width, dark):
    browser.screen(width, dark=dark)
    browser.open(page)
    assert browser.complaints == []
    assert browser.requests == [page]
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0


def test_dark_is_dark_and_light_is_light(browser, page):
    brightness = []
    for dark in (False, True):
        browser.screen(WIDTHS["desk"], dark=dark)
        browser.open(page)
        colours = browser.evaluate(
            """[document.body, document.querySelector("figure")].map((each) => getComputedStyle(each).backgroundColor)
            .concat([getComputedStyle(document.body).color,
                     getComputedStyle(document.querySelector("svg text")).fill])"""
        )
        brightness.append([sum(map(int, colour[4:-1].split(",")[:3])) for colour in colours])
    light, dark = brightness
    assert min(light[:2]) > 600 > 200 > max(light[2:])
    assert max(dark[:2]) < 150 < 500 < min(dark[2:])


def test_sorting_by_a_number_puts_the_unknown_last(opened):
    press(opened, "tokens/s")
    rising = [float(value) for value in visible_fields(opened, "tokens/s")]
    assert rising == sorted(rising)
    assert opened.evaluate("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "ascending"
    press(opened, "tokens/s")
    assert [float(value) for value in visible_fields(opened, "tokens/s")] == rising[::-1]
    assert opened.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


def test_sorting_by_text(opened):
    press(opened, "strategy")
    strategies = visible_fields(opened, "strategy")
    assert strategies == sorted(strategies)


def test_filters_and_search_narrow_the_table_and_reset_widens_it(opened):
    count = "document.getElementById('count').textContent"
    assert opened.evaluate(count) == "11 of 11 cells"
    opened.evaluate(
        """(() => { const filter = document.querySelector('[data-filter=devices]');
        filter.value = '2'; filter.dispatchEvent(new Event('change')); })()"""
    )
    assert set(visible_fields(opened, "devices")) == {"2"}
    opened.evaluate(
        """(() => { const search = document.getElementById('search');
        search.value = 'GPipe'; search.dispatchEvent(new Event('input')); })()"""
    )
    assert visible_fields(opened, "strategy") == ["model_parallel(schedule=gpipe, micro_batches=4)"]
    assert opened.evaluate(count) == "1 of 11 cells"
    opened.evaluate("document.getElementById('reset').click()")
    assert opened.evaluate(count) == "11 of 11 cells"


def test_a_cell_can_be_linked_to(browser, page):
    browser.screen(WIDTHS["desk"])
    browser.open("about:blank")
    browser.open(f"{page}#cell-lstm-ddp-2")
    row = "document.querySelector('tr:target')"
    assert browser.evaluate(f"{row}.dataset.strategy") == "ddp"
    place = browser.evaluate(f"{row}.getBoundingClientRect().top")
    assert 0 <= place < 900
    assert browser.evaluate(f"getComputedStyle({row}).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_the_keyboard_reaches_every_control(opened):
    opened.evaluate("document.querySelector('.skip').focus()")
    assert opened.evaluate("document.querySelector('.skip').getBoundingClientRect().left") >= 0
    for control in (
        "#search",
        "[data-filter]",
        "#cells thead button",
        "#cells .anchor",
        ".drawing",
        "summary",
        ".chips button",
    ):
        assert opened.evaluate(f"document.querySelector({control!r}).tabIndex") == 0
    opened.evaluate("document.querySelector('#cells thead th:nth-child(3) button').focus()")
    for kind in ("keyDown", "keyUp"):
        opened.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert opened.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


def test_every_control_and_drawing_has_a_name_for_screen_readers(opened):
    opened.call("Accessibility.enable")
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    opened.call("Accessibility.disable")
    nameless = [
        node
        for node in nodes
        if not node.get("ignored")
        and node.get("role", {}).get("value") in ("button", "combobox", "searchbox", "image", "region", "link")
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    roles = {node.get("role", {}).get("value") for node in nodes}
    assert {"image", "searchbox", "combobox", "table"} <= roles


def test_copy_leaves_the_scenario_in_reach(opened):
    label = opened.evaluate(
        """new Promise((done) => {
          const button = document.querySelector("[data-copy=scenario-1]");
          new MutationObserver(() => done(button.textContent)).observe(button, {childList: true, subtree: true});
          button.click();
        })"""
    )
    assert label in ("Copied", "Selected")


def test_without_javascript_tables_and_charts_stay(browser, page):
    browser.screen(WIDTHS["desk"])
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        browser.call("DOM.enable")
        root = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]

        def count(selector: str) -> int:
            return len(browser.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])

        assert count("#cells tbody tr") == 11
        assert count("figure svg") >= 7
        assert count("#cells thead button") == 0
        assert count(".controls[hidden]") == 1
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        browser.call("DOM.disable")


def test_nothing_sticks_out_of_its_box_on_a_phone(browser, page):
    browser.screen(WIDTHS["phone"])
    browser.open(page)
    outside = browser.evaluate(
        """[...document.querySelectorAll("body *")].filter((each) =>
          each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll, pre, .skip, .hidden")
        ).map((each) => each.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_status_and_parity_are_in_sight_and_the_strategy_stays_there(opened):
    edge = "document.getElementById('cells').parentNode.getBoundingClientRect()"
    right = (
        "[...document.querySelectorAll('#cells thead th')].find((each) => each.textContent.trim() === '{}')"
        ".getBoundingClientRect().right"
    )
    for title in ("status", "parity", "tokens/s"):
        assert opened.evaluate(right.format(title)) <= opened.evaluate(f"{edge}.right")
    opened.screen(WIDTHS["phone"])
    opened.evaluate("document.getElementById('cells').parentNode.scrollLeft = 10_000")
    left = "document.querySelector('#cells tbody th').getBoundingClientRect().left"
    assert abs(opened.evaluate(left) - opened.evaluate(f"{edge}.left")) <= 1


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of more strategies and options than one plot shows as lines."""
    return write_report([read_run(CROWDED)], tmp_path_factory.mktemp("crowded"), ("html",)).as_uri()


def test_a_phone_shows_charts_whole(browser, page, crowded):
    for opened in (page, crowded):
        browser.screen(WIDTHS["phone"])
        browser.open(opened)
        charts = browser.evaluate(
            """[...document.querySelectorAll(".drawing")].map((box) => {
              const sizes = [...box.querySelectorAll("text")].map((text) => text.getBoundingClientRect().height);
              return [box.querySelector("svg").clientWidth, box.clientWidth, box.scrollWidth, Math.min(...sizes)];
            })"""
        )
        for drawing, box, scroll, smallest in charts:
            assert drawing <= box == scroll
            assert smallest > 7


@pytest.mark.parametrize("width", [1400, 900, 420])
def test_no_text_of_a_chart_is_cut_off_or_written_over_another(browser, page, crowded, width):
    for opened in (page, crowded):
        browser.screen(width)
        browser.open(opened)
        faults = browser.evaluate(
            """[...document.querySelectorAll(".drawing svg")].flatMap((svg) => {
              const frame = svg.getBoundingClientRect();
              const boxes = [...svg.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
              const cut = boxes.filter(([, box]) =>
                box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 2);
              const shrink = (box) => [box.left + 2, box.right - 2, box.top + 3, box.bottom - 3];
              const over = boxes.filter(([, box], index) => boxes.slice(0, index).some(([, other]) => {
                const [l, r, t, b] = shrink(box), [ol, or, ot, ob] = shrink(other);
                return l < or && ol < r && t < ob && ot < b;
              }));
              return [...cut, ...over].map(([text]) => `${svg.closest("figure").id}: ${text.textContent}`);
            })"""
        )
        assert faults == []
        assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_a_strategy_is_brought_out_in_all_charts_by_its_button_pointer_and_keyboard(browser, crowded):
    browser.screen(WIDTHS["desk"])
    browser.open(crowded)
    dimmed = """[...document.querySelectorAll(".drawing [data-mark]")].filter(
        (each) => document.querySelector(".focused") && !each.matches(".on")).map((each) => each.dataset.mark)"""
    assert browser.evaluate(dimmed) == []
    chip = "document.querySelector('.chips [data-mark=ddp]')"
    browser.evaluate(f"{chip}.click()")
    assert browser.evaluate(f"{chip}.getAttribute('aria-pressed')") == "true"
    others = set(browser.evaluate(dimmed))
    assert "ddp" not in others
    assert {"fsdp", "hybrid", "single"} <= others
    assert browser.evaluate("document.querySelectorAll('.drawing .on').length") > 5
    row = "document.querySelector('#cells tr[data-mark=fsdp]')"
    browser.evaluate(f"{row}.dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}}))")
    assert "fsdp" not in browser.evaluate(dimmed)
    browser.evaluate("document.body.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert "ddp" not in browser.evaluate(dimmed)
    browser.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert browser.evaluate(dimmed) == []
    browser.evaluate(f"{chip}.focus()")
    assert "fsdp" in browser.evaluate(dimmed)
    assert browser.complaints == []


def test_the_first_screen_is_the_answer(browser, page, crowded):
    for opened in (page, crowded):
        browser.screen(WIDTHS["desk"])
        browser.open(opened)
        lead = browser.evaluate("document.querySelector('.lead').getBoundingClientRect().bottom")
        assert lead < 500
        warnings = browser.evaluate(
            "[...document.querySelectorAll('.warnings')].map((each) => [each.open, each.clientHeight])"
        )
        assert all(not is_open and height < 70 for is_open, height in warnings)


def test_it_prints(opened):
    assert len(opened.call("Page.printToPDF")["data"]) > 50_000


@pytest.mark.parametrize("text", HOSTILE[:8], ids=range(8))
def test_no_name_does_anything(browser, text, tmp_path):
    path = write_report([made_up(text, text, reason=text)], tmp_path, ("html",))
    browser.screen(WIDTHS["desk"])
    browser.open(path.as_uri())
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]
    assert browser.evaluate("document.scripts.length") == 2
    assert browser.evaluate("document.querySelectorAll('img, iframe, svg script').length") == 0


def test_an_svg_of_its_own_opens(browser, tmp_path: Path):
    write_report([made_up(HOSTILE[0], HOSTILE[1])], tmp_path, ("svg",))
    for path in sorted((tmp_path / "charts").glob("*.svg")):
        browser.open(path.as_uri())
        assert browser.complaints == []
        assert browser.evaluate("document.documentElement.tagName") == "svg"
        assert browser.evaluate("document.querySelector('title').textContent").strip()
