"""What pyproject.toml cannot say: the app and the assets travel inside the installed package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# here -> inside copal_core, where copal_core/system/shipped.py looks for them
CARRIED = {
    "assets/tiny": "assets/tiny",
    "assets/recorded": "assets/recorded",
    "app.py": "_app/app.py",
    "pages": "_app/pages",
    ".streamlit/config.toml": "_app/.streamlit/config.toml",
    "assets/icon.svg": "_app/assets/icon.svg",
}


class WithApp(build_py):
    """Build the package with the app and the assets in it; an editable install finds them in the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, target in CARRIED.items():
            here, there = ROOT / source, Path(self.build_lib) / "copal_core" / target
            there.parent.mkdir(parents=True, exist_ok=True)
            if here.is_dir():
                shutil.copytree(
                    here, there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.lock")
                )
            else:
                shutil.copy(here, there)


setup(cmdclass={"build_py": WithApp})
