"""EXIF blocks: what a camera wrote stays byte for byte, whatever is added."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realkit.base import exif
from tests.picture_files import camera, comment


def entries(block: bytes) -> dict[tuple[int, int], tuple[int, int, bytes]]:
    """Type, count and bytes of every tag, read by hand: (directory, tag) → …"""
    data = block[6:]
    order = "<" if data[:2] == b"II" else ">"
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}
    read = {}

    def directory(at: int, name: int) -> None:
        for number in range(struct.unpack_from(order + "H", data, at)[0]):
            row = at + 2 + 12 * number
            tag, kind, count = struct.unpack_from(order + "HHI", data, row)
            length = sizes[kind] * count
            place = row + 8 if length <= 4 else struct.unpack_from(order + "I", data, row + 8)[0]
            if tag in (0x8769, 0x8825):
                directory(struct.unpack_from(order + "I", data, row + 8)[0], tag)
            else:
                read[name, tag] = kind, count, data[place : place + length]

    directory(struct.unpack_from(order + "I", data, 4)[0], 0)
    return read


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cameras_values_keep_their_types_and_bytes(order):
    block = camera(order=order)
    changed = exif.read(block)
    changed.set(exif.PRIVATE, exif.COMMENT, exif.UNDEFINED, exif.unicode_comment("a cat 😀"))
    changed.set(exif.MAIN, 65_000, exif.ASCII, b"realkit:{}\0")
    before, after = entries(block), entries(changed.tobytes())
    assert len(before) == 17 and after[0x8769, 0x9286][0] == 7
    new = {(0, 65_000), (0x8769, 0x9286)}
    assert {key: after[key] for key in after if key not in new} == {
        key: before[key] for key in before if key not in new
    }
    assert b"thumbnail" in block and b"thumbnail" not in changed.tobytes()


def test_a_makers_notes_stay_where_they_were():
    block = camera()
    changed = exif.read(block)
    changed.set(exif.MAIN, 65_000, exif.ASCII, b"x" * 3000)
    assert changed.tobytes().index(b"Maker\0") == block.index(b"Maker\0")


def test_a_block_read_again_is_the_same():
    block = exif.read(camera())
    again = exif.read(block.tobytes())
    assert again.directories == block.directories and exif.read(b"").directories == {0: {}}
    assert not exif.read(b"") and block.rational(exif.X_RESOLUTION) == 300


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"UNICODE\0" + "Zoë 😀".encode("utf-16-be"), "Zoë 😀"),
        (b"UNICODE\0" + "Zoë 😀".encode("utf-16-le"), "Zoë 😀"),
        (b"ASCII\0\0\0Holiday\0\0", "Holiday"),
        (bytes(8) + b"Holiday ", "Holiday"),
        (b"", ""),
        (b"no head", "no head"),
    ],
)
def test_a_comment_is_read_in_each_of_its_encodings(data, text):
    assert exif.comment_text(data) == text


def test_the_comment_is_a1111s_byte_for_byte():
    block = exif.Block()
    text = "a cat\nSteps: 20"
    block.set(exif.PRIVATE, exif.COMMENT, exif.UNDEFINED, exif.unicode_comment(text))
    assert entries(block.tobytes()) == entries(comment(text))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_block_is_one_error_and_stays_small(data):
    block = bytearray(camera())
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(6, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = exif.read(bytes(block[: data.draw(st.integers(0, len(block)))]))
    except exif.BadExif as error:
        assert "\n" not in str(error)
    else:
        assert len(parsed.tobytes()) <= exif.FARTHEST + 4 * len(block)


def test_values_that_overlap_cannot_fill_the_memory():
    rows = b"".join(struct.pack("<HHII", tag, 7, 200_000, 8) for tag in range(1000, 9000))
    block = b"II*\0" + struct.pack("<IH", 8, 8000) + rows + bytes(200_000)
    with pytest.raises(exif.BadExif, match="reaches beyond the end"):
        exif.read(block)
