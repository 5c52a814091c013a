"""A run as one HTML file: figures that move, no network, light and dark, every word of a person's escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from copal_core.errors import RunError
from copal_core.export.command_line import command_of
from copal_core.figures import panels
from copal_core.figures.numbers import MISSING, compact, duration
from copal_core.figures.panels import Panel
from copal_core.figures.template import swatch
from copal_core.methods.describe import removed
from copal_core.store.run_store import RunStore
from copal_core.system import files

_ROWS = 60  # of a table that is shown; its CSV has all
_PAGE = Path(__file__).with_name("page.html")


def write_report(store: RunStore, out: Path) -> Path:
    """Write the report of a run. Raises RunError before anything was measured, or when `out` cannot be written."""
    found = list(panels.of_run(store))
    if not found:
        raise RunError(f"run '{store.id}' has no perplexity yet; its report is empty; let it go on first")
    files.write_text(out, report_of(store, found))
    return out


def report_of(store: RunStore, found: list[Panel]) -> str:
    """Return the whole file as text."""
    from plotly.offline import get_plotlyjs

    info = store.info
    title = str(info.get("title") or f"Run {store.id}")
    note = str(info.get("note") or "")
    body = [
        _contents(found),
        _outcome(store),
        *(_section(panel, store) for panel in found),
        _about(store),
    ]
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=_text(title),
        stamp=_text(_stamp(store)),
        note=f"<p>{_text(note)}</p>" if note else "",
        body="\n".join(body),
        footer=_text(f"Run {store.id}, written by COPAL Explorer. This file needs no network."),
        figures=_json({panel.name: _drawn(panel) for panel in found}),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )


def _stamp(store: RunStore) -> str:
    return f"Protocol: {store.protocol_stamp()}, removed {removed(store.config)}"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _json(content: Any) -> str:
    """Return JSON for a script element: no mark in it can end the element or begin a comment."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _drawn(panel: Panel) -> dict[str, Any]:
    figure = json.loads(panel.figure.to_json())
    for name, axis in figure["layout"].items():
        if name.startswith(("xaxis", "yaxis")) and axis.get("title"):
            axis["title"]["standoff"] = 12  # the app's own page keeps titles off the ticks by itself
    return {"data": figure["data"], "layout": figure["layout"], "csv": panel.table.to_csv(index=False)}


def _contents(found: list[Panel]) -> str:
    items = "".join(f'<li><a href="#{panel.name}">{_text(panel.title)}</a></li>' for panel in found)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _outcome(store: RunStore) -> str:
    """Say where the run stands, when it is not finished, and what it warns of."""
    state, lines = store.state(), []
    if state.status != "done":
        lines.append(
            f"<p><strong>This run is {_text(state.status)}: what was finished is shown.</strong></p>"
        )
    broken = int(store.perplexity()["nonfinite_batches"].sum())
    if broken:
        lines.append(f"<p><strong>{broken} evaluation batches gave NaN or infinity.</strong></p>")
    warnings = store.warnings()
    if len(warnings):
        kinds = warnings["kind"].value_counts()
        said = ", ".join(f"{_text(kind)} ({count})" for kind, count in kinds.items())
        lines.append(f"<p>Warnings of the run: {said}.</p>")
    return "\n".join(lines)


def _section(panel: Panel, store: RunStore) -> str:
    name = panel.name
    buttons = "".join(
        f'<button type="button" data-image="{name}" data-format="{form}" '
        f'aria-label="{form.upper()} of: {_text(panel.title)}">{form.upper()}</button>'
        for form in ("png", "svg")
    )
    return f"""<section id="{name}">
<h2>{_text(panel.title)}</h2>
<figure>
<figcaption>{_text(panel.note)}</figcaption>
{_method_key(panel.methods)}
<div class="plot" id="plot-{name}" role="img" aria-label="{_text(panel.alt)}"
  style="height:{int(panel.figure.layout.height or 320)}px"></div>
</figure>
<div class="buttons">{buttons}<button type="button" data-table="{name}"
  aria-label="CSV of: {_text(panel.title)}">CSV</button></div>
<details><summary>Table</summary>
{_table(panel.table, panel.title)}
</details>
<p class="stamp">{_text(_stamp(store))}</p>
</section>"""


def _table(table: pd.DataFrame, name: str, tall: bool = False) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    rows = "".join(
        f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in table.head(_ROWS).to_numpy(object)
    )
    more = f"<p class='soft'>{len(table) - _ROWS} more rows in the CSV.</p>" if len(table) > _ROWS else ""
    kind = "scroll tall" if tall else "scroll"
    opening = f'<div class="{kind}" tabindex="0" role="region" aria-label="Table: {_text(name)}"><table>'
    return f"{opening}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}"


def _cell(value: object) -> str:
    if value is None:
        return f"<td>{MISSING}</td>"
    if isinstance(value, float):
        return f'<td class="number">{compact(value)}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    return f"<td>{_text(value)}</td>"


def _method_key(methods: Sequence[str]) -> str:
    names = {"dense": "dense model"}
    items = (f"<li>{swatch(method)}{_text(names.get(method, method))}</li>" for method in methods)
    return f'<ul class="key">{"".join(items)}</ul>' if methods else ""


def _about(store: RunStore) -> str:
    """Tell how to repeat the run: command line, texts and versions."""
    info = store.info
    domains = [
        [
            d.get("name", ""),
            d.get("label", ""),
            str(d.get("content_hash", ""))[:16],
            "; ".join(d.get("notes", [])),
        ]
        for d in info.get("domains", [])
    ]
    texts = pd.DataFrame(domains, columns=["domain", "label", "text (SHA-256)", "notes"])
    texts = texts if texts["notes"].any() else texts.drop(columns="notes")
    checkpoint = info.get("checkpoint", {})
    facts = {
        "checkpoint": checkpoint.get("name", store.config.checkpoint),
        "weights (fingerprint)": str(checkpoint.get("fingerprint", ""))[:16],
        "number format": checkpoint.get("dtype_reason") or checkpoint.get("dtype", ""),
        "machine": info.get("machine", ""),
        **info.get("versions", {}),
        "computing time": duration(float(store.seconds()["seconds"].sum())),
    }
    shown = pd.DataFrame(
        [[name, str(value)] for name, value in facts.items() if value], columns=["what", "value"]
    )
    return f"""<section id="about"><h2>How it was made</h2>
<pre>{_text(command_of(store.config))}</pre>
{_table(texts, "texts", tall=True)}
{_table(shown, "circumstances", tall=True)}
</section>"""
