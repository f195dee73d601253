"""EXIF blocks, changed without losing what a camera wrote: the type of each value, and its private
notes, stay as they are. (Pillow writes bytes of EXIF as another type, which A1111 cannot read.)"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from realkit.base.errors import one_line

HEAD = b"Exif\0\0"  # before the TIFF block in JPEG; other formats leave it out
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # of bytes, as `struct` writes it, by a block's beginning
ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# Directories by the tag that points to them, and the directory that tag is in.
MAIN, PRIVATE, GPS, INTEROP = 0, 0x8769, 0x8825, 0xA005
INSIDE = {PRIVATE: MAIN, GPS: MAIN, INTEROP: PRIVATE}
ORIENTATION, COMMENT, MAKER = 0x0112, 0x9286, 0x927C
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
UNIT_INCH = 2
INCH = {UNIT_INCH: 1.0, 3: 2.54}  # in units of resolution: 3 is a centimetre, 1 no unit
# Tags that count the pixels of the picture: width, height, in the main and the private directory.
PIXELS = ((MAIN, 0x0100, 0x0101), (PRIVATE, 0xA002, 0xA003))
POINTERS = (0x014A,)  # to further pictures inside a TIFF file, which a block does not hold
FARTHEST = 32_768  # bytes from the start: a maker's notes beyond it are moved

Value = tuple[int, bytes]  # a type of TIFF, and the bytes in the block's byte order


class BadExif(ValueError):
    """A block that cannot be read."""


@dataclass
class Block:
    """A block's directories, by the tag that points to them: tag → value."""

    order: str = ">"  # of bytes, as `struct` writes it
    directories: dict[int, dict[int, Value]] = field(default_factory=lambda: {MAIN: {}})
    maker_at: int = 0  # where the maker's notes lay: some of them count from the block's start

    def text(self, tag: int) -> str:
        """The text of a tag in the main directory; "" where it has none."""
        kind, data = self.directories[MAIN].get(tag, (ASCII, b""))
        return data.rstrip(b"\0").decode("utf-8", "replace") if kind == ASCII else ""

    def rational(self, tag: int) -> float | None:
        """A fraction in the main directory, as a number."""
        kind, data = self.directories[MAIN].get(tag, (0, b""))
        if kind != RATIONAL or len(data) != 8:
            return None
        above, below = struct.unpack(f"{self.order}II", data)
        return above / below if below else None

    @property
    def comment(self) -> bytes:
        """The user's comment with the 8 bytes that name its encoding."""
        return self.directories.get(PRIVATE, {}).get(COMMENT, (UNDEFINED, b""))[1]

    def set(self, directory: int, tag: int, kind: int, data: bytes) -> None:
        self.directories.setdefault(directory, {})[tag] = (kind, data)

    def short(self, directory: int, tag: int, number: int) -> None:
        """Set a tag to a number of 16 bits, or of 32 where it needs them."""
        kind, letter = (SHORT, "H") if number < 2**16 else (LONG, "I")
        self.set(directory, tag, kind, struct.pack(f"{self.order}{letter}", number))

    def fraction(self, tag: int, number: float) -> None:
        """Set a tag of the main directory to a fraction: of thousandths from 1 on, of billionths
        below."""
        parts = 1000 if number >= 1 else 10**9
        data = struct.pack(f"{self.order}II", round(number * parts), parts)
        self.set(MAIN, tag, RATIONAL, data)

    def resolution(self) -> tuple[float, float] | None:
        """Dots an inch (across, down); None where the block has none, or has it without a unit."""
        kind, data = self.directories[MAIN].get(RESOLUTION_UNIT, (0, b""))
        unit = UNIT_INCH  # where it says none of them, by EXIF 3.0
        if kind == SHORT and len(data) == 2:
            unit = struct.unpack(f"{self.order}H", data)[0]
        across, down = self.rational(X_RESOLUTION), self.rational(Y_RESOLUTION)
        if not across or not down or unit not in INCH:
            return None
        return across * INCH[unit], down * INCH[unit]

    def set_resolution(self, across: float, down: float) -> None:
        """Set dots an inch."""
        self.fraction(X_RESOLUTION, across)
        self.fraction(Y_RESOLUTION, down)
        self.short(MAIN, RESOLUTION_UNIT, UNIT_INCH)

    def remove(self, directory: int, tags: Iterable[int]) -> None:
        for tag in tags:
            self.directories.get(directory, {}).pop(tag, None)

    def __bool__(self) -> bool:
        return any(self.directories.values())

    def copy(self) -> Block:
        """A block whose directories are its own."""
        block = Block(self.order, {MAIN: {}}, self.maker_at)
        for tag, directory in self.directories.items():
            block.directories[tag] = dict(directory)
        return block

    def tobytes(self) -> bytes:
        """The block, without a thumbnail: it would show what the picture was before."""
        return HEAD + self.copy()._tiff()

    def _tiff(self) -> bytes:
        mark = b"MM\0*" if self.order == ">" else b"II*\0"
        block = bytearray(mark + bytes(4))
        maker = self.directories.get(PRIVATE, {}).get(MAKER)
        places: dict[tuple[int, int], int] = {}
        if maker and 8 <= self.maker_at <= FARTHEST and len(maker[1]) > 4:
            block += bytes(self.maker_at - 8) + maker[1]
            places[PRIVATE, MAKER] = self.maker_at
        for tag in (INTEROP, GPS, PRIVATE):
            if self.directories.get(tag):
                at = self._append(block, tag, places)
                data = struct.pack(f"{self.order}I", at)
                self.directories.setdefault(INSIDE[tag], {})[tag] = (LONG, data)
        at = self._append(block, MAIN, places)
        block[4:8] = struct.pack(f"{self.order}I", at)
        return bytes(block)

    def _append(
        self, block: bytearray, directory: int, places: Mapping[tuple[int, int], int]
    ) -> int:
        """Append a directory and its values; return where it begins."""
        entries = sorted(self.directories[directory].items())
        rows = b""
        for tag, (kind, data) in entries:
            count = len(data) // SIZES[kind]
            place = data.ljust(4, b"\0")
            if len(data) > 4:
                at = places.get((directory, tag)) or _aligned(block)
                if at == len(block):
                    block += data
                place = struct.pack(f"{self.order}I", at)
            rows += struct.pack(f"{self.order}HHI", tag, kind, count) + place
        begin = _aligned(block)
        block += struct.pack(f"{self.order}H", len(entries)) + rows + bytes(4)
        return begin


def _aligned(block: bytearray) -> int:
    """The next even place of a block, which is filled up to it."""
    block += bytes(len(block) % 2)
    return len(block)


def read(exif: bytes) -> Block:
    """The directories of an EXIF block; raises BadExif for one that is damaged."""
    tiff = exif.removeprefix(HEAD)
    if not tiff:
        return Block()
    try:
        order = ORDERS.get(tiff[:4], "")
        if not order:
            raise ValueError("it has no TIFF header")
        block = Block(order)
        pending = [(MAIN, struct.unpack_from(f"{order}I", tiff, 4)[0])]
        while pending:
            directory, at = pending.pop()
            entries = _entries(tiff, order, at)
            for tag, inside in INSIDE.items():
                if inside == directory and tag in entries:
                    pending.append((tag, struct.unpack(f"{order}I", entries.pop(tag)[1])[0]))
            for tag in POINTERS:
                entries.pop(tag, None)
            block.directories[directory] = entries
            if directory == PRIVATE and len(entries.get(MAKER, (0, b""))[1]) > 4:
                block.maker_at = tiff.find(entries[MAKER][1])
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise BadExif(one_line(error, 100) or type(error).__name__) from error
    return block


def _entries(tiff: bytes, order: str, at: int) -> dict[int, Value]:
    entries: dict[int, Value] = {}
    room = len(tiff)  # values that overlap could be made to fill the memory
    for number in range(struct.unpack_from(f"{order}H", tiff, at)[0]):
        begin = at + 2 + 12 * number
        tag, kind, count = struct.unpack_from(f"{order}HHI", tiff, begin)
        if kind not in SIZES:  # of a later standard: a reader skips it
            continue
        length = SIZES[kind] * count
        place = begin + 8
        if length > 4:
            place = struct.unpack_from(f"{order}I", tiff, place)[0]
        room -= length
        if place + length > len(tiff) or room < 0:
            raise ValueError(f"tag {tag:#06x} reaches beyond the end")
        entries[tag] = (kind, tiff[place : place + length])
    return entries


def comment_text(comment: bytes) -> str:
    """The text of a user's comment; "" where it has none. UTF-16 in either order of bytes: the web
    interfaces write the larger first, as piexif does, others in the block's own order."""
    head, data = comment[:8], comment[8:]
    if head == b"UNICODE\0":
        # Of two orders, the right one has its zeros where plain letters have them.
        small = data[1::2].count(0) > data[::2].count(0)
        return data.decode("utf-16-le" if small else "utf-16-be", "replace").strip("\ufeff\0")
    if head in (b"ASCII\0\0\0", bytes(8)):
        return data.decode("utf-8", "replace").strip("\0 ")
    return comment.decode("utf-8", "replace").strip("\0 ")


def unicode_comment(text: str) -> bytes:
    """A user's comment as A1111 writes it: UTF-16, the larger byte first."""
    return b"UNICODE\0" + text.encode("utf-16-be")
