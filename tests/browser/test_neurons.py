"""Neurons in a real browser: start a run on a hostile file, see what removal costs, measure, look at pairs."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment import loop
from copal_core.store.runs import Runs
from tests.browser.conftest import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

HOSTILE = "<script>document.title='owned {0}'</script><img src=x onerror=\"document.title='owned'\"> \u202e😀 {0}\n\n"


@pytest.fixture(scope="module")
def server(newcomer: Server) -> Server:
    """In place of the one that all share: nothing was read or looked at before."""
    return newcomer


def settled(page: Page) -> None:
    """Wait until Streamlit has drawn the page and is idle."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
    expect(page.locator("[data-testid='stSkeleton']")).to_have_count(0)


def unharmed(page: Page) -> None:
    """Nothing of the text was run or drawn as markup, and nothing failed."""
    assert "owned" not in page.title()
    expect(page.locator("[data-testid='stMain'] img[src='x']")).to_have_count(0)
    expect(page.locator("[data-testid='stException']")).to_have_count(0)


def test_from_a_hostile_file_to_the_pairs(page: Page, server: Server, tmp_path: Path) -> None:
    text = tmp_path / "<img src=x onerror=alert(1)> & co.txt"
    # never the same text twice: what was looked at once is kept in the cache, and asks for no button
    lines = [f"{uuid4()}\n", *(HOSTILE.format(number) for number in range(400))]
    text.write_text("".join(lines), encoding="utf-8")
    methods = [
        f"{name}[share={share}]:restart"
        for share in (0.1, 0.3)
        for name in ("mutual-information", "copal-neurons")
    ]
    windows = Protocol(calibration=Windows(count=4, length=64), evaluation=Windows(count=2, length=64))
    config = RunConfig(checkpoint="tiny", domains=(str(text),), methods=tuple(methods), protocol=windows)
    store = Runs(server.runs).create(config, title="<b>bold</b> neurons")
    loop.run(store)

    # what removal costs
    page.goto(f"/neurons?run={store.id}")
    expect(page.get_by_text(re.compile("of the neurons removed"))).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer .trace")).to_have_count(2)  # one line a selector
    unharmed(page)

    # what it saves, measured
    expect(page.get_by_text(re.compile("384 of 3,840 hidden neurons go"))).to_be_visible()
    page.get_by_role("button", name="Measure").click()
    expect(page.get_by_role("cell", name="without these neurons")).to_be_visible()
    settled(page)

    # pairs, and the tokens on which they fire
    page.get_by_role("radio", name="Redundant pairs").or_(
        page.get_by_role("button", name="Redundant pairs")
    ).first.click()
    page.get_by_role("button", name="Analyse this block").click()
    expect(page.get_by_text("Where both are strongest")).to_be_visible()
    settled(page)
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(page.get_by_role("cell", name=re.compile("«")).first).to_be_visible()
    unharmed(page)
    assert "view=pairs" in page.url

    # the link alone opens the same, on a narrow screen and without scrolling sideways
    page.set_viewport_size({"width": 400, "height": 900})
    page.goto(page.url)
    expect(page.get_by_text("Where both are strongest")).to_be_visible()
    settled(page)
    width = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert width <= 400
    page.goto(f"/neurons?run={store.id}&view=choice")
    expect(page.get_by_text(re.compile("One checkpoint alone says nothing"))).to_be_visible()
    unharmed(page)
