"""Pictures as a camera, A1111, Civitai and ComfyUI write them, built by hand in their documented
forms: no line of realkit's."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

Entry = tuple[int, int, int, bytes]  # tag, type, count, bytes

A1111 = (
    "a cat, (sleeping:1.2), <lora:fur:0.5>\nby the sea\nNegative prompt: dog, blurry\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1234567890123,"
    " Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly,"
    ' Lora hashes: "fur: e3f9c2b1a8d7, sea: 0123456789ab", Clip skip: 2, Version: v1.10.1'
)
RESOURCES = [
    {"type": "checkpoint", "modelVersionId": 123456, "modelName": "Some, model: here [XL]"},
    {"type": "lora", "weight": 0.7, "modelVersionId": 654321, "modelName": "Fur"},
]
CIVITAI = (
    "a fox\nNegative prompt: blurry\nSteps: 30, Sampler: Euler a, CFG scale: 4.5, Seed: 77, Size:"
    " 832x1216, Clip skip: 2, Created Date: 2024-12-22T01:01:01.0222111Z, Civitai resources: "
    f"{json.dumps(RESOURCES, separators=(',', ':'))}, Civitai metadata: {{}}"
)
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 156680208700286, "steps": 20, "cfg": 8.0, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0],
            "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "schönes Glas", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "text, watermark", "clip": ["4", 1]}},
}  # fmt: skip
WORKFLOW = {"last_node_id": 9, "nodes": [{"id": 3, "type": "KSampler"}], "version": 0.4}


def tiff(
    main: list[Entry],
    private: list[Entry] = [],  # noqa: B006
    gps: list[Entry] = [],  # noqa: B006
    thumbnail: bytes = b"",
    order: str = "<",
) -> bytes:
    """An EXIF block: IFD0, the Exif and GPS directories it points to, IFD1 with a thumbnail."""
    block = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8))

    def directory(entries: list[Entry], follow: Callable[[], int] | None = None) -> int:
        begin = len(block)
        block.extend(bytes(2 + 12 * len(entries) + 4))
        rows = struct.pack(order + "H", len(entries))
        for tag, kind, count, data in sorted(entries):
            place = data.ljust(4, b"\0")
            if len(data) > 4:
                place = struct.pack(order + "I", len(block))
                block.extend(data + bytes(len(data) % 2))
            rows += struct.pack(order + "HHI", tag, kind, count) + place
        following = struct.pack(order + "I", follow() if follow else 0)
        block[begin : begin + len(rows) + 4] = rows + following
        return begin

    def small() -> int:
        at = len(block)
        block.extend(thumbnail)
        place = struct.pack(order + "I", at), struct.pack(order + "I", len(thumbnail))
        return directory([(0x0201, 4, 1, place[0]), (0x0202, 4, 1, place[1])])

    pointers = []
    for tag, entries in ((0x8769, private), (0x8825, gps)):
        if entries:
            pointers.append((tag, 4, 1, bytes(4)))
    begin = directory(main + pointers, small if thumbnail else None)
    for number, (tag, *_) in enumerate(sorted(main + pointers)):
        if tag in (0x8769, 0x8825):
            at = directory(private if tag == 0x8769 else gps)
            place = begin + 2 + 12 * number + 8
            block[place : place + 4] = struct.pack(order + "I", at)
    return b"Exif\0\0" + bytes(block)


def camera(orientation: int = 1, order: str = "<") -> bytes:
    """The EXIF block of a camera: texts, fractions, a maker's notes, GPS, a thumbnail."""

    def number(kind: str, *values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}{kind}", *values)

    return tiff(
        [
            (0x010F, 2, 6, b"Canon\0"), (0x0110, 2, 13, b"Canon EOS R5\0"),
            (0x0112, 3, 1, number("H", orientation)), (0x011A, 5, 1, number("I", 300, 1)),
            (0x011B, 5, 1, number("I", 300, 1)), (0x0128, 3, 1, number("H", 2)),
            (0x8298, 2, 11, b"(c) A. Ames"),
        ],
        [
            (0x829A, 5, 1, number("I", 1, 250)), (0x9000, 7, 4, b"0232"),
            (0x9003, 2, 20, b"2026:11:29 12:00:00\0"), (0x9201, 10, 1, number("i", -3, 2)),
            (0x927C, 7, 40, b"Maker" + bytes(range(35))), (0x9286, 7, 15, b"ASCII\0\0\0Holiday"),
            (0xA002, 4, 1, number("I", 40)), (0xA003, 4, 1, number("I", 24)),
        ],
        [(0x0001, 2, 2, b"N\0"), (0x0002, 5, 3, number("I", 48, 1, 8, 1, 1230, 100))],
        thumbnail=b"\xff\xd8thumbnail\xff\xd9",
        order=order,
    )  # fmt: skip


def comment(text: str) -> bytes:
    """The EXIF block that A1111 writes: the user's comment, by piexif."""
    data = b"UNICODE\0" + text.encode("utf-16-be")
    return tiff([], [(0x9286, 7, len(data), data)], order=">")


def gradient(size: tuple[int, int] = (40, 24)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


def file(kind: str, **options: Any) -> bytes:
    """The bytes of a small picture of this format, with Pillow's options of saving."""
    data = io.BytesIO()
    gradient().save(data, kind, **options)
    return data.getvalue()


def png_of(texts: dict[str, str], **options: Any) -> bytes:
    """A PNG with a text chunk for each text, as the web interfaces write them."""
    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text)
    return file("png", pnginfo=chunks, **options)


def a1111_png() -> bytes:
    return png_of({"parameters": A1111})


def a1111_jpeg() -> bytes:
    return file("jpeg", exif=comment(A1111))


def civitai_jpeg() -> bytes:
    return file("jpeg", exif=comment(CIVITAI))


def comfyui_png() -> bytes:
    return png_of({"prompt": json.dumps(GRAPH), "workflow": json.dumps(WORKFLOW)})


def comfyui_webp() -> bytes:
    """As ComfyUI's SaveAnimatedWEBP writes: the maker's and the model's tag."""
    workflow, prompt = f"workflow:{json.dumps(WORKFLOW)}\0", f"prompt:{json.dumps(GRAPH)}\0"
    entries = [
        (0x010F, 2, len(workflow), workflow.encode()), (0x0110, 2, len(prompt), prompt.encode())
    ]  # fmt: skip
    return file("webp", exif=tiff(entries)[6:])


def camera_jpeg(orientation: int = 1) -> bytes:
    return file("jpeg", exif=camera(orientation), dpi=(300, 300))
