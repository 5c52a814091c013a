"""Pages opened through the app, with runs and cache in a folder of the test."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
# every page that the app leads to, so that a new one is tested without being named here
PAGES = tuple(re.findall(r'"pages/(\w+)/page\.py"', (ROOT / "app.py").read_text(encoding="utf-8")))


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that writes made-up runs."""
    return _load("synthetic")


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty root of runs; no recorded runs either, unless a test asks for them."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("COPAL_RUNS", str(folder))
    monkeypatch.setenv("COPAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("copal_core.store.runs.Runs.__init__", _only(folder))
    monkeypatch.setattr("streamlit.runtime.scriptrunner.script_runner._mpa_v1", _through_app)
    st.cache_data.clear()
    st.cache_resource.clear()
    return folder


def _through_app(main_script: str) -> None:
    """Run app.py, as a server does. AppTest alone would run a page's file without it, for the folder's name."""
    exec(compile(Path(main_script).read_text(), main_script, "exec"), {"__name__": "__main__"})


def _only(folder: Path) -> Callable[..., None]:
    def initialise(self: object, root: Path | None = None, recorded: Path | None = None) -> None:
        self.root = root or folder  # type: ignore[attr-defined]
        self._recorded = recorded or folder.parent / "recorded"  # type: ignore[attr-defined]

    return initialise


@pytest.fixture
def open_page(runs_folder: Path) -> Callable[..., AppTest]:
    """open_page("stasis", run="...") opens a page as a browser would, with those query parameters."""

    def open_(name: str, **parameters: str) -> AppTest:
        app = AppTest.from_file(ROOT / "app.py", default_timeout=300)
        for key, value in parameters.items():
            app.query_params[key] = value
        app.run()
        return app if name == "start" else app.switch_page(f"pages/{name}/page.py").run()

    return open_


@pytest.fixture
def finished_run(runs_folder: Path, synthetic: ModuleType) -> str:
    return synthetic.write_run(runs_folder).id
