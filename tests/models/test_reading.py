"""`rk.info`: ours, A1111's, Civitai's, ComfyUI's and a camera's, and files of nobody.

sd-parsers, an independent reader of the web interfaces' texts, reads ours.
"""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from sd_parsers import ParserManager
from sd_parsers.data import Generators

import realkit as rk
from realkit.apps.cli.main import main
from realkit.base import metadata
from realkit.base.version import __version__
from tests import picture_files as files

ENDINGS = ("png", "jpg", "webp")
PROMPT = "a photo of a red cube, (very: sharp)\non grass, schön 😀"


@pytest.fixture(scope="module")
def picture(base):
    return base(PROMPT, sampler="Euler a Karras", steps=2, guidance=3.123456789, seed=7,
                negative="blurry, dark", size=64)  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_ours_gives_everything_back(picture, tmp_path, ending):
    record = json.loads(picture.info["realkit"])
    about = rk.info(rk.save(picture, tmp_path / f"a.{ending}"))
    assert about["made_by"] == f"realkit {__version__}" and about["realkit"] == record
    assert (about["prompt"], about["negative"]) == (PROMPT, "blurry, dark")
    assert about["settings"]["guidance"] == 3.123456789 and about["cell"] == record["cell"]
    assert about.get("unchanged") == (True if ending == "png" else None)
    assert about["texts"] == {"parameters": picture.info["parameters"]} and about["lost"] == []
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert rk.info(picture)["realkit"] == record and rk.info(picture)["file"] is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_sd_parsers_reads_ours(picture, tmp_path, monkeypatch, ending):
    large = rk.upscale(picture, "lanczos", 96)
    for number, image in enumerate((picture, large)):
        path = rk.save(image, tmp_path / f"{number}.{ending}")
        # It keeps the last comment by the image's id, which a later image may get.
        monkeypatch.setattr("sd_parsers.extractors._jpeg_usercomment._image_id", None)
        told = ParserManager().parse(path)
        assert told is not None and told.generator == Generators.AUTOMATIC1111
        sampler = told.samplers[0]
        assert sampler.name == "Euler a" and sampler.model.name == "rehearsal/base"
        assert sampler.parameters == {
            "scheduler": "Karras", "cfg_scale": "3.123456789", "seed": "7", "steps": "2",
        }  # fmt: skip
        assert (told.full_prompt, told.full_negative_prompt) == (PROMPT, "blurry, dark")
        assert told.metadata["Size"] == "64x64"
    assert told.metadata["Postprocess upscale to"] == "96x96"
    assert told.metadata["Postprocess upscaler"] == "lanczos"


def test_an_edited_picture_says_so(picture, tmp_path):
    edited = picture.copy()
    edited.putpixel((3, 3), (255, 0, 255))
    assert rk.info(rk.save(edited, tmp_path / "a.png"))["unchanged"] is False


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_lost_on_the_way_through_two_upscalers(picture, tmp_path, ending):
    once = rk.upscale(picture, "lanczos", 96)
    twice = rk.upscale(rk.save(once, tmp_path / "once.png"), "bicubic", (128, 120))
    about = rk.info(rk.save(twice, tmp_path / f"a.{ending}"))
    first = json.loads(picture.info["realkit"])
    before = about["realkit"]["before"]
    assert before["cell"] == first["cell"] | {"upscaler": "lanczos", "target": [96, 96]}
    assert before["before"]["made"] == first["made"] == before["made"] | {"batch": 1}
    assert about["realkit"]["determined"]["before"]["seed"] == 7 and about["prompt"] == PROMPT
    parameters = about["texts"]["parameters"]
    assert "Size: 64x64" in parameters and parameters.endswith(
        "Postprocess upscale to: 128x120, Postprocess upscaler: lanczos + bicubic"
    )


def info_of(data: bytes, tmp_path) -> dict:
    path = tmp_path / "picture"
    path.write_bytes(data)
    about = rk.info(path)
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    return about


@pytest.mark.parametrize("data", [files.a1111_png(), files.a1111_jpeg()])
def test_a1111s(data, tmp_path):
    about = info_of(data, tmp_path)
    assert about["made_by"] == "stable-diffusion-webui (A1111) v1.10.1"
    assert about["prompt"] == "a cat, (sleeping:1.2), <lora:fur:0.5>\nby the sea"
    assert about["negative"] == "dog, blurry" and about["settings"]["CFG scale"] == "6.5"
    assert about["texts"]["parameters"] == files.A1111 and "realkit" not in about


@pytest.mark.parametrize(
    ("version", "program"),
    [
        ("Version: f2.0.1v1.10.1-previous-665", "Forge f2.0.1v1.10.1-previous-665"),
        ("Version: ComfyUI", "ComfyUI"),
        ("App: SD.Next, Version: 0eb4a98", "SD.Next 0eb4a98"),
        ("Clip skip: 2", "stable-diffusion-webui (A1111)"),
    ],
)
def test_interfaces_that_write_as_a1111_does(version, program, tmp_path):
    text = f"a cat\nSteps: 20, Sampler: Euler, Seed: 1, {version}"
    assert info_of(files.png_of({"parameters": text}), tmp_path)["made_by"] == program


def test_civitais(tmp_path):
    about = info_of(files.civitai_jpeg(), tmp_path)
    assert about["made_by"] == "Civitai" and about["prompt"] == "a fox"
    assert about["settings"]["Civitai resources"] == files.RESOURCES


@pytest.mark.parametrize("data", [files.comfyui_png(), files.comfyui_webp()])
def test_comfyuis(data, tmp_path):
    about = info_of(data, tmp_path)
    assert about["made_by"] == "ComfyUI"
    assert about["comfyui"] == {"prompt": files.GRAPH, "workflow": files.WORKFLOW}
    assert (about["prompt"], about["negative"]) == ("schönes Glas", "text, watermark")
    assert about["settings"] == {
        "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "seed": 156680208700286, "model": "sd15.safetensors",
    }  # fmt: skip


def test_civitais_graphs_in_a_comment(tmp_path):
    more = json.dumps({"prompt": "a fox", "steps": 20})
    text = json.dumps(files.GRAPH | {"extraMetadata": more, "resource-stack": {}})
    about = info_of(files.file("jpeg", exif=files.comment(text)), tmp_path)
    assert about["made_by"] == "Civitai" and about["prompt"] == "schönes Glas"
    assert about["settings"]["steps"] == 20 and about["exif"]["UserComment"] == text
    both = json.dumps({"prompt": files.GRAPH, "workflow": json.dumps(files.WORKFLOW)})
    about = info_of(files.file("webp", exif=files.comment(both)[6:]), tmp_path)
    assert about["made_by"] == "ComfyUI" and about["comfyui"]["workflow"] == files.WORKFLOW


def test_a_graph_that_leads_in_circles_ends(tmp_path):
    graph = {
        "1": {"inputs": {"seed": 1, "positive": ["2", 0], "negative": [], "model": ["1", 0]}},
        "2": {"inputs": {"text": ["2", 0]}}, "3": 7, "4": {"inputs": None},
    }  # fmt: skip
    text = json.dumps(graph).replace("7", "NaN")
    about = info_of(files.png_of({"prompt": text, "workflow": "no JSON"}), tmp_path)
    assert about["prompt"] == "" and about["settings"] == {"seed": 1}
    assert about["texts"] == {"workflow": "no JSON"}


def test_a_cameras(tmp_path):
    about = info_of(files.camera_jpeg(orientation=6), tmp_path)
    exif = about["exif"]
    assert about["made_by"] == "camera: Canon Canon EOS R5" and about["dpi"] == [300, 300]
    assert exif["ExposureTime"] == 0.004 and exif["GPSLatitude"] == [48, 8, 12.3]
    assert exif["Orientation"] == 6 and exif["UserComment"] == "Holiday"
    assert exif["Copyright"] == "(c) A. Ames" and exif["ShutterSpeedValue"] == -1.5


@pytest.mark.parametrize(
    ("texts", "program"),
    [
        ({"Software": "NovelAI", "Comment": "{}"}, "NovelAI"),
        ({"invokeai_metadata": "{}"}, "InvokeAI"),
        ({"parameters": '{"prompt": "a"}', "fooocus_scheme": "fooocus"}, "Fooocus"),
        ({"Software": "GIMP 2.10"}, "GIMP 2.10"),
        ({}, "unknown"),
    ],
)
def test_others_are_named_and_their_texts_shown(texts, program, tmp_path):
    about = info_of(files.png_of(texts), tmp_path)
    assert about["made_by"] == program and about.get("texts", {}) == texts


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    return data


HEADER = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
PIXELS = (b"IDAT", zlib.compress(b"\0\0"))
END = (b"IEND", b"")
BOMB = (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
MEGABYTE = (b"zTXt", b"parameters\0\0" + zlib.compress(bytes(1_000_000)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "No picture at"),
        (b"", "cannot identify image"),
        (b"<!DOCTYPE html>", "cannot identify image"),
        (files.a1111_png()[:-400], "Cannot read the picture"),
        (png_chunks(BOMB, PIXELS, END), "decompression bomb"),
        (png_chunks(HEADER, *[MEGABYTE] * 70, PIXELS, END), "memory used in text chunks"),
        (
            png_chunks(HEADER, (b"zTXt", b"a\0\0" + zlib.compress(bytes(8 << 20))), PIXELS),
            "too large",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(data, says, tmp_path):
    path = tmp_path / "picture.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.info(path)
    assert "\n" not in str(error.value)
    called = CliRunner().invoke(main, ["info", str(path)])
    assert called.exit_code == 2 and called.output.count("\n") == 1 and says in called.output


def test_broken_exif_is_a_said_loss(tmp_path):
    data = files.file("jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    about = info_of(data, tmp_path)
    assert "damaged" in about["lost"][0] and about["made_by"] == "unknown"
    assert rk.upscale(Image.open(io.BytesIO(data)), "lanczos", 64).width == 64


def test_the_command_is_for_people_and_for_scripts(picture, tmp_path):
    path = rk.save(picture, tmp_path / "a.png")
    called = CliRunner().invoke(main, ["info", str(path), "--json"])
    assert called.exit_code == 0 and json.loads(called.output) == rk.info(path)
    lines = CliRunner().invoke(main, ["info", str(path)]).output.splitlines()
    assert lines[0] == f"{path}: PNG, 64×64, made by realkit {__version__}"
    assert {"seed: 7", "guidance: 3.123456789", "unchanged: true"} <= set(lines)


@pytest.mark.slow
def test_the_six_lines_of_the_readme_keep_what_made_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = (Path(rk.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    lines = readme.partition("```python\n")[2].partition("```")[0]
    names: dict = {}
    exec(lines, names)
    rk.save(names["large"], "cone.png")  # the same picture again is no error
    about = rk.info("cone.png")
    assert about["prompt"] in lines and about["settings"]["seed"] == 1
    assert about["settings"]["upscaler"] == "rehearsal/esrgan-x4" and about["width"] == 512


def test_info_loads_no_torch(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(files.a1111_png())
    program = f"import sys, realkit as rk; rk.info({str(path)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_no_text_commands_the_terminal(tmp_path):
    path = tmp_path / "a.png"
    text = "\x1b[2J\x9b31m\x07cat\nSteps: 20, Sampler: Euler, Seed: 1, \u202eSize: 8x8"
    path.write_bytes(files.png_of({"parameters": text, "Ti\x1btle": "\x1b]0;x\x07"}))
    output = CliRunner().invoke(main, ["info", str(path)]).output
    assert all(line.isprintable() for line in output.splitlines()) and "cat" in output


def frames_of(kind: str, count: int) -> bytes:
    others = [files.gradient().rotate(180)] * (count - 1)
    return files.file(kind, save_all=True, append_images=others)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["gif", "tiff", "png", "webp"])
def test_of_many_frames_the_first_is_read(kind, count, tmp_path):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(frames_of(kind, count))
    about = rk.info(path)
    assert about["lost"] == ["its other frames"] * (count - 1) and about["width"] == 40
    large = rk.upscale(path, "lanczos", 80)
    assert large.size == (80, 48) and large.getpixel((40, 2))[0] < 40
    for words in (["info", path], ["upscale", path, "--with", "lanczos", "--to", "80"]):
        called = CliRunner().invoke(main, [str(word) for word in words])
        assert called.exit_code == 0, called.output


@pytest.mark.parametrize("kind", ["gif", "tiff"])
def test_a_closed_picture_of_uncounted_frames_says_so(kind, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(frames_of(kind, 2))
    with Image.open(path) as image:
        image.load()
    assert "could not be counted" in rk.info(image)["lost"][0]
    assert rk.upscale(image, "lanczos", 80).size == (80, 48)


@pytest.mark.parametrize(
    ("nodes", "count"), [(5, "no"), (None, "no"), ("abc", "no"), ([1, 2], "2"), ({"a": 1}, "1")]
)
def test_a_workflow_of_other_forms_has_its_nodes_counted(nodes, count, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(files.png_of({"workflow": json.dumps({"nodes": nodes})}))
    called = CliRunner().invoke(main, ["info", str(path)])
    assert called.exit_code == 0 and f"ComfyUI's workflow: {count} nodes" in called.output


def test_a_tiff_of_many_pages_keeps_its_exif(tmp_path):
    tags = Image.Exif()
    tags[0x010F] = "Canon"
    tags.get_ifd(0x8769)[0x9003] = "2026:11:29 12:00:00"
    tags[0x8769] = tags.get_ifd(0x8769)
    path = tmp_path / "a.tiff"
    pages = [files.gradient()]
    path.write_bytes(files.file("tiff", exif=tags, save_all=True, append_images=pages))
    about = rk.info(path)
    assert about["exif"] == {"Make": "Canon", "DateTimeOriginal": "2026:11:29 12:00:00"}
    assert about["lost"] == ["its other frames"]
    assert metadata.of(rk.upscale(path, "lanczos", 80)).exif.text(0x010F) == "Canon"
