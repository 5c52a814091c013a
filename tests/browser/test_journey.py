"""One journey through the app in a real browser, and a look at every page at four sizes and colours."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from copal_core.store.runs import RECORDED, Runs
from tests.browser.conftest import PATIENCE, ROOT, Server
from tests.support import hold, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

_PAGE = re.compile(r'st\.Page\(\s*"pages/(\w+)/page\.py",\s*title="([^"]+)"')
# path -> heading of every page that the app leads to; the first one has no path, and a heading of its own
PAGES = dict(_PAGE.findall((ROOT / "app.py").read_text(encoding="utf-8"))) | {"": "COPAL Explorer"}
del PAGES["start"]
WITH_FIGURES = ("sensitivity", "stasis")


def settled(page: Page) -> None:
    """Wait until Streamlit has drawn the page and is idle."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
    expect(page.locator("[data-testid='stSkeleton']")).to_have_count(0)


def no_traceback(page: Page) -> None:
    expect(page.locator("[data-testid='stException']")).to_have_count(0)


def complaints(page: Page) -> list[str]:
    """What the page says in the console as an error, as it comes. Not Streamlit's own search for its server below
    the path of a deep link, which is answered by 404.
    """
    found: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            found.append(f"{message.text} {message.location.get('url', '')}")

    page.on("console", listen)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def run_of(page: Page) -> str | None:
    return parse_qs(urlparse(page.url).query).get("run", [None])[0]


def test_start_typed_by_hand_is_the_start_page(page: Page, server: Server) -> None:
    heading = page.get_by_role("heading", name="COPAL Explorer", exact=True)
    page.goto("/")  # the first request of all finds the page's file by itself
    expect(heading).to_be_visible()
    page.goto("/start")
    expect(heading).to_be_visible()
    settled(page)
    expect(page).to_have_url(f"{server.url}/")
    expect(page.get_by_text("Page not found")).to_have_count(0)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]
)
def test_every_page_opens_alive_and_fits_the_window(
    browser: Browser, server: Server, pictures: Path | None, name: str, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, base_url=server.url, color_scheme=scheme
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    wrong = complaints(page)
    try:
        page.goto(f"/{name}")
        expect(page.get_by_role("heading", name=PAGES[name], exact=True)).to_be_visible()
        settled(page)
        no_traceback(page)
        if name in WITH_FIGURES:
            expect(page.locator(".js-plotly-plot").first).to_be_visible()
        sideways = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert sideways <= 0, f"{name} scrolls {sideways} px sideways at {width} px"
        assert not wrong, f"the browser's console says: {wrong}"
        if pictures is not None:
            page.screenshot(path=pictures / f"{name or 'start'}-{width}-{scheme}.png", full_page=True)
    finally:
        context.close()


def test_a_newcomer_reads_the_recorded_run_then_computes_one(
    page: Page, server: Server, browser: Browser
) -> None:
    recorded = next(path.name for path in RECORDED.iterdir() if (path / "run.json").is_file())

    # the recorded run is there at once
    page.goto("/sensitivity")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    settled(page)
    assert run_of(page) == recorded
    page.goto("/stasis?view=matrix")
    expect(page.get_by_role("heading", name="Perplexity matrix")).to_be_visible()

    # a real run: the tiny checkpoint, the smallest preset, started from the page
    page.goto("/checkpoint?checkpoint=tiny")
    page.get_by_text("tiny", exact=True).first.click()
    settled(page)
    page.get_by_role("link", name="Prune", exact=True).first.click()
    expect(page.get_by_role("heading", name="Prune", exact=True)).to_be_visible()
    settled(page)
    page.get_by_text("Quick", exact=True).first.click()
    settled(page)
    start = page.get_by_role("button", name="Start the run")
    expect(start).to_be_enabled()
    start.click()
    expect(page.get_by_text("Finished. Its link is in the address bar.")).to_be_visible()
    no_traceback(page)
    run_id = run_of(page)
    assert run_id is not None and run_id != recorded
    store = Runs(server.runs).open(run_id)
    assert store.state().status == "done"
    assert store.config.checkpoint == "tiny"
    shown = store.perplexity()
    assert len(shown) > 0 and shown["perplexity"].gt(1).all()

    # its link, opened by somebody else
    other = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=server.url)
    try:
        guest = other.new_page()
        guest.set_default_timeout(PATIENCE)
        guest.goto(f"/sensitivity?run={run_id}")
        heatmap = guest.locator(".js-plotly-plot").first
        expect(heatmap).to_be_visible()
        settled(guest)
        assert run_of(guest) == run_id
        cells = heatmap.evaluate(
            "plot => Array.from(plot._fullData[0].z, row => Array.from(row)).flat().filter(Number.isFinite).length"
        )
        layers = store.layers()
        method = str(store.config.methods[0])
        assert cells == len(layers[(layers["method"] == method) & (layers["step"] == 1)])
    finally:
        other.close()


def test_a_run_survives_a_reload_and_a_cancel_and_resumes(page: Page, server: Server) -> None:
    page.goto("/checkpoint?checkpoint=tiny")
    page.get_by_text("tiny", exact=True).first.click()
    settled(page)
    page.get_by_role("link", name="Prune", exact=True).first.click()
    expect(page.get_by_role("heading", name="Prune", exact=True)).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**run=*")
    run_id = run_of(page)
    assert run_id is not None
    store = Runs(server.runs).open(run_id)
    process = hold(store)  # the run does not end while the page is looked at
    cancel = page.get_by_role("button", name=re.compile("Cancel"))
    expect(cancel).to_be_visible()
    page.reload()  # the process knows nothing of it
    expect(cancel).to_be_visible()
    cancel.click()
    wait_until(store.cancel_requested, "the page asks the run to stop")
    process.resume()
    expect(page.get_by_text(re.compile("The run is cancelled"))).to_be_visible()
    done = len(store.layers())
    assert store.state().status == "cancelled"
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Finished. Its link is in the address bar.")).to_be_visible()
    assert store.state().status == "done"
    assert len(store.layers()) > done


@pytest.mark.parametrize(
    "query",
    [
        "run=../../etc/passwd",
        "run=<script>alert(1)</script>",
        "run=no-such-run-here",
        "step=99999&method=%00",
    ],
)
def test_a_hostile_link_shows_a_sentence_and_no_traceback(page: Page, query: str) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(f"/sensitivity?{query}")
    expect(page.get_by_role("heading", name="Sensitivity", exact=True)).to_be_visible()
    settled(page)
    no_traceback(page)
