"""The documents work: their examples are run as a reader would, their commands parse, their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from copal_core.cli import main
from copal_core.config import Method
from copal_core.store.runs import Runs

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
_EXAMPLE = re.compile(r"^```(?:python|text) ([\w./]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
_METHODS = (
    "mean-activation[power=0.5]:accumulate", "wanda:fade", "mean-activation:fade", "scaled-svd[keep=0.8]:accumulate",
    "wanda:accumulate",
)  # fmt: skip


def examples() -> dict[str, str]:
    """path -> content of every example file of the documents."""
    found: dict[str, str] = {}
    for path in (ROOT / "docs").glob("*.md"):
        for name, content in _EXAMPLE.findall(path.read_text(encoding="utf-8")):
            assert name not in found, f"{name} is in two documents"
            found[name] = content
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every example where its document says."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("copal_core", "pages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / ".streamlit", folder / ".streamlit")
    (folder / "assets").mkdir()
    for name in ("app.py", "pyproject.toml", "assets/icon.svg"):
        shutil.copy(ROOT / name, folder / name)
    for name, content in examples().items():
        if name == "app.py":
            before, look, after = (folder / name).read_text(encoding="utf-8").partition('        "Look": [\n')
            assert look, "app.py has no list named Look; tell docs/a-page.md"
            content = before + look + content + after
        else:
            assert not (folder / name).exists(), f"{name} is in the project already"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def run(checkout: Path, *arguments: str, runs: Path) -> subprocess.CompletedProcess[str]:
    """Python in the copy, as in a checkout of one's own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "COPAL_RUNS": str(runs),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def result(
    checkout: Path, small_model: Path, texts: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A run of the examples over three texts, on the command line."""
    runs = tmp_path_factory.mktemp("runs")
    command = ["run", "--checkpoint", str(small_model), "--device", "cpu", "--dtype", "float32"]
    command += [part for text in texts for part in ("--domain", text)]
    command += [part for method in _METHODS for part in ("--method", method)]
    command += ["--calibration", "3x24", "--evaluation", "2x24", "--map-size", "8", "--json"]
    done = run(checkout, "-m", "copal_core", *command, "--runs", str(runs), runs=runs)
    assert done.returncode == 0, done.stderr[-2000:]
    return {**json.loads(done.stdout), "root": str(runs)}


@pytest.mark.slow
def test_the_documented_methods_run(result: dict[str, Any]) -> None:
    methods = {one["method"]: one for one in result["methods"]}
    assert list(methods) == list(_METHODS)
    for name, one in methods.items():
        assert all(value > 1 for row in one["perplexity"] for value in row)
        if not name.startswith("scaled-svd"):
            assert one["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert 0.5 < methods["scaled-svd[keep=0.8]:accumulate"]["stored_share"] <= 0.8
    # the memory fades only once there is something to fade
    fade, accumulate = methods["wanda:fade"]["perplexity"], methods["wanda:accumulate"]["perplexity"]
    assert fade[0] == accumulate[0]
    assert fade[1:] != accumulate[1:]


@pytest.mark.slow
def test_they_are_in_the_forms_and_the_page_opens(checkout: Path, result: dict[str, Any]) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom streamlit.testing.v1 import AppTest\n"
        "import streamlit.runtime.scriptrunner.script_runner as runner\n"
        "runner._mpa_v1 = lambda main: exec(compile(Path(main).read_text(), main, 'exec'), {'__name__': '__main__'})\n"
        f"app = AppTest.from_file('app.py', default_timeout=300)\napp.query_params['run'] = {result['run']!r}\n"
        "app = app.run().switch_page('pages/thresholds/page.py').run()\n"
        "assert not app.exception and not app.error, (app.exception, app.error)\n"
        "assert app.title[0].value == 'Thresholds' and len(app.get('plotly_chart')) == 1\n"
        "from pages.shared import words\n"
        "assert 'mean-activation' in words.criteria() and 'scaled-svd' in words.decompositions()\n"
        "assert words.strategies()['fade'].startswith('A fading memory')\n"
    )
    done = run(checkout, "-c", script, runs=Path(result["root"]))
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_examples_keep_the_house_style(checkout: Path) -> None:
    names = [name for name in examples() if name != "app.py"]
    assert len(names) == 5
    for task in (["check"], ["format", "--check"]):
        done = run(checkout, "-m", "ruff", *task, "--no-cache", *names, runs=checkout)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/in-python.md", "README.md"])
def test_the_examples_in_python_run(
    name: str, tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order and in one namespace, as in a notebook that was opened in a checkout."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    blocks = _PYTHON.findall((ROOT / name).read_text(encoding="utf-8"))
    assert blocks
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
    assert (tmp_path / "stasis.html").exists() and (tmp_path / "pruned-tiny" / "config.json").exists()
    assert {run.status for run in runs.list()} == {"done"}


def test_the_line_for_the_app_fits_it(checkout: Path) -> None:
    compile((checkout / "app.py").read_text(encoding="utf-8"), "app.py", "exec")


def commands() -> list[list[str]]:
    """Every command line of ours in the documents."""
    found = []
    for path in DOCUMENTS:
        for block in _COMMANDS.findall(path.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                for start in (["python", "-m", "copal_core"], ["copal"]):
                    if words[: len(start)] == start:
                        found.append(words[len(start) :])
    return found


def test_documented_commands_are_the_program_s() -> None:
    found = commands()
    assert len(found) > 8
    for words in found:
        try:
            options = main._parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"'{shlex.join(words)}' is documented and refused")
        if words[0] == "run":
            for method in options.method:
                Method.parse(method)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in _LINK.findall(path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"
