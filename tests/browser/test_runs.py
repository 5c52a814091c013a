"""Runs in a real browser: rename, undo, branch, compare, delete and take back, all on the tiny checkpoint."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment import loop
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from tests.browser.conftest import Server
from tests.support import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


def settled(page: Page) -> None:
    """Wait until Streamlit has drawn the page and is idle."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
    expect(page.locator("[data-testid='stSkeleton']")).to_have_count(0)


def run_of(page: Page) -> str:
    found = re.search(r"[?&]run=([a-z0-9-]+)", page.url)
    return found.group(1) if found else ""


@pytest.fixture
def computed(server: Server) -> RunStore:
    """A small finished run of the tiny checkpoint over two domains."""
    config = RunConfig(
        checkpoint="tiny",
        domains=("python-code", "shakespeare"),
        methods=("copal:accumulate", "magnitude:restart"),
        protocol=Protocol(calibration=Windows.parse("2x32"), evaluation=Windows.parse("2x32"), map_size=8),
    )
    store = Runs(server.runs).create(config, title="To be renamed")
    loop.run(store)
    return store


def test_rename_undo_branch_compare_delete_and_back(page: Page, server: Server, computed: RunStore) -> None:
    page.goto(f"/runs?run={computed.id}")
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    settled(page)

    page.get_by_label("Title", exact=True).fill("Renamed in the browser")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_text("Renamed in the browser").first).to_be_visible()
    assert computed.info["title"] == "Renamed in the browser"

    # undo the last domain: a new run, opened, and the old one as it was
    page.get_by_role("button", name="Undo shakespeare").click()
    expect(page.get_by_text("shakespeare is undone in a new run")).to_be_visible()
    page.wait_for_url(re.compile(r"run=(?!" + computed.id + ")"))
    undone = Runs(server.runs).open(run_of(page))
    assert (undone.config.domains, undone.state().status) == (("python-code",), "done")
    assert computed.config.domains == ("python-code", "shakespeare")

    # branch at the first step
    page.goto(f"/runs?run={computed.id}")
    settled(page)
    page.get_by_role("button", name="Branch", exact=True).click()
    page.get_by_role("combobox", name=re.compile("After")).click()
    page.get_by_role("option", name=re.compile("python-code")).click()
    settled(page)
    page.get_by_role("combobox", name=re.compile("Next domain")).click()
    page.get_by_role("option", name="Licences", exact=True).click()
    settled(page)
    page.get_by_role("button", name="Branch and start").click()
    expect(page.get_by_text("The branch is being computed")).to_be_visible()
    page.wait_for_url(re.compile(r"run=(?!" + computed.id + ")"))
    branched = Runs(server.runs).open(run_of(page))
    assert branched.config.domains == ("python-code", "licences")

    # a comparison that is opened early follows the branch to its end
    page.goto(f"/runs?view=side&runs={computed.id}.{branched.id}")
    expect(page.locator(".js-plotly-plot")).to_have_count(4)
    wait_until(lambda: branched.state().status == "done", branched.state)
    page.goto("/runs?view=list")
    settled(page)
    expect(page.locator(f".st-key-card-{branched.id}")).to_contain_text("done")

    # compare: other domains, so other protocols, shown apart with the reason
    settled(page)
    for count, store in enumerate((computed, branched), start=1):
        page.locator(f".st-key-card-{store.id}").get_by_text("Compare", exact=True).first.click()
        expect(page.locator(".st-key-compare-bar")).to_contain_text(f"{count} run")
        settled(page)
    ticked = re.search(r"[?&]runs=([a-z0-9.-]+)", page.url)
    assert ticked is not None and ticked.group(1).split(".") == [computed.id, branched.id]
    page.get_by_role("button", name="Compare them").click()
    expect(page.get_by_text(re.compile("shown in 2 parts"))).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(4)

    # delete, and take back
    page.goto(f"/runs?run={computed.id}")
    settled(page)
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text(re.compile("is in the trash"))).to_be_visible()
    expect(page.locator(f".st-key-card-{computed.id}")).to_have_count(0)
    assert not computed.folder.exists()
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator(f".st-key-card-{computed.id}")).to_be_visible()
    assert computed.state().status == "done"
    expect(page.locator("[data-testid='stException']")).to_have_count(0)
