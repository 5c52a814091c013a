"""Diagnose in a real browser: hostile and very long text, one weight, and where a domain was forgotten."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from copal_core.store.run_store import RunStore
from tests.browser.conftest import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

HOSTILE = (
    "<script>window.broken = 1</script> <img src=x onerror='window.broken = 1'> \u202etxet siht\u202c שלום 👩‍💻 "
    "[link](javascript:alert(1)) **bold**\nA second line."
)


@pytest.fixture
def run(server: Server, finished: Callable[[str, str], RunStore]) -> Iterator[str]:
    """A finished run of a small random checkpoint, only while this test looks at it."""
    store = finished("unstructured", "pruned")
    folder = server.runs / store.id
    shutil.copytree(store.folder, folder)
    yield store.id
    shutil.rmtree(folder)
    shutil.rmtree(server.runs / "diagnoses", ignore_errors=True)


def settled(page: Page) -> None:
    """Wait until Streamlit has drawn the page and is idle."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
    expect(page.locator("[data-testid='stSkeleton']")).to_have_count(0)


def paste(page: Page, text: str) -> None:
    """Put text into the box at once, as a paste does, and leave it."""
    box = page.get_by_role("textbox", name="Your text")
    box.evaluate(
        "(box, text) => { Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(box, text);"
        " box.dispatchEvent(new Event('input', {bubbles: true})); }",
        text,
    )
    box.press("Control+Enter")


def test_a_text_a_weight_and_what_was_forgotten(page: Page, run: str, pictures: Path | None) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(
        f"/diagnose?run={run}&text=typed&method=wanda:restart&step=1&other_method=copal:accumulate&other_step=3"
    )
    expect(page.get_by_role("heading", name="Diagnose", exact=True)).to_be_visible()

    # hostile text is shown as it is, and nothing in it is read
    paste(page, HOSTILE)
    page.get_by_role("button", name="Compare", exact=True).click()
    texts = page.locator("[data-testid='stHtml'] div[role='group']")
    expect(texts).to_have_count(2)
    expect(texts.first).to_contain_text("<script>window.broken = 1</script>")
    expect(texts.first).to_contain_text("[U+202E]txet siht[U+202C] שלום 👩‍💻")
    expect(texts.first.locator("span[title*='copal:accumulate after 3']").first).to_be_attached()
    assert page.locator("[data-testid='stHtml'] div[role='group'] :is(script, img, a)").count() == 0
    assert page.evaluate("window.broken") is None and not dialogs
    expect(page.get_by_text("Protocol: ").first).to_be_visible()

    # ten megabytes are cut before anything is computed, and the page goes on
    long = "a line of many words, " * 480_000
    paste(page, long)
    expect(page.get_by_text(f"{len(long):,} characters were given")).to_be_visible()
    assert len(page.get_by_role("textbox", name="Your text").input_value()) == 24_000
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("its first 2,000 tokens are compared")).to_be_visible()
    expect(texts).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0

    # one weight
    page.get_by_role("radio", name="One weight").or_(
        page.get_by_role("button", name="One weight")
    ).first.click()
    page.get_by_role("button", name="Read this layer").click()
    expect(page.get_by_text("The tokens at which it matters")).to_be_visible()
    settled(page)
    figures = page.locator("[data-testid='stPlotlyChart'] .draglayer .nsewdrag")
    expect(figures).to_have_count(3)
    box = figures.first.bounding_box()
    assert box is not None
    place = {"x": 0.25 * box["width"], "y": 0.25 * box["height"]}
    figures.first.click(position=place)
    page.wait_for_url(re.compile("row=.*column=|column=.*row="))
    settled(page)

    # where a domain was forgotten
    page.get_by_role("radio", name="Forgetting").or_(
        page.get_by_role("button", name="Forgetting")
    ).first.click()
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_text(re.compile("windows measured$"))).to_be_visible()
    expect(page.get_by_text(re.compile("Most returns with block"))).to_be_visible()
    settled(page)
    if pictures:
        page.screenshot(path=pictures / "diagnose.png", full_page=True)
    expect(page.locator("[data-testid='stException']")).to_have_count(0)
