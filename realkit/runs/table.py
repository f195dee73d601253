"""From rows to one dataframe: a line a cell. Columns are declared here once, with unit and
direction in their meaning."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from realkit.catalog.columns import COLUMNS, PARTS, RENAMED, SUMMED
from realkit.catalog.lookup import find
from realkit.scorers.table import SCORERS

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from realkit.runs.store import Store


def build(
    store: Store, cells: Collection[str] | None = None, scorers: Collection[str] | None = None
) -> pd.DataFrame:
    """One line a cell of a results folder, in the order they were planned; a column for each scorer
    that has rows, in the catalogue's order: whatever was done first, the table is the same.

    `cells` and `scorers` limit it to these ids and names; a score that failed counts against a cell
    only if its scorer is among them.
    """
    import pandas as pd

    rows = store.last_rows()
    scores: dict[
        str, dict[tuple[str, str | None], dict[str, Any]]
    ] = {}  # of each image: the last of each scorer and prompt
    for row in rows.values():
        if row["stage"] == "score" and (scorers is None or row["scorer"] in scorers):
            scores.setdefault(row["parent"], {})[row["scorer"], row["prompt"]] = row
    order = {name: place for place, name in enumerate(SCORERS)}
    named = sorted(
        {name for found in scores.values() for name, _ in found},
        key=lambda name: (order.get(name, len(order)), name),
    )
    lines = [
        _line(line, rows, scores, store)
        for line in store.cells.read()
        if cells is None or line["id"] in cells
    ]
    frame = pd.DataFrame(lines, columns=[*COLUMNS, *named])
    for name in ("error", "upscaler", "tile", "upscale_dtype", "image"):
        frame[name] = frame[name].astype("string")
    return frame


def write(store: Store) -> None:
    """A results folder's table.parquet and table.csv: of all it holds."""
    frame = build(store)
    for name, pour in (("table.parquet", frame.to_parquet), ("table.csv", frame.to_csv)):
        whole = io.BytesIO()
        pour(whole, index=False)
        store.put(store.folder / name, whole.getvalue())


def _line(
    line: dict[str, Any],
    rows: dict[str, Any],
    scores: dict[str, dict[tuple[str, str | None], dict[str, Any]]],
    store: Store,
) -> dict[str, Any]:
    cell, ids = line["cell"], line["ids"]
    enlarged = ids["image"] != ids["decoded"]
    parts = {
        "denoise": rows.get(ids["latents"]),
        "decode": rows.get(ids["decoded"]),
        "image": rows.get(ids["image"]),
    }
    if enlarged:
        parts["upscale"] = rows.get(ids["image"])
    rated = [
        row
        for (_, prompt), row in scores.get(ids["image"], {}).items()
        if prompt in (None, cell["prompt"])
    ]
    found = {name: cell[name] for name in COLUMNS if name in cell} | {
        "cell": line["id"],
        "upscaler": cell["upscaler"],
    }
    for name, (stage, _, _) in COLUMNS.items():
        if row := parts.get(stage):
            found[name] = row.get(RENAMED.get(name, name))
    if begun := rows.get(line["ids"].get("begun")):
        _add_leg(found, begun, parts.setdefault("denoise", None))
        parts["begun"] = begun
    found |= {row["scorer"]: row["value"] for row in rated if row["status"] == "ok"}
    if times := [row["score_s"] for row in rated if "score_s" in row]:
        found["score_s"] = sum(times)
    steps = [part for part in parts.values() if part is not None]
    failed = [row for row in [*steps, *rated] if row["status"] != "ok"]
    complete = len(steps) == len(parts)
    made = complete and all(part["status"] == "ok" for part in steps)
    found["status"] = "failed" if failed else "ok" if complete else "pending"
    found["error"] = (
        f"{failed[0]['stage']}: {failed[0]['error_type']}: {failed[0]['error']}" if failed else None
    )
    if made:
        found["image"] = store.path("upscale", ids["image"]).relative_to(store.folder).as_posix()
    if complete and len({part.get("device") for part in steps}) == 1:
        found["seconds"] = sum(found.get(name) or 0.0 for name in PARTS)
    return found


def _add_leg(found: dict[str, Any], first: dict[str, Any], last: dict[str, Any] | None) -> None:
    """What the first of two legs took, to what the second did: times and calls are summed, of
    memory the larger counts."""
    for name, (stage, _, _) in COLUMNS.items():
        both = [row[name] for row in (first, last) if row and row.get(name) is not None]
        if stage == "denoise" and both:
            found[name] = (
                sum(both) if name in SUMMED else max(both) if name.startswith("peak_") else both[0]
            )


def dictionary() -> str:
    """`results/README.md`: what each column means."""
    lines = ["| column | better is | meaning |", "| --- | --- | --- |"]
    lines += [
        f"| `{name}` | {better or '–'} | {meaning} |"
        for name, (_, better, meaning) in COLUMNS.items()
    ]
    for name, spec in SCORERS.items():
        lines.append(
            f"| `{find(SCORERS, name)}` | {spec.direction if spec.direction != 'none' else '–'} |"
            f" {spec.about}; {spec.unit}; sees {spec.resize} |"
        )
    return (
        "# Results\n\nA results folder holds `sweep.yaml` (what was asked), `sweep.lock.json` (what"
        " each name meant), `cells.jsonl` (the grid),\n`runs.jsonl` (machines and versions),"
        " `rows.jsonl` (one line an attempt; the last of an id counts), `images/`, `latents/`, and"
        " the\ntable as `table.parquet` and `table.csv`. `sample/` is a small part of a real run."
        " This page is generated: `realkit columns`.\n\n## Columns of the table\n\n"
        + "\n".join(lines)
        + "\n"
    )
