"""One text, three models: what each finds hard in it, and what each writes next."""

from __future__ import annotations

import json
import math
from typing import Any

import streamlit as st

from copal_core.analysis.diagnosis.kept import Result
from copal_core.analysis.diagnosis.pieces import MOST_CHARACTERS, MOST_TOKENS, shortened, visible
from copal_core.figures import tokens
from copal_core.figures.numbers import compact
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.diagnose.choices import choose_result, kept, name_of, nothing_kept, watched
from pages.shared import charts, links, runs, tasks
from pages.shared.text import plain
from pages.shared.words import GLOSSARY

_TYPED, _LENGTH = "diagnose-typed", "diagnose-characters"
_LABELS = ("Dense model", "First result", "Second result")
Models = list[tuple[RunStore, Result]]


def draw(store: RunStore) -> None:
    """The form, the coloured texts, the worst tokens and the continuations."""
    if not kept(store):
        nothing_kept(store, "Comparing models token by token needs the models.")
        return
    with st.container(border=True):
        models = _models(store)
    content = _text(store)
    if content is None:
        return
    content["models"] = [[one.id, result.method, result.step] for one, result in models]
    request = json.dumps(content)
    st.button(
        "Compare",
        type="primary",
        key="compare-text",
        on_click=tasks.start,
        args=("losses", request),
    )
    task = watched("losses", request)
    if task is not None and task.result is not None:
        _show(task.result, models)
    st.subheader("What each writes next")
    _continuations(content, models)


def _models(store: RunStore) -> Models:
    """Two results; the second may be another run's of the same checkpoint."""
    found = kept(store)
    last = max(one.step for one in found if one.method == found[0].method)
    first = choose_result(store, found, "", Result(found[0].method, 1), "First result")
    known = {run.id: run for run in Runs().list()}
    others = [store.id, *_same_weights(store)]
    other = store
    if len(others) > 1:
        chosen = links.choose(
            "Second result: run", "other_run", others, store.id,
            show=lambda run: "This run" if run == store.id else runs.line(known[run]),
            help="Runs of the same checkpoint.",
        )  # fmt: skip
        other = store if chosen == store.id else Runs().open(chosen)
    theirs = kept(other)
    default = Result(found[0].method, last) if other is store else theirs[-1]
    second = choose_result(other, theirs, "other_", default, "Second result")
    return [(store, first), (other, second)]


def _same_weights(store: RunStore) -> list[str]:
    """Other runs of the same weights that keep a result."""
    wanted = store.info.get("checkpoint", {}).get("fingerprint")
    found = []
    for summary in Runs().list():
        if summary.id == store.id or summary.checkpoint != store.config.checkpoint:
            continue
        other = Runs().open(summary.id)
        if other.info.get("checkpoint", {}).get("fingerprint") == wanted and kept(other):
            found.append(other.id)
    return found


def _text(store: RunStore) -> dict[str, Any] | None:
    """Ask what is to be read: a window of a domain, or typed text; None before anything is typed."""
    names = store.domains
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        choice = links.choose(
            "Text", "text", [*range(1, len(names) + 1), "typed"], 1,
            show=lambda one: "Type or paste" if one == "typed" else f"Evaluation text of {names[int(one) - 1]}",
        )  # fmt: skip
    if choice == "typed":
        return _typed()
    with right:
        count = store.config.protocol.evaluation.count
        window = links.choose("Window", "window", list(range(1, count + 1)), 1, help=GLOSSARY["evaluation"])
    return {"window": [store.id, int(choice) - 1, window - 1]}


def _typed() -> dict[str, Any] | None:
    st.text_area(
        "Your text", key=_TYPED, height=160, on_change=_shorten,
        placeholder=f"Type or paste anything; the first {MOST_TOKENS:,} tokens are compared.",
    )  # fmt: skip
    text = str(st.session_state.get(_TYPED) or "")
    characters = int(st.session_state.get(_LENGTH) or 0)
    if characters > len(text) and len(text) >= MOST_CHARACTERS:
        st.caption(f"{characters:,} characters were given; the first {MOST_CHARACTERS:,} are kept.")
    else:
        characters = len(text)
    if not text.strip():
        st.caption("Give the models a sentence or more.")
        return None
    return {"typed": shortened(text), "characters": max(characters, len(text))}


def _shorten() -> None:
    """A long paste is cut as soon as it arrives, so that it is neither kept nor sent again."""
    text = str(st.session_state.get(_TYPED) or "")
    if len(text) > MOST_CHARACTERS:
        st.session_state[_LENGTH] = len(text)
        st.session_state[_TYPED] = shortened(text)
    elif len(text) < MOST_CHARACTERS:
        st.session_state[_LENGTH] = len(text)


def _show(result: dict[str, Any], models: Models) -> None:
    names = ["dense model", *(name_of(*model) for model in models)]
    pieces = [visible(row[0]) for row in result["pieces"]]
    losses = [[row[1 + index] for row in result["pieces"]] for index in range(len(names))]
    changes = [tokens.difference(row, losses[0]) for row in losses[1:]]
    limit = tokens.limit_of(*changes)
    if result["cut"]:
        st.info(plain(result["cut"]), icon=":material/content_cut:")
    charts.title("Perplexity of this text", help=GLOSSARY["perplexity"])
    with st.container(horizontal=True, gap="large"):
        for label, name, mean in zip(_LABELS, names, result["mean"], strict=True):
            value = compact(math.exp(mean)) if mean < 700 else "∞"
            st.metric(label, value, width="content", help=plain(name))
    _stamp(result, models)
    st.markdown(
        "**Change of every token's loss against the dense model**",
        help="Loss: how surprised the model is by the token, in nats. Hover over a token for its loss in each model.",
    )
    st.html(tokens.legend(limit))
    hovers = [tokens.hover_text(names, row[1:]) for row in result["pieces"]]
    for column, name, change in zip(st.columns(2, gap="medium"), names[1:], changes, strict=True):
        with column:
            st.caption(plain(name))
            st.html(tokens.coloured(pieces, change, hovers, limit))
    charts.table_below(tokens.token_table(pieces, _distinct(names), losses), "token-losses")
    _worst(pieces, losses, names)


def _stamp(result: dict[str, Any], models: Models) -> None:
    checkpoint = models[0][0].info.get("checkpoint", {}).get("name", models[0][0].config.checkpoint)
    windows = result["tokens"] - result["predicted"]  # nothing comes before the first token of each
    st.caption(
        f"Protocol: {plain(checkpoint)} · this text alone, {result['tokens']:,} tokens in "
        f"{'one window' if windows == 1 else f'{windows:,} windows'}, "
        f"{result['predicted']:,} predicted · {plain(result['dtype'])}"
    )


def _worst(pieces: list[str], losses: list[list[float | None]], names: list[str]) -> None:
    against = links.choose(
        "Tokens that got worst", "metric", ["second", "first", "between"], "second",
        show=lambda one: {
            "first": "first against dense", "second": "second against dense", "between": "second against first",
        }[one],
        segments=True,
    )  # fmt: skip
    later, earlier = {"first": (1, 0), "second": (2, 0), "between": (2, 1)}[against]
    rows = tokens.worst(pieces, tokens.difference(losses[later], losses[earlier]), losses)
    if rows:
        charts.text_table(
            ["Place", "Token, in «»", "Change, nats", *names], rows, "Tokens whose loss rose most"
        )
    else:
        st.caption("No token got worse.")


def _distinct(names: list[str]) -> list[str]:
    """Two equal results are two columns all the same."""
    return [name if names.index(name) == index else f"{name} ({index})" for index, name in enumerate(names)]


def _continuations(content: dict[str, Any], models: Models) -> None:
    with st.container(border=True):
        first, second, third, fourth = st.columns(4)
        with first:
            prompt = st.number_input(
                "Prompt: first tokens of the text", 1, MOST_TOKENS, 32, key="diagnose-prompt"
            )
        with second:
            count = st.number_input("New tokens", 1, 256, 48, key="diagnose-new")
        with third:
            temperature = st.number_input(
                "Temperature", 0.0, 5.0, 0.0, 0.1, key="diagnose-temperature",
                help="0: always the likeliest token. Higher: more varied. One seed draws the same for every model.",
            )  # fmt: skip
        with fourth:
            seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="diagnose-seed")
        asked = {"prompt": prompt, "count": count, "temperature": temperature, "seed": seed}
        request = json.dumps({**content, **asked})
        st.button("Write", key="continue-text", on_click=tasks.start, args=("continue", request))
    task = watched("continue", request)
    if task is None or task.result is None:
        return
    names = ["dense model", *(name_of(*model) for model in models)]
    beginning = visible(task.result["prompt"])[-120:]
    for column, name, text in zip(st.columns(3, gap="medium"), names, task.result["texts"], strict=True):
        with column:
            st.caption(plain(name))
            st.html(tokens.written(beginning, visible(text)))
