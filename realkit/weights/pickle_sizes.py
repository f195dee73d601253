"""How much memory a pickled checkpoint asks for, learnt from its pickle alone.

A pickle states the shape of each tensor and the length of each storage. torch believes both and
allocates: 1.7 kB can ask for 4 TB. Here the pickle is read with stand-ins for all that it names, so
that nothing is allocated, imported or called. What it asks for is then compared with the file.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

LONGEST = 8_000_000  # bytes of the pickle itself; some 250 a tensor
REPEATED = 4  # times the file's length: tensors may share a storage, and each is copied
SPARE = 64 * 2**20  # bytes: small files may hold expanded tensors
ZIPPED = b"PK\x03\x04"  # by which torch tells its archives
LEGACY = 4  # pickles before the storages in files of torch 1.5 and before; the last is the content
REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
ENDS = ("Tensor", "Storage", "bytearray")  # of names that allocate as many bytes as they are told
PLAIN = (str, bytes, int, float, bool, type(None))
# Bytes of a number, by the storage's name. Numbers without a storage of their own are stored
# untyped.
WIDTHS = {
    "UntypedStorage": 1, "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "HalfStorage": 2,
    "BFloat16Storage": 2, "ShortStorage": 2, "FloatStorage": 4, "IntStorage": 4, "LongStorage": 8,
    "DoubleStorage": 8, "ComplexFloatStorage": 8, "QInt8Storage": 1, "QUInt8Storage": 1,
    "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
}  # fmt: skip
WIDEST = 16  # bytes of any other number at most: complex128


class Oversized(ValueError):
    """A pickle that asks for more than its file holds; the message has the figures."""


def check(path: Path) -> None:
    """Raise Oversized for a pickle beyond its file, any other exception for one that cannot be
    read. TorchScript archives, which torch refuses, pass."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(LONGEST)
    if start.startswith(ZIPPED):
        with zipfile.ZipFile(path) as archive:
            lengths = {info.filename: info.file_size for info in archive.infolist()}
            _within(sum(lengths.values()), size, "unpacks to")
            names = [name for name in lengths if name.endswith("/data.pkl")]
            if not names or any(name.endswith("/constants.pkl") for name in lengths):
                return
            folder = names[0].removesuffix(".pkl")
            _short(lengths[names[0]])
            records = {name.removeprefix(f"{folder}/"): n for name, n in lengths.items()}
            scan = _Scan(archive.read(names[0]), records, size)
            scan.read_whole()
    else:
        content = io.BytesIO(start)
        for number in range(LEGACY):
            try:
                scan = _Scan(content, None, size)
                scan.read_whole()
            except EOFError:
                if not number:
                    raise
                return  # fewer pickles than torch writes: it says what it misses
    _within(scan.asked, size, "asks for")


def _short(length: int) -> None:
    if length > LONGEST:
        raise Oversized(f"has a pickle of {_written(length)}, expected at most {_written(LONGEST)}")


def _within(asked: int, size: int, what: str) -> None:
    if asked > REPEATED * size + SPARE:
        raise Oversized(f"{what} {_written(asked)} and is {_written(size)} long")


def _written(size: int) -> str:
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:,.1f} {unit}"
    return f"{size} bytes"


class _Storage:
    """A stand-in for a storage. `width` is the bytes of one of its numbers."""

    def __init__(self, width: int) -> None:
        self.width = width


class _Name:
    """A stand-in for what a pickle names. A call of it, or a state set, is noted in `scan`."""

    def __init__(self, scan: _Scan, name: str) -> None:
        self._scan, self.name = scan, name
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> _Name:
        made = _Name(self._scan, self.name)
        made.arguments = arguments
        self._scan.note(self.name, arguments)
        return made

    def __setstate__(self, state: Any) -> None:
        if self.name.endswith("Tensor") and isinstance(state, tuple) and len(state) == 4:
            self._scan.note(REBUILD[0], state)  # the oldest tensors: set_(storage, …)

    def __setitem__(self, key: Any, value: Any) -> None:
        _plain([key])

    def append(self, item: Any) -> None:
        """As lists have it."""

    add = append


def _plain(keys: Iterable[Any]) -> None:
    """Raise ValueError for keys other than texts and numbers: tuples of tuples of one tuple take
    for ever to hash."""
    for key in keys:
        if not isinstance(key, PLAIN):
            raise pickle.UnpicklingError(f"a key is a {type(key).__name__}")


_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Scan(_PythonUnpickler):
    """Reads one pickle. `records` are the lengths of the storages' files, None where the storages
    follow in the same file, of `size` bytes. `asked` is the memory of all tensors, bytes."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)
    for _code in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.FRAME):
        dispatch.pop(_code[0])  # torch reads none of these

    def __init__(self, content: bytes | io.BytesIO, records: dict[str, int] | None, size: int):
        super().__init__(content if isinstance(content, io.BytesIO) else io.BytesIO(content))
        self.records, self.size = records, size
        self.asked = 0
        self._stored: dict[Any, int] = {}

    def read_whole(self) -> None:
        """Read the pickle. Raises UnpicklingError where it is none, Oversized, EOFError."""
        try:
            self.load()
        except (LookupError, TypeError, AttributeError, struct.error) as error:
            raise pickle.UnpicklingError(str(error)) from error

    def find_class(self, module: str, name: str) -> Any:
        return _Name(self, name)

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] in ("storage", b"storage")):
            raise pickle.UnpicklingError("expected a storage")
        _, kind, key, _, count = pid[:5]
        _plain([key])
        width, count = _width(kind), _count([count])
        if self.records is None:
            self._stored[key] = width * count
            stored = sum(self._stored.values())
            if stored > self.size:
                raise Oversized(f"asks for storages of {_written(stored)} in {_written(self.size)}")
        elif width * count > self.records.get(f"{key}", 0):
            held = _written(self.records.get(f"{key}", 0))
            raise Oversized(f"asks for a storage of {_written(width * count)} and holds {held}")
        return _Storage(width)

    def note(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Add what a call allocates. Raises ValueError for a call with other arguments."""
        if name in REBUILD:
            storage, _, shape = arguments[:3]
            width = storage.width if isinstance(storage, _Storage) else WIDEST
            if name == "_rebuild_tensor_v3":
                width = _itemsize(arguments[6])
            if isinstance(shape, _Name):  # torch.Size((…))
                (shape,) = shape.arguments
            self.asked += width * _count(shape)
        elif name == "_rebuild_from_type_v2":
            if isinstance(arguments[0], _Name):
                arguments[0](*arguments[2])
        elif name in ("OrderedDict", "dict"):
            for pair in arguments[0] if arguments else ():
                _plain(list(pair)[:1])
        elif name in ("set", "frozenset", "Counter", "encode"):
            # Encodings of encodings grow without end.
            first = arguments[0] if arguments else ()
            _plain([first] if isinstance(first, (str, bytes, _Name)) else first)
        elif name.endswith(ENDS):
            numbers = [number for number in arguments if type(number) is int]
            self.asked += WIDEST * _count(numbers) if numbers else 0

    def load_setitem(self) -> None:
        _plain(self.stack[-2:-1])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        _plain(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        _plain(self.stack[::2])
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_additems(self) -> None:
        _plain(self.stack)
        super().load_additems()

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self) -> None:
        _plain(self.stack)
        super().load_frozenset()

    dispatch[pickle.FROZENSET[0]] = load_frozenset

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.stack[-1](*arguments)

    dispatch[pickle.NEWOBJ[0]] = load_newobj


def _width(kind: Any) -> int:
    """Bytes of a number of a storage, such as torch.HalfStorage."""
    return WIDTHS.get(kind.name if isinstance(kind, _Name) else "", WIDEST)


def _itemsize(dtype: Any) -> int:
    """Bytes of a number of a dtype, such as torch.uint16."""
    import torch

    number = getattr(torch, dtype.name, None) if isinstance(dtype, _Name) else None
    return number.itemsize if isinstance(number, torch.dtype) else WIDEST


def _count(shape: Any) -> int:
    """Numbers in a tensor of this shape. Raises ValueError for any other shape."""
    sides = list(shape)
    if any(type(side) is not int or side < 0 for side in sides):
        raise pickle.UnpicklingError("a shape is no list of whole numbers")
    return math.prod(sides)
