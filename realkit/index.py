"""The page of a sweep of notebooks: one self-contained HTML file that says what became of each entry, with its figures and a few of its pictures."""

from __future__ import annotations

import base64
import datetime
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from realkit.likeness import MEASURES
from realkit.lookup import find
from realkit.scorers import SCORERS
from realkit.table import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from realkit.notebooks import Entry

PICTURES = 8  # shown of each entry
FIGURES = 4  # and of the figures that its notebook saved
SIDE = 176  # pixels of a picture's longer side; a figure's is twice as long
GROUPS = ("model", "sampler", "upscaler")
MOST = 60  # lines of a summary
ALIKE = ("batch", "rung", "device", "dtype", "tile")  # times are summed up only where these are the same


def page(folder: Path, entries: list[Entry], records: Mapping[str, Mapping[str, Any]], tables: Mapping[str, pd.DataFrame | None]) -> str:
    """The page's HTML. `records` and `tables` are those of each entry's name; pictures are relative to `folder`, as are the links."""
    import jinja2

    shared = {key for key in entries[0].parameters if all(key in e.parameters and e.parameters[key] == entries[0].parameters[key] for e in entries)}
    shown = [_shown(entry, records[entry.name], tables[entry.name], folder, shared if len(entries) > 1 else set()) for entry in entries]
    states = [record["status"] for record in records.values()]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE).render(
        title=folder.resolve().name, entries=shown, shared={key: _text(entries[0].parameters[key]) for key in sorted(shared)} if len(entries) > 1 else {},
        counts={state: states.count(state) for state in ("ok", "failed", "stopped", "pending") if state in states},
        pictures=sum(entry["pictures"] for entry in shown), seconds=_time(sum(record.get("seconds", 0.0) for record in records.values())),
        made=f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}", cells=sum(len(table) for table in tables.values() if table is not None),
    )  # fmt: skip


def _shown(entry: Entry, record: Mapping[str, Any], table: pd.DataFrame | None, folder: Path, shared: set[str]) -> dict[str, Any]:
    from realkit.notebook_sweep import ENTRIES, LOG, MADE

    files = {"notebook": MADE, "log": LOG, "table": "table.csv"}
    links = {text: quote(f"{ENTRIES}/{entry.folder}/{name}") for text, name in files.items() if (folder / ENTRIES / entry.folder / name).is_file()}
    table = None if table is None else _plain(table)
    made = 0 if table is None or "image" not in table else table.loc[table["status"] == "ok", "image"].nunique()
    return {
        "name": entry.name, "anchor": entry.folder, "status": record["status"], "reason": record["reason"], "notebook": entry.notebook.stem, "pictures": made,
        "parameters": {key: _text(value) for key, value in entry.parameters.items() if key not in shared},
        "seconds": _time(record["seconds"]) if "seconds" in record else "–", "links": links, "summary": summary(table) if table is not None else None,
        "thumbnails": (_thumbnails(table, folder) if made and table is not None else []) + _figures(folder / ENTRIES / entry.folder, folder),
    }  # fmt: skip


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table as this page reads it, also one that a notebook wrote as it liked: without a status all is done, and what is no number is no time."""
    import pandas as pd

    table = table.copy()
    if "status" not in table:
        table["status"] = "ok"
    if "seconds" in table:
        table["seconds"] = pd.to_numeric(table["seconds"], errors="coerce").astype("float64")
    return table


# --- figures ---------------------------------------------------------------------------------------------------------


def meaning(column: str) -> tuple[str, str]:
    """(better is, meaning) of a column of a table; empty where it is not known."""
    if column in COLUMNS:
        return COLUMNS[column][1], COLUMNS[column][2]
    if column in MEASURES:
        return MEASURES[column].better, MEASURES[column].about
    if column in SCORERS:
        spec = SCORERS[find(SCORERS, column)]
        return spec.direction, f"{spec.about}; {spec.unit}"
    return "", ""


def summary(table: pd.DataFrame) -> dict[str, Any] | None:
    """Per model, sampler and upscaler, as far as the table tells them apart: cells, means of the scores, median of the seconds. Best values are marked.

    None where the table has none of those columns. The median is empty where the group's batch sizes, rungs or devices differ: those are never pooled.
    """
    groups = [name for name in GROUPS if name in table and table[name].notna().any()]
    if not groups:
        return None
    done = table[table["status"] == "ok"] if "status" in table else table
    if done.empty:
        return None
    scores = [name for name in done.select_dtypes("number").columns if (name in MEASURES or name in SCORERS) and done[name].notna().any()]
    keys = done[groups].astype("string").fillna("–")
    rows: list[tuple[list[str], dict[str, float], int]] = []
    for _, part in done.groupby([keys[name] for name in groups], sort=False):
        alike = all(part[name].nunique(dropna=False) == 1 for name in ALIKE if name in part)
        figures = {name: float(part[name].mean()) for name in scores} | (
            {"seconds": float(part["seconds"].median()) if alike else float("nan")} if "seconds" in part else {}
        )
        rows.append(([str(keys.loc[part.index[0], name]) for name in groups], figures, len(part)))
    best = {name: _best(name, [figures[name] for _, figures, _ in rows]) for name in rows[0][1]}
    return {
        "heads": [(name, *meaning(name)) for name in groups] + [("cells", "", "cells that are done")]
        + [(f"{name}" if name != "seconds" else "seconds, median", *meaning(name)) for name in rows[0][1]],
        "rows": [
            (keyed, count, [(_number(value), len(rows) > 1 and _number(value) == best[name]) for name, value in figures.items()])
            for keyed, figures, count in rows[:MOST]
        ],
        "more": max(0, len(rows) - MOST),
    }  # fmt: skip


def _best(column: str, values: list[float]) -> str | None:
    """The best of a column as it is written, so that what reads the same is marked alike; None where there is no better."""
    known = [value for value in values if not math.isnan(value)]
    pick = {"higher": max, "lower": min}.get(meaning(column)[0])
    return _number(pick(known)) if pick and known else None


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s" if seconds < 60 else f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _text(value: Any) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else "null" if value is None else str(value)


# --- pictures --------------------------------------------------------------------------------------------------------


def _thumbnails(table: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """A few pictures of a table, of as many models, samplers, upscalers and prompts as there are places, small enough to stand in the page."""
    there = table[(table["status"] == "ok") & table["image"].notna()].drop_duplicates("image")
    groups = [there[name].astype("string").fillna("") for name in GROUPS if name in there]
    for keys in ([*groups, there["prompt"]] if "prompt" in there else groups, groups):  # first another prompt, then another seed
        if keys:
            turn = there.groupby([key.loc[there.index] for key in keys], sort=False).cumcount()
            there = there.loc[turn.sort_values(kind="stable").index]
    found = []
    for line in there.head(PICTURES).sort_index().to_dict("records"):
        if (data := _jpeg(folder / line["image"], SIDE)) is not None:
            words = " · ".join(str(line[name]) for name in GROUPS if isinstance(line.get(name), str))
            about = f"{line.get('prompt', '')} (seed {line.get('seed', '–')})"
            found.append({"data": data, "href": quote(line["image"]), "caption": words, "about": about, "kind": "picture"})
    return found


def _figures(home: Path, folder: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(home.glob("*.png"))[:FIGURES]:
        if (data := _jpeg(path, 2 * SIDE)) is not None:
            found.append({"data": data, "href": quote(path.relative_to(folder).as_posix()), "caption": path.stem, "about": path.name, "kind": "figure"})
    return found


def _jpeg(path: Path, side: int) -> str | None:
    """A data address of a copy of at most `side` pixels; None where the picture cannot be read."""
    from PIL import Image

    from realkit.pictures import opaque

    try:
        with Image.open(path) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            opaque(image).save(file, "JPEG", quality=82)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}: notebooks</title>
<style>
:root { --ink: #1d2330; --dim: #657083; --line: #dfe3ea; --back: #f6f7f9; --card: #fff; --mark: #e9f1ff; --link: #1f5fbf;
        --ok: #1a7f4b; --failed: #b3261e; --stopped: #96660a; --pending: #657083; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --dim: #98a2b3; --line: #2c3442; --back: #12161d; --card: #1a202a; --mark: #22324b; --link: #82b1ff;
          --ok: #5fcf97; --failed: #ff8a80; --stopped: #f0bf60; --pending: #98a2b3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { margin: 0; font-size: 26px; } h2 { margin: 0; font-size: 18px; overflow-wrap: anywhere; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.dim { color: var(--dim); } .small { font-size: 13px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin-top: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: 13px; font-weight: 600; color: var(--dim); white-space: nowrap; } th[title] { cursor: help; text-decoration: underline dotted; text-underline-offset: 3px; }
tr:last-child td { border-bottom: 0; } td.number, th.number { text-align: right; white-space: nowrap; }
td.best { font-weight: 650; background: var(--mark); } .name { font-weight: 600; overflow-wrap: anywhere; min-width: 9em; } .reason { max-width: 460px; overflow-wrap: anywhere; }
.status { font-weight: 650; white-space: nowrap; } .status::before { content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 50%; background: currentColor; margin-right: 6px; }
.ok { color: var(--ok); } .failed { color: var(--failed); } .stopped { color: var(--stopped); } .pending { color: var(--pending); }
.head { display: flex; gap: 6px 16px; flex-wrap: wrap; align-items: baseline; } .head .links { margin-left: auto; } .links a { margin-left: 12px; white-space: nowrap; }
dl { margin: 8px 0 0; display: flex; flex-wrap: wrap; gap: 2px 20px; } dl div { overflow-wrap: anywhere; } dt { display: inline; color: var(--dim); } dd { display: inline; margin: 0 0 0 5px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); gap: 12px; margin-top: 14px; }
figure { margin: 0; } figure img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 6px; background: var(--back); display: block; }
.figure { grid-column: span 2; } .figure img { aspect-ratio: 2; background: #fff; }
figcaption { font-size: 12px; line-height: 1.35; color: var(--dim); margin-top: 4px; overflow-wrap: anywhere; }
.summary { margin-top: 12px; }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<div class="head">
  {% for state, count in counts.items() %}
  <span class="status {{ state }}">{{ count }} {{ state }}</span>
  {% endfor %}
  <span class="dim">{{ cells }} cells, {{ pictures }} pictures, {{ seconds }}; {{ made }}</span>
  <span class="links">one table of all:<a href="table.csv">table.csv</a><a href="table.parquet">table.parquet</a></span>
</div>
{% if shared %}
<dl class="small">
  {% for key, value in shared.items() %}
  <div><dt>{{ key }}</dt><dd>{{ value }}</dd></div>
  {% endfor %}
</dl>
{% endif %}
<div class="card scroll">
<table>
  <tr><th>entry</th><th>status</th><th>{% if entries | selectattr("reason") | list %}why{% endif %}</th><th class="number">pictures</th><th class="number">time</th><th></th></tr>
  {% for entry in entries %}
  <tr>
    <td class="name"><a href="#{{ entry.anchor }}">{{ entry.name }}</a></td>
    <td><span class="status {{ entry.status }}">{{ entry.status }}</span></td>
    <td class="reason small">{{ entry.reason }}</td>
    <td class="number">{{ entry.pictures }}</td>
    <td class="number">{{ entry.seconds }}</td>
    <td class="links small number">{% for text, href in entry.links.items() %}<a href="{{ href }}">{{ text }}</a>{% endfor %}</td>
  </tr>
  {% endfor %}
</table>
</div>
{% for entry in entries %}
<section class="card" id="{{ entry.anchor }}">
  <div class="head">
    <h2>{{ entry.name }}</h2><span class="status {{ entry.status }}">{{ entry.status }}</span><span class="dim small">{{ entry.notebook }}, {{ entry.seconds }}</span>
    <span class="links small">{% for text, href in entry.links.items() %}<a href="{{ href }}">{{ text }}</a>{% endfor %}</span>
  </div>
  {% if entry.reason %}
  <div class="small {{ entry.status }}">{{ entry.reason }}</div>
  {% endif %}
  {% if entry.parameters %}
  <dl class="small">
    {% for key, value in entry.parameters.items() %}
    <div><dt>{{ key }}</dt><dd>{{ value }}</dd></div>
    {% endfor %}
  </dl>
  {% endif %}
  {% if entry.summary %}
  <div class="summary scroll">
  <table>
    <tr>
      {% for name, better, about in entry.summary.heads %}
      <th{% if about %} title="{{ about }}{% if better not in ("", "none") %} (better: {{ better }}){% endif %}"{% endif %}{% if loop.index0 >= entry.summary.rows[0][0] | length %} class="number"{% endif %}>{{ name }}</th>
      {% endfor %}
    </tr>
    {% for keyed, count, figures in entry.summary.rows %}
    <tr>
      {% for key in keyed %}
      <td>{{ key }}</td>
      {% endfor %}
      <td class="number">{{ count }}</td>
      {% for figure, best in figures %}
      <td class="number{% if best %} best{% endif %}">{{ figure }}</td>
      {% endfor %}
    </tr>
    {% endfor %}
  </table>
  {% if entry.summary.more %}
  <div class="dim small">{{ entry.summary.more }} more lines in the table.</div>
  {% endif %}
  </div>
  {% endif %}
  {% if entry.thumbnails %}
  <div class="pictures">
    {% for picture in entry.thumbnails %}
    <figure class="{{ picture.kind }}"><a href="{{ picture.href }}"><img src="{{ picture.data }}" alt="{{ picture.about }}" title="{{ picture.about }}"></a><figcaption>{{ picture.caption }}</figcaption></figure>
    {% endfor %}
  </div>
  {% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
