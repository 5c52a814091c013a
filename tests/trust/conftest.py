"""Pages opened through the app, as the pages' own tests open them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "pages_conftest", Path(__file__).parents[1] / "pages" / "conftest.py"
)
if _SPEC is None or _SPEC.loader is None:
    raise ImportError("the fixtures of the pages' tests are missing")
_PAGES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_PAGES)

PAGES = _PAGES.PAGES
runs_folder, open_page, synthetic = _PAGES.runs_folder, _PAGES.open_page, _PAGES.synthetic


@pytest.fixture(scope="session")
def all_pages() -> tuple[str, ...]:
    return PAGES
