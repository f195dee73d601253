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
    "nomos-webphoto-realplksr", "nomos-webphoto-atd", "realwebphoto-v4-dat2", "nomos8k-dat",
    "nomos8k-schat-l", "nomos8k-schat-s", "uniscale-interp", "ultramix-balanced",
    "ultramix-smooth", "ultramix-restore",
    "swin2sr-realworld-x4", "swin2sr-classical-x2", "swin2sr-classical-x4", "sd-x4-upscaler",
    "sd-x2-latent-upscaler", "sd-upscale", "gfpgan", "codeformer",
]  # fmt: skip
every = pytest.mark.parametrize("name", list(rk.UPSCALERS))


def test_what_the_field_uses_is_there():
    names = set(rk.UPSCALERS)
    assert set(FACTS) <= names
    assert (
        len([name for name in names if name.startswith("universal-upscaler")]) == 3
        and len([name for name in names if name.startswith("uniscale")]) == 9
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


def test_an_engine_without_a_name_is_the_entry_of_that_name_or_suggests_one():
    assert canonical("realesrgan") == "realesrgan-x4plus"
    with pytest.raises(ValueError, match=r"'realesrgan:': .* mean 'realesrgan:realesrgan-x4plus"):
        canonical("realesrgan:")


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


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("architecture", upscaler_miniatures.NETWORKS)
def test_a_network_of_each_architecture_enlarges_as_spandrel_does(tmp_path, architecture):
    from spandrel import ModelLoader

    entries = [entry for entry in rk.UPSCALERS.values() if entry.architecture == architecture]
    path = upscaler_miniatures.network(architecture, tmp_path / "tiny.safetensors")
    network = ModelLoader(device="cpu").load_from_file(path).eval()
    assert network.architecture.id in architecture
    assert network.scale in {entry.scale for entry in entries}
    image = noise(32, 24)
    made = np.asarray(rk.upscale(image, str(path), 128))
    x = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        y = network(x)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    assert np.array_equal(made, np.rint(y * 255).astype(np.uint8)) and made.std() > 1


def on_the_hub() -> dict[str, Upscaler]:
    """The entries of single files on the hub whose architecture there is in miniature."""
    found = {}
    for name, entry in rk.UPSCALERS.items():
        if entry.architecture in upscaler_miniatures.NETWORKS and HUB_FILE.match(entry.source):
            found[name] = entry
    return found


@pytest.mark.slow
def test_every_network_on_the_hub_loads_under_its_real_id(tmp_path, monkeypatch):
    """Through the real client, with the published revision and folder; only the hash is its
    miniature's."""
    import hashlib

    repositories, lines = {}, []
    for name, entry in on_the_hub().items():
        source = HUB_FILE.match(entry.source)
        folder = tmp_path / source["id"].replace("/", "--")
        file = folder / source["file"]
        repositories[source["id"]] = folder
        tiny = upscaler_miniatures.network(entry.architecture, tmp_path / "tiny.safetensors")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".pth":
            from safetensors.torch import load_file

            torch.save(load_file(tiny), file)
        else:
            file.write_bytes(tiny.read_bytes())
        settings = entry.model_dump(exclude_defaults=True, mode="json")
        settings["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"[{json.dumps(name)}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "upscalers.toml").write_text("\n".join(lines), encoding="utf-8")
    asked = [(name, {}) for name in on_the_hub()]
    assert len(asked) >= 14
    with serving(repositories) as served:
        done = python(
            PROGRAM.replace("NAMES", json.dumps(asked)), tmp_path / "home", served.endpoint,
            REALKIT_CATALOG=str(tmp_path / "catalogue"),
        )  # fmt: skip
    made = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    for name, _ in asked:
        assert made[name][0] == [80, 48] and made[name][1] > 1, (name, made, done.stderr[-500:])


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
