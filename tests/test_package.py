"""What `pip install .` gives: the command, the tiny checkpoint, the recorded run and the app, outside any checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from copal_core.system import shipped

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "copal_core", "pages", "assets", ".streamlit", "app.py", "setup.py", "pyproject.toml", "README.md", "LICENSE",
    "requirements.txt",
)  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, built from a copy so that the checkout stays as it is."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    pip("wheel", str(source), *offline, "--no-build-isolation", "-w", str(wheels))
    (wheel,) = wheels.glob("*.whl")
    pip("install", *offline, "--target", str(target), str(wheel))
    return target


def pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def python(installed: Path, elsewhere: Path, *arguments: str) -> str:
    """Standard output of Python that sees the installed package and not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    environment["COPAL_RUNS"] = str(elsewhere / "runs")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_run_of_tiny_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = python(installed, tmp_path, "-c", "import copal_core; print(copal_core.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    command = ["run", "--checkpoint", "tiny", "--domain", "python-code", "--method", "copal:accumulate"]
    command += ["--calibration", "2x32", "--evaluation", "2x32", "--json"]
    result = json.loads(python(installed, tmp_path, "-m", "copal_core", *command))
    assert result["checkpoint"]["name"] == "tiny"
    assert result["methods"][0]["sparsity"] == pytest.approx(0.5, abs=1e-3)
    listed = json.loads(python(installed, tmp_path, "-m", "copal_core", "show", "--json"))
    text = json.dumps(listed)
    assert result["run"] in text and "recorded-smollm2-135m" in text


def test_the_command_is_installed_and_typed(installed: Path) -> None:
    (entry_points,) = installed.glob("copal_explorer-*.dist-info/entry_points.txt")
    assert "copal = copal_core.cli.main:main" in entry_points.read_text()
    assert (installed / "copal_core" / "py.typed").exists()
    (metadata,) = installed.glob("copal_explorer-*.dist-info/METADATA")
    needed = {
        line.split("==")[0].split(">")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line[:1].isalpha()
    }
    for name in needed:
        assert f"Requires-Dist: {name}" in metadata.read_text()
    names = {path.name for path in installed.iterdir()}
    assert not names & {"pages", "assets", "tests", "app"}  # nothing but our own name in site-packages


def test_the_app_is_installed(installed: Path, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\nfrom copal_core.system.shipped import app, assets\n"
        "import sys\nsys.path.insert(0, str(app().parent))\n"
        "from streamlit.testing.v1 import AppTest\nimport streamlit.runtime.scriptrunner.script_runner as runner\n"
        "runner._mpa_v1 = lambda main: exec(compile(Path(main).read_text(), main, 'exec'), {'__name__': '__main__'})\n"
        "opened = AppTest.from_file(app(), default_timeout=300).run()\n"
        "assert not opened.exception, opened.exception\n"
        "from pages.shared import ICON\n"
        "assert Path(ICON).is_file() and (assets('tiny') / 'config.json').is_file()\n"
        "print(app()); print(opened.title[0].value)\n"
    )
    where, title = python(installed, tmp_path, "-c", script).splitlines()
    assert Path(where).is_relative_to(installed)
    assert title == "COPAL Explorer"
    assert (installed / "copal_core/_app/.streamlit/config.toml").read_text() == (
        ROOT / ".streamlit/config.toml"
    ).read_text()


def test_a_checkout_uses_its_own_files() -> None:
    assert shipped.app() == ROOT / "app.py"
    assert shipped.assets("tiny") == ROOT / "assets" / "tiny"
