"""axe-core finds nothing serious on any page; pages are used by keyboard, and the focus is seen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, ROOT, Server
from tests.browser.test_journey import settled

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
PATHS = ["", *re.findall(r'url_path="(\w+)"', (ROOT / "app.py").read_text(encoding="utf-8"))[1:]]
VIEWS = [
    "learn?lesson=3",
    "learn?lesson=8",
    "stasis?view=matrix",
    "stasis?view=stasis",
    "sensitivity?view=compare",
]
_VERSION = "axe-core@4.14.1"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm: $COPAL_AXE, node_modules, or fetched now."""
    named = os.environ.get("COPAL_AXE")
    local = Path(named) if named else ROOT / "node_modules" / "axe-core" / "axe.min.js"
    if not local.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core is not here: npm install --no-save axe-core")
        folder = tmp_path_factory.mktemp("npm")
        command = [npm, "install", "--silent", "--no-save", "--prefix", str(folder), _VERSION]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=180)
        except (subprocess.SubprocessError, OSError):
            pytest.skip("axe-core could not be fetched from npm: npm install --no-save axe-core")
        local = folder / "node_modules" / "axe-core" / "axe.min.js"
    return local.read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_axe_finds_nothing_serious(
    browser: Browser, server: Server, axe: str, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, base_url=server.url, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    found = {}
    try:
        for path in [*PATHS, *VIEWS]:
            page.goto(f"/{path}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            settled(page)
            page.evaluate(axe)
            violations = page.evaluate("axe.run().then(result => result.violations)")
            for one in violations:
                if one["impact"] in ("serious", "critical"):
                    found[f"/{path} {one['id']}"] = [node["html"][:200] for node in one["nodes"]][:3]
    finally:
        context.close()
    assert not found, json.dumps(found, indent=1)


def test_axe_sees_a_violation(page: Page, axe: str) -> None:
    """The test above can fail."""
    page.set_content("<html lang=en><title>t</title><main><h1>t</h1><img src='data:,'></main></html>")
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(result => result.violations.map(one => one.id))")
    assert "image-alt" in found


def test_the_lesson_is_walked_by_keyboard_and_the_focus_is_seen(page: Page) -> None:
    page.goto("/learn?lesson=4")
    settled(page)
    slider = page.get_by_role("slider", name="Direction of text B")
    slider.focus()
    before = slider.get_attribute("aria-valuetext") or slider.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowLeft")
    settled(page)
    assert (slider.get_attribute("aria-valuetext") or slider.get_attribute("aria-valuenow")) != before
    following = page.get_by_role("button", name="Next")
    following.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(following).to_be_focused()
    ring = following.evaluate(
        "node => [getComputedStyle(node).outlineStyle, getComputedStyle(node).boxShadow]"
    )
    assert ring[0] != "none" or ring[1] != "none"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("lesson=5"))
