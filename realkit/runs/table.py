"""From rows to one dataframe, a line a cell; and the dictionary of its columns."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.models.prompts import unread
from realkit.runs.store import Row, Store
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[tuple[str, str | None], Row]  # by scorer and prompt
TEXTS = (
    "error",
    "unread",
    "upscaler",
    "tile",
    "upscale_dtype",
    "image",
)  # text, even where all are empty


def build(
    store: Store, cells: Collection[str] | None = None, scorers: Collection[str] | None = None
) -> pd.DataFrame:
    """The table of a results folder, independent of the order of work.

    It has one line a cell, in the order of the plan, and a column for each scorer that has rows, in
    the order of the catalogue.

    `cells` and `scorers` limit it to these ids and names. A failed score counts against a cell only
    where its scorer is among them.
    """
    import pandas as pd

    lines = _Lines(store, scorers)
    records = [record for record in store.cells.read() if cells is None or record["id"] in cells]
    order = {name: place for place, name in enumerate(SCORERS)}
    names = sorted(lines.scorers, key=lambda name: (order.get(name, len(order)), name))
    frame = pd.DataFrame(map(lines.line, records), columns=[*COLUMNS, *names])
    for name in TEXTS:
        frame[name] = frame[name].astype("string")
    return frame


def write(store: Store) -> None:
    """Write the table of a whole results folder: table.parquet and table.csv."""
    frame = build(store)
    for name, write_to in (("table.parquet", frame.to_parquet), ("table.csv", frame.to_csv)):
        buffer = io.BytesIO()
        write_to(buffer, index=False)
        store.put(store.folder / name, buffer.getvalue())


class _Lines:
    """The lines of a table, from the last row of each artifact."""

    def __init__(self, store: Store, scorers: Collection[str] | None) -> None:
        self._store, self._rows = store, store.last_rows()
        self._columns = dict(COLUMNS)
        self._scores: dict[str, Scores] = {}  # of each image
        self.scorers: set[str] = set()
        for row in self._rows.values():
            if row["stage"] == "score" and (scorers is None or row["scorer"] in scorers):
                self._scores.setdefault(row["parent"], {})[row["scorer"], row["prompt"]] = row
                self.scorers.add(row["scorer"])

    def line(self, record: dict[str, Any]) -> dict[str, Any]:
        """The line of a cell's record in cells.jsonl."""
        cell, ids = record["cell"], record["ids"]
        steps = {"denoise": ids["latents"], "decode": ids["decoded"], "image": ids["image"]}
        if ids["image"] != ids["decoded"]:
            steps["upscale"] = ids["image"]
        rows = {stage: self._rows.get(artifact) for stage, artifact in steps.items()}
        line = {name: cell[name] for name in self._columns if name in cell}
        line["cell"] = record["id"]
        for name, column in self._columns.items():
            if row := rows.get(column.stage):
                line[name] = row.get(column.field or name)
        if begun := self._rows.get(ids.get("begun")):
            self._add_first_leg(line, begun, rows["denoise"])
            rows["begun"] = begun
        legs = [row.get("cut_tokens") for row in (begun, rows["denoise"]) if row]
        line["unread"] = unread(cell["prompt"], cell["negative"], cell["guidance"], legs)
        steps_done = [row for row in rows.values() if row is not None]
        complete = len(steps_done) == len(rows)
        scores = self._scores_of(ids["image"], cell["prompt"])
        _add_scores(line, scores)
        _add_status(line, [*steps_done, *scores], complete)
        if complete and all(row["status"] == "ok" for row in steps_done):
            path = self._store.path("upscale", ids["image"])
            line["image"] = path.relative_to(self._store.folder).as_posix()
        if complete and len({row.get("device") for row in steps_done}) == 1:
            parts = [name for name, column in self._columns.items() if column.part_of_seconds]
            line["seconds"] = sum(line.get(name) or 0.0 for name in parts)
        return line

    def _scores_of(self, image: str, prompt: str) -> list[Row]:
        scores = self._scores.get(image, {})
        return [row for (_, scored), row in scores.items() if scored in (None, prompt)]

    def _add_first_leg(self, line: dict[str, Any], first: Row, second: Row | None) -> None:
        """Combine the values of two legs, as each column says."""
        for name, column in self._columns.items():
            legs = [row[name] for row in (first, second) if row and row.get(name) is not None]
            if column.stage != "denoise" or not legs:
                continue
            if column.legs == "sum":
                line[name] = sum(legs)
            elif column.legs == "largest":
                line[name] = max(legs)
            else:
                line[name] = legs[0]


def _add_scores(line: dict[str, Any], scores: list[Row]) -> None:
    for row in scores:
        if row["status"] == "ok":
            line[row["scorer"]] = row["value"]
        if "score_s" in row:
            line["score_s"] = line.get("score_s", 0.0) + row["score_s"]
        if row.get("cut"):
            line["score_cut_tokens"] = max(line.get("score_cut_tokens", 0), row["cut"])


def _add_status(line: dict[str, Any], rows: list[Row], complete: bool) -> None:
    line["status"] = "ok" if complete else "pending"
    for row in rows:
        if row["status"] != "ok":
            line["status"] = "failed"
            line["error"] = f"{row['stage']}: {row['error_type']}: {row['error']}"
            return


def dictionary() -> str:
    """The text of `results/README.md`: what a folder holds and what each column means."""
    lines = ["| column | better is | meaning |", "| --- | --- | --- |"]
    for name, column in COLUMNS.items():
        lines.append(f"| `{name}` | {column.better or '–'} | {column.meaning} |")
    for name, spec in SCORERS.items():
        better = "–" if spec.direction == "none" else spec.direction
        meaning = f"{spec.about}; {spec.unit}; sees {spec.resize}"
        lines.append(f"| `{find(SCORERS, name)}` | {better} | {meaning} |")
    return HEAD + "\n".join(lines) + "\n"


HEAD = """# Results

A results folder holds `sweep.yaml` (what was asked), `sweep.lock.json` (what each name meant),
`cells.jsonl` (the grid), `runs.jsonl` (machines and versions), `rows.jsonl` (one line an attempt;
the last of an id counts), `images/`, `latents/`, and the table as `table.parquet` and `table.csv`.
`sample/` is a small part of a real run. This page is generated: `realkit columns`.

## Columns of the table

"""
