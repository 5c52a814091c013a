"""The numbers drawn are the numbers recorded, in the house template."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from copal_core.errors import InvalidValueError
from copal_core.figures import cells, forgetting, groups, layers, parameters, stasis, template
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS

DOMAINS = ["code", "drama"]
METHODS = ["copal:accumulate", "wanda:restart"]


def is_ours(figure: go.Figure) -> bool:
    return (
        figure.layout.template == pio.templates[template.NAME]
        and figure.layout.paper_bgcolor == template.CLEAR
    )


def numbers_in(figure: go.Figure) -> int:
    """How many finite values a figure draws: of its cells, its flows, or else its points or bars."""
    values = {"heatmap": lambda trace: trace.z, "sankey": lambda trace: trace.link.value}
    drawn = [values.get(trace.type, lambda trace: trace.y)(trace) for trace in figure.data]
    return sum(int(np.isfinite(np.asarray(one, dtype=float)).sum()) for one in drawn if one is not None)


def test_colour_names_the_criterion_and_dash_the_strategy() -> None:
    assert template.method_colour("copal:accumulate") == template.method_colour("copal[epsilon=0.1]:restart")
    assert template.method_dash("copal:restart") == template.method_dash("wanda:restart")
    assert template.method_dash("dense") != template.method_dash("wanda:accumulate")
    names = [
        *CRITERIA.names(),
        *LOWRANK.names(),
        *NEURONS.names(),
        "unheard-of",
        "never-seen",
        "basel-whitened",
    ]
    assert len({template.method_colour(f"{name}:joint") for name in names}) == len(names)


def test_text_of_a_person_is_escaped() -> None:
    assert template.label("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"


def test_layer_map_shows_the_records(layers_frame: pd.DataFrame) -> None:
    table = layers.layer_table(layers_frame, "copal:accumulate", 2, "memory")
    assert set(zip(table["block"], table["value"], strict=True)) == {(0, 100.0), (1, 1000.0)}
    colours = layers.colour_range("memory", table)
    assert colours == (2.0, 3.0)
    figure = layers.layer_figure(table, "memory", colours, blocks=2, marked=(1, "down_proj"))
    assert is_ours(figure)
    heat = figure.data[0]
    assert np.asarray(heat.z, dtype=float)[layers.PROJECTIONS.index("q_proj")].tolist() == [2.0, 3.0]
    assert np.isnan(np.asarray(heat.z, dtype=float)[layers.PROJECTIONS.index("k_proj")]).all()
    assert figure.layout.shapes[-1].x0 == 0.5


def test_share_kept_is_linear_and_compared_in_points(layers_frame: pd.DataFrame) -> None:
    kept = layers.layer_table(layers_frame, "wanda:restart", 1, "kept")
    assert kept["value"].tolist() == [0.5] * 4
    difference = layers.difference_table(kept, kept.assign(value=0.75), "kept")
    assert difference["value"].tolist() == [0.25] * 4
    assert is_ours(layers.difference_figure(difference, "kept", blocks=2))


def test_difference_is_a_log_ratio_on_a_symmetric_scale(layers_frame: pd.DataFrame) -> None:
    one, two = (layers.layer_table(layers_frame, "copal:accumulate", step, "memory") for step in (1, 2))
    difference = layers.difference_table(one, two, "memory")
    assert difference["value"].tolist() == pytest.approx([math.log2(10)] * 4)
    heat = layers.difference_figure(difference, "memory", blocks=2).data[0]
    assert heat.zmin == -heat.zmax
    unchanged = layers.difference_figure(layers.difference_table(one, one, "memory"), "memory", blocks=2)
    assert unchanged.data[0].zmax == 1.0


def test_a_zero_score_leaves_a_gap_not_an_error(layers_frame: pd.DataFrame) -> None:
    zero = layers.layer_table(layers_frame, "copal:accumulate", 2, "memory").assign(value=0.0)
    figure = layers.layer_figure(zero, "memory", layers.colour_range("memory", zero), blocks=2)
    assert np.isnan(np.asarray(figure.data[0].z, dtype=float)).all()
    assert np.isnan(layers.difference_table(zero, zero, "memory")["value"]).all()


def test_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(InvalidValueError, match="memory, domain, kept, threshold"):
        layers.metric_named("nonsense")


def test_selected_point_is_a_cell_or_nothing() -> None:
    assert layers.cell_of({"x": 3, "y": "q_proj"}) == (3, "q_proj")
    assert layers.cell_of({"x": 3, "y": "<script>"}) is None
    assert layers.cell_of({"x": math.nan, "y": "q_proj"}) is None


def test_cell_figures_show_the_tiles() -> None:
    tiles = {
        "score": np.array([[1.0, 10.0], [100.0, 0.0]]),
        "kept": np.array([[0.25, 0.5], [0.75, 1.0]]),
        "histogram": np.array([[0, 5], [4, 1]]),
        "edges": np.array([-1.0, 0.0, 1.0]),
        "row_kept": np.array([0.5, 0.6]),
        "head_kept": np.array([0.4, 0.6]),
        "head_score": np.array([3.0, 30.0]),
    }
    assert cells.score_range(tiles) == (0.0, 2.0)
    scores = cells.score_map(tiles, (4, 4), (0.0, 2.0))
    assert np.asarray(scores.data[0].z, dtype=float)[1, 0] == 2.0
    assert cells.kept_map(tiles, (4, 4)).data[0].zmax == 1.0
    table = cells.histogram_table(tiles)
    assert table["pruned"].tolist() == [4, 1]
    figure = cells.histogram_figure(table, (0.5, 1.0, 2.0))
    assert {tuple(trace.y) for trace in figure.data} == {(4, 1), (0, 5)}
    assert figure.layout.shapes[-1].x0 == 0.0  # log10 of the median threshold
    assert cells.rows_table(tiles, 4)["row"].tolist() == [1.0, 3.0]
    heads = cells.heads_table(tiles)
    assert heads is not None
    assert list(cells.heads_figure(heads).data[0].y) == [3.0, 30.0]
    assert cells.heads_table({"score": tiles["score"]}) is None
    assert all(is_ours(made) for made in (scores, figure, cells.rows_figure(cells.rows_table(tiles, 4))))


def test_perplexity_matrix_keeps_the_dense_row_and_colours_by_ratio(perplexity: pd.DataFrame) -> None:
    table = forgetting.matrix_table(perplexity, "wanda:restart", DOMAINS)
    assert table.to_numpy().tolist() == [[8.0, 40.0], [9.0, 70.0], [16.0, 48.0]]
    colours = forgetting.ratio_range([table])
    assert colours == (0.0, 1.0)  # 16 is twice the dense 8
    heat = forgetting.matrix_figure(table, colours).data[0]
    assert np.asarray(heat.z, dtype=float)[0].tolist() == [0.0, 0.0]
    assert heat.text[2][0] == "16.0"


def lightness(colour: str) -> float:
    """CIE L*, 0 to 100: what is left of a colour for the colour-blind and on paper."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return 116 * luminance ** (1 / 3) - 16


def test_dense_is_calm_and_what_is_forgotten_is_strong(perplexity: pd.DataFrame) -> None:
    heat = forgetting.matrix_figure(
        forgetting.matrix_table(perplexity, METHODS[1], DOMAINS), (0.0, 1.0)
    ).data[0]
    assert not heat.reversescale
    colours = [colour for _, colour in heat.colorscale]
    levels = [lightness(colour) for colour in colours]
    assert levels[0] > 85 and all(before - after > 1 for before, after in itertools.pairwise(levels))
    red, _, blue = ([int(colour[at : at + 2], 16) for colour in colours] for at in (1, 3, 5))
    assert blue[0] > red[0] and red[-1] - blue[-1] > 200  # from a blue to an orange, not to a grey
    assert levels[-1] - lightness(template.TEXT_ON_CELL) > 45  # the numbers are read on the darkest cell


def test_a_small_loss_is_not_painted_as_a_great_one() -> None:
    table = pd.DataFrame([[8.0, 40.0], [8.2, 38.0]], columns=DOMAINS)  # 3 % worse, 5 % better
    assert forgetting.ratio_range([table]) == (0.0, 1.0)
    assert forgetting.ratio_range([table, 4 * table.assign(code=[2.0, 16.0])]) == (0.0, 3.0)


def test_panels_that_are_compared_have_one_kind_of_axis() -> None:
    flat = pd.DataFrame({"step": [0, 1, 2], METHODS[0]: [8.0, 9.0, 10.0]})
    steep = pd.DataFrame({"step": [0, 1, 2], METHODS[0]: [8.0, 90.0, 400.0]})
    assert forgetting.curve_figure(flat, added=1).layout.yaxis.type != "log"
    kinds = {forgetting.curve_figure(table, 1, [flat, steep]).layout.yaxis.type for table in (flat, steep)}
    assert kinds == {"log"}
    near, far = (pd.DataFrame({"head": [0, 1], "kept": 0.5, "score": [1.0, most]}) for most in (2.0, 40.0))
    assert {cells.heads_figure(table, [near, far]).layout.yaxis.type for table in (near, far)} == {"log"}
    assert cells.heads_figure(near).layout.yaxis.type != "log"


def test_forgetting_curve_always_has_the_dense_line(perplexity: pd.DataFrame) -> None:
    table = forgetting.curve_table(perplexity, METHODS, DOMAINS, "code")
    assert table["copal:accumulate"].tolist() == [8.0, 10.0, 11.0]
    figure = forgetting.curve_figure(table, added=1)
    assert any(shape.y0 == 8.0 and shape.y1 == 8.0 for shape in figure.layout.shapes)
    assert [tuple(trace.y) for trace in figure.data] == [(10.0, 11.0), (9.0, 16.0)]


def test_summary_by_hand(perplexity: pd.DataFrame) -> None:
    summary = forgetting.summary_table(perplexity, [*METHODS, "magnitude:joint"], DOMAINS)
    assert summary["method"].tolist() == METHODS  # the method without records is left out
    assert summary["backward_transfer"].tolist() == [1.0, 7.0]
    assert summary["average"].tolist() == [30.5, 32.0]
    matrix = forgetting.matrix_table(perplexity, METHODS[0], DOMAINS).to_numpy()
    assert summary["forward_transfer"].tolist()[0] == matrix[1, 1] - matrix[0, 1]
    assert forgetting.dense_average(perplexity, DOMAINS) == 24.0
    bars = forgetting.transfer_figure(summary)
    assert dict(zip(bars.data[0].y, bars.data[0].x, strict=True)) == dict(
        zip(METHODS, [1.0, 7.0], strict=True)
    )
    assert forgetting.average_figure(summary, 24.0).layout.shapes[0].x0 == 24.0


def test_stasis_with_expected_value_and_ceiling(layers_frame: pd.DataFrame) -> None:
    table = stasis.step_table(layers_frame, METHODS)
    assert dict(zip(table["method"], table["stasis"], strict=True)) == dict(
        zip(METHODS, [0.8, 0.5], strict=True)
    )
    assert table["expected"].tolist() == [0.5, 0.5]
    levels = {shape.y0 for shape in stasis.step_figure(table).layout.shapes}
    assert levels == {1.0, 0.5}
    by_layer = stasis.layer_table(layers_frame, "copal:accumulate", 2)
    assert by_layer["stasis"].tolist() == [0.8] * 4
    assert is_ours(stasis.layer_figure(by_layer))


def test_flow_shares_add_up(layers_frame: pd.DataFrame) -> None:
    flow = stasis.flow_table(layers_frame, "wanda:restart")
    row = flow.iloc[0]
    assert (row["stays_kept"], row["newly_pruned"], row["revived"], row["stays_pruned"]) == (0.25,) * 4
    assert stasis.flow_figure(flow, DOMAINS).data[0].link.value == (0.25,) * 4


def test_overlap_is_symmetric_with_ones_on_the_diagonal(overlaps: pd.DataFrame) -> None:
    table = stasis.overlap_table(overlaps, METHODS, 2)
    assert table.to_numpy() == pytest.approx(np.array([[1.0, 3 / 7], [3 / 7, 1.0]]))
    assert is_ours(stasis.overlap_figure(table))
    assert math.isnan(stasis.overlap_table(overlaps, METHODS, 1).iloc[0, 1])


def test_parameters_by_part() -> None:
    table = parameters.parameter_table({"embedding": 25, "attention": 25, "mlp": 50, "norms": 0})
    assert table["share"].tolist() == [0.25, 0.25, 0.5]
    assert table["prunable"].tolist() == [False, True, True]
    assert sum(trace.x[0] for trace in parameters.parameter_figure(table).data) == 100
    assert not len(parameters.parameter_table({}))


def test_empty_records_draw_empty_figures(
    layers_frame: pd.DataFrame, perplexity: pd.DataFrame, overlaps: pd.DataFrame
) -> None:
    nothing = layers_frame.iloc[:0]
    table = layers.layer_table(nothing, "copal:accumulate", 1, "memory")
    empty = forgetting.curve_table(perplexity.iloc[:0], METHODS, DOMAINS, "code")
    drawn = {
        "layers": layers.layer_figure(table, "memory", layers.colour_range("memory", table), blocks=2),
        "steps": stasis.step_figure(stasis.step_table(nothing, METHODS)),
        "flow": stasis.flow_figure(stasis.flow_table(nothing, METHODS[0]), DOMAINS),
        "curves": forgetting.curve_figure(empty, added=1),
        "transfer": forgetting.transfer_figure(
            forgetting.summary_table(perplexity.iloc[:0], METHODS, DOMAINS)
        ),
    }
    assert {name: is_ours(figure) for name, figure in drawn.items()} == dict.fromkeys(drawn, True)
    assert {name: numbers_in(figure) for name, figure in drawn.items()} == dict.fromkeys(drawn, 0)


def test_shares_are_written_on_axes_as_in_the_text() -> None:
    assert template.percent_ticks(0, 1, 4)["ticktext"] == ["0 %", "50 %", "100 %"]
    assert template.percent_ticks(0.4, 1)["ticktext"] == [f"{tens}0 %" for tens in range(4, 11)]
    assert template.percent_ticks(0, 0.003, 5)["ticktext"][:3] == ["0 %", "0.1 %", "0.2 %"]


def test_a_line_of_a_sweep_never_joins_structures_that_only_weigh_the_same() -> None:
    structures = ["30 % per row", "50 % per row", "2:4"]
    rows = [
        {
            "run": name,
            "method": "wanda:restart",
            "structure": name,
            "checkpoint": "tiny",
            "order": "a",
            "seed": 0,
        }
        for name in structures
    ]
    numbers = {"kept": [0.7625, 0.5625, 0.5625], "bytes": [7, 5, 5], "average": [9.0, 10.0, 14.0]}
    table = pd.DataFrame(rows).assign(**numbers, dense_average=8.0, backward_transfer=0.0)
    shapes = groups.shapes_of(table)
    lines = [
        trace
        for trace in groups.multiples_figure(table, "average", (8, 14), shapes).data
        if trace.mode == "lines"
    ]
    assert [list(line.y) for line in lines] == [[10.0, 9.0], [14.0]]
    assert groups.shape_key(table) == "● 30 % per row, ■ 50 % per row, ◆ 2:4"
    dense = groups.front_figure(table, "kept", "average", [False] * 3).data[-1]
    assert dense.name == "dense model" and list(dense.y) == [8.0, 8.0]
    assert groups.dense_level(table.assign(dense_average=[8.0, 8.0, 9.0]), "average") is None
