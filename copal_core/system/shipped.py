"""Paths of files that ship with the product: beside the package in a checkout, inside it once installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]  # copal_core


def assets(name: str) -> Path:
    """Return the folder `name` of the assets; it need not exist."""
    inside = _PACKAGE / "assets" / name
    return inside if inside.is_dir() else _PACKAGE.parent / "assets" / name


def app() -> Path:
    """Return the app's main file."""
    inside = _PACKAGE / "_app" / "app.py"
    return inside if inside.is_file() else _PACKAGE.parent / "app.py"
