"""Statistics equal their definitions, add up over tokens, and share what twins share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from copal_core.checkpoints.backbone import Backbone, linears, swapped
from copal_core.checkpoints.layout import GROUPS
from copal_core.errors import InvalidValueError
from copal_core.methods.criteria.copal import AutogradCoupling, FiniteDifferenceCoupling
from copal_core.statistics.accumulators import (
    AbsoluteCoupling,
    BlockStatistics,
    GroupStatistics,
    InputGram,
    InputSquareSum,
    Statistic,
)
from copal_core.statistics.blockwise import HiddenStates
from copal_core.statistics.capture import InputsSeen, capture
from tests.conftest import SIZES

ALL = (InputSquareSum(), InputGram(), AbsoluteCoupling())
COUPLINGS = (AbsoluteCoupling(), FiniteDifferenceCoupling(0.01), AutogradCoupling(0.01))


@pytest.fixture
def backbone(small_model: Path) -> Backbone:
    return Backbone(small_model, "cpu", "float32")


@pytest.fixture(scope="module")
def with_biases(make_model: Callable[..., Path]) -> Backbone:
    """Every projection has a bias as large as what its weight gives."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "attention_bias": True, "mlp_bias": True}))
    for name, parameter in model.named_parameters():
        if name.endswith("proj.bias"):
            torch.nn.init.normal_(parameter)
    return Backbone(make_model(model), "cpu", "float32")


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(0, 300, (5, 16), generator=torch.Generator().manual_seed(0))


def gather(backbone: Backbone, windows: Tensor, statistics: tuple[Statistic, ...] = ALL) -> BlockStatistics:
    with backbone.block(0) as block:
        return HiddenStates(backbone, [windows]).calibrate(block, statistics, advance=False)[0]


def naive(backbone: Backbone, windows: Tensor) -> dict[str, dict[str, Tensor]]:
    """The definitions, in float64, token by token where they say so."""
    seen: dict[str, list[Tensor]] = {}
    with backbone.block(0) as block:
        layers = linears(block)
        handles = [
            layer.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].flatten(0, -2).double())
            )
            for name, layer in layers.items()
        ]
        HiddenStates(backbone, [windows]).advance(block)
        for handle in handles:
            handle.remove()
        found = {}
        for group, names in GROUPS.items():
            x = torch.cat(seen[names[0]])
            coupling = torch.zeros(
                sum(layers[n].out_features for n in names), x.shape[1], dtype=torch.float64
            )
            for token in x:
                y = torch.cat([layers[name].weight.double() @ token for name in names])
                coupling += torch.outer(y.abs(), token.abs())
            found[group] = {
                "input_square_sum": (x**2).sum(dim=0),
                "input_gram": sum(torch.outer(token, token) for token in x),
                "absolute_coupling": coupling,
            }
    return found


def test_every_statistic_equals_its_definition(backbone: Backbone, windows: Tensor) -> None:
    found, expected = gather(backbone, windows), naive(backbone, windows)
    assert found.groups.keys() == expected.keys()
    for group, totals in expected.items():
        assert found.groups[group].tokens == 80
        for name, total in totals.items():
            torch.testing.assert_close(found.groups[group].totals[name].double(), total, rtol=2e-5, atol=1e-5)


def test_the_order_of_windows_does_not_matter(backbone: Backbone, windows: Tensor) -> None:
    permuted = windows[torch.tensor([3, 0, 4, 1, 2])]
    one, other = gather(backbone, windows), gather(backbone, permuted)
    for group in GROUPS:
        for name, total in one.groups[group].totals.items():
            torch.testing.assert_close(other.groups[group].totals[name], total, rtol=1e-4, atol=1e-5)


def test_parts_add_up_to_the_whole(backbone: Backbone, windows: Tensor) -> None:
    whole = gather(backbone, windows)
    parts = gather(backbone, windows[:2]).plus(gather(backbone, windows[2:]))
    for group in GROUPS:
        assert parts.groups[group].tokens == whole.groups[group].tokens
        for name, total in whole.groups[group].totals.items():
            torch.testing.assert_close(parts.groups[group].totals[name], total, rtol=1e-4, atol=1e-5)


class OutputSquareSum(Statistic):
    """(out,) Σ y²: one number for each stacked output, as a new criterion might want it."""

    name = "output_square_sum"
    per_output = True
    needs_outputs = True

    def zeros(self, rows: int, columns: int, device: torch.device) -> Tensor:
        return torch.zeros(rows, device=device)

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        total += torch.cat([y.float() for y in outputs], dim=1).square().sum(dim=0)


def test_a_statistic_that_says_so_is_cut_with_its_outputs(backbone: Backbone, windows: Tensor) -> None:
    group = gather(backbone, windows, (OutputSquareSum(), InputSquareSum())).groups["attention_input"]
    query, key, value = group.by_rows([32, 16, 16])
    whole = group.require("output_square_sum")
    assert torch.equal(key.require("output_square_sum"), whole[32:48])
    assert torch.equal(value.rows(torch.tensor([3, 1])).require("output_square_sum"), whole[[51, 49]])
    assert torch.equal(query.require("input_square_sum"), group.require("input_square_sum"))
    assert key.tokens == group.tokens == 80


def test_twins_share_one_statistic(backbone: Backbone, windows: Tensor) -> None:
    calls = []

    class Counting(InputGram):
        def update(self, total: Tensor, inputs: Tensor, outputs: object, weight: Tensor | None) -> None:
            calls.append(inputs.shape)

    gather(backbone, windows, (Counting(),))
    assert len(calls) == len(GROUPS)  # seven projections, four inputs, one batch


@pytest.mark.parametrize("statistics", [ALL, (InputGram(),)], ids=["outputs", "inputs"])
def test_hooks_are_removed(backbone: Backbone, windows: Tensor, statistics: tuple[Statistic, ...]) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in block.modules())

    with backbone.block(0) as block:
        assert hooks() == 0
        with (
            pytest.raises(RuntimeError, match="on purpose"),
            capture(block, statistics, stop_at_last_input=True),
        ):
            assert hooks() > 0
            raise RuntimeError("on purpose")
        assert hooks() == 0
        HiddenStates(backbone, [windows]).calibrate(block, statistics, advance=False)
        assert hooks() == 0


def test_a_failing_statistic_leaves_no_hook(backbone: Backbone, windows: Tensor) -> None:
    class Failing(InputGram):
        def update(self, total: Tensor, inputs: Tensor, outputs: object, weight: Tensor | None) -> None:
            raise ValueError("overflow")

    with backbone.block(0) as block:
        with pytest.raises(ValueError, match="overflow"):
            HiddenStates(backbone, [windows]).calibrate(block, (Failing(),), advance=True)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in block.modules())


def test_leaving_early_skips_the_last_projection_alone(backbone: Backbone, windows: Tensor) -> None:
    computed = []
    with backbone.block(0) as block:
        for name, layer in linears(block).items():
            layer.register_forward_hook(lambda *_, name=name: computed.append(name))
        with capture(block, (InputGram(),), stop_at_last_input=True) as gathered:
            states = HiddenStates(backbone, [windows])
            with pytest.raises(InputsSeen):
                states.advance(block)
    assert "up_proj" in computed and "down_proj" not in computed
    assert gathered.groups["mlp_output"].tokens == 80


def test_calibrating_and_advancing_at_once_equals_doing_both(backbone: Backbone, windows: Tensor) -> None:
    together, apart = HiddenStates(backbone, [windows]), HiddenStates(backbone, [windows])
    with backbone.block(0) as block:
        one = together.calibrate(block, ALL, advance=True)[0]
        other = apart.calibrate(block, ALL, advance=False)[0]
        apart.advance(block)
    for a, b in zip(together.sets[0], apart.sets[0], strict=True):
        assert torch.equal(a, b)
    for key, value in one.to_tensors().items():
        assert torch.equal(other.to_tensors()[key], value)


def test_swapped_weights_come_back_after_an_error(backbone: Backbone) -> None:
    with backbone.block(0) as block:
        before = {name: layer.weight.data_ptr() for name, layer in linears(block).items()}
        with pytest.raises(RuntimeError), swapped(block, {"q_proj": torch.zeros(32, 32)}):
            assert not linears(block)["q_proj"].weight.any()
            raise RuntimeError
        assert {name: layer.weight.data_ptr() for name, layer in linears(block).items()} == before


def test_a_block_goes_to_tensors_and_back(backbone: Backbone, windows: Tensor) -> None:
    found = gather(backbone, windows)
    again = BlockStatistics.from_tensors(found.to_tensors())
    assert again.groups.keys() == found.groups.keys()
    for group in GROUPS:
        assert again.groups[group].tokens == found.groups[group].tokens
        assert again.groups[group].totals.keys() == found.groups[group].totals.keys()
        for name, total in found.groups[group].totals.items():
            assert torch.equal(again.groups[group].totals[name], total)


def test_missing_statistics_are_named() -> None:
    group = GroupStatistics(4, {"input_gram": torch.eye(2)})
    assert torch.equal(group.mean("input_gram"), torch.eye(2) / 4)
    with pytest.raises(InvalidValueError, match="'input_square_sum' was not gathered; gathered: input_gram"):
        group.require("input_square_sum")
    with pytest.raises(InvalidValueError, match="no tokens"):
        GroupStatistics().mean("input_gram")


@pytest.mark.parametrize("statistic", COUPLINGS[1:], ids=["finite-difference", "autograd"])
def test_the_estimators_agree_on_a_linear_layer(statistic: Statistic) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(12, 20, generator=generator), torch.randn(50, 20, generator=generator)
    expected = (x @ weight.T).abs().T @ x.abs()
    total = statistic.zeros(12, 20, torch.device("cpu"))
    statistic.update(total, x, [x @ weight.T], weight)
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("which", ["backbone", "with_biases"])
def test_the_estimators_agree_in_a_decoder_block(
    which: str, windows: Tensor, request: pytest.FixtureRequest
) -> None:
    """A bias stands still when weights and inputs move: it is no part of the sensitivity."""
    model = request.getfixturevalue(which)
    closed, finite, autograd = (gather(model, windows, (statistic,)) for statistic in COUPLINGS)
    for group in GROUPS:
        expected = closed.groups[group].totals["absolute_coupling"]
        for other in (finite, autograd):
            torch.testing.assert_close(
                other.groups[group].totals["absolute_coupling"], expected, rtol=1e-3, atol=1e-4
            )


def test_signed_gradients_would_cancel() -> None:
    """Why the absolute value is taken for every token: two opposite tokens must not cancel."""
    weight, x = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 2.0], [1.0, -2.0]])
    total = torch.zeros(1, 2)
    AbsoluteCoupling().update(total, x, [x @ weight.T], None)
    assert total.tolist() == [[4.0, 8.0]]  # |3|·|1| + |−1|·|1| and |3|·|2| + |−1|·|−2|
    assert ((x @ weight.T).T @ x).tolist() == [[2.0, 8.0]]


def test_the_finite_difference_error_depends_on_epsilon() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, x = torch.randn(8, 16, generator=generator), torch.randn(40, 16, generator=generator)
    exact = (x.double() @ weight.double().T).abs().T @ x.double().abs()
    errors: dict[float, float] = {}
    for epsilon in (1e-2, 1e-6):
        total = torch.zeros(8, 16)
        FiniteDifferenceCoupling(epsilon).update(total, x, [], weight)
        errors[epsilon] = float(((total.double() - exact) / exact).abs().max())
    assert errors[1e-2] < 1e-3 < errors[1e-6]  # a tiny step loses the difference to rounding


def test_bfloat16_inputs_are_summed_in_float32(make_model: Callable[..., Path], windows: Tensor) -> None:
    backbone = Backbone(make_model(), "cpu", "bfloat16")
    found = gather(backbone, windows)
    for group in found.groups.values():
        assert all(total.dtype == torch.float32 for total in group.totals.values())
