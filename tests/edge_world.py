"""What the edges are tried on: a folder of right things and of wrong ones, and values of every kind
that no argument takes."""

from __future__ import annotations

import datetime
import io
import json
import os
import pickle
import shutil
import struct
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

FOLDER = Path(__file__).parent / "data" / "folder-1"
MARK = "REALKIT_EDGE_MARK"  # environment: the file that appears where an input was run as code
READ_ONLY = "/sys/realkit"  # for root too
LONG = "a" * 300


class Trap:
    """What a pickle runs when it is loaded without care."""

    def __reduce__(self) -> Any:
        return os.system, (f'touch "${MARK}"',)


def table() -> pd.DataFrame:
    """The table of a sweep of two samplers, three numbers of steps, seven prompts and two seeds."""
    rng = np.random.default_rng(0)
    rows = []
    grid = product(("Euler", "Heun"), (4, 8, 16), range(7), range(2))
    for number, (sampler, steps, prompt, seed) in enumerate(grid):
        seconds = steps * (1 + (sampler == "Heun")) * rng.uniform(0.9, 1.1) / 10
        row = {"model": "m", "sampler": sampler, "prompt": f"p{prompt}", "seed": seed}
        row |= {"steps": steps, "guidance": 5.0, "status": "ok", "nfe": steps, "batch": 4}
        row |= {"card": "cpu", "rung": "resident", "device": "cpu", "seconds": seconds}
        row |= {"image": f"images/{number}.png", "colour-cast": float(rng.normal(steps, 2))}
        rows.append(row)
    return pd.DataFrame(rows)


def tables() -> dict[str, Any]:
    """Tables that are nearly right, by what is wrong with them."""
    frame = table()
    twice = pd.concat([frame, frame[["seed"]]], axis=1)
    nothing = frame.assign(**{"colour-cast": np.nan, "seconds": np.nan})
    infinite = frame.assign(**{"colour-cast": np.inf, "seconds": -np.inf})
    levels = frame.set_axis(pd.MultiIndex.from_product([["a"], frame.columns]), axis=1)
    return {
        "empty": frame.iloc[:0], "no columns": pd.DataFrame(), "one row": frame.iloc[:1],
        "a column twice": twice, "nan": nothing, "infinite": infinite, "levels": levels,
        "objects": frame.assign(seconds=[object()] * len(frame)),
        "words": frame.assign(**{"colour-cast": "red"}), "missing": frame.replace("p1", None),
        "categories": frame.astype({"sampler": "category", "prompt": "category"}),
        "nullable": frame.convert_dtypes(), "numbers": frame.set_axis(range(15), axis=1),
        "one index": frame.set_axis([0] * len(frame)), "huge": frame.assign(seconds=1e308),
    }  # fmt: skip


def closed_picture() -> Image.Image:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    picture = Image.open(file)
    file.close()
    return picture


def pictures() -> dict[str, Any]:
    """Pictures that Pillow holds and that are none, by what is wrong with them."""
    exif = Image.new("RGB", (20, 30), "red")
    exif.info["exif"] = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    profile = Image.new("RGB", (20, 30), "red")
    profile.info["icc_profile"] = b"\0\1\2"
    return {
        "zero": Image.new("RGB", (0, 5)), "closed": closed_picture(), "exif": exif,
        "profile": profile, "floating": Image.new("F", (9, 9)), "one pixel": Image.new("L", (1, 1)),
        "16 bits": Image.new("I;16", (12, 9)), "array": np.zeros((8, 8, 3), np.uint8),
        "strip": Image.new("RGB", (2000, 1)),
    }  # fmt: skip


def _png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than follows."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + ends


def _tensors(header: Any, tail: int = 28) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(tail)


@dataclass
class World:
    """The folder of one trial. `files` are paths of files that are wrong, by what is wrong."""

    place: Path
    files: dict[str, Path]
    kept: dict[str, list[Any]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        return self.place / name

    def ran_code(self) -> bool:
        return Path(os.environ[MARK]).exists()


def world(place: Path) -> World:
    """A folder of right and of wrong things. Its environment is the caller's to restore."""
    os.environ |= {
        MARK: str(place / "ran"),
        "REALKIT_CACHE": str(place / "cache"),
        "HF_HUB_OFFLINE": "1",
        "REALKIT_ALLOW_PICKLE": "1",
    }
    shutil.copytree(FOLDER, place / "run")
    (place / "nothing").mkdir()
    (place / "foreign").mkdir()
    (place / "foreign" / "notes.txt").write_text("not a results folder", encoding="utf-8")
    picture = Image.effect_noise((64, 48), 60).convert("RGB")
    for name in ("picture.png", "[a]*?.png", "picture.jpg", "foreign/a.png"):
        picture.save(place / name)
    (place / "sweep.yaml").write_text(
        "models: rehearsal/base\nprompts: a red cube\nsteps: 1\nsize: 64\n", encoding="utf-8"
    )
    (place / "prompts.txt").write_text("a red cube\na blue sphere\n", encoding="utf-8")
    return World(place, _wrong_files(place))


def _wrong_files(place: Path) -> dict[str, Path]:
    whole = (place / "picture.png").read_bytes()
    tib = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    trap = f"!!python/object/apply:os.system ['touch \"${MARK}\"']\n"
    contents: dict[str, bytes] = {
        "empty": b"", "text.txt": b"nothing\n", "binary": bytes(range(256)) * 4,
        "cut.png": whole[: len(whole) // 2], "bomb.png": _png(60_000, 60_000),
        "lie.png": _png(3_000, 3_000), "none.png": _png(0, 0), "text.png": b"<html></html>",
        "long.safetensors": struct.pack("<Q", 2**62) + b"{}",
        "tib.safetensors": _tensors(tib), "text.safetensors": b"version https://git-lfs",
        "words.safetensors": _tensors({"a": "b"}), "empty.safetensors": b"",
        "none.safetensors": _tensors({}, 0),
        "trap.ckpt": pickle.dumps({"state_dict": Trap()}), "trap.pth": pickle.dumps(Trap()),
        "trap.yaml": trap.encode(), "deep.yaml": b"[" * 5000, "list.yaml": b"- 1\n",
        "bytes.yaml": b"\xff\xfe\x00", "keys.yaml": b"models: 5\nprompt: x\n",
        "trap.csv": b"prompt\n=cmd|' /C calc'!A0\n\x00\n", "cells.jsonl": b"{\n",
    }  # fmt: skip
    files = {}
    (place / "wrong").mkdir()
    for name, content in contents.items():
        files[name] = place / "wrong" / name
        files[name].write_bytes(content)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    Image.new("RGB", (20, 30)).save(place / "wrong" / "exif.jpg", exif=exif)
    files["exif.jpg"] = place / "wrong" / "exif.jpg"
    return files


def texts(world: World) -> list[str]:
    """Texts that are no name, number or path that anyone wants."""
    if "texts" in world.kept:
        return world.kept["texts"]
    paths = [str(path) for path in world.files.values()]
    world.kept["texts"] = [
        "", " ", "\0", "a\0b", LONG, "a" * 5000, "[*]", "*", "**/?", "../..", "/", ".", "~",
        "~nobody-here/x", "-1", "--", "0", "1e400", "nan", "inf", "9" * 5000, "0x10", "١٢", "½",
        "\ud800", "🙂", "e\u0301", "%s%n{0}", "{{ 7*7 }}", "$(touch $REALKIT_EDGE_MARK)",
        "__import__('os').system('touch $REALKIT_EDGE_MARK')", "a\nb", "a,b,,", ",", " + ",
        "rehersal/base", "rehearsal/bas", "suite:none", "package:../x", "kaggle:a/b", "civitai:",
        "civitai:1@", "merge(", "config:sd1", "ray:", "ray:nobody:1", "<lora:a:1>", "(((((",
        "file:///etc/passwd", "/proc/self/mem", "/dev/full", "/dev/zero", READ_ONLY, "None", "true",
        str(world.place), str(world.path("nothing")), str(world.path("foreign")),
        str(world.path("nowhere")), str(world.path("run")), str(world.path("[a]*?.png")),
        str(world.path("picture.png") / "below"), str(world.path(LONG) / LONG), *paths,
    ]  # fmt: skip
    return world.kept["texts"]


def endless() -> Any:
    while True:
        yield 1


def values(world: World) -> list[Any]:
    """Values of every kind."""
    if "values" in world.kept:
        return world.kept["values"]
    numbers = [
        0, -1, 1, 2**63, 10**400, True, False, 0.0, -0.5, 1e308, float("nan"), float("inf"), 1j,
        np.int64(3), np.float32(0.5), np.bool_(True), np.float64("nan"), np.longdouble(2), pd.NA,
        pd.NaT, pd.Timestamp(0), Decimal("1.5"), Fraction(1, 3), np.datetime64("2020-01-01"),
    ]  # fmt: skip
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    others = [
        None, b"bytes", bytearray(b"x"), memoryview(b"x"), [], {}, (), set(), {1, 2}, {"a", "b"},
        frozenset({"Euler"}), [None], [[]], [1, "a"], ["a", b"a"], {"a": 1}, {1: 2}, deep, object(),
        object, len, lambda: 0, Ellipsis, NotImplemented, range(3), range(10**12), slice(1),
        iter("ab"), np.arange(3), np.zeros((2, 2)), np.array(5), np.array(["a"]), pd.Series([1, 2]),
        pd.Index(["a"]), datetime.datetime(2000, 1, 1), Exception("x"), Path("nowhere"), Path(LONG),
        Path("a\0b"), io.BytesIO(b"x"), endless(), world, *tables().values(), *pictures().values(),
    ]  # fmt: skip
    world.kept["values"] = [*numbers, *others, *texts(world)]
    return world.kept["values"]
