"""A published suite of prompts, made an entry of the user's own catalogue."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from realkit.base.door import worded
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import write_atomically
from realkit.base.suggest import instead
from realkit.catalog import published
from realkit.catalog.lookup import USER_CATALOG, Table, find
from realkit.catalog.published import Published
from realkit.catalog.suites import SUITE, Suite

MOST_PROMPTS = 20_000  # a sweep file holds three times as many values
MOST_NAME = 60
OPTIONAL = ("ids", "source", "sha256", "left_out")  # left out of the entry where empty


@dataclass(frozen=True)
class Selection:
    """Which records of a file to take: those whose columns have these values (`where`), and of
    them the first `limit`, or `sample` at random by `seed`, in the order of the file."""

    where: Mapping[str, str]
    limit: int | None = None
    sample: int | None = None
    seed: int = 0


def import_suite(
    path: Path,
    name: str,
    licence: str,
    commercial: str = "unknown",
    column: str | None = None,
    selection: Selection | None = None,
    replace: bool = False,
) -> tuple[Suite, Path]:
    """Make the prompts of a file the suite `name` of the user's catalogue; the entry and its file.

    The entry bears the licence, the file's name and SHA-256, the ids of the prompts where the file
    has them, and how many were left out by the reason. A prompt is stripped of space at its ends;
    the first of equal ones counts. Raises RequestError, and writes nothing, for a file that cannot
    be read, a prompt that no sweep would take, a name that is taken (without `replace`), and
    without $REALKIT_CATALOG.
    """
    own = _own_file()
    _check_name(name, replace)
    if not licence.strip():
        raise RequestError("The licence is empty: name it, or say unknown")
    text = _text_of(own)
    with worded(f"Catalogue file {str(own)!r} cannot be read"):
        before = tomllib.loads(text)
    try:
        if path.stat().st_size > published.MOST_BYTES:
            most = published.MOST_BYTES / 1e6
            raise RequestError(f"Suite {str(path)!r} has over {most:.0f} MB: split the file")
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"Suite {str(path)!r} cannot be read: {error.strerror}") from error
    suite = _entry(path, content, licence, commercial, column, selection or Selection({}))
    block = _block(name, suite)
    kept = _without(text, name) if name in before else text
    whole = f"{kept.rstrip()}\n\n{block}".lstrip()
    _check_written(whole, before, name, suite, own)
    write_atomically(own, lambda file: file.write(whole.encode()))
    return suite, own


def _own_file() -> Path:
    folder = os.environ.get(USER_CATALOG)
    if not folder:
        raise RequestError(
            f"${USER_CATALOG} is not set: set it to a folder, whose prompts.toml will hold the"
            " suite"
        )
    if not Path(folder).is_dir():
        raise RequestError(f"${USER_CATALOG} is {folder!r}: expected a folder that exists")
    return Path(folder) / "prompts.toml"


def _text_of(file: Path) -> str:
    """The text of the user's suites; "" before the first."""
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _check_name(name: str, replace: bool) -> None:
    """Raise RequestError for a name that no sweep could use, or that is taken."""
    if len(name) > MOST_NAME or not name.isprintable() or not any(map(str.isalnum, name)):
        raise RequestError(
            f"Suite name {shown(name)}: expected letters or digits, at most {MOST_NAME} characters"
        )
    suites = Table("prompt", Suite)  # as the files are now
    len(suites)  # raises what is wrong with the user's file
    try:
        taken = find(suites, name)
    except RequestError:
        return
    if taken != name:
        raise RequestError(f"The catalogue has {SUITE}{taken}, which {name!r} would mean too")
    if not replace:
        raise RequestError(
            f"The catalogue has {SUITE}{name} already: choose another --name, or --replace it"
        )


def _entry(
    path: Path,
    content: bytes,
    licence: str,
    commercial: str,
    column: str | None,
    selection: Selection,
) -> Suite:
    found = published.read(path, content, column)
    prompts, left_out = _selected(found, selection, f"Suite {str(path)!r}")
    if len(prompts) > MOST_PROMPTS:
        raise RequestError(
            f"Suite {str(path)!r} has {len(prompts):,} prompts, expected at most"
            f" {MOST_PROMPTS:,}: take a part of it by --sample, --limit or --where"
        )
    ids = list(prompts.values())
    try:
        return Suite(
            about=f"{len(prompts)} prompts of {path.name}, imported",
            licence=licence,
            commercial=commercial,  # type: ignore[arg-type]
            source=path.name,
            sha256=hashlib.sha256(content).hexdigest(),
            left_out=left_out,
            prompts=list(prompts),
            ids=tuple(ids) if any(ids) else (),
        )
    except ValidationError as error:
        raise RequestError(f"Suite {str(path)!r}: {one_line(error, 200)}") from error


def _selected(
    found: Published, selection: Selection, where: str
) -> tuple[dict[str, str], dict[str, int]]:
    """(prompt → id, how many were left out by the reason). Raises RequestError where none is
    left."""
    prompts: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    _check_conditions(found, selection.where, where)
    for number, record in enumerate(found.records, 1):
        text = _prompt(record.get(found.prompt), f"{where}, record {number}")
        reason = _unlike(record, selection.where)
        if not reason and (not text or text in prompts):
            reason = "duplicate" if text else "empty"
        if reason:
            left_out[reason] += 1
            continue
        own = None if found.id is None else record.get(found.id)
        prompts[text] = "" if own is None else str(own)
    if not prompts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise RequestError(f"{where} has no prompt to take: {reasons}")
    chosen = _chosen(list(prompts), selection)
    if rest := len(prompts) - len(chosen):
        drawn = f"not drawn by seed {selection.seed}"
        left_out[drawn if selection.sample else "after the limit"] = rest
    return {prompt: prompts[prompt] for prompt in chosen}, dict(left_out)


def _prompt(value: Any, where: str) -> str:
    """A prompt without space at its ends; "" for an empty cell."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestError(f"{where}: {shown(value)} is no prompt: expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{where} holds half of a surrogate pair: decode it first") from None
    return value.strip()


def _check_conditions(found: Published, where: Mapping[str, str], file: str) -> None:
    """Raise RequestError for a column that no record has, and for a value that none has there."""
    for column, value in where.items():
        values = {str(record[column]): None for record in found.records if column in record}
        if not values:
            names = ", ".join(map(shown, found.records[0]))
            end = instead(column, found.records[0], listed=names)
            raise RequestError(f"{file} has no column {shown(column)}{end}")
        if value not in values:
            names = ", ".join(map(shown, list(values)[:12]))
            end = instead(value, values, listed=names)
            raise RequestError(f"{file} has no {column} {shown(value)}{end}")


def _unlike(record: Mapping[str, Any], where: Mapping[str, str]) -> str:
    """The condition that a record does not meet, else ""."""
    for column, value in where.items():
        if str(record.get(column, "")) != value:
            return f"not {column}={value}"
    return ""


def _chosen(prompts: list[str], selection: Selection) -> list[str]:
    if selection.sample is not None and selection.limit is not None:
        raise RequestError("--limit and --sample: give one of them")
    if selection.sample is None:
        return prompts[: selection.limit]
    if selection.sample > len(prompts):
        raise RequestError(
            f"--sample {selection.sample}: there are {len(prompts):,} prompts to draw from"
        )
    drawn = random.Random(selection.seed).sample(range(len(prompts)), selection.sample)
    return [prompts[place] for place in sorted(drawn)]


def _block(name: str, suite: Suite) -> str:
    """The entry as TOML. No line but the first begins with a bracket: `_without` relies on it."""
    lines = [f"[{_quoted(name)}]"]
    for key, value in suite.model_dump().items():
        if key in OPTIONAL and not value:
            continue
        if isinstance(value, (list, tuple)):
            lines += [f"{key} = [", *[f"    {_quoted(item)}," for item in value], "]"]
        elif isinstance(value, dict):
            counts = [f"{_quoted(reason)} = {count}" for reason, count in value.items()]
            lines.append(f"{key} = {{ {', '.join(counts)} }}")
        else:
            lines.append(f"{key} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, with DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _without(text: str, name: str) -> str:
    """The text of a catalogue without the table of a name, from its header to the next header."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            head = line.strip().removeprefix("[").partition("]")[0]
            inside = head.strip() in (name, _quoted(name), f"'{name}'")
        if not inside:
            kept.append(line)
    return "".join(kept)


def _check_written(
    text: str, before: Mapping[str, Any], name: str, suite: Suite, own: Path
) -> None:
    """Raise RequestError where the new text would not mean the old entries and the new one."""
    try:
        after = tomllib.loads(text)
        right = Suite(**after.pop(name)) == suite
    except (ValueError, KeyError, TypeError):
        right = False
    others = {other: entry for other, entry in before.items() if other != name}
    if not right or after != others:
        raise RequestError(
            f"{str(own)!r} cannot be changed without harm to its other entries: remove [{name}]"
            " from it by hand, and import again"
        )
