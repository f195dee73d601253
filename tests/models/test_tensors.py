"""Every tensor of checkpoints and parts is used, or the file is refused before it is loaded."""

import json
import shutil

import diffusers
import pytest
import torch
import transformers
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import realkit as rk
from realkit.catalog.lookup import Table
from realkit.models import tensors
from realkit.models.lock import lock_model
from realkit.models.spec import MODELS, ModelSpec
from realkit.weights import checkpoints
from tests import miniatures, originals
from tests.cuts import thinned

SINGLE = ("sd1", "sd2-base", "sdxl", "sdxl-refiner", "sd3", "sd35-medium")
HARMLESS = {
    "model_ema.decay": (), "alphas_cumprod": (1000,), "denoiser.sigmas": (1000,),
    "first_stage_model.loss.logvar": (), "global_step": (),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77),
    "cond_stage_model.model.transformer.resblocks.23.ln_1.weight": (8,),
    "conditioner.embedders.1.model.logit_scale": (), "v_pred": (0,),
    "cond_stage_model.transformer.text_projection.weight": (8, 8),
}  # fmt: skip
DAMAGE = st.sampled_from(["extra", "extra in a network", "missing", "misshapen"])


class Shelf:
    """Models written once, and the catalogue entry `mine` of one of them."""

    def __init__(self, root):
        self.root, self.made = root, {}

    def folder(self, kind):
        if ("folder", kind) not in self.made:
            self.made["folder", kind] = miniatures.miniature(kind, self.root / f"{kind}-folder")
        return self.made["folder", kind]

    def single(self, kind):
        if kind not in self.made:
            miniatures.configs(kind, self.root / kind)
            self.made[kind] = load_file(miniatures.single(kind, self.root / f"{kind}.safetensors"))
        return self.made[kind]

    def lock(self, monkeypatch, kind, source, **more):
        lines = ["[mine]", f'source = "{source}"', f'family = "{miniatures.KINDS[kind]}"']
        lines += [f"{key} = {value}" for key, value in more.items()]
        (self.root / "models.toml").write_text("\n".join(lines))
        monkeypatch.setenv("REALKIT_CATALOG", str(self.root))
        monkeypatch.setitem(MODELS.__dict__, "_entries", dict(Table("model", ModelSpec)))
        return lock_model("mine")

    def check_single(self, monkeypatch, kind, held):
        save_file(held, self.root / "one.safetensors")
        config = json.dumps(str(self.root / kind))
        lock = self.lock(monkeypatch, kind, self.root / "one.safetensors", config=config)
        check(lock)

    def check_part(self, monkeypatch, part, held):
        save_file(held, self.root / "part.safetensors")
        parts = f'{{ {part} = "{self.root}/part.safetensors" }}'
        check(self.lock(monkeypatch, "sd1", self.folder("sd1"), parts=parts))


def check(lock):
    tensors.check(lock, getattr(diffusers, lock.family.pipeline), True)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def damaged(held, damage, data):
    """The tensors with one more, one less, or one of another shape, drawn at random."""
    held = dict(held)
    needed = sorted(name for name in held if not tensors.HARMLESS.search(name))
    name = data.draw(st.sampled_from(needed))
    word = data.draw(st.text("abcdefgh.", min_size=1, max_size=9))
    if damage == "extra":
        held[f"{word}.weights"] = torch.ones(3)
    elif damage == "extra in a network":
        start, _, end = name.rpartition(".")
        held[f"{start}.{word.replace('.', '_')}_{end}"] = torch.ones(3)
    elif damage == "missing":
        del held[name]
    else:
        held[name] = torch.cat([held[name]] * 2, data.draw(st.integers(0, held[name].ndim - 1)))
    return held


@pytest.mark.parametrize("kind", thinned(SINGLE, ["sd1", "sd3"]))
def test_a_whole_single_file_passes_with_what_training_left(shelf, monkeypatch, kind):
    held = shelf.single(kind)
    extra = {name: torch.zeros(shape) for name, shape in HARMLESS.items()}
    shelf.check_single(monkeypatch, kind, held | extra)


@pytest.mark.parametrize("kind", thinned(miniatures.KINDS, ["sdxl", "cascade"]))
def test_a_whole_folder_passes(shelf, monkeypatch, kind):
    check(shelf.lock(monkeypatch, kind, shelf.folder(kind)))


@settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.generate])
@given(kind=st.sampled_from(SINGLE), damage=DAMAGE, data=st.data())
def test_a_wrong_tensor_of_a_single_file_is_never_silent(
    shelf, monkeypatch_module, kind, damage, data
):
    held = shelf.single(kind)
    if kind == "sdxl-refiner":  # whose VAE is not loaded
        held = {k: v for k, v in held.items() if not k.startswith("first_stage_model.")}
    held = damaged(held, damage, data)
    with pytest.raises(rk.RequestError, match=r"one\.safetensors'") as said:
        shelf.check_single(monkeypatch_module, kind, held)
    assert "\n" not in str(said.value)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])
@given(kind=st.sampled_from(["sd1", "sdxl", "sd3", "cascade"]), damage=DAMAGE, data=st.data())
def test_a_wrong_tensor_of_a_folder_is_never_silent(shelf, monkeypatch_module, kind, damage, data):
    folder = shelf.folder(kind)
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.safetensors"))))
    whole = path.read_bytes()
    try:
        save_file(damaged(load_file(path), damage, data), path, metadata={"format": "pt"})
        with pytest.raises(rk.RequestError, match=r"^Model 'mine' does not load from ") as said:
            check(shelf.lock(monkeypatch_module, kind, folder))
    finally:
        path.write_bytes(whole)
    assert path.parent.name in str(said.value) or "has a place for" in str(said.value)


def vae_names(names):
    """sd1's VAE under the names of diffusers, or of the original code, with and without its
    beginning."""
    vae = miniatures.networks("sd1").vae
    if names == "diffusers":
        return {name: value.contiguous() for name, value in vae.state_dict().items()}
    blocks, start = len(vae.config.block_out_channels), "" if names == "bare" else f"{names}."
    held = {}
    for name, value in vae.state_dict().items():
        held[start + originals._vae(name, blocks)] = originals._as_convolution(name, value).clone()
    return held


@pytest.mark.parametrize("names", ["diffusers", "bare", "first_stage_model"])
def test_a_whole_vae_passes(shelf, monkeypatch, names):
    shelf.check_part(monkeypatch, "vae", vae_names(names))


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])
@given(names=st.sampled_from(["diffusers", "bare", "first_stage_model"]), damage=DAMAGE,
    data=st.data())  # fmt: skip
def test_a_wrong_tensor_of_a_part_is_never_silent(shelf, monkeypatch_module, names, damage, data):
    held = damaged(vae_names(names), damage, data)
    with pytest.raises(rk.RequestError, match=r"^Part 'vae' of model 'mine' does not load from '.*"
        r"part\.safetensors'"):  # fmt: skip
        shelf.check_part(monkeypatch_module, "vae", held)


@pytest.mark.parametrize(
    "name",
    ["scaled_fp8", "model.diffusion_model.out.2.scale_weight", "model.diffusion_model.out.2.SCB",
     "model.diffusion_model.out.2.weight_scale", "model.diffusion_model.out.2.comfy_quant"],
)  # fmt: skip
def test_numbers_with_scales_are_refused_before_anything_is_loaded(shelf, monkeypatch, name):
    held = shelf.single("sd1")
    with pytest.raises(rk.RequestError, match=r"one\.safetensors' is quantised with scales \(1 t"):
        shelf.check_single(monkeypatch, "sd1", held | {name: torch.ones(1)})


NO_WEIGHTS = [torch.int8, torch.bool, torch.complex64, torch.int64]


@pytest.mark.parametrize("number", thinned(NO_WEIGHTS, [torch.int8, torch.complex64]))
@pytest.mark.parametrize("source", ["single", "folder", "part"])
def test_numbers_that_are_no_weights_are_refused_by_name(shelf, monkeypatch, source, number):
    name = {"single": "model.diffusion_model.out.2.weight", "folder": "conv_out.weight"}
    name = name.get(source, "decoder.conv_out.weight")
    kind = str(number).split(".")[1]
    kind = {"int8": "I8", "bool": "BOOL", "complex64": "C64", "int64": "I64"}[kind]
    with pytest.raises(
        rk.RequestError, match=rf"not floating point \(1, such as '{name}' in {kind}\)"
    ):
        if source == "single":
            held = shelf.single("sd1")
            shelf.check_single(monkeypatch, "sd1", held | {name: held[name].to(number)})
        elif source == "part":
            held = vae_names("diffusers")
            shelf.check_part(monkeypatch, "vae", held | {name: held[name].to(number)})
        else:
            path = shelf.folder("sd1") / "unet/diffusion_pytorch_model.safetensors"
            whole, held = path.read_bytes(), load_file(path)
            try:
                save_file(held | {name: held[name].to(number)}, path)
                check(shelf.lock(monkeypatch, "sd1", shelf.folder("sd1")))
            finally:
                path.write_bytes(whole)


def test_a_text_encoder_in_two_spellings_is_refused(shelf, monkeypatch):
    held = shelf.single("sd1")
    twice = {name.replace("text_model.", ""): value + 1 for name, value in held.items()}
    with pytest.raises(rk.RequestError, match="holds a text encoder twice, with and without the"):
        shelf.check_single(monkeypatch, "sd1", held | twice)


def test_a_whole_clip_stands_for_its_text_half(shelf, monkeypatch, tmp_path):
    text = transformers.CLIPTextModel.from_pretrained(shelf.folder("sd1") / "text_encoder")
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        image_size=8, patch_size=8,
    )  # fmt: skip
    config = transformers.CLIPConfig(text_config=text.config.to_dict(),
                                     vision_config=vision.to_dict(), projection_dim=8)  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    parts = f'{{ text_encoder = "{tmp_path}/clip" }}'
    check(shelf.lock(monkeypatch, "sd1", shelf.folder("sd1"), parts=parts))


def test_the_embedding_manager_that_merges_leave_is_harmless(shelf, monkeypatch):
    held = shelf.single("sd1")
    name = "embedding_manager.embedder.transformer.text_model.final_layer_norm.weight"
    shelf.check_single(monkeypatch, "sd1", held | {name: torch.ones(4)})


def test_a_schedule_that_takes_minutes_to_lay_out_is_refused(shelf, tmp_path):
    name = "scheduler/scheduler_config.json"
    with pytest.raises(rk.RequestError, match="num_train_timesteps the value 100000000 in its"):
        rk.load(changed(shelf, tmp_path, name, num_train_timesteps=10**8))


def test_a_projection_that_sd3_would_not_read_is_refused(shelf, monkeypatch):
    held, name = shelf.single("sd3"), tensors.UNIT
    width = held["text_encoders.clip_l.transformer.text_model.final_layer_norm.weight"].shape[0]
    shelf.check_single(monkeypatch, "sd3", held | {name: torch.eye(width)})
    with pytest.raises(rk.RequestError, match="is not the unit matrix of Stable Diffusion 3"):
        shelf.check_single(monkeypatch, "sd3", held | {name: torch.ones(width, width)})


def test_a_long_name_is_cut(shelf, monkeypatch):
    with pytest.raises(rk.RequestError) as said:
        shelf.check_single(monkeypatch, "sd1", shelf.single("sd1") | {"x" * 5_000: torch.zeros(2)})
    assert len(str(said.value)) < 400


def test_fp8_without_scales_loads(shelf, monkeypatch):
    held = {name: value.to(torch.float8_e4m3fn) for name, value in shelf.single("sd1").items()}
    shelf.check_single(monkeypatch, "sd1", held)
    made, meant = rk.load("mine"), held["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(made.pipe.unet.conv_in.weight, meant.float())


@pytest.mark.parametrize(("part", "start"), [("vae", "first_"), ("text_encoder", "cond_stage")])
def test_what_a_single_file_lacks_is_named(shelf, monkeypatch, part, start):
    held = {k: v for k, v in shelf.single("sd1").items() if not k.startswith(start)}
    with pytest.raises(rk.RequestError, match=rf"one\.safetensors': it lacks its {part}, all \d+"):
        shelf.check_single(monkeypatch, "sd1", held)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_what_a_folder_lacks_is_named(shelf, tmp_path, part):
    shutil.copytree(shelf.folder("sd1"), tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / part)
    with pytest.raises(rk.RequestError, match=rf"mine': it lacks its {part} \({part}/config"):
        rk.load(str(tmp_path / "mine"))


def changed(shelf, tmp_path, name, **values):
    """A copy of a whole folder with other values in one of its configs."""
    shutil.copytree(shelf.folder("sd1"), tmp_path / "mine")
    path = tmp_path / "mine" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return str(tmp_path / "mine")


def test_a_weight_that_only_an_unread_file_holds_is_missing(shelf, tmp_path):
    shutil.copytree(shelf.folder("sd1"), tmp_path / "mine")
    path = tmp_path / "mine/unet/diffusion_pytorch_model.safetensors"
    held = load_file(path)
    alone = {"conv_out.weight": held.pop("conv_out.weight")}
    save_file(held, path)
    save_file(alone, path.with_name("more.safetensors"))
    with pytest.raises(rk.RequestError, match=r"it lacks 1 of the \d+ tensors of its unet, such"):
        rk.load(str(tmp_path / "mine"))


@pytest.mark.parametrize("lacking", ["vocab.json", "merges.txt", ""])
def test_a_tokenizer_without_its_words_is_named(shelf, tmp_path, lacking):
    shutil.copytree(shelf.folder("sd1"), tmp_path / "mine")
    if lacking:
        (tmp_path / "mine/tokenizer" / lacking).unlink()
        (tmp_path / "mine/tokenizer/tokenizer.json").unlink(missing_ok=True)
    else:
        shutil.rmtree(tmp_path / "mine/tokenizer")
    with pytest.raises(rk.RequestError, match=r"its tokenizer has no vocabulary \(tokenizer/voc"):
        rk.load(str(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"text_encoder": [None, None]}, "has no text_encoder in its model_index.json"),
        ({"unet": [None, None]}, "has no unet in its model_index.json"),
        ({"tokenizer": ["transformers", "T5Tokenizer"]}, "its tokenizer is a T5Tokenizer, and its"),
    ],
)
def test_an_index_that_makes_no_whole_model_is_one_line(shelf, tmp_path, values, said):
    with pytest.raises(rk.RequestError, match=said):
        rk.load(changed(shelf, tmp_path, "model_index.json", **values))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("unet/config.json", {"layers_per_block": 10**6}, "layers_per_block the value 1000000"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 10**5}, "down_block_types the"),
        ("unet/config.json", {"attention_head_dim": 0}, "of its unet describes no network"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers the value"),
        ("vae/config.json", {"norm_num_groups": "many"}, "of its vae describes no network"),
    ],
)
def test_a_config_that_asks_for_too_much_builds_nothing(shelf, tmp_path, name, values, said):
    folder = changed(shelf, tmp_path, name, **values)
    with pytest.raises(rk.RequestError, match=said):
        rk.load(folder)


def test_a_text_encoder_without_the_level_text_model_is_read(shelf, monkeypatch):
    held = shelf.single("sd1")
    shelf.check_single(monkeypatch, "sd1", held)
    plain = rk.load("mine")
    bare = {name.replace("transformer.text_model.", "transformer."): v for name, v in held.items()}
    assert bare.keys() != held.keys()
    shelf.check_single(monkeypatch, "sd1", bare)
    assert checkpoints.towers_without_level(shelf.root / "one.safetensors") == {"text_encoder"}
    made = rk.load("mine").pipe.text_encoder.state_dict()
    for name, value in plain.pipe.text_encoder.state_dict().items():
        assert torch.equal(made[name], value), name
