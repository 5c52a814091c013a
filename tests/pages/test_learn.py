"""The lesson: every step, its question, its toy, its numbers of the recorded run, and links to a step."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.analysis.results import result_of
from copal_core.store.runs import RECORDED, Runs
from pages.learn.texts import STEPS
from pages.shared.words import GLOSSARY

Opener = Callable[..., AppTest]
NUMBERS = range(1, len(STEPS) + 1)


@pytest.fixture
def with_recorded(runs_folder: Path) -> None:
    """The recorded run that ships with the product, beside an empty folder of runs."""
    (runs_folder.parent / "recorded").symlink_to(RECORDED)


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.success, *app.info]
    return "\n".join(str(part.value) for part in parts).replace("\\", "").replace("\u00a0", " ")


def metric(app: AppTest, label: str) -> str:
    return next(str(one.value) for one in app.metric if one.label == label)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_step_has_a_picture_and_a_question(number: int, open_page: Opener, with_recorded: None) -> None:
    app = open_page("learn", lesson=str(number))
    assert not app.exception and not app.error
    assert app.header[0].value == f"{number}. {STEPS[number - 1].title}"
    assert len(app.get("plotly_chart")) == 1
    assert "Protocol: smollm2-135m · calibration 16×256" in text_of(app)
    question = app.radio(key=f"lesson-answer-{number}")
    assert question.value is None
    for option in STEPS[number - 1].question.options:
        app = question.set_value(option.text).run()
        assert not app.exception
        shown = [*app.success, *app.info]
        assert len(shown) == 1
        assert shown[0].value.startswith("**Yes.**" if option.right else "**Not quite.**")
        question = app.radio(key=f"lesson-answer-{number}")


def test_each_question_has_one_right_answer_and_every_word_a_meaning() -> None:
    assert 6 <= len(STEPS) <= 8
    for step in STEPS:
        assert sum(option.right for option in step.question.options) == 1
        assert all(option.why() for option in step.question.options)
        assert set(step.words) <= set(GLOSSARY)
        assert len(step.text) < 700


def test_next_and_back_move_the_link(open_page: Opener) -> None:
    app = open_page("learn")
    assert app.button(key="lesson-back").disabled
    for number in list(NUMBERS)[1:]:
        app = app.button(key="lesson-next").click().run()
        assert app.query_params["lesson"] == str(number)
        assert not app.exception
    assert not [button for button in app.button if button.key == "lesson-next"]
    app = app.button(key="lesson-back").click().run()
    assert app.query_params["lesson"] == str(len(STEPS) - 1)


def test_answers_and_what_was_moved_survive_going_back_and_forth(open_page: Opener) -> None:
    app = open_page("learn", lesson="4")
    app.slider(key="lesson-direction").set_value(30).run()
    answer = STEPS[3].question.options[0].text
    app.radio(key="lesson-answer-4").set_value(answer).run()
    app = app.button(key="lesson-next").click().run()
    assert app.slider(key="lesson-direction").value == 30  # the same text B on the next step
    app = app.button(key="lesson-back").click().run()
    assert app.slider(key="lesson-direction").value == 30
    assert app.radio(key="lesson-answer-4").value == answer


@pytest.mark.parametrize("lesson", ["0", "9", "-1", "<b>", "3; drop", "x" * 500])
def test_a_hostile_step_is_the_first(lesson: str, open_page: Opener) -> None:
    app = open_page("learn", lesson=lesson)
    assert not app.exception and not app.error
    assert app.header[0].value.startswith("1. ")


@pytest.mark.parametrize("number", NUMBERS)
def test_the_toy_works_without_any_run(number: int, open_page: Opener) -> None:
    app = open_page("learn", lesson=str(number))
    assert not app.exception and not app.error
    assert "The recorded run is not here" in text_of(app)
    assert len(app.get("plotly_chart")) == (0 if number == len(STEPS) else 1)


def test_pruning_by_hand_reaches_the_least_possible(open_page: Opener) -> None:
    app = open_page("learn", lesson="1")
    assert float(metric(app, "Output lost").split()[0]) > float(metric(app, "Least possible").split()[0])
    for neuron in range(4):
        app = app.segmented_control(key=f"lesson-keep-{neuron}").set_value(1).run()
    assert metric(app, "Output lost") == metric(app, "Least possible")


def test_more_tokens_decide_better(open_page: Opener) -> None:
    app = open_page("learn", lesson="2")
    few = float(metric(app, "Draws with the right mask").split()[0])
    app = app.select_slider(key="lesson-tokens").set_value(256).run()
    assert float(metric(app, "Draws with the right mask").split()[0]) > few
    app = app.select_slider(key="lesson-tokens").set_value(4).run()
    found = set()
    for _ in range(6):
        app = app.button(key="lesson-draw").click().run()
        found.add(metric(app, "Neurons decided right"))
    assert len(found) > 1


def test_moving_a_token_changes_a_mask(open_page: Opener) -> None:
    def kept(app: AppTest) -> dict[str, str]:
        table = app.table[0].value
        return dict(zip(table["criterion"], table["keeps"], strict=True))

    app = open_page("learn", lesson="3")
    assert kept(app) == {"Magnitude": "input 1", "Wanda": "input 2", "COPAL": "input 1"}
    app = app.slider(key="lesson-axis-0").set_value(2.2).run()  # away from the line on which outputs cancel
    assert kept(app) == {"Magnitude": "input 1", "Wanda": "input 2", "COPAL": "input 2"}
    app = app.selectbox(key="lesson-moved").set_value(1).run()
    assert app.slider(key="lesson-axis-0").value == 1.7
    app = app.slider(key="lesson-axis-0").set_value(3.2).run()
    assert kept(app)["Wanda"] == "input 1"
    app = app.button(key="lesson-put-back").click().run()
    assert kept(app)["COPAL"] == "input 1"
    assert not app.exception


def test_nothing_moves_a_pruned_mask(open_page: Opener) -> None:
    app = open_page("learn", lesson="4")
    for direction, loud in ((0, 1), (90, 100), (45, 30)):
        app.slider(key="lesson-direction").set_value(direction)
        app = app.select_slider(key="lesson-loud").set_value(loud).run()
        assert metric(app, "Moved") == "0"
        assert metric(app, "Stasis") == "100 %"
    assert metric(app, "Text B would move") != "0 of 4 neurons"


def test_a_text_like_the_first_forgets_nothing(open_page: Opener) -> None:
    app = open_page("learn", lesson="5")
    after = float(metric(app, "Output lost on text A").split()[0])
    app = app.slider(key="lesson-direction").set_value(12).run()
    assert float(metric(app, "Output lost on text A").split()[0]) < 0.5 * after
    app = app.segmented_control(key="lesson-pruned-for").set_value("A").run()
    assert not app.exception


def test_lengths_and_lines_can_be_moved(open_page: Opener) -> None:
    app = open_page("learn", lesson="6")
    assert "**accumulate, joint**" in text_of(app)
    app = app.select_slider(key="lesson-length").set_value(5000).run()
    assert not app.exception
    app = open_page("learn", lesson="7")
    best = metric(app, "On the best line")
    assert float(metric(app, "Lost on your line").split()[0]) > float(best.split()[0])
    app = app.slider(key="lesson-spread").set_value(0).run()
    app = app.slider(key="lesson-line").set_value(50).run()
    assert metric(app, "Lost on your line") == metric(app, "On the best line") == "0 %"


def test_the_numbers_are_the_recorded_run_s(open_page: Opener, with_recorded: None) -> None:
    """Every figure that the lesson quotes of the restarting method is in the run's result."""
    (found,) = [path for path in RECORDED.iterdir() if (path / "run.json").is_file()]
    result = result_of(Runs(Path("/nowhere"), RECORDED).open(found.name))
    restart = next(one for one in result["methods"] if one["method"] == "wanda:restart")
    shown = text_of(open_page("learn", lesson="5"))
    quoted = re.search(r"\*\*([\d. →]+)\*\*", shown)
    assert quoted is not None
    values = [float(value) for value in quoted[1].split("→")]
    assert values == [pytest.approx(row[0], rel=5e-3) for row in restart["perplexity"]]
    accumulate = next(one for one in result["methods"] if one["method"] == "copal:accumulate")
    shown = text_of(open_page("learn", lesson="6"))
    assert f"average {accumulate['average_perplexity']:.1f}" in shown


def test_the_last_step_draws_another_domain(open_page: Opener, with_recorded: None) -> None:
    app = open_page("learn", lesson="8")
    assert list(app.table[0].value.columns) == ["method", "average perplexity", "backward transfer"]
    app = app.radio(key="lesson-domain").set_value("shakespeare").run()
    app = app.toggle(key="lesson-with-magnitude").set_value(True).run()
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1


def test_the_start_page_sends_newcomers_to_the_lesson(open_page: Opener, with_recorded: None) -> None:
    app = open_page("start", lesson="5")
    assert not app.exception
    assert "SmolLM2-135M over code, manual and drama" in text_of(app)
    app = app.button(key="start-lesson").click().run()
    assert app.title[0].value == "Learn"
    assert app.header[0].value.startswith("1. ")


def test_the_start_page_without_runs_says_so(open_page: Opener) -> None:
    app = open_page("start")
    assert not app.exception
    assert "There is none yet" in text_of(app)
