"""Python source code: the standard library of the running interpreter."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from copal_core.domains.builtin import BUILTINS, BuiltIn
from copal_core.domains.documents import Document

# Tests, generated tables, frozen legacy copies and demonstrations are not typical code.
_LEFT_OUT = frozenset(
    {
        *("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data"),
        *("turtledemo", "ensurepip", "msilib", "lib-dynload", "__pycache__", "__phello__"),
    }
)
_SHORTEST = 400  # characters: shorter files are mostly re-exports


@BUILTINS.register("python-code")
class PythonCode(BuiltIn):
    """One document per module; its id is the module's path within the standard library."""

    label = "Python code"
    description = "Sources of the Python standard library, without its tests."

    def why_not(self) -> str:
        if (_library() / "argparse.py").is_file():
            return ""
        return f"the standard library's sources are not in {_library()}; use a Python that ships them"

    def sources(self) -> Iterator[Document]:
        library = _library()
        for path in sorted(_modules(library), key=lambda path: path.relative_to(library).as_posix()):
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue  # a handful of sources declare another encoding
            if len(text) >= _SHORTEST:
                yield Document(path.relative_to(library).as_posix(), text)


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _modules(folder: Path) -> Iterator[Path]:
    """Yield the .py files under `folder`, except those in `_LEFT_OUT` and build configurations."""
    for path in folder.iterdir():
        if path.name in _LEFT_OUT or path.name.startswith(("config-", "_sysconfigdata")):
            continue
        if path.is_dir():
            yield from _modules(path)
        elif path.suffix == ".py":
            yield path
