"""LoRAs merged into a pipeline: every format by its formula, and nothing left out in silence."""

import copy
import functools
import json

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import realkit as rk
from realkit.models import loras
from realkit.models.lock import ModelLock, lock_model
from realkit.weights.lora import merged_whole_before, read_header
from tests import lora_files, miniatures
from tests.cuts import thinned
from tests.lora_files import FORMATS

PARTS = {
    "sd1": ("unet", "text_encoder"),
    "sdxl": ("unet", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer", "text_encoder", "text_encoder_2"),
}
PLACES = [
    pytest.param(kind, part, marks=[pytest.mark.slow] if kind != "sd1" else [])
    for kind, parts in PARTS.items()
    for part in parts
]


@functools.cache
def built(kind):
    return miniatures.networks(kind)


def networks(kind):
    """The networks of a kind, of the test's own."""
    return copy.deepcopy(built(kind))


def denoiser(kind):
    return PARTS[kind][0]


def tensors(pipe, kind):
    """A copy of every tensor of the parts that a LoRA may change."""
    copies = {}
    for part in PARTS[kind]:
        for name, value in getattr(pipe, part).state_dict().items():
            copies[part, name] = value.clone()
    return copies


def merge(pipe, kind, *files):
    loras.merge(pipe, denoiser(kind), [(read_header(path, path.name), w) for path, w in files])


# A text encoder's formulas are the U-Net's: the fast tests merge one of each way to spell names.
FAST = [("sd1", "unet", form) for form in FORMATS]
FAST += [("sd1", "text_encoder", form) for form in ("kohya", "peft", "old diffusers")]
PLACED = [(*place.values, form) for place in PLACES for form in FORMATS]


@pytest.mark.parametrize(("kind", "part", "form"), thinned(PLACED, FAST))
def test_every_tensor_is_its_formulas(kind, part, form, tmp_path):
    """The table of formats: each is merged to W + weight · Δ on every tensor of every part."""
    pipe = networks(kind)
    before = tensors(pipe, kind)
    meant = lora_files.write(pipe, part, form, tmp_path / "a.safetensors")
    if not meant:  # text encoders and SD3's transformer have no convolutions
        assert "LoCon" in form or "Tucker" in form
        return
    merge(pipe, kind, (tmp_path / "a.safetensors", 0.6))
    for place, value in tensors(pipe, kind).items():
        expected = before[place]
        name = place[1].removesuffix(".weight")
        if place[0] == part and place[1].endswith(".weight") and name in meant:
            assert meant[name].abs().max() > 0.02
            expected = expected + 0.6 * meant[name]
        assert (value - expected).abs().max() <= 1e-5, place


def fused_by_diffusers(kind, path, weight):
    """The pipeline's networks after diffusers and peft have merged a file."""
    import diffusers

    made = vars(networks(kind))
    if kind == "sd1":
        made |= dict.fromkeys(("tokenizer", "safety_checker", "feature_extractor", "scheduler"))
        pipe = diffusers.StableDiffusionPipeline(**made, requires_safety_checker=False)
    else:
        made |= dict.fromkeys(("tokenizer", "tokenizer_2", "scheduler"))
        pipe = diffusers.StableDiffusionXLPipeline(**made, add_watermarker=False)
    pipe.load_lora_weights(load_file(path), adapter_name="one")
    pipe.fuse_lora(lora_scale=weight)
    pipe.unload_lora_weights()
    return pipe


READ_BY_DIFFUSERS = (
    "kohya", "kohya without alpha", "kohya, original names", "LoCon", "LoCon, original names",
    "peft",
)  # fmt: skip


FEW = [("sd1", "unet", "LoCon"), ("sd1", "unet", "peft")]
BY_DIFFUSERS = [(*place.values, form) for place in PLACES[:5] for form in READ_BY_DIFFUSERS]


@pytest.mark.parametrize(("kind", "part", "form"), thinned(BY_DIFFUSERS, FEW))
def test_a_file_that_keeps_its_ids_is_merged_as_diffusers_does(kind, part, form, tmp_path):
    pytest.importorskip("peft")
    path, pipe = tmp_path / "a.safetensors", networks(kind)
    if "original" in form and (kind, part) != ("sdxl", "unet"):
        return  # diffusers knows these names in SDXL's U-Net alone
    dropped = ("add_embedding", "text_projection")  # by diffusers, in some spellings
    if not lora_files.write(pipe, part, form, path, without=dropped):
        return
    assert merged_whole_before(read_header(path, "a"))
    merge(pipe, kind, (path, 0.6))
    theirs = tensors(fused_by_diffusers(kind, path, 0.6), kind)
    ours = tensors(pipe, kind)
    worst = max((value - theirs[place]).abs().max().item() for place, value in ours.items())
    assert ours.keys() == theirs.keys() and worst <= 1e-5


OTHERS = [form for form in FORMATS if form not in READ_BY_DIFFUSERS]


def test_any_other_format_has_a_new_id(tmp_path):
    pipe = networks("sd1")
    for form in OTHERS:
        lora_files.write(pipe, "unet", form, tmp_path / "a.safetensors")
        assert not merged_whole_before(read_header(tmp_path / "a.safetensors", "a")), form


@pytest.mark.parametrize(("kind", "part"), [("sdxl", "unet"), ("sdxl", "text_encoder_2")])
def test_so_have_layers_that_diffusers_dropped(kind, part, tmp_path):
    lora_files.write(networks(kind), part, "kohya", tmp_path / "a.safetensors")
    assert not merged_whole_before(read_header(tmp_path / "a.safetensors", "a"))


def test_so_has_a_text_encoders_file_without_out_proj(tmp_path):
    path = tmp_path / "a.safetensors"
    lora_files.write(networks("sd1"), "text_encoder", "kohya", path)
    save_file({k: v for k, v in load_file(path).items() if "out_proj" not in k}, path)
    assert not merged_whole_before(read_header(path, "a"))


def test_several_are_added_in_float32_and_rounded_once(tmp_path):
    pipe = networks("sd1")
    pipe.unet.half()
    before = tensors(pipe, "sd1")
    one = lora_files.write(pipe, "unet", "kohya", tmp_path / "a.safetensors", torch.float16)
    two = lora_files.write(pipe, "unet", "LoHa", tmp_path / "b.safetensors", torch.float16)
    merge(pipe, "sd1", (tmp_path / "a.safetensors", 0.6), (tmp_path / "b.safetensors", -0.3))
    after = pipe.unet.state_dict()
    for name in one.keys() & two.keys():
        whole = before["unet", f"{name}.weight"].float() + 0.6 * one[name] - 0.3 * two[name]
        assert (after[f"{name}.weight"].float() - whole).abs().max() <= 2e-3, name  # half an ulp
    merge(pipe, "sd1", (tmp_path / "a.safetensors", 0.0))
    assert all(torch.equal(value, after[name]) for name, value in pipe.unet.state_dict().items())


@pytest.mark.parametrize("kind", [*PARTS, "sdxl-refiner", "sd2"])
def test_no_name_means_two_modules(kind):
    pipe = networks(kind)
    part = "transformer" if kind == "sd3" else "unet"
    network = getattr(pipe, part)
    places = loras.spellings(pipe, part)
    named = network.named_modules()
    modules = [name for name, module in named if getattr(module, "weight", None) is not None]
    underscored = {name.replace(".", "_") for name in modules}
    assert len(underscored) == len(modules)
    assert all(places[f"{part}.{name}"] == (part, name) for name in modules)


# --- nothing is left out in silence


@pytest.fixture(scope="module")
def sd1():
    return networks("sd1")


DAMAGE = ("extra", "extra of a known form", "missing", "misshapen", "NaN", "of another block")
FORMS = st.sampled_from([form for form in FORMATS if form != "full difference"])


@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate])
@given(form=FORMS, damage=st.sampled_from(DAMAGE), data=st.data())
def test_a_wrong_tensor_is_never_silent(sd1, tmp_path_factory, form, damage, data):
    """The whole file merges, and a random extra, missing, misshapen or damaged tensor is refused in
    one line that names the file."""
    folder = tmp_path_factory.mktemp("lora")
    path = folder / "style.safetensors"
    lora_files.write(sd1, "unet", form, path, most=4)
    whole = load_file(path)
    name = data.draw(st.sampled_from(sorted(whole)))
    value = whole[name]
    if damage == "extra":
        word = data.draw(st.text("abcdefgh._", min_size=1, max_size=12))
        whole[f"{word}.weights"] = torch.ones(2)
    elif damage == "extra of a known form":
        end = data.draw(st.sampled_from([".lora_up.weight", ".alpha", ".hada_w1_a", ".diff"]))
        whole[f"lora_unet_mid_block_attentions_7{end}"] = torch.ones(2, 2)
    elif damage == "missing":
        del whole[name]
    elif damage == "misshapen":
        side = data.draw(st.integers(0, max(0, value.ndim - 1)))
        whole[name] = torch.cat([value, value], side) if value.ndim else torch.ones(2)
    elif damage == "NaN":
        whole[name] = torch.full_like(value, float("nan"))
    else:
        whole = {key.replace("blocks_0", "blocks_9").replace("blocks.0", "blocks.9"): value
            for key, value in whole.items()}  # fmt: skip
        if whole.keys() == load_file(path).keys():
            whole = {key.replace("_0_0", "_9_0"): value for key, value in whole.items()}
        if whole.keys() == load_file(path).keys():
            return
    save_file(whole, path)
    with pytest.raises(rk.RequestError, match=r"^LoRA 'style\.safetensors' ") as said:
        merge(sd1, "sd1", (path, 1.0))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", "2 of its 4 tensors are for layers that the"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "2 of its 4 tensors are for layers"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "2 of its 4 tensors are for layers that"),
        ("lora_unet_down_blocks_9_resnets_0_conv1", "2 of its 4 tensors are for layers that the"),
        ("base_model.model.down_blocks.0", "peft's own layout, whose scale is in a second file"),
    ],
)
def test_what_the_model_lacks_is_named(sd1, tmp_path, names, says):
    fit = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    side = sd1.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.shape[0]
    pairs = {}
    for name in (fit, names):
        pairs[f"{name}.lora_down.weight"] = torch.ones(2, side)
        pairs[f"{name}.lora_up.weight"] = torch.ones(side, 2)
    save_file(pairs, tmp_path / "a.safetensors")
    with pytest.raises(rk.RequestError, match=says) as said:
        merge(sd1, "sd1", (tmp_path / "a.safetensors", 1.0))
    assert f"'{names}" in str(said.value) and "'a.safetensors'" in str(said.value)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("dora_scale", "DoRA"), ("oft_blocks", "OFT"), ("boft_R", "BOFT"), ("on_input", "IA3"),
        ("lora_magnitude_vector", "DoRA"), ("a1.weight", "GLoRA"), ("lora_B.bias", "with biases"),
    ],
)  # fmt: skip
def test_other_methods_are_refused_by_name(tmp_path, end, says):
    save_file({f"lora_unet_conv_in.{end}": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(rk.RequestError, match=f"^LoRA 'film' is of a kind .*{says}"):
        read_header(tmp_path / "a.safetensors", "film")


def test_each_layer_in_the_names_of_two_programs_counts_once(tmp_path):
    path, pipe = tmp_path / "a.safetensors", networks("sdxl")
    before = tensors(pipe, "sdxl")
    lora_files.write(pipe, "unet", "kohya, original names", path)
    both = load_file(path)
    meant = lora_files.write(pipe, "unet", "kohya", path)
    save_file(both | load_file(path), path)
    merge(pipe, "sdxl", (path, 1.0))
    for name, difference in meant.items():
        value = pipe.unet.get_parameter(f"{name}.weight")
        expected = before["unet", f"{name}.weight"] + difference
        assert (value - expected).abs().max() <= 1e-5, name
    name = next(iter(both))
    save_file(both | load_file(path) | {name: both[name] + 1}, path)
    with pytest.raises(rk.RequestError, match="are for the same layer and differ"):
        merge(pipe, "sdxl", (path, 1.0))


# --- in a model


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """A model of a folder with one LoRA, by the LoRA's path."""

    def write(form: str, part: str = "unet") -> str:
        from realkit.catalog.lookup import Table
        from realkit.models.spec import MODELS, ModelSpec

        folder = tmp_path / "base"
        if not folder.exists():
            miniatures.miniature("sd1", folder)
        path = tmp_path / "style.safetensors"
        lora_files.write(networks("sd1"), part, form, path)
        lines = ["[mine]", f'source = "{folder}"', f'loras = {{ "{path}" = 0.8 }}']
        (tmp_path / "models.toml").write_text("\n".join(lines))
        monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
        monkeypatch.setitem(MODELS.__dict__, "_entries", dict(Table("model", ModelSpec)))
        return str(path)

    return write


def test_a_file_read_otherwise_than_before_has_another_fingerprint(entry):
    entry("kohya")
    lock = lock_model("mine")
    assert "lora" not in lock.fingerprint and "lora" not in lock.to_json()
    entry("LoKr")
    lock = lock_model("mine")
    assert lock.fingerprint["lora"] == 2
    assert ModelLock.from_json("mine", lock.to_json()) == lock


def test_an_old_lock_of_a_file_that_was_read_in_part_is_refused(entry):
    entry("oldest diffusers, no prefix")
    data = lock_model("mine").to_json()
    del data["lora"]
    with pytest.raises(rk.RequestError, match="was read only in part when this results folder was"):
        rk.load("mine", ModelLock.from_json("mine", data))


def test_an_error_names_the_lora_and_not_the_base(entry):
    path = entry("kohya")
    save_file({"lora_unet_double_blocks_0.alpha": torch.ones(())}, path)
    with pytest.raises(rk.RequestError, match=r"^LoRA '.*style\.safetensors' holds"):
        rk.load("mine")


QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def change_of(tmp_path, header, prefix="unet."):
    """How much of B·A a file of rank 4 with this header adds to one layer."""
    pipe = miniatures.networks("sd1")
    weight = pipe.unet.get_parameter(f"{QUERY}.weight")
    before = weight.detach().clone()
    down, up = torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
    name, path = prefix + QUERY, tmp_path / "a.safetensors"
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, path, metadata={"lora_adapter_metadata": header})
    merge(pipe, "sd1", (path, 1.0))
    return ((weight - before) / (up @ down)).median().item()


@pytest.mark.parametrize(
    ("prefix", "header", "scale"),
    [
        ("unet.", {"unet.r": 4, "unet.lora_alpha": 1}, 0.25),
        ("", {"r": 4, "lora_alpha": 1}, 0.25),
        ("", {"unet.r": 4, "unet.lora_alpha": 1}, 0.25),
        ("unet.", {"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {".*to_q": 1}}, 0.25),
        ("unet.", {"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_k": 1}}, 1.0),
        ("unet.", {}, 1.0),
    ],
)
def test_the_alpha_that_a_header_states_scales_the_layer(tmp_path, prefix, header, scale):
    assert change_of(tmp_path, json.dumps(header), prefix) == pytest.approx(scale, rel=1e-3)


@pytest.mark.parametrize(
    "header",
    [
        json.dumps({"unet.lora_alpha": "1"}), json.dumps({"unet.lora_alpha": 10**400}),
        '{"unet.lora_alpha": NaN}', json.dumps({"unet.alpha_pattern": [1]}), "[" * 100_000,
        json.dumps({"unet.r": 8, "unet.lora_alpha": 8}),
        json.dumps({"unet.lora_alpha": 1, "unet.alpha_pattern": {"(": 1}}),
    ],
)  # fmt: skip
def test_a_header_that_states_no_scale_is_refused_by_name(tmp_path, header):
    with pytest.raises(rk.RequestError, match=r"^LoRA 'a\.safetensors' .*(header|rank)"):
        change_of(tmp_path, header)


def test_a_lora_of_rank_0_is_refused_by_name(tmp_path):
    name = f"unet.{QUERY}"
    tensors = {f"{name}.lora_A.weight": torch.ones(0, 8), f"{name}.lora_B.weight": torch.ones(8, 0)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(rk.RequestError, match=r"^LoRA 'a' holds .* which is empty"):
        read_header(tmp_path / "a.safetensors", "a")
