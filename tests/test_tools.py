"""The development tools: pinned like all that is installed, and the same on commit as in `make style`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-cluster.txt")
_CHANGES = {"--fix", "--check", "."}  # whether a tool mends or only tells, and where: no other rules


def lines(name: str) -> list[str]:
    """The lines of a file without comments."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]


def locked() -> dict[str, str]:
    pairs = (line.split("==") for line in lines("requirements.lock"))
    return {canonicalize_name(name): version for name, version in pairs}


def hooks() -> list[dict[str, Any]]:
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    return [{**hook, "repo": repo["repo"]} for repo in content["repos"] for hook in repo["hooks"]]


def style() -> list[list[str]]:
    """The commands of `make style`, with what the Makefile's variables stand for."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^style:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert recipe is not None
    values = dict(re.findall(r"^(\w+) [:?]?= (.*)$", text, re.MULTILINE))
    commands = recipe[1]
    while "$(" in commands:
        commands = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], commands)
    return [shlex.split(line) for line in commands.splitlines()]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_what_is_asked_for_is_pinned_within_its_range(name: str) -> None:
    pins = locked()
    for line in lines(name):
        if not line.startswith("-"):
            asked = Requirement(line)
            pinned = pins.get(canonicalize_name(asked.name))
            assert pinned is not None, f"{asked.name} of {name} is not in requirements.lock"
            assert asked.specifier.contains(pinned), f"{asked} of {name} does not allow {pinned}"


def test_the_build_itself_is_pinned() -> None:
    build = re.search(r'^requires = \["([^"]+)"\]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert build is not None
    asked = Requirement(build[1])
    assert asked.specifier.contains(locked()[asked.name])


def test_a_commit_is_checked_by_the_commands_of_make_style() -> None:
    on_commit = [[part for part in shlex.split(hook["entry"]) if part not in _CHANGES] for hook in hooks()]
    assert on_commit == [[part for part in command if part not in _CHANGES] for command in style()]


def test_a_commit_is_checked_by_the_versions_of_the_environment() -> None:
    pins, asked = (
        locked(),
        {Requirement(line).name for line in lines("requirements-dev.txt") if line[0] != "-"},
    )
    for hook in hooks():
        tool = Path(shlex.split(hook["entry"])[0])
        assert (hook["repo"], hook["language"], tool.parent) == ("local", "system", Path(".venv/bin"))
        assert tool.name in asked and tool.name in pins
        assert not {"rev", "additional_dependencies"} & set(hook)
        # mypy checks the packages that pyproject.toml names, ruff the files of the commit
        assert hook.get("pass_filenames", True) == (tool.name == "ruff")
