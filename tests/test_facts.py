"""Facts of methods: known without importing them, equal to what they do, and enough for a new method to appear."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from copal_core.analysis.layers import compared
from copal_core.analysis.layers.curves import layer_curves
from copal_core.analysis.layers.preferences import preferences
from copal_core.checkpoints import locate
from copal_core.checkpoints.layout import GROUPS
from copal_core.cli import main
from copal_core.compression.restore import artifact_of
from copal_core.config import Method, Protocol, RunConfig, Windows
from copal_core.experiment import preflight
from copal_core.experiment.progress import step_cost
from copal_core.figures.template import method_colour
from copal_core.methods.build import build_compressor
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion
from copal_core.methods.facts import Facts, facts_of
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.statistics.accumulators import GroupStatistics, InputGram, InputSquareSum
from copal_core.statistics.library import layer_library
from pages.shared import words

NAMES = [*CRITERIA.names(), *LOWRANK.names(), *NEURONS.names()]
FACTS = [name for name in vars(Facts)["__annotations__"] if name != "name"]


def test_facts_read_from_the_source_are_those_of_the_classes() -> None:
    """In a process of its own, where nothing has imported the methods."""
    code = (
        "import json, sys\nfrom copal_core.methods.facts import facts_of\n"
        f"found = {{name: {{fact: getattr(facts_of(name), fact) for fact in {FACTS!r}}} for name in {NAMES!r}}}\n"
        "assert 'torch' not in sys.modules\nprint(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name: type(build_compressor(name, {})) for name in NAMES}
    expected = {name: {fact: getattr(cls, fact) for fact in FACTS} for name, cls in loaded.items()}
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_that_are_counted_are_those_that_calibration_allocates(name: str) -> None:
    compressor = build_compressor(name, {})
    assert [type(one).__name__ for one in compressor.statistics()] == list(compressor.gathers)
    shapes = dict.fromkeys(("q_proj", "o_proj"), (24, 24)) | dict.fromkeys(("k_proj", "v_proj"), (8, 24))
    shapes |= dict.fromkeys(("gate_proj", "up_proj"), (40, 24)) | {"down_proj": (24, 40)}
    for group, counted in compressor.gathered_bytes(shapes).items():
        rows, columns = sum(shapes[one][0] for one in GROUPS[group]), shapes[GROUPS[group][0]][1]
        here = [one for one in compressor.statistics() if one.groups is None or group in one.groups]
        totals = [one.zeros(rows, columns, torch.device("cpu")) for one in here]
        assert counted == sum(total.numel() * total.element_size() for total in totals)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_one_kind_of_artifact(name: str) -> None:
    assert artifact_of(f"{name}:restart").on_disk
    assert facts_of(name).artifact == {"criterion": "masks", "decomposition": "factors"}.get(
        next(r.kind for r in (CRITERIA, LOWRANK, NEURONS) if name in r.names()), "neurons"
    )


@pytest.fixture
def new_criterion(monkeypatch: pytest.MonkeyPatch) -> str:
    """A criterion that is registered while the program runs, and known to no other file."""
    monkeypatch.setattr(CRITERIA, "_classes", dict(CRITERIA._classes))

    @CRITERIA.register("gram-diagonal")
    @dataclass(frozen=True)
    class GramDiagonal(Criterion):
        """Wanda's score from the diagonal of a Gram matrix."""

        cost: ClassVar[float] = 7.25
        gathers: ClassVar[tuple[str, ...]] = ("InputGram",)

        def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
            return weight.float().abs() * statistics.mean("input_gram").diagonal().sqrt()

    return "gram-diagonal"


def test_a_new_criterion_is_counted_by_the_estimates(
    new_criterion: str, small_config: Callable[..., RunConfig], small_model: Path
) -> None:
    described = dataclasses.replace(
        locate(str(small_model)).describe("cpu", "float32"),
        projections=dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (512, 512))
        | dict.fromkeys(("gate_proj", "up_proj"), (1024, 512))
        | {"down_proj": (512, 1024)},
    )
    gram = 4 * (3 * 512**2 + 1024**2)
    accumulated, joint, plain = (
        small_config([text])
        for text in (f"{new_criterion}:accumulate", f"{new_criterion}:joint", "magnitude:joint")
    )
    steps, blocks = len(joint.domains), described.blocks
    assert preflight.remembered_bytes(accumulated, described) == gram * blocks * steps
    more = preflight.memory_bytes(joint, described) - preflight.memory_bytes(plain, described)
    block = 4 * sum(rows * columns for rows, columns in described.projections.values())
    assert more == max(gram * (steps + 1), block) - block > 0
    cost = step_cost(joint, Method.parse(f"{new_criterion}:restart"), 1)[0]
    assert cost == 7.25 * joint.protocol.calibration.tokens


def test_a_new_criterion_is_listed_and_drawn(new_criterion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words.criteria()[new_criterion][1] == "Wanda's score from the diagonal of a Gram matrix."
    assert main.main(["methods", "--json"]) in (0, None)
    listed = json.loads(capsys.readouterr().out)
    assert {"kind": "criterion", "name": new_criterion} in [
        {key: row[key] for key in ("kind", "name")} for row in listed
    ]
    colours = {name: method_colour(f"{name}:restart") for name in NAMES}
    assert method_colour(f"{new_criterion}:restart") not in colours.values()


def test_a_new_criterion_is_in_curves_and_preferences(
    new_criterion: str,
    small_model: Path,
    texts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert new_criterion in compared.masks()
    inputs, weight = torch.randn(60, 16), torch.randn(12, 16)
    gathered = GroupStatistics(60)
    for statistic in (InputGram(), InputSquareSum()):
        total = gathered.totals[statistic.name] = statistic.zeros(12, 16, torch.device("cpu"))
        statistic.update(total, inputs, [], None)
    curves = layer_curves(weight, {"text": gathered}, masks=[new_criterion, "wanda"])
    errors = {curve.method: curve.error for curve in curves.curves if curve.kind == "mask"}
    assert errors[new_criterion] == pytest.approx(errors["wanda"], rel=1e-4)  # the same score, by another way

    monkeypatch.setenv("COPAL_CACHE", str(tmp_path))
    protocol = Protocol(
        calibration=Windows.parse("3x24"), evaluation=Windows.parse("2x24"), device="cpu", dtype="float32"
    )
    library = layer_library(locate(str(small_model)), texts[:1], protocol)
    found = preferences(library, shares=(0.5,))
    assert found[new_criterion] == pytest.approx(found["wanda"], rel=1e-4)
