"""One weight: its history is the masks', its scores are the criteria's, and a replay makes the run's own mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from copal_core.analysis.diagnosis.decisions import gather_decision, replay
from copal_core.analysis.diagnosis.evidence import Evidence, Place, band_of, events, evidence_file, standing
from copal_core.analysis.diagnosis.kept import Result, kept_results
from copal_core.analysis.diagnosis.layers import gather_layer
from copal_core.checkpoints import locate
from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.cli.main import main
from copal_core.config import Structure
from copal_core.errors import InvalidValueError, RunError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.masks import select
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

PLACE = Place(1, "k_proj")


def quiet(label: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def store(finished: Callable[[str, str], RunStore]) -> RunStore:
    return finished("unstructured", "pruned")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def evidence(store: RunStore) -> Evidence:
    gather_layer(store, locate(store.config.checkpoint), PLACE, 3, quiet)
    return Evidence(evidence_file(store, PLACE))


@pytest.fixture(scope="module")
def backbone(small_model: Path) -> Backbone:
    return Backbone(small_model, "cpu", "float32")


def test_values_and_history_are_those_of_the_run(
    store: RunStore, evidence: Evidence, backbone: Backbone
) -> None:
    with backbone.block(PLACE.block) as block:
        dense = linears(block)[PLACE.projection].weight.clone()
    assert evidence.results == kept_results(store) and len(evidence.results) == 48
    rows, columns = evidence.shape
    assert (rows, columns) == tuple(dense.shape)
    for number, result in enumerate(evidence.results):
        kept = store.masks(result.method, result.step, PLACE.block)[PLACE.projection]
        for row, column in ((0, 0), (3, 17), (rows - 1, columns - 1)):
            after = evidence.after(number, row, column)
            assert (after != 0) == kept[row, column]
            if result.method.startswith("sparsegpt"):
                continue
            assert after == (float(dense[row, column]) if kept[row, column] else 0)
        tile = evidence.removed_tile(number, range(2, 5), range(10, 20))
        assert np.array_equal(tile, ~kept[2:5, 10:20])


@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_standing_is_the_mask_that_the_scores_make(
    store: RunStore, evidence: Evidence, criterion: str
) -> None:
    for domain in range(3):
        scores = torch.from_numpy(evidence.whole(f"score.{criterion}.{domain}"))
        kept = select(scores, store.config.structure).kept
        for row, column in ((0, 0), (3, 17), (3, 18), (7, 31)):
            found = evidence.standing(criterion, domain, row, column, store.config.structure)
            assert found is not None
            assert found.stays == bool(kept[row, column])
            assert found.score == pytest.approx(float(scores[row, column]))
            if found.margin is not None:
                assert (found.margin > 1) == found.stays


def test_copals_score_is_the_weight_times_its_moments(store: RunStore, evidence: Evidence) -> None:
    """All 72 calibration tokens are kept here, so that the sum over them is the score."""
    for row, column in ((3, 17), (7, 5)):
        moments = evidence.strongest(1, row, column, count=1000)
        found = evidence.standing("copal", 1, row, column, store.config.structure)
        assert found is not None
        mean = sum(one.product for one in moments) / 72
        assert found.score == pytest.approx(abs(evidence.value(row, column)) * mean, rel=1e-4)
        assert sum(one.share for one in moments) == pytest.approx(1)
        assert [one.product for one in moments] == sorted((one.product for one in moments), reverse=True)
        before, own, after = evidence.context(1, moments[0].token, 24)
        assert own and f"{before}{own}{after}" in "".join(evidence.about["pieces"][1])
        assert len(before) + len(after) > 0


@pytest.mark.parametrize(
    "method",
    [
        f"{c}:{s}"
        for c in ("magnitude", "wanda", "sparsegpt", "copal")
        for s in ("restart", "sequential", "accumulate", "joint")
    ],
)
def test_a_replay_makes_the_same_mask(store: RunStore, backbone: Backbone, method: str) -> None:
    checkpoint = locate(store.config.checkpoint)
    for step in (1, 3):
        pruned, base, rows = replay(store, checkpoint, backbone, PLACE, Result(method, step), quiet)
        kept = pruned.kept[rows[0] : rows[0] + rows[1]].numpy()  # q_proj lies above
        assert np.array_equal(kept, store.masks(method, step, PLACE.block)["k_proj"]), step
        assert base["k_proj"].shape == kept.shape


@pytest.mark.parametrize(
    "structure, propagate", [("unstructured layer", "pruned"), ("2:4", "pruned"), ("unstructured", "dense")]
)
def test_other_structures_and_propagations(
    finished: Callable[[str, str], RunStore], backbone: Backbone, structure: str, propagate: str
) -> None:
    store = finished(structure, propagate)
    checkpoint = locate(store.config.checkpoint)
    for method in ("wanda:restart", "copal:sequential", "copal:accumulate"):
        result = Result(method, 2)
        gather_decision(store, checkpoint, PLACE, result, 0, quiet)
        found = Evidence(evidence_file(store, PLACE, result))
        assert found.about["agreement"] == 1
        threshold = found.number("threshold") if found.has("threshold") else None
        assert (threshold is not None) == (structure == "unstructured layer")
        kept = store.masks(method, 2, PLACE.block)["k_proj"]
        for column in range(found.shape[1]):
            one = standing(found.row("score", 5), column, store.config.structure, threshold)
            assert one.stays == kept[5, column]


def test_what_cannot_be_replayed_says_why(store: RunStore, backbone: Backbone) -> None:
    checkpoint = locate(store.config.checkpoint)
    with pytest.raises(InvalidValueError, match="no mask by scores"):
        replay(store, checkpoint, backbone, PLACE, Result("svd:restart", 1), quiet)
    recorded = Runs().open("recorded-smollm2-135m")
    with pytest.raises(RunError, match="keeps no weights"):
        replay(recorded, checkpoint, backbone, PLACE, Result("wanda:restart", 1), quiet)


def test_a_weights_story() -> None:
    assert events([0.5, 0.0, 0.0, 0.5], 0.5) == ["kept", "dropped", "still out", "revived"]
    assert events([0.4, 0.0, 0.3], 0.5) == ["changed", "dropped", "revived"]
    assert events([0.0, None], 0.5) == ["dropped", "absent"]
    assert events([0.0, 0.0], 0.0) == ["kept", "kept"]


def test_ties_and_groups_by_hand() -> None:
    scores = np.array([1.0, 1.0, 3.0, 2.0, 9.0, 0.0, 0.0, 5.0], dtype=np.float32)
    half = Structure()
    first, second = (standing(scores, column, half, None) for column in (0, 1))
    assert (first.rank, first.stays, first.threshold, first.removed) == (3, False, 1.0, 4)
    assert (second.rank, second.stays) == (4, False)
    assert standing(scores, 3, half, None).stays
    pairs = Structure.parse("2:4")
    assert standing(scores, 3, pairs, None).stays and not standing(scores, 0, pairs, None).stays
    assert standing(scores, 4, pairs, None).among == 4
    layer = Structure(group="layer")
    assert standing(scores, 3, layer, 2.5).stays is False
    assert standing(scores, 3, layer, 1.5).margin == pytest.approx(2 / 1.5)


def test_a_large_layer_keeps_the_rows_around_the_one_asked_for() -> None:
    assert band_of(5, 100, 100, 10) == slice(0, 100)
    band = band_of(5000, 11008, 4096, 24)
    assert band.start <= 5000 < band.stop and (band.stop - band.start) * 4096 * 4 * 24 <= 192 * 2**20
    assert band_of(11007, 11008, 4096, 24).stop == 11008
    assert band_of(0, 11008, 4096, 24).start == 0


def test_rows_that_were_not_read_are_refused(evidence: Evidence) -> None:
    with pytest.raises(InvalidValueError, match="read it first"):
        evidence.value(10_000, 0)
    with pytest.raises(RunError, match="read it first"):
        Evidence(Path("/nowhere"))


def test_command_line(store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--runs", str(store.folder.parent), "--block", "1", "--projection", "k_proj"]
    assert main(["inspect", store.id, *place, "--row", "3", "--column", "17", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["after"]) == 48 and len(found["standings"]) == 4 * 3
    assert main(["inspect", store.id, *place, "--row", "3", "--column", "17"]) == 0
    assert "after step 1 of copal:accumulate" in capsys.readouterr().out
    assert main(["inspect", store.id, *place, "--row", "99999", "--column", "0"]) == 2
    assert "rows 0 to 15" in capsys.readouterr().err

    text = tmp_path / "text.txt"
    text.write_text("value = 3 * radius ** 2 é\n", encoding="utf-8")
    shared = ["losses", store.id, "--runs", str(store.folder.parent), "--text", str(text)]
    assert main([*shared, "--model", "wanda:restart@3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "".join(row[0] for row in found["pieces"]) == text.read_text(encoding="utf-8")
    assert found["models"] == ["dense model", "wanda:restart after step 3"] and not found["cut"]
    for model, words in (("wanda:restart", "METHOD@STEP"), ("wanda:restart@9", "keeps no weights")):
        assert main([*shared, "--model", model]) == 2
        assert words in capsys.readouterr().err

    assert main(["health", store.id, "--runs", str(store.folder.parent), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["checks"]) >= {"nonfinite", "rank", "empty-rows"}
    assert main(["health", store.id, "--runs", str(store.folder.parent)]) == 0
    assert "Dead inputs: " in capsys.readouterr().out
