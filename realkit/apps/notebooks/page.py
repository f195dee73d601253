"""The page of a sweep of notebooks: one self-contained HTML file that says what became of each
entry, with its figures and a few of its pictures."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from realkit.analysis.page import figures, plain_value, summary, text_of, thumbnails, time_text

if TYPE_CHECKING:
    import pandas as pd

    from realkit.apps.notebooks.entries import Entry


def page(
    folder: Path,
    entries: list[Entry],
    records: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame | None],
) -> str:
    """The page's HTML. `records` and `tables` are those of each entry's name; pictures are relative
    to `folder`, as are the links."""
    import jinja2

    shared = {
        key
        for key in entries[0].parameters
        if all(
            key in e.parameters and e.parameters[key] == entries[0].parameters[key] for e in entries
        )
    }
    shown = [
        _shown(
            entry,
            records[entry.name],
            tables[entry.name],
            folder,
            shared if len(entries) > 1 else set(),
        )
        for entry in entries
    ]
    states = [record["status"] for record in records.values()]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE).render(
        title=folder.resolve().name,
        entries=shown,
        shared=(
            {key: text_of(entries[0].parameters[key]) for key in sorted(shared)}
            if len(entries) > 1
            else {}
        ),
        counts={
            state: states.count(state)
            for state in ("ok", "failed", "stopped", "pending")
            if state in states
        },
        pictures=sum(entry["pictures"] for entry in shown),
        seconds=time_text(sum(record.get("seconds", 0.0) for record in records.values())),
        made=f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        cells=sum(len(table) for table in tables.values() if table is not None),
    )


def _shown(
    entry: Entry,
    record: Mapping[str, Any],
    table: pd.DataFrame | None,
    folder: Path,
    shared: set[str],
) -> dict[str, Any]:
    from realkit.apps.notebooks.entries import ENTRIES, LOG, MADE

    files = {"notebook": MADE, "log": LOG, "table": "table.csv"}
    links = {
        text: quote(f"{ENTRIES}/{entry.folder}/{name}")
        for text, name in files.items()
        if (folder / ENTRIES / entry.folder / name).is_file()
    }
    table = None if table is None else plain_value(table)
    made = (
        0
        if table is None or "image" not in table
        else table.loc[table["status"] == "ok", "image"].nunique()
    )
    return {
        "name": entry.name,
        "anchor": entry.folder,
        "status": record["status"],
        "reason": record["reason"],
        "notebook": entry.notebook.stem,
        "pictures": made,
        "parameters": {
            key: text_of(value) for key, value in entry.parameters.items() if key not in shared
        },
        "seconds": time_text(record["seconds"]) if "seconds" in record else "–",
        "links": links,
        "summary": summary(table) if table is not None else None,
        "thumbnails": (
            (thumbnails(table, folder) if made and table is not None else [])
            + figures(folder / ENTRIES / entry.folder, folder)
        ),
    }


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
