"""Packages in one order, each importing only from those before it; and what no file may do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "copal_core").rglob("*.py"))
PAGES = sorted([ROOT / "app.py", *(ROOT / "pages").rglob("*.py")])
HEAVY = {"torch", "transformers", "datasets", "safetensors", "accelerate"}


# bottom to top; above all stand __init__, which re-exports the interface, and __main__
ORDER = (
    *(
        "errors",
        "system",
        "config",
        "domains",
        "checkpoints",
        "statistics",
        "methods",
        "store",
        "compression",
    ),
    *("experiment", "analysis", "figures", "export", "cli", "interface"),
)


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, read once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, module_level: bool = False) -> Iterator[str]:
    """Every module a file imports, as written; those only for type checkers are passed over.

    module_level: only what runs when the file is imported.
    """
    yield from _imports(parsed(path), module_level)


def _imports(node: ast.AST, module_level: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif not (module_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from _imports(child, module_level)


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "copal_core").parts[0].removesuffix(".py")


def parts_imported(path: Path) -> set[str]:
    """The parts of copal_core that a file imports."""
    found = {name.split(".")[1] for name in imports(path) if name.startswith("copal_core.")}
    return found - {"__init__"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CORE, ids=named)
def test_the_core_knows_nothing_of_the_app(path: Path) -> None:
    assert not [
        name for name in imports(path) if name.split(".")[0] in ("streamlit", "pages", "app", "tests")
    ]


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_only_from_those_below(package: str) -> None:
    files = [
        path for path in CORE if path.relative_to(ROOT / "copal_core").parts[0].removesuffix(".py") == package
    ]
    assert files
    below = {*ORDER[: ORDER.index(package) + 1], "__init__"}
    turned = [
        f"{named(path)} imports {name}"
        for path in files
        for name in imports(path)
        if name.startswith("copal_core.") and name.split(".")[1] not in below
    ]
    assert not turned


def test_every_package_has_its_place() -> None:
    parts = {path.relative_to(ROOT / "copal_core").parts[0].removesuffix(".py") for path in CORE}
    assert parts - {"__init__", "__main__"} == set(ORDER)


def test_private_modules_stay_in_their_package() -> None:
    """A module whose name begins with an underscore is imported by its neighbours alone."""
    foreign = [
        f"{named(path)} imports {name}"
        for path in [*CORE, *PAGES]
        for name in imports(path)
        if "._" in name
        and name.startswith(("copal_core.", "pages."))
        and name.split("._")[0] != ".".join(path.relative_to(ROOT).parts[:-1])
        and not name.split("._")[1].startswith("_")
    ]
    assert not foreign


@pytest.mark.parametrize("path", [path for path in CORE if part_of(path) == "figures"], ids=named)
def test_figures_compute_nothing(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] in HEAVY]
    assert parts_imported(path) <= {
        "figures",
        "errors",
        "analysis",
        "config",
        "store",
        "methods",
        "checkpoints",
    }


@pytest.mark.parametrize("path", sorted((ROOT / "pages").rglob("*.py")), ids=named)
def test_page_folders_do_not_import_from_one_another(path: Path) -> None:
    """What two pages need lies in pages.shared, which knows no page."""
    own = ("pages.shared.", f"pages.{path.relative_to(ROOT).parts[1]}.")
    assert not [name for name in imports(path) if name.startswith("pages.") and not name.startswith(own)]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_pages_import_torch_only_where_they_compute(path: Path) -> None:
    assert not [name for name in imports(path, module_level=True) if name.split(".")[0] in HEAVY]


@pytest.mark.parametrize("path", [*CORE, *PAGES], ids=named)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@pytest.mark.parametrize("path", [*CORE, *PAGES], ids=named)
def test_mistakes_raise(path: Path) -> None:
    """An assert vanishes under python -O, and its message names no rule."""
    tree = parsed(path)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def unescaped(tree: ast.AST) -> Iterator[str]:
    """What a page hands to st.html that is neither a constant, nor a number, nor escaped.

    A call in place of the whole text is passed over: the function that builds it has a test of its own.
    """
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".html"):
            parts = (part for part in call.args if not isinstance(part, ast.Call))
            yield from (ast.unparse(part) for part in parts if not _is_safe(part))


def _is_safe(part: ast.expr) -> bool:
    match part:
        case ast.Constant():
            return True
        case ast.Call():
            return ast.unparse(part.func).split(".")[-1] in ("escape", "hex")
        case ast.Name():
            return part.id.lstrip("_").isupper()
        case ast.BinOp(op=ast.Add()):
            return _is_safe(part.left) and _is_safe(part.right)
        case ast.JoinedStr():
            return all(_is_safe(value) for value in part.values)
        case ast.FormattedValue():
            number = part.format_spec is not None and ast.unparse(part.format_spec) in ("f'd'", "'d'")
            return number or _is_safe(part.value)
    return False


@pytest.mark.parametrize("path", [*CORE, *PAGES], ids=named)
def test_nothing_foreign_is_executed(path: Path) -> None:
    """No code from checkpoints or data sets, no pickles, no unescaped HTML with what people typed."""
    text = path.read_text(encoding="utf-8")
    assert "trust_remote_code=True" not in text
    assert "weights_only=False" not in text
    assert not [name for name in imports(path) if name.split(".")[0] in ("pickle", "dill", "joblib")]
    assert "unsafe_allow_html" not in text
    assert not list(unescaped(ast.parse(text)))


def test_the_reader_of_html_sees_what_is_not_escaped() -> None:
    """The test above can fail."""
    safe = (
        "st.html(LEGEND); st.html(f'<b>{escape(name)}{number:d}{_STYLE}</b>'); st.html(tokens.legend(limit))"
    )
    assert not list(unescaped(ast.parse(safe)))
    for written in (
        "name",
        "f'<b>{name}</b>'",
        "'<b>' + name",
        "'<b>%s</b>' % name",
        "f'<b>{name.strip()}</b>'",
    ):
        assert len(list(unescaped(ast.parse(f"st.html({written})")))) == 1, written


def test_the_reader_of_imports_sees_a_turn(tmp_path: Path) -> None:
    """The tests above can fail: they see imports inside functions, and tell them from those at the top."""
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import datasets\n"
        "try:\n    import torch.nn\nexcept ImportError: pass\n"
        "def f():\n    from copal_core.store import run_store\n"
    )
    assert list(imports(path)) == ["typing.TYPE_CHECKING", "torch.nn", "copal_core.store.run_store"]
    assert list(imports(path, module_level=True)) == ["typing.TYPE_CHECKING", "torch.nn"]


@pytest.mark.parametrize("path", [*CORE, *PAGES], ids=named)
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path) -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(parsed(path)) if isinstance(node, documented)]
    assert not [text for text in texts if text.startswith(("What ", "Whether ", "Who ", "Which "))]
