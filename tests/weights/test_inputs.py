"""A tree shaped like Kaggle's inputs with the internet cut: what resolves from the mount, as what
it is on the hub, and what the rest says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from realkit import RequestError
from realkit.models.spec import MODELS
from realkit.weights.sources.inputs import INPUTS, explicit, file, offered, repository, roots
from tests import miniatures
from tests.hub_server import COMMIT, nowhere, python, realkit, serving

SD15, XL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
VAE, XL_VAE = "stabilityai/sd-vae-ft-mse", "madebyollin/sdxl-vae-fp16-fix"
VISION = "SG161222/Realistic_Vision_V6.0_B1_noVAE"
VISION_FILE = "Realistic_Vision_V6.0_NV_B1_fp16.safetensors"
LCM = "latent-consistency/lcm-lora-sdv1-5"
ENTRIES = ["sd-1.5", "sdxl-base", "realistic-vision-6", "lcm-sd15"]  # of which all is attached
LOCKS = """
    import json, os, time
    from realkit import RequestError
    from realkit.models.lock import lock_model
    from realkit.weights import resolve
    time.sleep = lambda _: None  # nothing is waited for that will not come

    def said(work):
        try:
            return work()
        except RequestError as error:
            return {"refused": str(error)}

    def model(name):
        locked = lock_model(name)
        return {
            "fingerprint": locked.fingerprint,
            "vae": locked.vae_fingerprint,
            "scheduler": locked.scheduler,
        }

    def plain(ref):
        locked = resolve.lock(ref)
        again = resolve.fetch(locked)
        return {"files": locked.files, "at": str(again)}

    names, refs = json.loads(os.environ["ASKED"])
    models = {name: said(lambda: model(name)) for name in names}
    others = {ref: said(lambda: plain(ref)) for ref in refs}
    print(json.dumps([models, others]))
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> miniatures.Shelf:
    """The repositories of ENTRIES as the hub has them."""
    made = miniatures.Shelf(tmp_path_factory.mktemp("hub"))
    for name in [*ENTRIES, "lcm-sdxl"]:
        made.add(MODELS[name])
    return made


@pytest.fixture(scope="module")
def inputs(shelf, tmp_path_factory) -> Path:
    """The same, attached to a notebook in every way there is; and some that nobody could tell
    apart."""
    root, of = tmp_path_factory.mktemp("kaggle") / "input", shelf.repositories
    shutil.copytree(of[SD15], root / "stable-diffusion-v1-5")  # a dataset, old form
    shutil.copytree(
        of[XL],
        root
        / "models"
        / "stabilityai"
        / "stable-diffusion-xl-base-1.0"
        / "diffusers"
        / "default"
        / "1",
    )
    shutil.copytree(of[VAE], root / "datasets" / "someone" / "sd-vae-ft-mse")
    cache = (
        root / "datasets" / "me" / "hub-cache" / "hub" / f"models--{XL_VAE.replace('/', '--')}"
    )  # what HF_HOME held, with its links
    for path in sorted(path for path in of[XL_VAE].rglob("*") if path.is_file()):
        blob, link = (
            cache / "blobs" / f"of-{path.name}",
            cache / "snapshots" / COMMIT / path.relative_to(of[XL_VAE]),
        )
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(Path("../../blobs") / blob.name)
    old = cache / "snapshots" / ("0" * 40)  # an earlier commit, first in every listing
    shutil.copytree(of[VAE], old)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    for place in ("photo-models/checkpoints/sd1", "two-of-a-kind"):
        (root / "datasets" / "someone" / place).mkdir(parents=True)
        shutil.copy(of[VISION] / VISION_FILE, root / "datasets" / "someone" / place)
    shutil.copytree(of[LCM], root / "lcm-lora-sdv1-5")
    shutil.copytree(
        of[VAE], root / "notebooks" / "me" / "merging" / "result"
    )  # a notebook's output
    (root / "notebooks" / "me" / "merging" / "__results__.html").write_text("<html>")
    shutil.copy(
        of[VISION] / VISION_FILE,
        root / "datasets" / "someone" / "two-of-a-kind" / "another.safetensors",
    )
    shutil.copytree(of[SD15], root / "datasets" / "me" / "pipelines" / "one")
    shutil.copytree(of[SD15], root / "datasets" / "me" / "pipelines" / "two")
    (root / "a-table").mkdir()
    (root / "a-table" / "prompts.csv").write_text("prompt\n")
    return root


def locks(
    home: Path, endpoint: str, names: list[str], refs: list[str], **environment: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    catalogue = miniatures.own_catalogue(home / "catalogue", ENTRIES)
    done = python(
        LOCKS,
        home,
        endpoint,
        ASKED=json.dumps([names, refs]),
        REALKIT_CATALOG=str(catalogue),
        **environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    models, plain = json.loads(done.stdout)
    return models, plain


RESOLVE = {  # reference: where it is found below the inputs
    SD15: "stable-diffusion-v1-5",
    f"{SD15}@main:fp16": "stable-diffusion-v1-5",
    f"https://huggingface.co/{SD15}": "stable-diffusion-v1-5",
    XL: "models/stabilityai/stable-diffusion-xl-base-1.0/diffusers/default/1",
    VAE: "datasets/someone/sd-vae-ft-mse",
    XL_VAE: f"datasets/me/hub-cache/hub/models--madebyollin--sdxl-vae-fp16-fix/snapshots/{COMMIT}",
    f"{XL_VAE}@{COMMIT}": (
        f"datasets/me/hub-cache/hub/models--madebyollin--sdxl-vae-fp16-fix/snapshots/{COMMIT}"
    ),
    f"{XL_VAE}@{'0' * 40}": (
        f"datasets/me/hub-cache/hub/models--madebyollin--sdxl-vae-fp16-fix/snapshots/{'0' * 40}"
    ),
    f"{VISION}/{VISION_FILE}": f"datasets/someone/two-of-a-kind/{VISION_FILE}",
    f"https://huggingface.co/{VISION}/resolve/main/{VISION_FILE}?download=true": (
        f"datasets/someone/two-of-a-kind/{VISION_FILE}"
    ),
    f"{LCM}/pytorch_lora_weights.safetensors": "lcm-lora-sdv1-5/pytorch_lora_weights.safetensors",
    "kaggle:someone/sd-vae-ft-mse": "datasets/someone/sd-vae-ft-mse",
    "kaggle:stabilityai/stable-diffusion-xl-base-1.0/diffusers/default/1": (
        "models/stabilityai/stable-diffusion-xl-base-1.0/diffusers/default/1"
    ),
    "kaggle:stabilityai/stable-diffusion-xl-base-1.0": (
        "models/stabilityai/stable-diffusion-xl-base-1.0/diffusers/default/1"
    ),
    "kaggle:stability/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "kaggle:someone/photo-models": f"datasets/someone/photo-models/checkpoints/sd1/{VISION_FILE}",
    "kaggle:someone/two-of-a-kind/another.safetensors": (
        "datasets/someone/two-of-a-kind/another.safetensors"
    ),
    "kaggle:me/merging/result": "notebooks/me/merging/result",
    "kaggle:me/pipelines/two": "datasets/me/pipelines/two",
    "/kaggle/input/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "/kaggle/input/datasets/stability/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "/kaggle/input/sd-vae-ft-mse": "datasets/someone/sd-vae-ft-mse",
    "/kaggle/input/merging/result": "notebooks/me/merging/result",
    "/kaggle/input/stable-diffusion-xl-base-1.0/diffusers/default/1": (
        "models/stabilityai/stable-diffusion-xl-base-1.0/diffusers/default/1"
    ),
    "{inputs}/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors": (
        "lcm-lora-sdv1-5/pytorch_lora_weights.safetensors"
    ),
    "{inputs}/lcm-lora-sdv1-5": "lcm-lora-sdv1-5/pytorch_lora_weights.safetensors",
    "{inputs}/sd-vae-ft-mse": "datasets/someone/sd-vae-ft-mse",
}
ATTACH = "turn the internet on"
REFUSED = {  # reference: what its line says
    "stabilityai/sdxl-turbo": (
        r"no connection \(ConnectError\), and it is not among the inputs .*: attach a dataset or"
        rf" model called 'sdxl-turbo', or {ATTACH}"
    ),
    f"{XL_VAE}@{'1' * 40}": rf"attach a dataset or model called 'sdxl-vae-fp16-fix', or {ATTACH}",
    f"{VISION}/another_file.safetensors": (
        rf"attach a dataset or model called 'Realistic_Vision_V6\.0_B1_noVAE', or {ATTACH}"
    ),
    "latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors": (
        "attach a dataset or model called 'lcm-lora-sdxl'"
    ),
    "kaggle:nobody/nothing": (
        r"^'kaggle:nobody/nothing' is not among the inputs: attach 'nobody/nothing' \(Add Input"
    ),
    "kaggle:nothing": (
        "expected kaggle:OWNER/SLUG, for a model kaggle:OWNER/SLUG/FRAMEWORK/VARIATION/VERSION"
    ),
    "kaggle:someone/two-of-a-kind": (
        r"holds 2 models: give the path of one, such as"
        r" '.*Realistic_Vision_V6\.0_NV_B1_fp16\.safetensors'"
    ),
    "kaggle:me/pipelines": "holds 2 models: give the path of one, such as '.*/pipelines/one'",
    "/kaggle/input/not-attached/a.safetensors": (
        r"is not among the inputs: attach 'not-attached/a\.safetensors'"
    ),
    "/kaggle/input/datasets/nobody/nothing": "is not among the inputs: attach 'nobody/nothing'",
    "civitai:999001": (
        "cannot be looked up: ConnectionError. Turn the internet on, or attach the file and give"
        " its path"
    ),
    "{nowhere}/a.safetensors": (
        r"cannot be downloaded: ConnectionError at 127\.0\.0\.1\. .* or attach the file"
    ),
}


@pytest.fixture(scope="module")
def cut(inputs, tmp_path_factory) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What each entry and reference means where nothing but the inputs can be reached."""
    closed = nowhere()
    asked = [ref.format(inputs=inputs, nowhere=closed) for ref in [*RESOLVE, *REFUSED]]
    models, plain = locks(
        tmp_path_factory.mktemp("cut"),
        closed,
        [*ENTRIES, "lcm-sdxl"],
        asked,
        REALKIT_INPUTS=str(inputs),
        CIVITAI_ENDPOINT="http://127.0.0.1:9",
    )
    yield models, dict(zip([*RESOLVE, *REFUSED], plain.values(), strict=True))


@pytest.fixture(scope="module")
def online(shelf, tmp_path_factory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same from the hub, without any inputs."""
    of_hub = [
        SD15,
        f"{SD15}:fp16",
        XL,
        VAE,
        XL_VAE,
        f"{VISION}/{VISION_FILE}",
        f"{LCM}/pytorch_lora_weights.safetensors",
    ]
    with serving(shelf.repositories) as hub:
        return locks(tmp_path_factory.mktemp("online"), hub.endpoint, ENTRIES, of_hub)


@pytest.mark.parametrize("ref", RESOLVE)
def test_it_resolves_from_the_mount(ref, cut, inputs):
    found = cut[1][ref]
    assert "refused" not in found, found
    expected = inputs / RESOLVE[ref]
    at = Path(found["at"])
    if at.is_dir() and not at.is_relative_to(inputs):  # a view of links under plain names
        at = next(path for path in at.rglob("*.safetensors")).resolve()
        blobs = expected.parent.parent / "blobs"
        assert at.is_relative_to(expected) or at.is_relative_to(blobs)
    else:
        assert at == expected


@pytest.mark.parametrize("ref", REFUSED)
def test_it_says_what_to_attach(ref, cut):
    said = cut[1][ref].get("refused", cut[1][ref])
    assert isinstance(said, str) and "\n" not in said and re.search(REFUSED[ref], said), said


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_the_same_from_the_mount_as_from_the_hub(name, cut, online):
    assert "fingerprint" in cut[0][name], cut[0][name]
    assert cut[0][name] == online[0][name]


def test_an_entry_of_which_something_is_missing_names_that(cut):
    assert re.search(
        r"^Hub model 'latent-consistency/lcm-lora-sdxl' .* attach a dataset or model called"
        r" 'lcm-lora-sdxl'",
        cut[0]["lcm-sdxl"]["refused"],
    )


def test_a_reference_means_the_same_files_from_the_mount_as_from_the_hub(cut, online):
    for ref, of_hub in online[1].items():
        mounted = cut[1][ref if ref in cut[1] else f"{SD15}@main:fp16"]
        assert mounted["files"] == of_hub["files"], ref


SWEEP = (
    "models: sd-1.5\nprompts: a photo of a red cube\nsamplers: Euler\nsteps: 2\nsize: 64\nguidance:"
    " 3\nseeds: {seeds}\n"
)


@pytest.mark.slow
def test_a_folder_begun_on_the_hub_goes_on_from_the_mount(shelf, inputs, tmp_path):
    out, sweep = tmp_path / "out", tmp_path / "sweep.yaml"
    sweep.write_text(SWEEP.format(seeds=[1]))
    with serving(shelf.repositories) as hub:
        begun = realkit(["run", str(sweep), "--out", str(out)], tmp_path / "first", hub.endpoint)
    assert begun.returncode == 0 and "1 cells ok" in begun.stdout, begun.stderr[-2000:]
    sweep.write_text(SWEEP.format(seeds=[1, 2]))
    gone = realkit(
        ["run", str(sweep), "--out", str(out)],
        tmp_path / "second",
        nowhere(),
        REALKIT_INPUTS=str(inputs),
    )
    assert gone.returncode == 0 and "2 cells ok" in gone.stdout, gone.stderr[-2000:]
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert (
        len([row for row in rows if row["stage"] == "denoise"]) == 2
    )  # the first was not made again


def test_several_folders_of_inputs_are_looked_through_in_order(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name / "sd-vae-ft-mse").mkdir(parents=True)
        (tmp_path / name / "sd-vae-ft-mse" / "config.json").write_text("{}")
    monkeypatch.setenv(INPUTS, f"{tmp_path / 'none'}:{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert roots() == [tmp_path / "first", tmp_path / "second"]
    assert (
        repository(VAE)
        == explicit("kaggle:someone/sd-vae-ft-mse")
        == tmp_path / "first" / "sd-vae-ft-mse"
    )
    assert offered() == f"{tmp_path / 'first'}, {tmp_path / 'second'} (sd-vae-ft-mse)"


def test_a_repository_of_the_owner_comes_before_one_of_the_same_name(tmp_path, monkeypatch):
    for place in (
        "a-copy/sdxl-turbo",
        "models/stabilityai/sdxl-turbo/diffusers/default/1",
        "unlike/sdxl-turbo-lora",
    ):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model_index.json").write_text("{}")
    monkeypatch.setenv(INPUTS, str(tmp_path))
    assert (
        repository("stabilityai/sdxl-turbo")
        == tmp_path / "models/stabilityai/sdxl-turbo/diffusers/default/1"
    )
    assert repository("another/sdxl-turbo") == tmp_path / "a-copy/sdxl-turbo"
    assert repository("stabilityai/turbo") is None


def test_a_name_that_many_files_bear_is_taken_from_its_own_repository_only(tmp_path, monkeypatch):
    for place in ("lcm-lora-sdxl", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "pytorch_lora_weights.safetensors").write_bytes(b"")
        (tmp_path / place / "telling_name.safetensors").write_bytes(b"")
    monkeypatch.setenv(INPUTS, str(tmp_path))
    assert file("pytorch_lora_weights.safetensors", "latent-consistency/lcm-lora-sdv1-5") is None
    assert (
        file("pytorch_lora_weights.safetensors", "latent-consistency/lcm-lora-sdxl")
        == tmp_path / "lcm-lora-sdxl" / "pytorch_lora_weights.safetensors"
    )
    assert (
        file("telling_name.safetensors", "whoever/other")
        == tmp_path / "other" / "telling_name.safetensors"
    )
    assert (
        file("telling_name.safetensors", "whoever/elsewhere")
        == tmp_path / "lcm-lora-sdxl" / "telling_name.safetensors"
    )


def test_without_any_inputs_a_kaggle_reference_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(INPUTS, str(tmp_path / "none"))
    assert roots() == [] and offered() == ""
    with pytest.raises(RequestError, match="'kaggle:a/b' is not among the inputs: attach 'a/b'"):
        explicit("kaggle:a/b")
