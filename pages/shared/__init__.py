"""Parts that the pages share: state in the URL, forms, the run that is looked at, figures with their tables."""

from pathlib import Path

ICON = str(Path(__file__).resolve().parents[2] / "assets" / "icon.svg")
