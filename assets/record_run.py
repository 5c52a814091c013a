"""Makes the recorded run that a newcomer sees first: a real run, without what only a resume would need.

    python -m assets.record_run

About 15 minutes on two free cores. The masks, the memories and the token windows stay behind (they are large,
and the windows hold other people's text); records, events and pooled maps go to assets/recorded.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from copal_core.config import Protocol, RunConfig
from copal_core.experiment import loop
from copal_core.store.runs import RECORDED, Runs

RUN_ID = "recorded-smollm2-135m"
CONFIG = RunConfig(
    checkpoint="smollm2-135m",
    domains=("python-code", "python-manual", "shakespeare"),
    methods=(
        "copal:accumulate",
        "wanda:restart",
        "wanda:joint",
        "wanda:sequential",
        "magnitude:restart",
    ),
    protocol=Protocol(map_size=20),
)
KEPT = ("run.json", "status.json", "events.jsonl", "results.sqlite", "maps")


def record(root: Path, target: Path = RECORDED / RUN_ID) -> None:
    """Compute the run under `root` (or go on with it) and copy what the pages read to `target`."""
    runs = Runs(root)
    known = (root / RUN_ID / "run.json").is_file()
    title = "SmolLM2-135M over code, manual and drama"
    store = runs.open(RUN_ID) if known else runs.create(CONFIG, title, run_id=RUN_ID)
    loop.run(store, report=lambda event: print(event, flush=True))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in KEPT:
        source = store.folder / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        else:
            shutil.copyfile(source, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=Path, default=Path("build") / "recording", help="where the full run is kept"
    )
    record(parser.parse_args().runs)


if __name__ == "__main__":
    main()
