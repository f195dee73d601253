"""What a file says, through each format and back."""

import io
import json
import struct
from dataclasses import replace

import pytest
from PIL import Image

import realkit as rk
from realkit.base import exif, metadata
from realkit.base.metadata import Metadata
from tests import picture_files as files

TEXTS = {
    "parameters": files.A1111, "prompt": json.dumps(files.GRAPH),
    "workflow": json.dumps(files.WORKFLOW), "realkit": '{"prompt": "schön, 😀"}',
    "Title": "a: b", "Description": "línea\nzwei", "odd": '"quoted"', "empty": "",
}  # fmt: skip


def read(data: bytes) -> Metadata:
    image = Image.open(io.BytesIO(data))
    image.load()
    return metadata.of(image)


def written(kind: str, about: Metadata) -> bytes:
    image = files.gradient()
    if kind == "png":
        return metadata.png(image, about)
    return (metadata.jpeg if kind == "jpeg" else metadata.webp)(image, about, 90)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_all_that_a_picture_says_goes_through_each_format(kind):
    block = exif.read(files.camera())
    block.remove(exif.PRIVATE, [exif.COMMENT])
    about = Metadata(TEXTS, block, (300.0, 300.0), b"profile", b"<x:xmpmeta/>", b"a note")
    again = read(written(kind, about))
    texts = dict(again.texts)
    note = again.comment or texts.pop("Comment").encode()
    assert note == b"a note"
    assert {name: text for name, text in texts.items() if name not in ("prompt", "workflow")} == {
        name: text for name, text in TEXTS.items() if name not in ("prompt", "workflow")
    }
    assert json.loads(texts["prompt"]) == files.GRAPH
    assert json.loads(texts["workflow"]) == files.WORKFLOW
    assert again.exif.directories == block.directories
    assert again.dpi == pytest.approx((300, 300), abs=0.01)
    assert (again.profile, again.xmp, again.lost) == (b"profile", b"<x:xmpmeta/>", ())


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_cameras_comment_makes_room_for_the_parameters(kind):
    about = Metadata({"parameters": files.A1111}, exif.read(files.camera()))
    again = read(written(kind, about))
    assert again.texts == {"parameters": files.A1111, "UserComment": "Holiday"}
    kept = read(written(kind, Metadata({}, exif.read(files.camera()))))
    assert exif.comment_text(kept.exif.comment) == "Holiday"


@pytest.mark.parametrize("data", [files.a1111_png(), files.a1111_jpeg()])
def test_a1111s_parameters_are_found(data):
    assert read(data).texts == {"parameters": files.A1111}


def test_comfyuis_texts_are_found_in_both_formats():
    for data in (files.comfyui_png(), files.comfyui_webp()):
        texts = read(data).texts
        assert json.loads(texts["prompt"]) == files.GRAPH
        assert json.loads(texts["workflow"]) == files.WORKFLOW
    again = Image.open(io.BytesIO(written("webp", read(files.comfyui_png()))))
    tags = again.getexif()
    assert tags[0x010F] == f"workflow:{json.dumps(files.WORKFLOW)}"
    assert tags[0x0110] == f"prompt:{json.dumps(files.GRAPH)}"
    # A camera's maker and model stay a camera's.
    assert read(files.camera_jpeg()).texts == {}


def test_what_jpeg_cannot_hold_is_said_and_the_rest_stays(capsys):
    metadata.warn_once.cache_clear()
    about = Metadata({"parameters": files.A1111, "workflow": '{"a": "' + "x" * 70_000 + '"}'})
    assert read(written("jpeg", about)).texts == {"parameters": files.A1111}
    said = capsys.readouterr().err
    assert "JPEG cannot hold its text 'workflow' (70 kB)" in said and said.count("\n") == 1
    assert len(read(written("webp", about)).texts) == 2
    long = replace(about, texts={}, xmp=b"x" * 70_000, comment=b"c" * 70_000)
    again = read(written("jpeg", long))
    assert again.xmp == again.comment == b""
    said = capsys.readouterr().err
    assert "its xmp (70 kB)" in said and "its comment (70 kB)" in said
    huge = exif.Block()
    huge.set(exif.MAIN, 0x8298, exif.ASCII, b"c" * 70_000)
    assert not read(written("jpeg", Metadata(exif=huge))).exif
    assert "its EXIF block" in capsys.readouterr().err


def test_of_a_long_prompt_the_record_stays_in_jpeg():
    prompt = "a cat, " * 6000
    texts = {"parameters": f"{prompt}\n{files.A1111}", "realkit": f'{{"prompt": "{prompt}"}}'}
    assert set(read(written("jpeg", Metadata(texts))).texts) == {"realkit"}
    assert read(written("webp", Metadata(texts))).texts == texts


def test_what_stands_behind_the_pixels_is_read_too():
    data = files.file("png")
    late = files.png_of({"parameters": files.A1111})
    chunk = late[late.index(b"tEXt") - 4 : late.index(b"IDAT") - 4]
    image = Image.open(io.BytesIO(data.replace(b"\0\0\0\0IEND", chunk + b"\0\0\0\0IEND")))
    assert "parameters" not in image.info
    assert rk.info(image)["texts"] == {"parameters": files.A1111}


def test_a_damaged_block_is_a_said_loss(capsys):
    metadata.warn_once.cache_clear()
    about = read(files.file("jpeg", exif=b"Exif\0\0II*\0\xff\xff\0\0"))
    assert len(about.lost) == 1 and "its EXIF block, which is damaged" in about.lost[0]
    metadata.say_lost(about)
    assert capsys.readouterr().err.count("\n") == 1


def test_the_exif_of_imagemagick_is_read():
    block = files.camera()
    raw = f"\nexif\n{len(block)}\n{block.hex()}"
    about = read(files.png_of({metadata.RAW_EXIF: raw}))
    assert about.exif.directories == exif.read(block).directories and not about.texts


def test_a_picture_turned_upright_says_its_new_size_once():
    about = Metadata(exif=exif.read(files.camera(orientation=6)))
    block = about.upright((24, 40)).exif
    assert block.directories[exif.MAIN][exif.ORIENTATION] == (exif.SHORT, b"\1\0")
    assert block.directories[exif.PRIVATE][0xA002] == (exif.SHORT, b"\x18\0")
    assert block.directories[exif.PRIVATE][0xA003] == (exif.SHORT, b"\x28\0")
    assert about.exif.directories[exif.MAIN][exif.ORIENTATION][1] == b"\6\0"


def test_xmp_that_turns_a_picture_is_turned_too():
    xmp = b'<x:xmpmeta xmlns:tiff="t"><a tiff:Orientation="6"/></x:xmpmeta>'
    image = Image.open(io.BytesIO(files.file("jpeg", xmp=xmp)))
    large = rk.upscale(image, "lanczos", 48)
    assert large.size == (29, 48) and large.info["xmp"] == xmp.replace(b"6", b"1")


def test_a_tiffs_words_are_kept_and_its_own_figures_are_not():
    tags = Image.Exif()
    tags[0x010F], tags[0x013B] = "Canon", "A. Ames"
    tags.get_ifd(0x8769)[0x9003] = "2026:11:29 12:00:00"
    tags[0x8769] = tags.get_ifd(0x8769)
    about = read(files.file("tiff", exif=tags, dpi=(300, 300)))
    assert set(about.exif.directories[exif.MAIN]) == {0x010F, 0x013B}
    assert about.exif.text(0x013B) == "A. Ames" and about.dpi == (300, 300)
    assert about.exif.directories[exif.PRIVATE][0x9003] == (2, b"2026:11:29 12:00:00\0")


def test_exif_set_in_memory_is_kept():
    image = files.gradient()
    image.getexif()[0x010E] = "a cat"
    assert read(metadata.png(image, metadata.of(image))).exif.text(0x010E) == "a cat"


def test_half_of_a_surrogate_pair_is_a_question_mark():
    about = Metadata({"parameters": "a \ud83d cat\nSteps: 1, Seed: 2, Size: 8x8", "b": "\ud83d"})
    for kind in ("png", "jpeg", "webp"):
        texts = read(written(kind, about)).texts
        assert texts["parameters"].startswith("a ? cat") and texts["b"] == "?"


def test_many_texts_find_room_and_the_rest_is_said(capsys):
    metadata.warn_once.cache_clear()
    about = Metadata({f"text {number}": str(number) for number in range(600)})
    assert len(read(written("png", about)).texts) == 600
    kept = read(written("webp", about)).texts
    assert kept.items() <= about.texts.items() and len(kept) == 536
    said = capsys.readouterr().err
    assert said.count("\n") == said.count("Save as PNG to keep it") == 64


def in_unit(number: int) -> bytes:
    """EXIF of 118.11 dots, down 59.055, to a unit: 1 none, 2 an inch, 3 a centimetre."""
    across, down = struct.pack("<II", 11811, 100), struct.pack("<II", 59055, 1000)
    unit = struct.pack("<H", number)
    return files.tiff([(0x011A, 5, 1, across), (0x011B, 5, 1, down), (0x0128, 3, 1, unit)])


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    ("unit", "dpi"), [(1, None), (2, (118.11, 59.055)), (3, (299.9994, 149.9997))]
)
def test_a_resolution_to_the_centimetre_is_one_to_the_inch(kind, unit, dpi):
    about = read(files.file(kind, exif=in_unit(unit)))
    assert about.dpi == (dpi and pytest.approx(dpi))
    for other in ("png", "jpeg", "webp"):
        assert read(written(other, about)).dpi == (dpi and pytest.approx(dpi, abs=0.02))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("side", [100_000, 65_535, 300, 72, 72.5, 1, 0.4])
def test_every_resolution_comes_back(kind, side):
    dpi = (float(side), float(side))
    again = read(written(kind, Metadata(dpi=dpi)))
    assert again.dpi == pytest.approx(dpi, abs=0.02)  # PNG counts to the metre
    assert read(written("jpeg", again)).dpi == pytest.approx(dpi, abs=0.02)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_without_a_resolution_gets_none(kind):
    for about in (Metadata(TEXTS), Metadata(exif=exif.read(files.comment("a note")))):
        assert read(written(kind, about)).dpi is None
    image = Image.open(io.BytesIO(files.file("jpeg", exif=files.comment("a note"))))
    image.info["dpi"] = (300, 300)
    assert read(written(kind, metadata.of(image))).dpi == pytest.approx((300, 300), abs=0.01)


NAMES = (
    "Título", "T?tulo", "Title: sub", "Title  sub", "題", "😀", "a\\b", "C:\\temp", "a\\u0041",
    'with "quotes"', "nul\0", " ",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_name_of_a_text_comes_back(kind, capsys):
    about = Metadata({name: f"text {number}" for number, name in enumerate(NAMES)})
    assert read(written(kind, about)).texts == about.texts
    assert capsys.readouterr().err == ""


def test_a_name_that_a_chunk_cannot_have_is_said(capsys):
    metadata.warn_once.cache_clear()
    first, second = "n" * 79 + "1", "n" * 79 + "2"
    texts = {first: "a", second: "b", "": "c", "Comment": "d"}
    assert read(written("png", Metadata(texts))).texts == {"n" * 79: "a", "Comment": "c"}
    said = capsys.readouterr().err
    assert said.count("\n") == 4 and "loses its text" in said and "the name ''" in said
    assert read(written("webp", Metadata(texts))).texts == texts


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_comment_beside_a_text_of_that_name_is_a_said_loss(kind, capsys):
    metadata.warn_once.cache_clear()
    about = Metadata({"Comment": "a"}, comment=b"b")
    assert read(written(kind, about)).texts == {"Comment": "a"}
    assert "loses its comment, beside a text 'Comment'" in capsys.readouterr().err


def test_two_texts_of_one_name_are_a_said_loss():
    block = files.camera()[6:]
    texts = {"parameters": files.A1111, "UserComment": "mine"}
    about = read(files.png_of(texts, exif=block))
    assert about.texts == texts and "its camera's comment" in about.lost[0]
    for few in (
        {"parameters": files.A1111},
        {"UserComment": "mine"},
        texts | {"UserComment": "Holiday"},
    ):
        assert read(files.png_of(few, exif=block)).lost == ()
    both = read(files.png_of({"parameters": files.A1111}, exif=files.comment(files.CIVITAI)))
    assert both.texts == {"parameters": files.A1111}
    assert "its EXIF's text 'parameters'" in both.lost[0]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("text", ["a cat", "Ā", "a cat\nSteps: 20", "", '{"prompt": "a"}', "猫\0"])
def test_parameters_of_few_settings_stay_parameters(kind, text):
    again = read(written(kind, Metadata({"parameters": text}, exif.read(files.camera()))))
    assert again.texts == {"parameters": text, "UserComment": "Holiday"}
    assert not again.exif.comment
    if kind != "png":  # where the web interfaces look
        block = exif.read(Image.open(io.BytesIO(written(kind, again))).info["exif"])
        assert block.comment == exif.unicode_comment(text)
