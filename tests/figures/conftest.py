"""Small records worked out by hand: two domains, two methods, two blocks."""

from __future__ import annotations

import pandas as pd
import pytest

DOMAINS = ["code", "drama"]
METHODS = ["copal:accumulate", "wanda:restart"]


@pytest.fixture
def perplexity() -> pd.DataFrame:
    rows = [("dense", 0, "code", 8.0), ("dense", 0, "drama", 40.0)]
    rows += [("copal:accumulate", 1, "code", 10.0), ("copal:accumulate", 1, "drama", 60.0)]
    rows += [("copal:accumulate", 2, "code", 11.0), ("copal:accumulate", 2, "drama", 50.0)]
    rows += [("wanda:restart", 1, "code", 9.0), ("wanda:restart", 1, "drama", 70.0)]
    rows += [("wanda:restart", 2, "code", 16.0), ("wanda:restart", 2, "drama", 48.0)]
    table = pd.DataFrame(rows, columns=["method", "step", "domain", "perplexity"])
    return table.assign(mean_nats=1.0, tokens=100, nonfinite_batches=0)


@pytest.fixture
def layers_frame() -> pd.DataFrame:
    rows = []
    for method, stay in (("copal:accumulate", 40), ("wanda:restart", 25)):
        for step in (1, 2):
            for block in (0, 1):
                for projection in ("q_proj", "down_proj"):
                    rows.append(
                        {
                            "method": method,
                            "step": step,
                            "block": block,
                            "projection": projection,
                            "rows": 10,
                            "columns": 10,
                            "weights": 100,
                            "pruned": 50,
                            "score_mean": 10.0 ** (block + step),
                            "score_domain_mean": 2.0,
                            "score_p05": 0.1,
                            "score_p50": 1.0,
                            "score_p95": 9.0,
                            "threshold_p05": 0.5,
                            "threshold_p50": 1.0,
                            "threshold_p95": 2.0,
                            "stay_pruned": stay if step > 1 else None,
                            "revived": 50 - stay if step > 1 else None,
                            "newly_pruned": 50 - stay if step > 1 else None,
                        }  # fmt: skip
                    )
    return pd.DataFrame(rows)


@pytest.fixture
def overlaps() -> pd.DataFrame:
    rows = [
        (2, *METHODS, block, projection, 30, 70) for block in (0, 1) for projection in ("q_proj", "down_proj")
    ]
    columns = ["step", "method_a", "method_b", "block", "projection", "both_pruned", "either_pruned"]
    return pd.DataFrame(rows, columns=columns)
