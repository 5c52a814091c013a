"""A method is one file: it registers itself, and its name and summary are known without importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.neurons import NEURONS
from copal_core.methods.strategies import STRATEGIES
from copal_core.system.registry import Registry

METHOD = '''"""What {name} does, in one sentence.

More of it.
"""
from {package} import THINGS

@THINGS.register("{name}")
class Made:
    pass
'''


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Registry:
    """A registry of a package of its own, with one method in it."""
    package = f"things_{abs(hash(request.node.name))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from copal_core.system.registry import Registry\nTHINGS = Registry('thing', __name__)\n"
    )
    (folder / "_shared.py").write_text("raise RuntimeError('not a method')")
    (folder / "first_one.py").write_text(METHOD.format(name="first-one", package=package))
    monkeypatch.syspath_prepend(str(tmp_path))
    return __import__(package).THINGS


def add(things: Registry, file: str, text: str) -> None:
    (things._folder() / file).write_text(text.replace("{package}", things._package))


def test_a_file_is_all_that_a_new_method_needs(things: Registry) -> None:
    assert things.names() == ["first-one"]
    add(things, "another.py", METHOD.replace("{name}", "another"))
    assert things.names() == ["another", "first-one"]
    assert things.summaries()["another"] == "What another does, in one sentence."
    assert things.get("another").name == "another"


def test_names_do_not_import_the_files(things: Registry) -> None:
    add(things, "broken.py", '"""Breaks."""\nraise RuntimeError("imported")\n')
    assert things.names() == ["broken", "first-one"]
    assert things.summaries()["broken"] == "Breaks."
    assert things.get("first-one").name == "first-one"
    with pytest.raises(RuntimeError, match="imported"):
        things.get("broken")


def test_an_unknown_name_lists_the_known_ones(things: Registry) -> None:
    with pytest.raises(InvalidValueError, match="thing 'frist-one' is not known; known: first-one"):
        things.get("frist-one")


def test_a_name_is_registered_once(things: Registry) -> None:
    made = things.get("first-one")
    assert things.register("first-one")(made) is made  # the same class again is no conflict
    with pytest.raises(ValueError, match="registered twice"):

        @things.register("first-one")
        class Other:
            pass


def test_a_file_that_does_not_register_its_name_is_a_defect(things: Registry) -> None:
    add(things, "silent.py", '"""Registers nothing."""\n')
    with pytest.raises(ValueError, match=r"silent\.py does not register 'silent'"):
        things.get("silent")


@pytest.mark.parametrize("registry", [CRITERIA, NEURONS, STRATEGIES], ids=lambda registry: registry.kind)
def test_every_method_has_a_name_and_a_summary(registry: Registry) -> None:
    for name, summary in registry.summaries().items():
        assert registry.get(name).name == name
        assert len(summary) > 20 and summary.rstrip(".") != name


def test_the_methods_of_the_paper_are_there() -> None:
    assert set(CRITERIA.names()) >= {"copal", "magnitude", "sparsegpt", "wanda"}
    assert set(STRATEGIES.names()) >= {"accumulate", "joint", "restart", "sequential"}


def test_names_are_known_without_torch() -> None:
    """Configuration, names, run store, figures' data and preflight: what a page needs before it computes."""
    code = (
        "import sys\n"
        "from copal_core import config\nfrom copal_core.analysis import metrics, results\n"
        "from copal_core.cli import main\nfrom copal_core.experiment import preflight, processes\n"
        "from copal_core.store import runs\n"
        "from copal_core.checkpoints import catalogue\n"
        "from copal_core.methods.criteria import CRITERIA\n"
        "from copal_core.methods.strategies import STRATEGIES\n"
        "from copal_core.domains import builtins\n"
        "CRITERIA.summaries(), STRATEGIES.summaries(), catalogue(), builtins(), runs.Runs().list()\n"
        "heavy = {'torch', 'transformers', 'datasets', 'streamlit'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
