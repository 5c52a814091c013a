"""A sweep in a real browser: a small grid filled in, watched, filtered, a point opened, a second one cancelled."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect

from copal_core.analysis import groups as analysis
from copal_core.experiment import cluster
from copal_core.store.groups import Group, Groups
from tests.browser.conftest import PATIENCE, Server
from tests.browser.test_journey import complaints, no_traceback, run_of, settled
from tests.support import hold, wait_until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not cluster.available(), reason="a sweep needs Ray, which is an optional extra"),
]
_DRAFT = "checkpoint=tiny&texts=python-code+shakespeare&windows=2+32+2+32+0"
# pixels within the figure, and the run, of every point drawn
_POINTS = """plot => {
    const {xaxis, yaxis} = plot._fullLayout, drawn = plot._fullData.filter(trace => trace.mode === 'markers');
    return drawn.flatMap(trace => Array.from(trace.x, (x, i) => ({
        x: xaxis._offset + xaxis.d2p(x), y: yaxis._offset + yaxis.d2p(trace.y[i]), run: trace.customdata[i][0]})));
}"""


def reached(group: Group, status: str) -> None:
    """Wait for the sweep's own word that it is `status`."""
    wait_until(lambda: group.state().status == status, group.state)


def keep_only(page: Page, place: str, label: str, *wanted: str) -> None:
    """Leave `wanted` chosen in a list of many, whatever was chosen before. place: the fold, by its key."""
    named = page.get_by_role("combobox", name=re.compile(f"^{label}"))
    widget = page.locator(f".st-key-{place}").get_by_test_id("stMultiSelect").filter(has=named)
    chosen, box = widget.get_by_role("button", name=re.compile("^Remove ")), widget.get_by_role("combobox")
    while left := chosen.count():
        chosen.last.click()
        expect(chosen).to_have_count(left - 1)
    for name in wanted:
        tick(box, page.get_by_role("option", name=name, exact=True), name)
        expect(widget.get_by_role("button", name=f"Remove {name}", exact=True)).to_be_visible()
    settled(page)
    expect(chosen).to_have_count(len(wanted))


def tick(box: Locator, option: Locator, name: str) -> None:
    """Type `name`, choose it, and close the list, which a page that still moves closes by itself."""
    for last in (False, False, True):
        box.click()
        box.fill(name)
        try:
            option.click(timeout=PATIENCE if last else 3_000)
            break
        except TimeoutError:
            if last:
                raise
    box.press("Escape")


def begun(page: Page, server: Server) -> Group:
    """Press Start; the sweep that the address names."""
    before = page.url
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(lambda url: "group=" in url and url != before)
    found = re.search(r"[?&]group=([a-z0-9-]+)", page.url)
    assert found is not None
    return Groups(server.runs).open(found[1])


def figure(page: Page) -> Locator:
    return page.locator(".js-plotly-plot").first


def expect_points(page: Page, count: int) -> list[dict[str, object]]:
    """Wait until the figure has `count` points; where they are, and their runs."""

    def points() -> list[dict[str, object]]:
        settled(page)
        found: list[dict[str, object]] = figure(page).evaluate(_POINTS)
        return found

    wait_until(lambda: len(points()) == count, points)
    return points()


def test_a_sweep_is_started_watched_filtered_opened_and_cancelled(page: Page, server: Server) -> None:
    wrong = complaints(page)
    page.goto(f"/sweep?{_DRAFT}")
    expect(page.get_by_text("No group yet")).to_be_visible()
    settled(page)
    keep_only(page, "start-group", "Checkpoints", "tiny")
    keep_only(page, "start-group", "Methods", "copal:accumulate", "wanda:restart")
    keep_only(page, "start-group", "Structures", "removed 30 %", "removed 60 %")
    seeds = page.get_by_role("spinbutton", name="Seeds")
    seeds.fill("1")
    seeds.press("Enter")
    expect(page.get_by_text(re.compile("^4 runs: about"))).to_be_visible()
    sweep = begun(page, server)
    assert len(sweep.members) == 4 and len({str(one.settings().structure) for one in sweep.members}) == 2
    assert str(sweep.members[0].settings().protocol.calibration) == "2x32"

    # progress while it is computed, and every run a point when it is done
    computing = hold(sweep)
    expect(page.get_by_text(re.compile(r"\d of 4 runs done"))).to_be_visible()
    computing.resume()
    reached(sweep, "done")
    table = analysis.without_dense(analysis.outcomes(sweep.finished()))
    assert len(table) == 4 and table["average"].gt(1).all()
    expect(page.get_by_text(re.compile("runs done"))).to_have_count(0)
    points = expect_points(page, 4)
    assert {point["run"] for point in points} == set(table["run"])

    # filter: two of them are left, and all come back
    page.get_by_text("Filter", exact=True).click()
    settled(page)
    keep_only(page, "sweep-filter", "Methods", "wanda:restart")
    points = expect_points(page, 2)
    assert {point["run"] for point in points} == set(table[table["method"] == "wanda:restart"]["run"])

    # a deep link shows the same to somebody else, and a point leads to its run; back leads to the sweep
    link = page.url
    page.goto(link)
    point = expect_points(page, 4)[0]
    figure(page).scroll_into_view_if_needed()
    figure(page).click(position={"x": point["x"], "y": point["y"]})
    expect(page.get_by_role("heading", name="Stasis and forgetting", exact=True)).to_be_visible()
    settled(page)
    assert run_of(page) == point["run"]
    page.go_back()
    expect(page.get_by_role("heading", name="Sweep", exact=True)).to_be_visible()
    expect_points(page, 4)

    # a second one, of which the first word is enough to cancel it
    page.get_by_text("Start a group", exact=True).click()
    settled(page)
    second = begun(page, server)
    assert second.id != sweep.id
    computing = hold(second)
    page.get_by_role("button", name="Cancel", exact=True).click()
    wait_until(second.cancel_requested, "the page asks the sweep to stop")
    computing.resume()
    expect(page.get_by_text(re.compile("The group is cancelled"))).to_be_visible()
    assert second.state().status == "cancelled" and len(second.finished()) < len(second.members)
    assert not second.is_locked() and sweep.state().status == "done"
    no_traceback(page)
    assert not wrong
