"""Files that are whole or absent: atomic writes, append-only JSON lines, checked JSON and YAML."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import TypeAdapter
from pydantic_core import from_json

from realkit.base import yaml_core
from realkit.base.door import check_path
from realkit.base.errors import RequestError, RunError, one_line

MOST_JSON = 64_000_000  # bytes of a config or index
DEEPEST = 100  # levels of a JSON value: what reads it further calls itself once a level


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# Reads what other programs write as JSON: numbers that JSON lacks (NaN, 1e999) become None, so that
# it can be written again.
LENIENT = json.JSONDecoder(parse_constant=lambda word: None, parse_float=_finite)


def too_deep(value: Any) -> bool:
    """Whether a JSON value is nested more than DEEPEST levels."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner
    return bool(level)


def json_value(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for any other text, a deeply nested one too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises RequestError for anything else."""
    try:
        if (size := path.stat().st_size) > MOST_JSON:
            raise ValueError(f"it has {size / 1e6:.0f} MB, expected at most {MOST_JSON / 1e6:.0f}")
        content = json_value(path.read_text(encoding="utf-8"))
        if too_deep(content):
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{str(path)!r} cannot be read as JSON: {one_line(error, 200)}. Download it again"
        ) from error
    if not isinstance(content, dict):
        raise RequestError(
            f"{str(path)!r} holds {type(content).__name__}, expected a JSON object: download it"
            " again"
        )
    return content


class WriteError(RunError):
    """A results folder that cannot be written: the disk is full, or the folder read-only."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"Cannot write {str(path)!r}: {error.strerror or error}. What is done is kept: make"
            " room and run again"
        )


def checked_lines(content: bytes, schema: TypeAdapter[Any], called: str) -> list[dict[str, Any]]:
    """The records of a JSON Lines file's whole lines; a last line torn by a kill is left out.

    Raises RequestError for a line that the schema does not take; it begins with `called` and
    names the line.
    """
    records = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            if b"NaN" in line or b"Infinity" in line:  # JSON has neither; pydantic takes them
                from_json(line, allow_inf_nan=False)
            record = schema.validate_json(line)
            if line.count(b"{") + line.count(b"[") > DEEPEST and too_deep(record):
                raise ValueError(f"nested more than {DEEPEST} levels")
            records.append(record)
        except ValueError as error:  # pydantic's ValidationError too
            raise RequestError(
                f"{called} line {number} is damaged ({one_line(error, 200)})"
            ) from error
    return records


class Lines:
    """A JSON Lines file of records that a schema takes.

    Appending is durable. A last line torn by a kill is not read, and is cut off by the next append.
    """

    def __init__(self, path: Path, schema: TypeAdapter[Any]) -> None:
        self.path, self._schema = path, schema

    def read(self) -> list[dict[str, Any]]:
        """The records of all whole lines. Raises RequestError for a damaged one."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RequestError(
                f"{str(self.path)!r} cannot be read: {error.strerror}. Expected a file of JSON"
                " lines: restore it"
            ) from error
        try:
            return checked_lines(content, self._schema, str(self.path))
        except RequestError as error:
            raise RequestError(f"{error}: restore the file, or delete that line") from error

    def lines_of(self, records: Iterable[dict[str, Any]]) -> bytes:
        """The file's lines for these records. Raises ValueError for one that could not be read."""
        lines = []
        for record in records:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
            self._schema.validate_json(line)
            lines.append(line + b"\n")
        return b"".join(lines)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        lines = self.lines_of(records)
        try:
            with self.path.open("ab") as file:
                self._heal(file)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(self.path, error) from error

    def _heal(self, file: IO[bytes]) -> None:
        """Cut off a torn last line, so that the next record does not continue it."""
        if not file.tell():
            return
        content = self.path.read_bytes()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it exists whole or not at all, whatever interrupts.

    Raises WriteError when the disk refuses; an earlier file of this name is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    except OSError as error:
        raise WriteError(path, error) from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)  # mkstemp's own mode hides the file from other users
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(path, error) from error
        raise


def yaml_file(path: Path, where: str, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file, its keys as texts.

    `where` names the file in errors, `expected` the keys it should have. Raises RequestError, for a
    file beyond yaml_core's limits before anything of it is made.
    """
    check_path("file", path)
    try:
        with path.open("rb") as file:
            content = file.read(yaml_core.MOST_BYTES + 1)  # a device says that it has no bytes
        if (size := max(len(content), path.stat().st_size)) > yaml_core.MOST_BYTES:
            raise yaml_core.too_long(size)
        value = yaml_core.parsed(content.decode())
    except yaml_core.TooLarge as error:
        raise RequestError(f"{where}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{where} cannot be read: {one_line(error)}") from error
    # PyYAML raises the last two for impossible numbers, and for deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RequestError(f"{where} is not YAML: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise RequestError(
            f"{where} holds {type(value).__name__}, expected keys such as {expected}"
        )
    return {str(key): item for key, item in value.items()}
