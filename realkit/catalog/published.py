"""Files in which suites of prompts are published, read as records: tables with a header, JSON, and
plain lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import json_value
from realkit.base.suggest import instead

MOST_BYTES = 64_000_000
# Columns that hold prompts, the likeliest first, and ids; case, spaces and _ do not matter.
PROMPT_COLUMNS = ("prompt", "prompts", "prompttext", "caption", "captions", "text")
ID_COLUMNS = ("id", "promptid", "uid", "key")
LINE, KEY = "prompt", "id"  # columns of records whose file names none
Record = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """The records of a file, each a mapping from its columns; where its prompts and ids are."""

    records: list[Record]
    prompt: str
    id: str | None


def read(path: Path, content: bytes, column: str | None = None) -> Published:
    """The records of a published suite, read by the ending of its name.

    - `.tsv`: a header, then a prompt a line, quotes as they stand (PartiPrompts);
    - `.csv`: a header, quoted as RFC 4180 has it (DrawBench);
    - `.jsonl`: an object with its columns, or a text, a line (GenEval's metadata);
    - `.json`: a list of them, or an object that has them by id (HPDv2's lists of texts);
    - `.txt`: a prompt a line (T2I-CompBench).

    `column` holds the prompts; by default the one that is named so. Raises RequestError for another
    ending, a file that is not of its format, and a column that is missing or cannot be told.
    """
    where = f"Suite {str(path)!r}"
    if path.suffix.lower() not in READERS:
        raise RequestError(f"{where}: expected a name that ends in {', '.join(READERS)}")
    try:
        records = READERS[path.suffix.lower()](content.decode("utf-8-sig"))
    except (ValueError, csv.Error, RecursionError) as error:
        raise RequestError(f"{where} cannot be read: {one_line(error, 200)}") from error
    if not records:
        raise RequestError(f"{where} holds no prompts")
    columns = list(dict.fromkeys(chain.from_iterable(records)))
    return Published(records, _prompts(columns, column, where), _named(columns, ID_COLUMNS))


def _prompts(columns: list[str], column: str | None, where: str) -> str:
    """The column of the prompts. Raises RequestError where it is missing or cannot be told."""
    names = ", ".join(map(shown, columns[:12]))
    if column is not None and column not in columns:
        end = instead(column, columns, listed=names)
        raise RequestError(f"{where} has no column {shown(column)}{end}")
    found = column or _named(columns, PROMPT_COLUMNS)
    if found is None:
        raise RequestError(f"{where}: which column holds the prompts? --column with one of {names}")
    return found


def _named(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first column of these names, in the order of the names."""
    folded: dict[str, str] = {}
    for column in columns:
        folded.setdefault(column.lower().replace(" ", "").replace("_", ""), column)
    return next((folded[name] for name in names if name in folded), None)


def _table(rows: Iterable[list[str]]) -> list[Record]:
    """Records of rows whose first is the header. Raises ValueError for a row of other length."""
    lines = iter(rows)
    header = [name.strip() for name in next(lines, [])]
    if len(set(header)) < len(header) or not all(header):
        raise ValueError(f"its first line is no header of distinct names: {shown(header)}")
    records = []
    for number, row in enumerate(lines, 2):
        if not any(row):
            continue
        if len(row) > len(header):
            raise ValueError(f"record {number} has {len(row)} columns, the header {len(header)}")
        row += [""] * (len(header) - len(row))  # editors cut empty cells off
        records.append(dict(zip(header, row, strict=True)))
    return records


def _tsv(text: str) -> list[Record]:
    # PartiPrompts has prompts that begin with a quoted word: quotes are part of the words. Where
    # quotes enclose a whole cell, and are doubled inside, a spreadsheet wrote them.
    rows = []
    for line in _lines(text):
        rows.append([_unquoted(cell) for cell in line.split("\t")])
    return _table(rows)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    enclosed = len(cell) > 1 and cell[0] == cell[-1] == '"'
    if enclosed and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _csv(text: str) -> list[Record]:
    return _table(csv.reader(io.StringIO(text, newline=""), strict=True))


def _jsonl(text: str) -> list[Record]:
    records = []
    for number, line in enumerate(_lines(text), 1):
        if line.strip():
            try:
                records.append(_record(json_value(line)))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return records


def _json(text: str) -> list[Record]:
    content = json_value(text)
    if isinstance(content, dict):
        return [{KEY: key} | _record(value) for key, value in content.items()]
    if not isinstance(content, list):
        raise ValueError(f"it holds {shown(content)}, expected a list of prompts")
    return [_record(value) for value in content]


def _txt(text: str) -> list[Record]:
    return [{LINE: line} for line in _lines(text)]


def _lines(text: str) -> list[str]:
    """The lines of a text, of whatever system; a last empty line is none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _record(value: Any) -> Record:
    """An object as it stands, a text as a record of one prompt."""
    if isinstance(value, str):
        return {LINE: value}
    if not isinstance(value, dict):
        raise ValueError(f"expected a text, or an object with a prompt, got {shown(value)}")
    return value


READERS: dict[str, Callable[[str], list[Record]]] = {
    ".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl, ".json": _json, ".txt": _txt,
}  # fmt: skip
