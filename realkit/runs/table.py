"""From rows to one dataframe, a line a cell; and the dictionary of its columns."""

from __future__ import annotations

import io
from collections.abc import Container, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from realkit.base.spreadsheets import to_csv
from realkit.catalog.columns import COLUMNS
from realkit.catalog.lookup import find
from realkit.models.prompts import unread
from realkit.runs import asked
from realkit.runs.asked import Asked
from realkit.runs.store import Row, Store
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[tuple[str, str | None], Row]  # by scorer and prompt
TEXTS = (
    "error",
    "missing",
    "unread",
    "upscaler",
    "tile",
    "upscale_dtype",
    "image",
    "card",
)  # text, even where all are empty


def build(store: Store, wanted: Asked | None = None) -> pd.DataFrame:
    """The table of a results folder, independent of the order of work.

    It has one line a cell, in the order of the plan, and a column for each scorer that has rows, in
    the order of the catalogue.

    `wanted` limits it to these cells and their scorers; by default they are those that the folder's
    runs were asked for. A cell is "ok" when its picture is there and each of its scores, "skipped"
    when a race has decided without it, "failed" when a stage failed, else "pending": `missing`
    names the stages.
    """
    import pandas as pd

    lines = _Lines(store, asked.of_folder(store) if wanted is None else wanted)
    records = store.cells.read()
    if wanted is not None:
        records = [record for record in records if record["id"] in wanted]
    table = [lines.line(record) for record in records]
    order = {name: place for place, name in enumerate(SCORERS)}
    scorers = lines.scorers
    if wanted is not None:
        scorers = scorers.intersection(chain.from_iterable(filter(None, wanted.values())))
    names = sorted(scorers, key=lambda name: (order.get(name, len(order)), name))
    frame = pd.DataFrame(table, columns=[*COLUMNS, *names])
    for name in TEXTS:
        frame[name] = frame[name].astype("string")
    return frame


def write(store: Store) -> None:
    """Write the table of a whole results folder: table.parquet and table.csv."""
    frame = build(store)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    store.put(store.folder / "table.parquet", buffer.getvalue())
    store.put(store.folder / "table.csv", to_csv(frame).encode())


class _Lines:
    """The lines of a table, from the last row of each artifact."""

    def __init__(self, store: Store, wanted: Asked) -> None:
        self._store, self._rows, self._wanted = store, store.last_rows(), wanted
        self._columns = dict(COLUMNS)
        self._pictures = store.pictures()
        self._cards = {run["run"]: run.get("gpu") or run.get("cpu") for run in store.machines()}
        self._votes = _won(store.votes.read())
        self._scores: dict[str, Scores] = {}  # of each image
        self.scorers: set[str] = set()
        for row in self._rows.values():
            if row["stage"] == "score":
                self._scores.setdefault(row["parent"], {})[row["scorer"], row["prompt"]] = row
                self.scorers.add(row["scorer"])

    def line(self, record: dict[str, Any]) -> dict[str, Any]:
        """The line of a cell's record in cells.jsonl."""
        cell, ids = record["cell"], record["ids"]
        artifacts = {"denoise": ids["latents"], "decode": ids["decoded"], "image": ids["image"]}
        if ids["image"] != ids["decoded"]:
            artifacts["upscale"] = ids["image"]
        rows = {stage: self._rows.get(artifact) for stage, artifact in artifacts.items()}
        line = {name: cell[name] for name in self._columns if name in cell}
        line["cell"] = record["id"]
        for name, column in self._columns.items():
            if row := rows.get(column.stage):
                line[name] = row.get(column.field or name)
        won, voted = self._votes.get(ids["image"], (0.0, 0))
        if voted:
            line |= {"wins": won / voted, "votes": voted}
        line["card"] = self._cards.get(line.get("run"))
        stages = dict(rows)
        del stages["image"]
        if ids.get("begun"):
            stages = {"denoise": self._rows.get(ids["begun"]), "refine": rows["denoise"]} | {
                name: row for name, row in stages.items() if name != "denoise"
            }
            if begun := stages["denoise"]:
                self._add_first_leg(line, begun, rows["denoise"])
        legs = [row.get("cut_tokens") for row in stages.values() if row and "cut_tokens" in row]
        line["unread"] = unread(cell["prompt"], cell["negative"], cell["guidance"], legs)
        scores = self._scores_of(ids["image"], cell["prompt"])
        _add_scores(line, scores)
        if all(row and row["status"] == "ok" for row in stages.values()):
            self._add_picture(line, ids["image"], stages)
        wanted = self._wanted.get(record["id"], ())
        _add_status(line, stages, {name: scores.get(name) for name in sorted(wanted or ())})
        if wanted is None and line["status"] != "ok":
            line |= {"status": "skipped", "missing": "decided", "error": None}
        return line

    def _add_picture(self, line: dict[str, Any], image: str, stages: dict[str, Any]) -> None:
        """Add the picture's place, if the file is there, and the seconds and joules it took."""
        if image in self._pictures:
            path = self._store.path("upscale", image)
            line["image"] = path.relative_to(self._store.folder).as_posix()
        if len({row.get("device") for row in stages.values()}) == 1:
            line["seconds"] = sum(line.get(name) or 0.0 for name in self._parts("seconds"))
        used = [line.get(name) for name in self._parts("joules", stages)]
        if None not in used:
            line["joules"] = sum(used)

    def _parts(self, total: str, stages: Container[str] | None = None) -> list[str]:
        """The columns that a column adds up, of these stages."""
        parts = []
        for name, column in self._columns.items():
            if column.part_of == total and (stages is None or column.stage in stages):
                parts.append(name)
        return parts

    def _scores_of(self, image: str, prompt: str) -> dict[str, Row]:
        """The rows of a picture's scores, by scorer."""
        rows = {}
        for (scorer, scored), row in self._scores.get(image, {}).items():
            if scored in (None, prompt):
                rows[scorer] = row
        return rows

    def _add_first_leg(self, line: dict[str, Any], first: Row, second: Row | None) -> None:
        """Combine the values of two legs, as each column says."""
        for name, column in self._columns.items():
            legs = [row[name] for row in (first, second) if row and row.get(name) is not None]
            if column.stage != "denoise" or not legs:
                continue
            if column.legs == "sum of all":
                line[name] = sum(legs) if len(legs) == 2 else None
            elif column.legs == "sum":
                line[name] = sum(legs)
            elif column.legs == "largest":
                line[name] = max(legs)
            else:
                line[name] = legs[0]


def _won(votes: Iterable[Row]) -> dict[str, tuple[float, int]]:
    """(votes won, votes) of each picture; a tie is half a win."""
    counts: dict[str, tuple[float, int]] = {}
    for vote in votes:
        for side, other in (("a", "b"), ("b", "a")):
            won, voted = counts.get(vote[side], (0.0, 0))
            share = {side: 1.0, other: 0.0, "tie": 0.5}[vote["choice"]]
            counts[vote[side]] = won + share, voted + 1
    return counts


def _add_scores(line: dict[str, Any], scores: dict[str, Row]) -> None:
    for scorer, row in scores.items():
        if row["status"] == "ok":
            line[scorer] = row["value"]
        if "score_s" in row:
            line["score_s"] = line.get("score_s", 0.0) + row["score_s"]
        if row.get("cut"):
            line["score_cut_tokens"] = max(line.get("score_cut_tokens", 0), row["cut"])


def _add_status(
    line: dict[str, Any], stages: dict[str, Row | None], scores: dict[str, Row | None]
) -> None:
    """Add whether a cell is ok, what it lacks, and the first error. `scores` are those asked for,
    by scorer."""
    missing = []
    for stage, row in (*stages.items(), *scores.items()):
        if row is None or row["status"] != "ok":
            missing.append(stage if stage in stages else f"score {stage}")
        if row is not None and row["status"] != "ok" and "error" not in line:
            line["error"] = f"{row['stage']}: {row['error_type']}: {row['error']}"
    if not missing and "image" not in line:
        missing.append("the picture's file")
    line["missing"] = ", ".join(missing) or None
    line["status"] = "pending" if missing else "ok"
    if "error" in line:
        line["status"] = "failed"


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
`cells.jsonl` (the grid), `runs.jsonl` (machines, versions, and what each run was asked for),
`rows.jsonl` (one line an attempt; the last of an id counts), `images/` (`realkit info IMAGE` says
what made one), `latents/`, and the table
as `table.parquet` and `table.csv`. A race adds `decisions.jsonl`: a line a look, with the contrasts
it judged. In a CSV, a text that a spreadsheet would run as a formula has an apostrophe before it.
`realkit prune DIR --latents` empties `latents/` of what finished pictures were decoded from.
`rk.read` of several folders adds the column `folder`: the one that a cell comes from.
`sample/` is a small part of a real run of this version (`python -m realkit.apps.demo --sample`);
its README says more. This page is generated: `realkit columns`.

## Columns of the table

"""
