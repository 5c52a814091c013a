"""Which neurons go: every selector on small random blocks, and pairs worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from copal_core.cli.lowrank import parse_method
from copal_core.errors import InvalidValueError
from copal_core.methods.build import build_compressor
from copal_core.methods.criteria.copal import Copal
from copal_core.methods.information import LARGEST
from copal_core.methods.neuron_selector import NO_TWIN, Selection, count_of, removed_weights
from copal_core.methods.neurons import NEURONS
from copal_core.methods.neurons._pairs import Pairs
from copal_core.statistics.accumulators import AbsoluteCoupling, BlockStatistics, GroupStatistics, Statistic

HIDDEN, NEURONS_IN_BLOCK, TOKENS = 12, 40, 600


def block(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"gate_proj": (40, 12), "up_proj": (40, 12), "down_proj": (12, 40)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def activations(weights: dict[str, Tensor], seed: int = 1) -> tuple[Tensor, list[Tensor], Tensor]:
    """(tokens, hidden) inputs, the outputs of gate and up, and z."""
    inputs = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(seed))
    outputs = [inputs @ weights[name].T for name in ("gate_proj", "up_proj")]
    return inputs, outputs, torch.nn.functional.silu(outputs[0]) * outputs[1]


def gathered(weights: dict[str, Tensor], statistics: tuple[Statistic, ...], seed: int = 1) -> BlockStatistics:
    """What `capture` would gather in this block."""
    inputs, outputs, z = activations(weights, seed)
    tall = torch.cat([weights["gate_proj"], weights["up_proj"]])
    seen = {
        "mlp_input": (inputs, outputs, tall),
        "mlp_output": (z, [z @ weights["down_proj"].T], weights["down_proj"]),
    }
    found = BlockStatistics()
    for group, (x, ys, weight) in seen.items():
        found.groups[group] = GroupStatistics(TOKENS)
        for one in statistics:
            if one.groups is None or group in one.groups:
                total = one.zeros(weight.shape[0], weight.shape[1], x.device)
                one.update(total, x, ys, weight)
                found.groups[group].totals[one.name] = total
    return found


def choose(text: str, weights: dict[str, Tensor], seed: int = 0, **options: object) -> Selection:
    selector = NEURONS.build(text, options)  # type: ignore[arg-type]
    statistics = gathered(weights, selector.statistics())
    return selector.select(weights, statistics, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NEURONS.names())
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.9, 0.999])
def test_every_selector_removes_exactly_what_was_asked(name: str, share: float) -> None:
    found = choose(name, block(), share=share)
    assert int((~found.kept).sum()) == len(found.removed) == count_of(share, NEURONS_IN_BLOCK)
    assert set(found.removed.tolist()) == set((~found.kept).nonzero()[:, 0].tolist())
    for column in (found.twins, found.information, found.coefficients):
        assert len(column) == len(found.removed)
    assert not found.warnings


@pytest.mark.parametrize("name", NEURONS.names())
def test_the_same_choice_twice_and_a_larger_share_removes_more_of_the_same(name: str) -> None:
    one, again, more = (choose(name, block(), share=share) for share in (0.2, 0.2, 0.5))
    assert torch.equal(one.removed, again.removed)
    assert torch.equal(more.removed[: len(one.removed)], one.removed)


@pytest.mark.parametrize("name", NEURONS.names())
def test_what_an_earlier_step_removed_stays_removed(name: str) -> None:
    weights = block()
    first = choose(name, weights, share=0.25)
    after = removed_weights(weights, first)
    second = choose(name, after, seed=5, share=0.25)
    assert torch.equal(first.kept, second.kept)
    assert set(choose(name, after, seed=5, share=0.5).removed.tolist()) >= set(first.removed.tolist())


@pytest.mark.parametrize("name", NEURONS.names())
def test_removed_weights_are_zero_and_the_rest_computes_the_same(name: str) -> None:
    weights = block()
    options = {"compensate": False} if name == "mutual-information" else {}
    found = choose(name, weights, share=0.3, **options)
    after = removed_weights(weights, found)
    assert not after["gate_proj"][found.removed].any() and not after["up_proj"][found.removed].any()
    assert not after["down_proj"][:, found.removed].any()
    assert torch.equal(after["down_proj"][:, found.kept], weights["down_proj"][:, found.kept])
    inputs, _, z = activations(weights)
    small = torch.nn.functional.silu(inputs @ after["gate_proj"].T) * (inputs @ after["up_proj"].T)
    assert torch.allclose(small @ after["down_proj"].T, (z * found.kept) @ weights["down_proj"].T, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"share": 1.0}, {"share": -0.1}, {"share": float("nan")}, {"shares": 0.1}]
)
@pytest.mark.parametrize("name", NEURONS.names())
def test_bad_options_name_the_rule(name: str, options: dict[str, float]) -> None:
    with pytest.raises(InvalidValueError):
        build_compressor(name, options)


@pytest.mark.parametrize(
    "options", [{"order": "best"}, {"threshold": -1.0}, {"threshold": 9.0}, {"compensate": 1.0}]
)
def test_bad_options_of_mutual_information(options: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError):
        NEURONS.build("mutual-information", options)  # type: ignore[arg-type]


def test_a_twin_is_found_first_and_compensation_makes_its_removal_exact() -> None:
    weights = block()
    for copy, original in ((31, 4), (8, 22), (39, 17)):
        weights["gate_proj"][copy] = weights["gate_proj"][original]
        weights["up_proj"][copy] = -2 * weights["up_proj"][original]  # z of the copy is -2 z
    found = choose("mutual-information", weights, share=3 / NEURONS_IN_BLOCK)
    pairs = {frozenset(pair) for pair in zip(found.removed.tolist(), found.twins.tolist(), strict=True)}
    assert pairs == {frozenset(pair) for pair in ((31, 4), (8, 22), (39, 17))}
    assert float(found.information.min()) > LARGEST - 2
    _, _, z = activations(weights, seed=9)  # on other inputs, too
    after = removed_weights(weights, found)["down_proj"]
    exact = z @ weights["down_proj"].T
    assert torch.allclose(z @ after.T, exact, rtol=1e-3, atol=1e-3)
    bare = removed_weights(weights, choose("mutual-information", weights, share=0.075, compensate=False))
    assert not torch.allclose(z @ bare["down_proj"].T, exact, rtol=0.1, atol=0.1)


def test_compensation_is_the_least_squares_prediction_from_the_twin() -> None:
    weights = block()
    found = choose("mutual-information", weights, share=0.1)
    _, _, z = activations(weights)
    for gone, twin, factor in zip(
        *(c.tolist() for c in (found.removed, found.twins, found.coefficients)), strict=True
    ):
        expected = torch.linalg.lstsq(z[:, [twin]], z[:, [gone]]).solution
        assert factor == pytest.approx(float(expected), rel=1e-3, abs=1e-4)


def test_a_chain_of_twins_hands_on_what_it_was_given() -> None:
    weights = {name: torch.ones_like(weight) for name, weight in block().items()}
    removed, twins = torch.tensor([3, 5]), torch.tensor([5, 7])
    kept = torch.ones(NEURONS_IN_BLOCK, dtype=torch.bool)
    kept[removed] = False
    chain = Selection(kept, removed, twins, torch.zeros(2), torch.tensor([2.0, 10.0]))
    down = removed_weights(weights, chain)["down_proj"]
    assert torch.equal(down[:, 7], torch.full((HIDDEN,), 1 + 10 * (1 + 2.0)))
    assert not down[:, removed].any()


def matrix(pairs: dict[tuple[int, int], float], neurons: int = 6) -> Tensor:
    gram = torch.eye(neurons)
    for (one, other), value in pairs.items():
        gram[one, other] = gram[other, one] = value
    return 50 * gram


def walk(
    pairs: dict[tuple[int, int], float], scores: list[float], least: float = 0.0, weigh: bool = False
) -> list[tuple[int, int]]:
    state = Pairs(matrix(pairs), torch.tensor(scores), least, torch.ones(6, dtype=torch.bool))
    return [(gone, twin) for gone, twin, _ in state.greedy(weigh)]


def test_greedy_takes_the_strongest_pair_and_looks_for_new_partners() -> None:
    pairs = {(0, 1): 0.9, (1, 2): -0.8, (0, 2): 0.3, (3, 4): 0.5}
    # 1 goes before 0; then 2's best partner is 0 and no longer 1
    assert walk(pairs, [2, 1, 3, 4, 5, 6]) == [(1, 0), (3, 4), (0, 2)]
    assert walk(pairs, [1, 2, 3, 4, 5, 6]) == [(0, 1), (1, 2), (3, 4)]
    assert walk(pairs, [1, 1, 1, 1, 1, 1]) == [(1, 0), (4, 3), (2, 0)]  # of equals the later one goes
    assert walk(pairs, [2, 1, 3, 4, 5, 6], least=0.4) == [(1, 0), (3, 4)]


def test_weighing_takes_what_leaves_least_unexplained() -> None:
    pairs = {(0, 1): 0.9, (2, 3): 0.1}
    assert walk(pairs, [10, 9, 8, 7, 6, 5]) == [(1, 0), (3, 2)]
    # 9² (1 - 0.81) = 15.4 stays unexplained of neuron 1, and 2² (1 - 0.01) = 3.96 of neuron 3
    assert walk(pairs, [10, 9, 8, 2, 6, 5], weigh=True) == [(3, 2), (1, 0)]
    assert walk(pairs, [10, 9, 8, 7, 6, 5], weigh=True) == [(1, 0), (3, 2)]
    assert walk({(0, 1): 1.0, (2, 3): 0.9}, [1000, 900, 3, 2, 6, 5], weigh=True) == [(1, 0), (3, 2)]


def test_random_pairs_visit_redundant_pairs_alone() -> None:
    pairs = {(0, 1): 0.9, (1, 2): -0.8, (3, 4): 0.5, (4, 5): 0.1}
    ends = set()
    for seed in range(20):
        alive = torch.ones(6, dtype=torch.bool)
        state = Pairs(matrix(pairs), torch.tensor([6.0, 5, 4, 3, 2, 1]), 0.4, alive)
        found = list(state.random(torch.Generator().manual_seed(seed)))
        assert {frozenset(pair[:2]) for pair in found} <= {frozenset(pair) for pair in pairs}
        assert 5 not in {gone for gone, _, _ in found}
        ends.add(tuple(gone for gone, _, _ in found))
        living = alive.nonzero()[:, 0].tolist()
        assert not any(one in living and other in living for (one, other), v in pairs.items() if abs(v) > 0.4)
    assert len(ends) > 1


@pytest.mark.parametrize("order", ["greedy", "most-shared", "random-pairs"])
def test_a_threshold_keeps_what_is_not_redundant_and_says_so(order: str) -> None:
    weights = block()
    weights["gate_proj"][5], weights["up_proj"][5] = weights["gate_proj"][6], weights["up_proj"][6]
    found = choose("mutual-information", weights, share=0.5, threshold=3.0, order=order)
    assert len(found.removed) == 1 and set(found.removed.tolist()) < {5, 6}
    assert "only 1 of 20" in found.warnings["threshold"]


def test_silent_neurons_go_first_and_alone() -> None:
    weights = block()
    weights["up_proj"][[3, 30]] = 0
    found = choose("mutual-information", weights, share=0.1)
    assert found.removed[:2].tolist() == [3, 30]
    assert found.twins[:2].tolist() == [NO_TWIN, NO_TWIN] and found.information[:2].isnan().all()
    assert (found.twins[2:] != NO_TWIN).all() and not found.information[2:].isnan().any()
    assert all(math.isfinite(factor) for factor in found.coefficients.tolist())


def test_copal_neurons_sum_the_criterions_scores() -> None:
    weights, criterion = block(), Copal()
    inputs, outputs, z = activations(weights)
    scores = torch.zeros(NEURONS_IN_BLOCK)
    seen = {
        "gate_proj": (inputs, outputs[0]),
        "up_proj": (inputs, outputs[1]),
        "down_proj": (z, z @ weights["down_proj"].T),
    }
    for name, (x, y) in seen.items():
        coupling = AbsoluteCoupling()
        total = coupling.zeros(y.shape[1], x.shape[1], x.device)
        coupling.update(total, x, [y], None)
        found = criterion.score(weights[name], GroupStatistics(TOKENS, {"absolute_coupling": total}))
        scores += found.sum(dim=0 if name == "down_proj" else 1)
    expected = scores.sort(stable=True).indices[:10]
    assert torch.equal(choose("copal-neurons", weights, share=0.25).removed, expected)


def test_random_neurons_follow_the_generator() -> None:
    one, other = (choose("random-neurons", block(), seed=seed, share=0.5) for seed in (0, 1))
    assert not torch.equal(one.kept, other.kept)


@pytest.mark.parametrize("name", NEURONS.names())
def test_a_decomposition_refuses_neurons_in_one_sentence(name: str) -> None:
    with pytest.raises(InvalidValueError, match="use the command neurons"):
        parse_method(f"{name}[share=0.1]", "joint")
