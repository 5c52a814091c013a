"""Masks and low rank in a real browser: pick a layer, move the slider, read errors, evaluate the whole model."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from copal_core.store.runs import Runs
from tests.browser.conftest import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(newcomer: Server) -> Server:
    """In place of the one that all share: nothing was read or looked at before."""
    return newcomer


def settled(page: Page) -> None:
    """Wait until Streamlit has drawn the page and is idle."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
    expect(page.locator("[data-testid='stSkeleton']")).to_have_count(0)


def choose(page: Page, box: str, option: str) -> None:
    page.get_by_role("combobox", name=re.compile(box)).click()
    page.get_by_role("option", name=option, exact=True).click()


def error_of(page: Page, method: str) -> str:
    """The method's error on the first domain, as the table says it."""
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=method, exact=True)).first
    return row.get_by_role("cell").nth(3).inner_text()


def opened(page: Page, parameters: str = "") -> Locator:
    """Open the page with its layers read; returns the slider of its bytes."""
    page.goto(f"/lowrank?model=tiny{parameters}")
    expect(page.get_by_role("heading", name="Masks and low rank", exact=True)).to_be_visible()
    read = page.get_by_role("button", name="Read the layers")
    slider = page.get_by_role("slider", name=re.compile("Bytes kept"))
    expect(read.or_(slider).first).to_be_visible(timeout=60_000)
    if read.is_visible():  # the first visit on this machine
        read.click()
    expect(slider).to_be_visible(timeout=120_000)
    return slider


def test_a_layer_its_budget_and_the_whole_model(page: Page, server: Server) -> None:
    slider = opened(page)

    # a layer
    choose(page, "Decoder block", "2")
    choose(page, "Projection", "o_proj")
    settled(page)
    assert "layer=2" in page.url and "projection=o_proj" in page.url
    expect(page.get_by_text(re.compile("256 × 256 weights"))).to_be_visible()

    # the budget: more bytes, smaller errors
    before = {method: error_of(page, method) for method in ("wanda", "whitened-svd")}
    slider.focus()
    for _ in range(8):
        slider.press("ArrowRight")
    expect(page.get_by_text(re.compile(r"^Output lost at 58\.25 % of the bytes"))).to_be_visible()
    settled(page)
    after = {method: error_of(page, method) for method in before}
    for method in before:
        assert float(after[method].rstrip(" %")) < float(before[method].rstrip(" %"))
    assert "kept=58.25" in page.url

    # the whole model at that budget
    for method in ("copal:accumulate", "whitened-svd:accumulate", "hybrid:accumulate"):
        page.get_by_role("button", name=method, exact=True).click()  # leaves two: a mask and low rank
        settled(page)
    page.get_by_role("button", name=re.compile("Evaluate the whole model at 58.25 %")).click()
    expect(page.get_by_role("link", name="Watch it, block by block")).to_be_visible()
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="svd:restart", exact=True))
    expect(row).to_be_visible()
    expect(row.get_by_role("cell").nth(1)).to_have_text(re.compile("^5[78]"))
    expect(page.locator("[data-testid='stException']")).to_have_count(0)
    (run,) = [one for one in Runs(server.runs).list() if "svd:restart" in one.methods]
    shown = Runs(server.runs).open(run.id).perplexity()
    assert set(shown["method"]) == {"dense", "wanda:accumulate", "svd:restart"}
    assert shown["perplexity"].gt(1).all()


class SlowLine:
    """The page's connection, on which the server can be made to arrive late."""

    def __init__(self, page: Page) -> None:
        self._late: list[str | bytes] | None = None
        self.answered = 0  # runs of the page that the server has finished, and the browser not heard of
        page.route_web_socket(re.compile("/_stcore/stream"), self._connect)

    def _connect(self, browser: WebSocketRoute) -> None:
        self._browser = browser
        browser.connect_to_server().on_message(self._arrive)

    def _arrive(self, message: str | bytes) -> None:
        if self._late is None:
            self._browser.send(message)
        else:
            self._late.append(message)
            self.answered += ForwardMsg.FromString(message).WhichOneof("type") == "script_finished"

    def hold(self) -> None:
        self._late, self.answered = [], 0

    def release(self) -> None:
        for message in self._late or []:
            self._browser.send(message)
        self._late = None


def test_arrow_keys_faster_than_the_page_follows(page: Page) -> None:
    """There and back before the page has drawn any of it: the server speaks of figures that the browser had when
    it asked, and has dropped by the time it hears."""
    line = SlowLine(page)
    slider = opened(page, "&kept=50")
    expect(page.get_by_text(re.compile(r"^Output lost at 50 % of the bytes"))).to_be_visible()
    settled(page)
    slider.focus()
    line.hold()
    for count, key in enumerate(["ArrowRight"] * 2 + ["ArrowLeft"] * 2, start=1):
        page.keyboard.press(key)
        while line.answered < count:
            page.wait_for_timeout(50)
    line.release()
    settled(page)
    expect(page.get_by_role("dialog")).to_have_count(0)  # where Streamlit says that a message was lost
    expect(page.locator("[data-testid='stException']")).to_have_count(0)

    # widgets answer
    slider.press("ArrowRight")
    expect(page.get_by_text(re.compile(r"^Output lost at 50\.25 % of the bytes"))).to_be_visible()
    choose(page, "Projection", "o_proj")
    expect(page.get_by_text(re.compile("256 × 256 weights"))).to_be_visible()
