"""Named registries: one file registers one class, which is then available everywhere by its name.

The file is called as the method is (dashes written as underscores), so that the names and their
one-line descriptions can be listed without importing torch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from copal_core.errors import InvalidValueError

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name; `get` imports the file that registers the name."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers under `name`; it raises ValueError for a name in use."""

        def add(cls: type[T]) -> type[T]:
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ValueError(f"{self.kind} '{name}' is registered twice: by {taken} and by {cls}")
            self._classes[name] = cls
            cls.name = name  # type: ignore[attr-defined]
            return cls

        return add

    def names(self) -> list[str]:
        """Return all names in alphabetical order, without importing the files that define them."""
        files = {_name(module) for module in self._modules()}
        return sorted(files | set(self._classes))

    def summaries(self) -> dict[str, str]:
        """Return name -> first paragraph of its file's docstring, without importing the files."""
        return {name: self._summary(name) for name in self.names()}

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`.

        Raises:
            InvalidValueError: the name is unknown; the message lists the known ones.
        """
        if name not in self._classes:
            if name not in self.names():
                known = ", ".join(self.names())
                raise InvalidValueError(f"{self.kind} '{name}' is not known; known: {known}")
            importlib.import_module(f"{self._package}.{name.replace('-', '_')}")
        if name not in self._classes:
            raise ValueError(f"{self._package}/{name.replace('-', '_')}.py does not register '{name}'")
        return self._classes[name]

    def _folder(self) -> Path:
        spec = importlib.util.find_spec(self._package)
        if spec is None or spec.origin is None:
            raise ValueError(f"package {self._package} cannot be found")
        return Path(spec.origin).parent

    def _modules(self) -> list[str]:
        """Return the modules that hold a method; modules with a leading underscore hold shared code."""
        names = (module.name for module in pkgutil.iter_modules([str(self._folder())]))
        return [name for name in names if not name.startswith("_")]

    def _summary(self, name: str) -> str:
        path = self._folder() / f"{name.replace('-', '_')}.py"
        if path.exists():
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        else:
            text = self._classes[name].__doc__ or ""
        return text.partition("\n\n")[0].replace("\n", " ").strip()


def _name(module: str) -> str:
    return module.replace("_", "-")
