"""Files that are whole or absent: atomic writes, append-only JSON lines, checked JSON and YAML."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import TypeAdapter
from pydantic_core import from_json

from realkit.base.errors import RequestError, RunError, one_line, shown


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises RequestError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{str(path)!r} cannot be read as JSON: {error}. Download it again"
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
            records.append(schema.validate_json(line))
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
            return checked_lines(content, self._schema, self.path.name)
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


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML without duplicate keys: of two, the later would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        duplicates = [key for key in keys if keys.count(key) > 1]
        if duplicates:
            raise yaml.constructor.ConstructorError(
                problem=f"duplicate key {shown(duplicates[0])}", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)
