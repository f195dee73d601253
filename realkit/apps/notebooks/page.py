"""The page of a sweep of notebooks: one self-contained HTML file with each entry's outcome, its
figures and a few of its pictures."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from realkit.analysis.page import (
    figures,
    not_shown,
    plain_value,
    summary,
    text_of,
    thumbnails,
    time_text,
)
from realkit.apps.notebooks.entries import ENTRIES, LOG, MADE, Entry

if TYPE_CHECKING:
    import pandas as pd

STATES = ("ok", "failed", "stopped", "pending")
FILES = {"notebook": MADE, "log": LOG, "table": "table.csv"}  # link text → file of an entry


def page(
    folder: Path,
    entries: list[Entry],
    records: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame | None],
) -> str:
    """The page's HTML. `records` and `tables` are by entry name, links relative to `folder`."""
    import jinja2

    shared = _shared(entries)
    blocks = []
    for entry in entries:
        blocks.append(_block(entry, records[entry.name], tables[entry.name], folder, shared))
    states = [record["status"] for record in records.values()]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("realkit.apps.notebooks"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["text"] = text_of
    return environment.get_template("index.html").render(
        title=folder.resolve().name,
        entries=blocks,
        shared=shared,
        counts={state: states.count(state) for state in STATES if state in states},
        seconds=time_text(sum(record.get("seconds", 0.0) for record in records.values())),
        made=f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        cells=sum(len(table) for table in tables.values() if table is not None),
    )


def _shared(entries: list[Entry]) -> dict[str, Any]:
    """The parameters that all entries share, which the page shows once; none of a single entry."""
    first, *others = entries
    shared = dict(first.parameters) if others else {}
    for entry in others:
        same = shared.keys() & entry.parameters.keys()
        shared = {key: shared[key] for key in same if shared[key] == entry.parameters[key]}
    return shared


def _block(
    entry: Entry,
    record: Mapping[str, Any],
    table: pd.DataFrame | None,
    folder: Path,
    shared: Collection[str],
) -> dict[str, Any]:
    """What the template shows of one entry."""
    home = folder / ENTRIES / entry.folder
    links = {}
    for text, name in FILES.items():
        if (home / name).is_file():
            links[text] = quote(f"{ENTRIES}/{entry.folder}/{name}")
    figures_of_table, pictures, shown = None, 0, []
    if table is not None:
        table = plain_value(table)
        figures_of_table = summary(table)
        if "image" in table:
            pictures = table.loc[table["status"] == "ok", "image"].nunique()
        shown = thumbnails(table, folder) if pictures else []
    shown += figures(home, folder)
    return {
        "name": entry.name,
        "anchor": entry.folder,
        "status": record["status"],
        "reason": record["reason"],
        "notebook": entry.notebook.stem,
        "pictures": pictures,
        "parameters": {k: value for k, value in entry.parameters.items() if k not in shared},
        "seconds": time_text(record["seconds"]) if "seconds" in record else "–",
        "links": links,
        "summary": figures_of_table,
        "thumbnails": shown,
        "not_shown": not_shown(shown, pictures, home),
    }
