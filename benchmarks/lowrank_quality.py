"""Does low rank do what its papers promise, on the default checkpoint at 80 % of the bytes kept?

Whitened SVD against plain SVD on every domain, PLRD with its default budget against the untrained whitened SVD on
the tuned domains, Basel against plain SVD on its target; masks at the same bytes beside them. Minutes to an hour.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from copal_core.analysis.results import result_of
from copal_core.config import Protocol, RunConfig, Structure, Windows
from copal_core.experiment import loop
from copal_core.methods import stored_size
from copal_core.store.runs import Runs

DOMAINS = ("python-manual", "shakespeare", "python-code")  # the last is the target of basel
PROTOCOL = Protocol(calibration=Windows.parse("32x256"), evaluation=Windows.parse("8x256"), propagate="dense")


def measure(
    root: Path, checkpoint: str, methods: tuple[str, ...], strategy: str
) -> dict[str, dict[str, float]]:
    """method -> domain -> perplexity (infinite where not finite) at 80 % of the bytes.

    strategy: joint sees all domains, restart the last of them.
    """
    config = RunConfig(
        checkpoint=checkpoint,
        domains=DOMAINS,
        methods=tuple(f"{method}:{strategy}" for method in methods),
        structure=Structure(sparsity=stored_size.sparsity_at(0.8)),
        protocol=PROTOCOL,
        steps="last",
    )
    store = Runs(root).create(config)
    loop.run(store, lambda event: print(event, file=sys.stderr))
    result = result_of(store)
    found = {"dense": list(result["dense"].values())}
    found |= {one["method"].partition(":")[0]: one["perplexity"][-1] for one in result["methods"]}
    return {
        name: dict(zip(DOMAINS, (float("inf") if v is None else v for v in row), strict=True))
        for name, row in found.items()
    }


def main() -> int:
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            Path(folder), checkpoint, ("svd", "whitened-svd", "wanda", "copal", "hybrid", "plrd"), "joint"
        )
        found["basel (target python-code)"] = measure(Path(folder), checkpoint, ("basel",), "restart")[
            "basel"
        ]
    print(
        f"{checkpoint}, 80 % of the bytes kept, calibration 32×256, evaluation 8×256, dense propagation, seed 0"
    )
    print(f"{'':30}" + "".join(f"{name:>16}" for name in DOMAINS))
    for method, row in found.items():
        print(f"{method:30}" + "".join(f"{row[name]:>16.2f}" for name in DOMAINS))
    promises = {
        "whitened SVD beats plain SVD on every domain": all(
            found["whitened-svd"][d] < found["svd"][d] for d in DOMAINS
        ),
        "PLRD beats the untrained whitened SVD": all(
            found["plrd"][d] < found["whitened-svd"][d] for d in DOMAINS
        ),
        "Basel beats plain SVD on its target": found["basel (target python-code)"][DOMAINS[-1]]
        < found["svd"][DOMAINS[-1]],
    }
    for promise, kept in promises.items():
        print(f"{promise}: {'yes' if kept else 'NO'}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
