"""Files that are whole or absent: atomic writes, append-only JSON lines, checked JSON and YAML."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import yaml

from realkit.base import yaml_core
from realkit.base.errors import RequestError, RunError, one_line

MOST_JSON = 64_000_000  # bytes of a config or index
DEEPEST = 100  # levels of a JSON value: what reads it further calls itself once a level


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


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises RequestError for anything else."""
    try:
        if (size := path.stat().st_size) > MOST_JSON:
            raise ValueError(f"it has {size / 1e6:.0f} MB, expected at most {MOST_JSON / 1e6:.0f}")
        content = json.loads(path.read_text(encoding="utf-8"))
        if too_deep(content):
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
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


class Lines:
    """A JSON Lines file of records that have `keys`.

    Appending is durable. A last line torn by a kill is not read, and is cut off by the next append.
    """

    def __init__(self, path: Path, *keys: str) -> None:
        self.path, self._keys = path, set(keys)

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
        records = []
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
            if line.strip():
                records.append(self._record(number, line))
        return records

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if line.count(b"{") + line.count(b"[") > DEEPEST and too_deep(record):
                record = None
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not record or self._keys - record.keys():
            raise RequestError(
                f"{self.path.name} line {number} is damaged ({line[:40]!r}): restore the file, or"
                " delete that line"
            )
        return record

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records]
        try:
            with self.path.open("ab") as file:
                self._heal(file)
                file.write("".join(f"{line}\n" for line in lines).encode())
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
    try:
        size = path.stat().st_size
        if size > yaml_core.MOST_BYTES:
            raise yaml_core.too_long(size)
        value = yaml_core.parsed(path.read_text(encoding="utf-8"))
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
