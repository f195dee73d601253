"""Files that are whole or absent: atomic writes, append-only JSON lines that heal when torn, and
checked JSON and YAML."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import yaml

from realkit.base.errors import RequestError, RunError, shown


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises RequestError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{str(path)!r} is no JSON that can be read: {error}. Download it again"
        ) from error
    if not isinstance(found, dict):
        raise RequestError(
            f"{str(path)!r} holds {type(found).__name__}, expected a JSON object: download it again"
        )
    return found


class WriteError(RunError):
    """The results folder cannot be written any more: the disk is full, or the folder has become
    read-only."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"Cannot write {str(path)!r}: {error.strerror or error}. What is done is kept: make"
            " room and run again"
        )


class Lines:
    """A JSON Lines file whose records have `keys`. Appending is durable; a last line torn by a kill
    is cut off before the next is written."""

    def __init__(self, path: Path, *keys: str) -> None:
        self.path, self._keys = path, set(keys)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines. Raises RequestError for a damaged line that is not the last, and for one
        that is no record."""
        try:
            whole = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RequestError(
                f"{str(self.path)!r} cannot be read: {error.strerror}. Expected a file of JSON"
                " lines: restore it"
            ) from error
        found = []
        for number, line in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict) or not record or self._keys - record.keys():
                raise RequestError(
                    f"{self.path.name} line {number} is damaged ({line[:40]!r}): restore the file,"
                    " or delete that line"
                )
            found.append(record)
        return found

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        text = "".join(
            json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records
        )
        try:
            with self.path.open("ab") as file:
                self._heal(file)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(self.path, error) from error

    def _heal(self, file: IO[bytes]) -> None:
        size = file.tell()
        if not size:
            return
        whole = self.path.read_bytes()
        if not whole.endswith(b"\n"):
            file.truncate(whole.rfind(b"\n") + 1)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it is there whole or not at all, whatever interrupts. Raises WriteError
    when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    except OSError as error:
        raise WriteError(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(path, error) from error
        raise


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key may stand once only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {shown(twice[0])} stands twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)
