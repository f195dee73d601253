"""Every entry of the catalogue, through the real client: a miniature of its kind, served under its
real ids and file names, makes a picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from realkit.models.families import FAMILIES
from realkit.models.spec import MODELS, ModelSpec
from realkit.weights.pickles import ALLOW_PICKLE
from realkit.weights.reference import HUB_ID
from tests.cuts import thinned
from tests.hub_server import python, serving
from tests.miniatures import Shelf, kind_of, loose, networks, own_catalogue, pickled

ENTRIES = {name: spec for name, spec in MODELS.items() if not name.startswith("rehearsal/")}
# The fast tests load one entry. The others take long.
FAST = ["realistic-vision-6"]
GROUPS = {
    "fast": FAST,
    "slow": [name for name in ENTRIES if name not in FAST],
}  # each has a child process
SECOND = [name for name, spec in ENTRIES.items() if spec.family and FAMILIES[spec.family].second]
PROGRAM = """
    import json, os, sys, time
    import numpy as np
    import realkit as rk

    def said(work):
        try:
            return work()
        except rk.RequestError as error:
            return {"refused": str(error)}
        except Exception as error:
            return {"raised": f"{type(error).__name__}: {error}"}

    def numbers(network, ending=""):
        found = next(p for name, p in network.named_parameters() if name.endswith(ending))
        return found.flatten()[:4].tolist()

    def picture(name, settings):
        model = rk.load(name)
        vae = getattr(model.pipe, "vae", None)
        held = {"denoiser": numbers(model.denoiser), "vae": vae and numbers(vae)}
        if model.spec.loras:
            held["attends"] = numbers(model.denoiser, "attn1.to_q.weight")
        image = model("a photo of a matte red cube on grass at noon", seed=1, **settings)
        return {"size": image.size, "spread": float(np.asarray(image).std()), **held}

    for name, settings, pickled in json.loads(os.environ["ENTRIES"]):
        began, found = time.perf_counter(), {}
        if pickled:
            found["without"] = said(lambda: picture(name, settings))
            os.environ["REALKIT_ALLOW_PICKLE"] = "1"
        found |= said(lambda: picture(name, settings))
        os.environ.pop("REALKIT_ALLOW_PICKLE", None)
        print(json.dumps([name, found | {"seconds": time.perf_counter() - began}]), flush=True)
"""


def settings(spec: ModelSpec) -> dict[str, Any]:
    """The fewest steps and the smallest picture that the entry can do."""
    steps = spec.steps[0] if spec.steps else 5 if spec.then else 2
    return {"steps": steps, "size": 128 if spec.family == "cascade" else 64}


def run(names: list[str], home: Path) -> dict[str, Any]:
    """What became of these entries, and which files were fetched for them."""
    shelf = Shelf(home / "hub")
    for name in names:
        shelf.add(ENTRIES[name])
    catalogue = own_catalogue(home / "catalogue", names)
    asked = json.dumps([[name, settings(ENTRIES[name]), pickled(ENTRIES[name])] for name in names])
    with serving(shelf.repositories) as server:
        done = python(
            PROGRAM,
            home / "home",
            server.endpoint,
            timeout=550,
            ENTRIES=asked,
            REALKIT_CATALOG=str(catalogue),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return {
            "made": dict(json.loads(line) for line in done.stdout.splitlines()),
            "fetched": server.fetched,
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What became of an entry's group, made once in a session however many processes test."""
    import os

    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root

    def of(name: str) -> dict[str, Any]:
        group = "fast" if name in FAST else "slow"
        kept = root / f"catalogue-{group}.json"
        with FileLock(root / f"catalogue-{group}.lock"):
            if not kept.exists():
                kept.write_text(
                    json.dumps(run(GROUPS[group], root / f"catalogue-{group}")), encoding="utf-8"
                )
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found

    return of


@pytest.mark.parametrize("name", thinned([name for name in ENTRIES if name not in SECOND], FAST))
def test_an_entry_loads_and_makes_a_picture(name, served):
    found = served(name)["made"][name]
    side = settings(ENTRIES[name])["size"]
    assert found.get("size") == [side, side], found
    assert found["spread"] > 1, "one flat colour"
    assert_its_parts(ENTRIES[name], found)
    if pickled(ENTRIES[name]):
        assert ALLOW_PICKLE in found["without"]["refused"]


def assert_its_parts(spec: ModelSpec, found: dict[str, Any]) -> None:
    """Each network bears the weights of where the entry takes it from, and a LoRA moves them."""
    family = FAMILIES[spec.family]
    for name, part in (("denoiser", family.denoiser), ("vae", family.vae)):
        if found[name]:
            own = numbers(
                loose(kind_of(spec), part, spec.parts[part])
                if part in spec.parts
                else getattr(networks(kind_of(spec)), part)
            )
            assert found[name] == pytest.approx(own, abs=1e-3), name
    if spec.loras:
        assert found["attends"] != pytest.approx(
            numbers(getattr(networks(kind_of(spec)), family.denoiser), "attn1.to_q.weight"),
            abs=1e-2,
        )


def numbers(network: Any, ending: str = "") -> list[float]:
    found: list[float] = (
        next(p for name, p in network.named_parameters() if name.endswith(ending))
        .flatten()[:4]
        .tolist()
    )
    return found


@pytest.mark.parametrize("name", thinned(SECOND, FAST))
def test_a_second_leg_loads_and_says_that_it_makes_no_picture_alone(name, served):
    found = served(name)["made"][name]
    assert "refused" in found and "\n" not in found["refused"], found


@pytest.mark.parametrize("group", thinned(GROUPS, ["fast"]))
def test_nothing_is_fetched_that_is_not_loaded(group, served):
    names = GROUPS[group]
    fetched = served(names[0])["fetched"]
    needless = (
        r"safety_checker|feature_extractor|image_encoder|\.(onnx|msgpack|ckpt|md)$|openvino|vae_"
        r"|v1-5-pruned|text_encoder_3/.*safetensors$"
    )
    assert fetched and not [file for file in fetched if re.search(needless, file)]
    assert len(fetched) == len(set(fetched))
    allowed = [HUB_ID.match(ENTRIES[name].source)["id"] for name in names if pickled(ENTRIES[name])]
    assert not [
        file
        for file in fetched
        if file.endswith(".bin") and not file.startswith(tuple(allowed or ["-"]))
    ]
    of_variant = {
        file.rsplit("/", 1)[0]
        for file in fetched
        if re.search(r"\.(fp16|bf16)\.safetensors$", file)
    }
    assert not [
        file
        for file in fetched
        if re.search(r"/(diffusion_pytorch_)?model\.safetensors$", file)
        and file.rsplit("/", 1)[0] in of_variant
    ]
