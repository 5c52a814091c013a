"""The report in a real browser: written from the page, downloaded, opened from disk with the network off."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from copal_core.store.runs import RECORDED

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_report_is_downloaded_and_opens_from_disk_offline(
    page: Page, browser: Browser, tmp_path: Path, pictures: Path | None
) -> None:
    recorded = next(path.name for path in RECORDED.iterdir() if (path / "run.json").is_file())
    page.goto(f"/report?run={recorded}")
    expect(page.get_by_role("heading", name="Report", exact=True)).to_be_visible()
    page.get_by_role("button", name="Write the report").click()
    button = page.get_by_role("button", name="Download")
    expect(button).to_be_visible()
    with page.expect_download() as waiting:
        button.click()
    path = tmp_path / "report.html"
    waiting.value.save_as(path)
    assert path.stat().st_size < 8_000_000

    for width, scheme in ((1280, "light"), (400, "dark")):
        _read(browser, path, width, scheme, pictures)


def _read(browser: Browser, path: Path, width: int, scheme: str, pictures: Path | None) -> None:
    """Open the file with no network, and look at what it drew."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    reader = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    context.route(
        "**/*", lambda route: route.abort() if "file:" not in route.request.url else route.continue_()
    )
    reader.on("request", lambda request: asked.append(request.url))
    reader.on("pageerror", lambda error: wrong.append(str(error)))
    reader.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    reader.goto(path.as_uri())
    plots = reader.locator(".plot")
    count = plots.count()
    assert count >= 12
    expect(reader.locator(".plot.js-plotly-plot")).to_have_count(count)
    drawn = reader.evaluate(
        "Array.from(document.querySelectorAll('.plot'),"
        " plot => plot.querySelectorAll('.trace, .points path, .hm image, .barlayer path, path.point').length)"
    )
    assert all(drawn), drawn
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert wrong == []
    sideways = reader.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert sideways <= 0
    if scheme == "dark":
        ink = reader.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
        assert ink == "rgb(232, 234, 237)"
    else:
        with reader.expect_download() as saving:
            reader.get_by_role("button", name="SVG of: Average perplexity").click()
        picture = path.with_name("average.svg")
        saving.value.save_as(picture)
        assert picture.read_text(encoding="utf-8").startswith("<svg")
        with reader.expect_download() as saving:
            reader.get_by_role("button", name="CSV of: Average perplexity").click()
        assert Path(saving.value.path()).read_text().startswith("method,average")
    if pictures is not None:
        reader.screenshot(path=pictures / f"report-file-{width}-{scheme}.png")
    context.close()
