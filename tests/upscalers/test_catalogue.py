"""The catalogue of upscalers: what stands in it, and that every kind of source loads as it is
published."""

import json
import pkgutil
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import realkit as rk
from realkit.apps.training.ship import WEIGHTS
from realkit.base.suggest import fold
from realkit.upscalers import identity, upscale
from realkit.upscalers.chain import Chain, canonical
from realkit.upscalers.engines import ENGINES
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import UPSCALERS, Upscaler
from realkit.weights.reference import HUB_FILE, HUB_ID, PACKAGE
from tests import upscaler_miniatures
from tests.hub_server import files, python, serving

FACTS = [
    "realesrgan-x4plus", "realesrgan-x2plus", "realesr-general-x4v3", "bsrgan", "4x-ultrasharp",
    "remacri", "nmkd-superscale", "lollypop", "esrgan",
    "swin2sr-realworld-x4", "swin2sr-classical-x2", "swin2sr-classical-x4", "sd-x4-upscaler",
    "sd-x2-latent-upscaler", "sd-upscale", "gfpgan", "codeformer",
]  # fmt: skip
every = pytest.mark.parametrize("name", list(rk.UPSCALERS))


def test_what_the_field_uses_is_there():
    names = set(rk.UPSCALERS)
    assert set(FACTS) <= names
    assert (
        len([name for name in names if name.startswith("universal-upscaler")]) == 3
        and len([name for name in names if name.startswith("uniscale")]) == 8
    )


def test_no_name_means_two():
    said = [
        (fold(alias), name)
        for name, spec in rk.UPSCALERS.items()
        for alias in (name, *spec.aliases)
    ]
    assert len({alias for alias, _ in said}) == len(set(said))


@every
def test_an_entry_says_what_it_is_and_where_it_comes_from(name):
    spec = rk.UPSCALERS[name]
    assert (
        name == name.lower()
        and spec.about
        and spec.licence != "unknown"
        and canonical(name) == name
    )
    if not ENGINES[spec.engine].weights:
        return
    assert spec.architecture and (
        spec.page.startswith("https://")
        or spec.source.startswith(PACKAGE)
        or HUB_ID.match(spec.source)
    )
    assert bool(spec.source) != bool(spec.file)
    assert (
        spec.source.startswith((PACKAGE, "https://"))
        or HUB_FILE.match(spec.source)
        or HUB_ID.match(spec.source)
        or spec.file
    )
    assert spec.sha256 or not spec.source.startswith("https://"), (
        "a bare address without a published hash"
    )


@pytest.mark.parametrize(
    "alias",
    [
        "RealESRGAN_x4plus",
        "realesrgan x4plus",
        "4x-UltraSharp",
        "GFPGANv1.4",
        "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth",
    ],
)
def test_names_people_use_mean_their_entries(alias):
    assert canonical(alias) in ("realesrgan-x4plus", "4x-ultrasharp", "gfpgan")


def test_every_engine_loads_by_a_function_that_is_there():
    for name, engine in ENGINES.items():
        assert callable(pkgutil.resolve_name(engine.loader)), name
        assert set(engine.uses) | set(engine.accepts) <= set(Settings.model_fields), name


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            {"engine": "spandrell"},
            "has the engine 'spandrell': expected one of resample, opencv, spandrel",
        ),
        ({"engine": "opencv", "source": "LANCZOS"}, "expected an interpolation of OpenCV"),
    ],
)
def test_a_wrong_entry_is_one_line_when_it_is_named(entries, entry, says):
    entries(mine=Upscaler(**entry))
    with pytest.raises(rk.RequestError, match=says):
        canonical("mine")


def test_an_entry_uses_settings_that_there_are():
    with pytest.raises(ValueError, match=r"'wieght'. Did you mean 'weight'.? Expected some"):
        Upscaler(engine="faces", uses=("wieght",))


def test_an_entry_with_a_published_hash_is_locked_without_asking_anyone():
    locked = identity.lock_upscaler(Chain.parse("realesrgan-x4plus + gfpgan"))
    assert set(locked) == {"realesrgan-x4plus", "gfpgan"} and {
        lock.kind for lock in locked.values()
    } == {"url"}


def noise(width: int = 20, height: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def entries(monkeypatch):
    def write(**made: Upscaler) -> None:
        monkeypatch.setitem(UPSCALERS.__dict__, "_entries", dict(made))

    return write


PROGRAM = """
    import json
    import numpy as np
    from PIL import Image
    import realkit as rk
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8))
    for name, settings in json.loads('NAMES'):
        try:
            made = rk.upscale(image, name, 80, **settings)
            print(json.dumps([name, made.size, float(np.asarray(made).std())]))
        except rk.RequestError as error:
            print(json.dumps([name, str(error)]))
"""


@pytest.mark.slow
def test_every_kind_of_source_loads_through_the_real_client(tmp_path):
    """Folders of Swin2SR and of the diffusion upscalers, and single files, from a hub on loopback
    under their real ids; a file that is another is refused."""
    from safetensors.torch import load_file
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    torch.manual_seed(0)
    swin = tmp_path / "swin"
    Swin2SRForImageSuperResolution(
        Swin2SRConfig(embed_dim=24, depths=[2], num_heads=[2], upscale=4)
    ).save_pretrained(swin)
    torch.save(
        load_file(swin / "model.safetensors"), swin / "pytorch_model.bin"
    )  # as the oldest of these repositories are
    (swin / "model.safetensors").unlink()
    single = tmp_path / "single"
    single.mkdir()
    torch.save(
        {"params_ema": load_file(WEIGHTS / "esrgan-x4" / "model.safetensors")}, single / "mine.pth"
    )
    other = tmp_path / "other"
    source = HUB_FILE.match(rk.UPSCALERS["remacri"].source)
    (other / source["file"]).parent.mkdir(parents=True)
    (other / source["file"]).write_bytes((single / "mine.pth").read_bytes())
    x4, x2 = upscaler_miniatures.x4(tmp_path / "x4"), upscaler_miniatures.latent(tmp_path / "x2")
    ids = {
        rk.UPSCALERS[name].source.partition("@")[0].partition(":")[0]: folder
        for name, folder in (
            ("swin2sr-classical-x4", swin),
            ("sd-x4-upscaler", x4),
            ("sd-x2-latent-upscaler", x2),
        )
    }
    words = {"prompt": "a cube", "steps": 2}
    asked = [
        ("swin2sr-classical-x4", {}),
        ("sd-x4-upscaler", words),
        ("sd-x2-latent-upscaler", words),
        ("some/single/mine.pth", {}),
        ("remacri", {}),
    ]
    with serving({**ids, "some/single": single, source["id"]: other}) as served:
        done = python(
            PROGRAM.replace("NAMES", json.dumps(asked)), tmp_path / "home", served.endpoint
        )
    made = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    for name in [name for name, _ in asked[:4]]:
        assert made[name][0] == [80, 48] and made[name][1] > 1, (name, made, done.stderr[-500:])
    assert "does not have the published SHA-256" in made["remacri"][0]


def test_a_file_at_an_address_is_fetched_once_and_held_to_its_hash(tmp_path, monkeypatch, entries):
    import hashlib

    monkeypatch.setenv("REALKIT_CACHE", str(tmp_path / "cache"))
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    shutil.copy(WEIGHTS / "compact-x4" / "model.safetensors", shelf / "x4.safetensors")
    sha = hashlib.sha256((shelf / "x4.safetensors").read_bytes()).hexdigest()
    with files(shelf) as served:
        address = f"{served.endpoint}/x4.safetensors"
        entries(mine=Upscaler(engine="spandrel", source=address, scale=4, pre_pad=8, sha256=sha))
        made = rk.upscale(noise(), "mine", 80)
        asked = len(served.requests)
        upscale._loaded.cache_clear()
        assert (
            np.array_equal(np.asarray(rk.upscale(noise(), "mine", 80)), np.asarray(made))
            and len(served.requests) == asked
        )
        entries(mine=Upscaler(engine="spandrel", source=address, scale=4, sha256="0" * 64))
        with pytest.raises(rk.RequestError, match=r"SHA-256|another file"):
            rk.upscale(noise(), "mine", 80)
