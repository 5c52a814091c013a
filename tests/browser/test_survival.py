"""A shared server while a run is computed: reloaded, opened twice, opened by another, restarted, on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from tests.browser.conftest import PATIENCE, Server
from tests.support import hold, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

_DRAFT = "/prune?checkpoint=tiny&texts=python-code+python-manual+shakespeare+licences&windows=64+256+32+256+0"


@dataclass
class Classroom:
    """Anna has started a run, which is held still in the middle; Ben sits beside her."""

    server: Server
    browser: Browser
    anna: BrowserContext
    page: Page
    run: str
    process: psutil.Process

    @property
    def link(self) -> str:
        return f"{self.server.url}/prune?run={self.run}"

    @property
    def store(self) -> RunStore:
        return Runs(self.server.runs).open(self.run)


def no_traceback(page: Page) -> None:
    expect(page.locator("[data-testid='stException']")).to_have_count(0)


def opened(context: BrowserContext, link: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(link)
    return page


def cancel_button(page: Page) -> object:
    return page.get_by_role("button", name="Cancel")


def begin(page: Page) -> str:
    """Start the run of the draft; returns its id."""
    page.get_by_role("button", name="Start the run").click()
    expect(cancel_button(page)).to_be_visible()
    page.wait_for_url("**run=*")
    return parse_qs(urlparse(page.url).query)["run"][0]


@pytest.fixture(scope="module")
def classroom(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classroom]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPAL_SHARED", "1")
        server = Server(tmp_path_factory.mktemp("classroom"))
        server.start()
        anna = browser.new_context(viewport={"width": 1280, "height": 900})
        page = opened(anna, f"{server.url}{_DRAFT}")
        run = begin(page)
        process = hold(Runs(server.runs).open(run))  # in mid-run for as long as the tests look at it
        made = Classroom(server, browser, anna, page, run, process)
        try:
            yield made
        finally:
            made.store.request_cancel()
            with suppress(psutil.NoSuchProcess):
                made.process.resume()
            for store in Runs(server.runs).list():
                if not store.recorded:
                    Runs(server.runs).open(store.id).request_cancel()
            anna.close()
            server.stop()


def test_reload_in_mid_run(classroom: Classroom) -> None:
    classroom.page.reload()
    expect(cancel_button(classroom.page)).to_be_visible()
    expect(classroom.page.get_by_text(classroom.run)).to_be_visible()
    no_traceback(classroom.page)


def test_the_back_button(classroom: Classroom) -> None:
    page = classroom.page
    page.get_by_role("link", name="Sensitivity", exact=True).first.click()
    expect(page.get_by_role("heading", name="Sensitivity", exact=True)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Prune", exact=True)).to_be_visible()
    expect(page.get_by_text(classroom.run)).to_be_visible()
    no_traceback(page)


def test_a_link_opened_by_someone_else(classroom: Classroom) -> None:
    ben = classroom.browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = opened(ben, classroom.link)
        expect(page.get_by_text(classroom.run)).to_be_visible()
        expect(page.get_by_text("belongs to another person")).to_be_visible()
        expect(cancel_button(page)).to_have_count(0)
        own = opened(ben, f"{classroom.server.url}{_DRAFT}")
        waiting = begin(own)
        expect(own.get_by_text("waiting for its turn: 1 before it")).to_be_visible()
        cancel_button(own).click()  # type: ignore[attr-defined]
        expect(own.get_by_text("The run is cancelled")).to_be_visible()
        assert Runs(classroom.server.runs).open(waiting).cancel_requested()
        no_traceback(page)
        no_traceback(own)
    finally:
        ben.close()


def test_the_server_restarted_in_mid_run(classroom: Classroom) -> None:
    classroom.server.stop()
    assert classroom.process.is_running()  # the run is a process of its own
    assert classroom.store.state().status in ("created", "running")
    classroom.server.start()
    page = classroom.page
    page.reload()
    expect(page.get_by_text(classroom.run)).to_be_visible()
    no_traceback(page)


def test_a_phone_sized_window(classroom: Classroom, pictures: Path | None) -> None:
    phone = classroom.browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    try:
        page = opened(phone, classroom.link)
        expect(page.get_by_text(classroom.run)).to_be_visible()
        sideways = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert sideways <= 0
        no_traceback(page)
        if pictures is not None:
            page.screenshot(path=pictures / "phone-mid-run.png", full_page=True)
    finally:
        phone.close()


def test_two_tabs_on_one_run(classroom: Classroom) -> None:
    """The other tab shows by itself what is done in the first; who asks is known across a restart, and so is the
    run, which goes on until it sees that it is cancelled.
    """
    other = opened(classroom.anna, classroom.link)
    expect(other.get_by_text(classroom.run)).to_be_visible()
    cancel_button(classroom.page).click()  # type: ignore[attr-defined]
    wait_until(classroom.store.cancel_requested, "the page asks the run to stop")
    classroom.process.resume()
    expect(classroom.page.get_by_text("The run is cancelled")).to_be_visible()
    expect(other.get_by_text("The run is cancelled")).to_be_visible()
    assert classroom.store.state().status == "cancelled"
    no_traceback(classroom.page)
    no_traceback(other)
