"""The lesson in a real browser: walked from the first step to the last, linked to, and read on a phone."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, Page, expect

from pages.learn.texts import STEPS
from tests.browser.conftest import PATIENCE, Server
from tests.browser.test_journey import no_traceback, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


def at_step(page: Page, number: int) -> None:
    expect(
        page.get_by_role("heading", name=f"{number}. {STEPS[number - 1].title}", exact=True)
    ).to_be_visible()
    settled(page)
    no_traceback(page)


def test_a_newcomer_walks_the_whole_lesson(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Start the lesson").click()
    for number, step in enumerate(STEPS, start=1):
        at_step(page, number)
        expect(page.locator(".js-plotly-plot").first).to_be_visible()
        right = next(option for option in step.question.options if option.right)
        page.get_by_test_id("stRadioGroup").get_by_text(right.text, exact=True).click()
        expect(page.get_by_text("Yes.", exact=True)).to_be_visible()
        if number < len(STEPS):
            page.get_by_role("button", name="Next").click()
            expect(page).to_have_url(re.compile(rf"lesson={number + 1}"))
            page.wait_for_function("document.querySelector('[data-testid=\"stMain\"]').scrollTop === 0")
    page.go_back()
    at_step(page, len(STEPS) - 1)
    expect(page.get_by_text("Yes.", exact=True)).to_be_visible()  # the answer is remembered


def test_a_token_is_moved_with_the_keyboard(page: Page) -> None:
    page.goto("/learn?lesson=3")
    at_step(page, 3)
    row = page.locator("tr", has_text="COPAL")
    expect(row).to_contain_text("input 1")
    before = row.inner_text()
    slider = page.get_by_role("slider", name="Its input 1")
    slider.focus()
    slider.press("End")
    expect(row).not_to_have_text(before)
    expect(row).to_contain_text(re.compile("COPAL.*input 1"))  # token 6 now uses input 1 most
    settled(page)
    no_traceback(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_link_to_a_step_opens_on_a_phone(browser: Browser, server: Server, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 400, "height": 850}, base_url=server.url, color_scheme=scheme
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    try:
        for number in range(1, len(STEPS) + 1):
            page.goto(f"/learn?lesson={number}")
            at_step(page, number)
            assert parse_qs(urlparse(page.url).query)["lesson"] == [str(number)]
            sideways = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert sideways <= 0, f"step {number} scrolls {sideways} px sideways"
            clipped = page.evaluate(
                "Array.from(document.querySelectorAll('.js-plotly-plot')).filter("
                "plot => plot.getBoundingClientRect().right > window.innerWidth + 1).length"
            )
            assert not clipped
    finally:
        context.close()


def test_the_checkpoint_page_has_a_link_of_its_own(page: Page) -> None:
    page.goto("/checkpoint?checkpoint=tiny")
    expect(page.get_by_role("heading", name="Checkpoint", exact=True)).to_be_visible()
    settled(page)
    expect(page.get_by_text("Page not found")).to_have_count(0)
