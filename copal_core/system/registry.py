"""Named registries: one file registers one class, which is then available everywhere by its name.

The file is called as the method is (dashes written as underscores), so that names, one-line descriptions and the
facts that a class states as literals in its body are known without importing the file, and torch with it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from copal_core.errors import InvalidValueError

T = TypeVar("T")
B = TypeVar("B")
Options = Mapping[str, str | float | bool]
_WORDS = {float: "a number", str: "a word", bool: "true or false"}


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

    def build(self, name: str, options: Options) -> T:
        """Return the dataclass `name` with its options.

        Raises:
            InvalidValueError: for an unknown name, an option that is no field of it, or a value of another type.
        """
        cls = self.get(name)
        known = {field.name: type(field.default) for field in fields(cls)}  # type: ignore[arg-type]
        for option, value in options.items():
            if option not in known:
                offered = f"it takes {', '.join(known)}" if known else "it takes none"
                raise InvalidValueError(f"{self.kind} '{name}' has no option '{option}'; {offered}")
            if type(value) is not known[option] or (isinstance(value, float) and not math.isfinite(value)):
                wanted = _WORDS.get(known[option], "another value")
                raise InvalidValueError(
                    f"option '{option}' of {self.kind} '{name}' is {wanted}, got '{value}'"
                )
        return cls(**options)

    def facts(self, name: str, base: type[B]) -> type[B]:
        """Return a class whose attributes are the facts of the method `name`, without importing its file.

        Args:
            name: of a method; an unknown one has the facts of `base`.
            base: ancestor of the registry's classes, importable at no cost, with every fact's default.

        Returns:
            The registered class where it is loaded; else a stand-in of the same name, derived from `base`, with the
            docstring and the literal attributes of the class in the file.
        """
        if name in self._classes:
            return cast("type[B]", self._classes[name])
        path = self._path(name)
        for node in ast.walk(_parsed(path, path.stat().st_mtime_ns)) if path.exists() else ():
            if isinstance(node, ast.ClassDef) and name in map(_registered_as, node.decorator_list):
                body = {**_literals(node), "__doc__": ast.get_docstring(node)}
                return cast("type[B]", type(node.name, (base,), body))
        return base

    def _folder(self) -> Path:
        spec = importlib.util.find_spec(self._package)
        if spec is None or spec.origin is None:
            raise ValueError(f"package {self._package} cannot be found")
        return Path(spec.origin).parent

    def _modules(self) -> list[str]:
        """Return the modules that hold a method; modules with a leading underscore hold shared code."""
        names = (module.name for module in pkgutil.iter_modules([str(self._folder())]))
        return [name for name in names if not name.startswith("_")]

    def _path(self, name: str) -> Path:
        return self._folder() / f"{name.replace('-', '_')}.py"

    def _summary(self, name: str) -> str:
        path = self._path(name)
        if path.exists():
            text = ast.get_docstring(_parsed(path, path.stat().st_mtime_ns)) or ""
        else:
            text = self._classes[name].__doc__ or ""
        return text.partition("\n\n")[0].replace("\n", " ").strip()


@lru_cache(maxsize=128)
def _parsed(path: Path, changed: int) -> ast.Module:
    """Return the syntax tree of a file as it was at the time `changed`."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _registered_as(decorator: ast.expr) -> str:
    """Return the name in `@REGISTRY.register("name")`; empty for another decorator."""
    match decorator:
        case ast.Call(func=ast.Attribute(attr="register"), args=[ast.Constant(value=str(name)), *_]):
            return name
    return ""


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    """Return the attributes of a class body whose values are literals."""
    found = {}
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case _:
                continue
        try:
            found[name] = ast.literal_eval(value)
        except ValueError:
            continue
    return found


def _name(module: str) -> str:
    return module.replace("_", "-")
