"""The command `neurons`: one JSON object, the figures of every selector, an export, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from copal_core.cli.main import main
from copal_core.methods.neurons import NEURONS
from copal_core.store.runs import Runs


@pytest.fixture
def arguments(small_model: Path, texts: tuple[str, ...], runs: Runs) -> list[str]:
    found = ["neurons", "--checkpoint", str(small_model), "--device", "cpu", "--dtype", "float32"]
    found += ["--domain", texts[0], "--domain", texts[1], "--calibration", "3x24", "--evaluation", "2x24"]
    return found


def test_every_selector_at_every_share(
    arguments: list[str], runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoConfig

    out = tmp_path / "smaller"
    assert main([*arguments, "--share", "0.25", "--share", "0.5", "--json", "--out", str(out)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["methods"]) == 2 * len(NEURONS.names())
    for entry in result["methods"]:
        assert entry["method"].endswith(":accumulate") and len(entry["perplexity"]) == 2
        assert entry["neurons_removed"] == {0.25: 24, 0.5: 48}[entry["share"]]
    assert [one["share"] for one in result["speed"]] == [0.0, 0.25, 0.5]
    parameters = [one["parameters"] for one in result["speed"]]
    assert parameters[0] - parameters[1] == parameters[1] - parameters[2] == 2 * 12 * 3 * 32
    assert all(one["prefill"] > 0 and one["decode"] > 0 for one in result["speed"])
    assert result["exported"] == str(out) and AutoConfig.from_pretrained(out).intermediate_size == 36
    assert [run.status for run in runs.list()] == ["done"]


def test_without_json_the_same_in_words(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--method", "mutual-information[order=random-pairs]", "--strategy", "joint", "--no-speed"]
    assert main([*arguments, *chosen]) == 0
    text = capsys.readouterr().out
    assert "mutual-information[order=random-pairs,share=0.1]" in text and "10 of 96 neurons removed" in text
    assert "tokens/s" not in text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--method", "wanda"], "chooses no neurons; known: copal-neurons"),
        (["--share", "1.5"], "is not a share of the neurons"),
        (["--share", "nan"], "a number"),
        (["--strategy", "sometimes"], "sometimes"),
        (["--method", "mutual-information[order=best]"], "known: greedy"),
        (["--method", "mutual-information[threshold=99]"], "threshold = 99"),
        (["--domain", "no-such-domain"], "no-such-domain"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_run(
    arguments: list[str], runs: Runs, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and says in captured.err and captured.err.count("\n") == 1
    assert not runs.list()
