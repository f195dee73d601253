"""Hostile inputs at each boundary of the kit, with their figures:
`python -m tests.boundaries [N [NAME …]]`.

N inputs a boundary (100 by default) under an address space of 6 GiB; then a line a boundary:
inputs, how many were read and refused, how many gave anything but a result or a one-line
RequestError, and the slowest. The exit code is 1 where one did.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  imported here, so that no input's time counts it
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

import realkit as rk
from realkit.apps.notebooks.entries import read_entries
from realkit.base.files import json_object
from realkit.models import prompts, provenance
from realkit.models.request import checked
from realkit.models.spec import identify
from realkit.runs.locks import read_locks
from realkit.scorers.score import lock_scorer
from realkit.sweeps import notices
from realkit.weights import checkpoints, header, resolve
from realkit.weights.pickles import ALLOW_PICKLE, check_safetensors, converted
from realkit.weights.reference import existing_path, parse
from tests import picture_files
from tests.hostile import JSON, TEXT, altered, cut, safetensors, tokens

ADDRESS_SPACE = 6 * 2**30
SLOWEST_S = 10.0
FOLDER = Path(__file__).parent / "data" / "folder-1"

# --- what the inputs are made of

HEADER = {"__metadata__": {"format": "pt"}, "model.diffusion_model.a": {
    "dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, "b": {
    "dtype": "F32", "shape": [4], "data_offsets": [12, 28]}}  # fmt: skip
LINES = {
    name: [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
    for name in ("cells.jsonl", "rows.jsonl", "runs.jsonl")
}
LOCKS = json.loads((FOLDER / "sweep.lock.json").read_text())
INFO = ("Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512,"
        " Model: sd")  # fmt: skip
YAML = """models: [rehearsal/base, {model: rehearsal/turbo, steps: 4}]
prompts: &p [a red cube, "b: c"]
negatives: ["", grey]
seeds: [010, 1]
size: 64x64
guidance: 1e0
"""
SWEEP = {
    "models": ["rehearsal/base", {"model": "rehearsal/turbo", "steps": 4}],
    "prompts": ["a red cube"], "seeds": [1, 2], "size": [64, 64], "guidance": 1.0,
    "upscalers": ["lanczos"], "target": 128, "scorers": ["colour-cast"],
}  # fmt: skip
RECORD = {
    "stage": "decode", "determined": {"seed": 1, "model": {"main": "0"}}, "model_hash": "0" * 10,
    "cell": {
        "model": "rehearsal/base", "sampler": "Euler", "prompt": "a", "negative": "", "seed": 1,
        "steps": 2, "guidance": 3.0, "width": 64, "height": 64, "dtype": None,
    },
    "pixels": provenance.pixel_hash(Image.new("RGB", (2, 2))), "made": {"realkit": "0.1.0"},
}  # fmt: skip


# --- boundaries: what reads an input; anything but a return or a RequestError is a fault


def read_line(place: Path, name: str, value: Any) -> None:
    for other, records in LINES.items():
        lines = [json.dumps(record) for record in records]
        if other == name:
            lines[len(lines) // 2] = json.dumps(value)
        (place / other).write_text("\n".join(lines) + "\n")
    rk.read(place).table()


def read_bytes(place: Path, content: bytes) -> None:
    for other in LINES:
        (place / other).write_bytes((FOLDER / other).read_bytes())
    (place / "rows.jsonl").write_bytes(content)
    rk.read(place).table()


def read_lock(place: Path, value: Any) -> None:
    (place / "sweep.lock.json").write_text(json.dumps(value))
    read_locks(place)


def read_weights(place: Path, content: bytes) -> None:
    path = place / "a.safetensors"
    path.write_bytes(content)
    check_safetensors(path)
    with contextlib.suppress(rk.RequestError):  # numbers that are no weights, too few tensors
        header.check_numbers("It", header.read(path))
        checkpoints.identify(path)


def read_pickle(place: Path, content: bytes) -> None:
    path = place / "a.ckpt"
    path.write_bytes(content)
    for old in (place / "cache").glob("*/*.safetensors"):
        old.unlink()
    converted(path, "0" * 64)


def read_info(place: Path, texts: dict[str, str]) -> None:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    path = place / "a.png"
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)
    with Image.open(path) as image:
        image.load()
        image.info = {**image.info, **image.text}
        provenance.noted(image)
    through(path)


def through(path: Path) -> None:
    """A picture told, enlarged, and written in each format; what is told is JSON."""
    json.dumps(rk.info(path), allow_nan=False)
    large = rk.upscale(path, "nearest", 3)
    for kind in ("png", "jpg", "webp"):
        made = rk.save(large, path.with_name(f"made.{kind}"), overwrite=True)
        rk.info(made)


def read_picture(place: Path, content: bytes) -> None:
    path = place / "a.picture"
    path.write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()):  # losses are said
        through(path)


def read_reference(_: Path, text: str) -> None:
    ref = parse(text)
    assert parse(str(ref)) == ref, f"{text!r} is written as {str(ref)!r}"
    existing_path(text)
    identify(text)


def lock_reference(_: Path, text: str) -> None:
    if parse(text).kind not in ("hub", "url", "civitai"):
        resolve.lock(text)


def read_yaml(place: Path, text: str) -> None:
    path = place / "sweep.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    for read in (read_entries, rk.Sweep.from_yaml):
        with contextlib.suppress(rk.RequestError):
            read(path)
            return
    rk.Sweep.from_yaml(path)


def read_json(place: Path, content: bytes) -> None:
    path = place / "model_index.json"
    path.write_bytes(content)
    json_object(path)


def read_prompt(_: Path, text: str) -> None:
    checked("prompt", text)
    assert all(prompts.forms(text).values())
    sweep = rk.Sweep(models="rehearsal/base", prompts=[text], scorers="rehearsal/clip")
    notices.unread(sweep.cells(), MODELS, {name: lock_scorer(name) for name in sweep.scorers})


MODELS: dict[str, Any] = {}


def pickles() -> list[bytes]:
    import torch

    files = []
    for legacy in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.ckpt")
            content = {"state_dict": {"a": torch.ones(3, 2), "b": torch.ones(2).half()}}
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            files.append(path.read_bytes())
    return files


@dataclass
class Boundary:
    """A boundary's inputs, and what became of them."""

    inputs: st.SearchStrategy[Any]
    read: Callable[..., None]
    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)  # the first input of each
    slowest: float = 0.0


def of_files() -> dict[str, Boundary]:
    """The boundaries of results folders, weights and pictures."""
    line = st.sampled_from(sorted(LINES)).flatmap(
        lambda name: st.tuples(st.just(name), altered(LINES[name][len(LINES[name]) // 2]))
    )
    headers = altered(HEADER).map(lambda header: safetensors(header, 28))
    whole = st.just(safetensors(HEADER, 28))
    nested = st.integers(0, 10**5).map(lambda n: b'{"a":' * n + b"1" + b"}" * n)
    settings_text = tokens(INFO, "\nNegative prompt: ", "\n", ", ", ": ", '"', "Seed: 1e9")
    deep = st.sampled_from(["[" * 10**5, "1" * 5000, '{"a":' * 500 + "1" + "}" * 500])
    infos = {"parameters": settings_text, "realkit": TEXT | JSON.map(json.dumps) | deep}
    infos["realkit"] |= altered(RECORD).map(json.dumps)
    originals = (
        picture_files.a1111_png(),
        picture_files.civitai_jpeg(),
        picture_files.comfyui_webp(),
        picture_files.camera_jpeg(6),
        picture_files.png_of({}, exif=picture_files.camera()),
    )
    return {
        "pictures": Boundary(st.sampled_from(originals).flatmap(cut), read_picture),
        "records": Boundary(line, lambda place, item: read_line(place, *item)),
        "lines": Boundary(cut((FOLDER / "rows.jsonl").read_bytes()), read_bytes),
        "locks": Boundary(altered(LOCKS), read_lock),
        "safetensors": Boundary(cut(safetensors(HEADER, 28)) | headers | whole, read_weights),
        "pickles": Boundary(st.sampled_from(pickles()).flatmap(cut), read_pickle),
        "infotexts": Boundary(st.fixed_dictionaries(infos), read_info),
        "json": Boundary(cut(b'{"_class_name": "X", "unet": ["a", "b"]}') | nested, read_json),
    }


def of_texts() -> dict[str, Boundary]:
    """The boundaries of what a person writes."""
    reference = tokens(
        "owner/name", "@", ":fp16", "/", "civitai:", "42", "?type=VAE", "https://", "civitai.com/",
        "huggingface.co/", "models/", "package:", "base", "config:sd1", "kaggle:", "~", "..",
        ".safetensors", ".ckpt", "\0", "[", "merge(", ")", " ", "%00", "\n", most=6,
    )  # fmt: skip
    path = tokens(
        "/", "~", "..", "proc", "dev", "package:", "kaggle:a/b", ".safetensors", "\0", most=4
    )
    yaml = tokens(
        *YAML.split(" "), "- ", "\n", "  ", ": ", "&a ", "*a", "<<: ", "{", "}", "[", "]", "!!int ",
        "\t", "010", "1:30", "|\n", "'", '"',
    )  # fmt: skip
    cut_yaml = cut(YAML.encode()).map(lambda data: data.decode(errors="surrogateescape"))
    sweeps = altered(SWEEP).map(json.dumps)  # JSON is YAML
    prompt = tokens(
        "(", ")", "[", "]", ":1.3)", "|", "{", "}", "__a__", "\\", "<lora:x:1>", "AND ", "BREAK",
        "embedding:", "a word ", "#", "\n", "suite:",
    )  # fmt: skip
    return {
        "references": Boundary(reference, read_reference),
        "paths": Boundary(path, lock_reference),
        "yaml": Boundary(st.one_of(yaml, cut_yaml, sweeps), read_yaml),
        "prompts": Boundary(prompt, read_prompt),
    }


def boundaries() -> dict[str, Boundary]:
    return of_files() | of_texts()


def attempt(boundary: Boundary, place: Path, value: Any) -> None:
    """Read one input, and note what became of it."""
    began = time.perf_counter()
    try:
        boundary.read(place, value)
        boundary.counts["read"] += 1
    except rk.RequestError as error:
        boundary.counts["refused"] += 1
        if "\n" in str(error) or len(str(error)) > 2000:
            _fault(boundary, "an error of several lines, or of thousands of characters", value)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place_in_code = f"{Path(last.filename).name}:{last.lineno}"
        _fault(boundary, f"{type(error).__name__} at {place_in_code}: {str(error)[:80]}", value)
    seconds = time.perf_counter() - began
    if seconds > SLOWEST_S:
        _fault(boundary, f"it takes {seconds:.0f} s", value)
    boundary.slowest = max(boundary.slowest, seconds)


def _fault(boundary: Boundary, what: str, value: Any) -> None:
    boundary.counts["faults"] += 1
    boundary.faults.setdefault(what, repr(value)[:200])


def examine(boundary: Boundary, place: Path, count: int, random: bool) -> None:
    """Read `count` inputs: the same each time, or random ones."""

    @settings(
        max_examples=count,
        derandomize=not random,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(boundary.inputs)
    def run(value: Any) -> None:
        attempt(boundary, place, value)

    run()


def prepare(place: Path) -> None:
    """The environment in which nothing outside of `place` is written, and pickles are read."""
    os.environ |= {"REALKIT_CACHE": str(place / "cache"), ALLOW_PICKLE: "1"}
    from realkit.models.lock import lock_model

    MODELS["rehearsal/base"] = lock_model("rehearsal/base")


def main(count: int, names: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        for name, boundary in boundaries().items():
            if names and name not in names:
                continue
            began = time.perf_counter()
            examine(boundary, place, count, random=True)
            counts = boundary.counts
            inputs = counts["read"] + counts["refused"] + counts["faults"]
            print(
                f"{name:<12} {inputs:6} inputs: {counts['read']} read, {counts['refused']} refused,"
                f" {counts['faults']} faults, slowest {boundary.slowest:.2f} s,"
                f" {time.perf_counter() - began:.0f} s in all",
                flush=True,
            )
            for what, value in boundary.faults.items():
                print(f"    {what}\n        {value}")
            faults += counts["faults"]
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(int(*sys.argv[1:2] or [100]), sys.argv[2:]))
