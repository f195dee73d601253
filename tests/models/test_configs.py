"""The shipped configs of single-file checkpoints: real networks by their parameter counts, loaded
without a network connection."""

import json
import shutil
import socket
from types import SimpleNamespace

import pytest
import torch

from realkit import RequestError
from realkit.weights import checkpoints, clip_tokenizer
from realkit.weights.checkpoints import KINDS, NETWORK, kind_of
from tests.cuts import thinned
from tests.originals import single_file as write
from tests.originals import tensors

VIT_L, VIT_H, BIG_G, SD_VAE, SD3_VAE = 123_060_480, 340_387_840, 694_659_840, 83_653_863, 83_819_683
# Parameters of each network, published but for those of the refiner, which its original file's size
# fixes (below)
COUNTS = {
    "sd1": {"unet": 859_520_964, "text_encoder": VIT_L, "vae": SD_VAE},
    "sd2": {"unet": 865_910_724, "text_encoder": VIT_H, "vae": SD_VAE},
    "sd2-base": {"unet": 865_910_724, "text_encoder": VIT_H, "vae": SD_VAE},
    "sdxl": {"unet": 2_567_463_684, "text_encoder": VIT_L, "text_encoder_2": BIG_G, "vae": SD_VAE},
    "sdxl-refiner": {"unet": 2_259_526_660, "text_encoder_2": BIG_G, "vae": SD_VAE},
    "sd3": {
        "transformer": 2_028_328_000,
        "text_encoder": VIT_L + 768**2,
        "text_encoder_2": BIG_G,
        "vae": SD3_VAE,
    },
    "sd35-medium": {
        "transformer": 2_243_171_520,
        "text_encoder": VIT_L + 768**2,
        "text_encoder_2": BIG_G,
        "vae": SD3_VAE,
    },
}
# Bytes of the published files and of a number in them, and which of its parts each holds
FILES = {
    "sd1": (4_265_146_304, 4, ("unet", "text_encoder", "vae")),
    "sdxl": (6_938_078_334, 2, ("unet", "text_encoder", "text_encoder_2", "vae")),
    "sdxl-refiner": (6_075_981_930, 2, ("unet", "text_encoder_2", "vae")),
    "sd3": (4_337_667_306, 2, ("transformer", "vae")),
    "sd35-medium": (5_107_104_286, 2, ("transformer", "vae")),
}
ODD = [
    "a photo of a cat", "Wow! A cat!! #1 !", "", "!", "naïve café, straße, Ωmega, Привет мир",
    "日本語のテキスト", "👩‍🚀🏳️‍🌈 emoji 😀!", "½ ² Ⅷ ٣",
    "don't can't I'd they've y'all'd 'tis it's", "1234567890 3.14 2048x2048 4k f/1.8 35mm",
    "a  \t b\n\nc\u00a0d\u200be\u3000f", "(word:1.2), [a:b:0.2] ((x))",
    "e\u0301 combining", "Hello_World--foo...bar", "supercalifragilisticexpialidocious" * 9,
    "“curly” &amp; <b>", "red " * 200,
]  # fmt: skip


def configs(kind, part):
    return json.loads((checkpoints.folder(kind) / part).read_text())


def networks(place):
    """The networks that a folder of configs names, without memory where the default device is
    "meta"."""
    import diffusers
    import transformers

    made = {}
    for part, value in json.loads((place / "model_index.json").read_text()).items():
        if isinstance(value, list) and value[0] == "transformers":
            made[part] = getattr(transformers, value[1])(
                transformers.CLIPTextConfig.from_pretrained(place / part)
            )
        elif isinstance(value, list) and value[0] == "diffusers" and part != "scheduler":
            made[part] = getattr(diffusers, value[1]).from_config(
                getattr(diffusers, value[1]).load_config(place / part)
            )
    return SimpleNamespace(**made)


@pytest.fixture(scope="module", params=KINDS)
def large(request):
    with torch.device("meta"):
        return request.param, networks(checkpoints.folder(request.param))


def counts(made):
    return {
        part: sum(p.numel() for p in network.parameters()) for part, network in vars(made).items()
    }


def test_every_kind_has_a_folder():
    assert {path.name for path in checkpoints.folder("sd1").parent.iterdir()} == set(KINDS)


def test_each_network_has_the_parameters_of_the_published_one(large):
    kind, made = large
    assert counts(made) == COUNTS[kind]


@pytest.mark.parametrize("large", FILES, indirect=True)
def test_the_published_file_holds_these_networks_and_a_header(large):
    kind, made = large
    size, width, parts = FILES[kind]
    numbers = sum(
        value.numel() for part in parts for value in getattr(made, part).state_dict().values()
    )
    assert 100_000 < size - width * numbers < 500_000


def test_original_names_and_shapes_become_those_of_the_networks(large):
    """diffusers' own conversion of a full-size original checkpoint gives each network all its
    tensors, and no other."""
    from diffusers.loaders import single_file_utils as of_diffusers

    kind, made = large
    with torch.device("meta"):
        original = tensors(made, kind)
        if "unet" in vars(made):
            denoiser, found = (
                made.unet,
                of_diffusers.convert_ldm_unet_checkpoint(original, made.unet.config),
            )
        else:
            denoiser, found = (
                made.transformer,
                of_diffusers.convert_sd3_transformer_checkpoint_to_diffusers(dict(original)),
            )
        vae = of_diffusers.convert_ldm_vae_checkpoint(original, made.vae.config)
    for network, converted in ((denoiser, found), (made.vae, vae)):
        assert {key: value.shape for key, value in converted.items()} == {
            key: value.shape for key, value in network.state_dict().items()
        }


def test_a_full_size_checkpoint_is_told_by_its_header(large):
    kind, made = large
    shapes = {key: tuple(value.shape) for key, value in tensors(made, kind).items()}
    assert kind_of(shapes) == {"sd2-base": "sd2"}.get(kind, kind)
    assert checkpoints.missing(kind, shapes) == []
    for part, key in KINDS[kind].parts.items():
        assert checkpoints.missing(kind, shapes.keys() - {key}) == [part]


SCHEDULERS = {
    "sd1": ("PNDMScheduler", "epsilon"), "sd2": ("DDIMScheduler", "v_prediction"),
    "sd2-base": ("PNDMScheduler", "epsilon"),
    "sdxl": ("EulerDiscreteScheduler", "epsilon"),
    "sdxl-refiner": ("EulerDiscreteScheduler", "epsilon"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_the_noise_schedule_is_stable_diffusions(kind):
    import diffusers

    config = configs(kind, "scheduler/scheduler_config.json")
    made = getattr(diffusers, config["_class_name"]).from_config(config)
    assert (config["_class_name"], made.config.prediction_type) == SCHEDULERS[kind]
    assert (
        made.config.steps_offset == 1
        and not config["clip_sample"]
        and not config["set_alpha_to_one"]
    )
    sigmas = ((1 - made.alphas_cumprod) / made.alphas_cumprod) ** 0.5
    assert sigmas[0].item() == pytest.approx(0.0292, abs=1e-4) and sigmas[
        -1
    ].item() == pytest.approx(14.6146, abs=1e-3)


def test_the_epsilon_model_of_stable_diffusion_2_differs_in_prediction_and_size_alone():
    base, large = configs("sd2-base", "unet/config.json"), configs("sd2", "unet/config.json")
    assert {key for key in large if large[key] != base.get(key)} == {
        "sample_size",
        "upcast_attention",
    }  # upcast: its attention overflows in fp16
    assert configs("sd2-base", "text_encoder/config.json") == configs(
        "sd2", "text_encoder/config.json"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_config_names_a_machine_or_a_library_version(kind):
    for path in checkpoints.folder(kind).rglob("*.json"):
        assert (
            not {"_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype"}
            & json.loads(path.read_text()).keys()
        ), path


SMALL = {
    "unet/config.json": {"norm_num_groups": 8, "sample_size": 8, "cross_attention_dim": 32},
    "transformer/config.json": {
        "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 8,
        "caption_projection_dim": 16, "joint_attention_dim": 64,
        "pooled_projection_dim": 48, "pos_embed_max_size": 12, "sample_size": 8,
    },
    "vae/config.json": {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 8,
        "sample_size": 64},
    "text_encoder/config.json": {"hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 2, "projection_dim": 32},
    "text_encoder_2/config.json": {"hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 2, "projection_dim": 32},
}  # fmt: skip
NARROW = {
    "sdxl": {"cross_attention_dim": 48, "transformer_layers_per_block": [1, 2, 3]},
    "sdxl-refiner": {"transformer_layers_per_block": 2},
}


def shrink(kind, place):
    """A copy of a kind's configs with every width divided and its structure kept."""
    shutil.copytree(checkpoints.folder(kind), place)
    for name, smaller in SMALL.items():
        if (path := place / name).is_file():
            data = json.loads(path.read_text()) | smaller
            if name == "text_encoder/config.json" and (kind == "sdxl" or kind.startswith("sd3")):
                data |= {"hidden_size": 16, "projection_dim": 16}
            if name == "unet/config.json":
                data["block_out_channels"] = [
                    8 * (width // min(data["block_out_channels"]))
                    for width in data["block_out_channels"]
                ]
                heads = data["attention_head_dim"]
                data["attention_head_dim"] = (
                    2 if isinstance(heads, int) else [max(1, head // 5) for head in heads]
                )
                data |= NARROW.get(kind, {})
                if "addition_embed_type" in data:
                    data |= {
                        "addition_time_embed_dim": 8,
                        "projection_class_embeddings_input_dim": (
                            32 + 8 * (6 if kind == "sdxl" else 5)
                        ),
                    }
            if "dual_attention_layers" in data:
                data["dual_attention_layers"] = [0, 1]
            path.write_text(json.dumps(data))
    return place


@pytest.mark.parametrize("kind", thinned(KINDS, ["sd2", "sdxl", "sd35-medium"]))
def test_an_original_checkpoint_loads_and_no_network_is_asked(kind, tmp_path, monkeypatch):
    import diffusers

    def asked(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    torch.manual_seed(0)
    made = networks(shrink(kind, tmp_path / "config"))
    path = write(made, tmp_path / "mine.safetensors", kind)
    pipeline = getattr(diffusers, configs(kind, "model_index.json")["_class_name"])
    pipe = pipeline.from_single_file(
        str(path),
        local_files_only=True,
        **checkpoints.arguments(kind) | {"config": str(tmp_path / "config")},
    )
    for part, network in vars(made).items():
        loaded, own = getattr(pipe, part).state_dict(), network.state_dict()
        if (
            kind.startswith("sd3") and part == "text_encoder"
        ):  # original files hold no projection of the first tower; the loader sets the unit matrix
            loaded.pop("text_projection.weight")
        worst = {key: (value - own[key]).abs().max().item() for key, value in loaded.items()}
        assert max(worst.values()) == 0 and all(
            value.device.type == "cpu" for value in loaded.values()
        ), part
    tokenizers = [pipe.components.get("tokenizer"), pipe.components.get("tokenizer_2")]
    assert [tokenizer and tokenizer.pad_token_id for tokenizer in tokenizers] == {
        "sd1": [49407, None],
        "sd2": [0, None],
        "sd2-base": [0, None],
        "sdxl-refiner": [None, 0],
    }.get(kind, [49407, 0])
    pipe.set_progress_bar_config(disable=True)
    start = (
        {"image": torch.zeros(1, 3, 64, 64), "strength": 1.0}
        if kind == "sdxl-refiner"
        else {"width": 64, "height": 64}
    )
    picture = pipe("a cat!", num_inference_steps=1, output_type="latent", **start).images
    assert (
        picture.shape == (1, pipe.vae.config.latent_channels, 8, 8)
        and torch.isfinite(picture).all()
    )


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_token_ids_are_open_clips(pad, tmp_path):
    from open_clip.tokenizer import SimpleTokenizer, basic_clean

    theirs, ours = SimpleTokenizer(), clip_tokenizer.load(pad)
    for prompt in ODD:
        assert ours(basic_clean(prompt)).input_ids == [49406, *theirs.encode(prompt), 49407], prompt
    padded = ours("a cat", padding="max_length", truncation=True).input_ids
    assert padded == [49406, 320, 2368, 49407] + [0 if pad == "!" else 49407] * 73
    long = ours("red " * 200, padding="max_length", truncation=True).input_ids
    assert len(long) == 77 and long[-1] == 49407 and len(ours) == 49408


def test_tokenizer_files_are_what_the_library_reads(tmp_path):
    from transformers import CLIPTokenizer

    clip_tokenizer.write(tmp_path / "tokenizer", pad="!")
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == {
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    read = CLIPTokenizer.from_pretrained(tmp_path, subfolder="tokenizer")
    assert read.pad_token_id == 0 and read("a photo of a cat").input_ids == [
        49406,
        320,
        1125,
        539,
        320,
        2368,
        49407,
    ]
    assert read("cat!").input_ids[2] == 0 and clip_tokenizer.load("!")("cat!").input_ids[2] == 256


NET = NETWORK
HEADERS = {
    "an inpainting model \\(9 input channels\\)": {NET + "input_blocks.0.0.weight": (320, 9, 3, 3),
        NET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)},
    "an unknown network \\(5 input channels, first width 320, text width 1024\\)": {
        NET + "input_blocks.0.0.weight": (320, 5, 3, 3),
        NET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    },
    "an unknown network \\(16 input channels, first width 2432\\)": {
        NET + "x_embedder.proj.weight": (2432, 16, 2, 2), NET + "pos_embed": (1, 36864, 2432)},
    "an unknown network \\(cap_embedder.0.weight\\)": {NET + "cap_embedder.0.weight": (2304,)},
    "a FLUX network": {NET + "double_blocks.0.img_attn.norm.key_norm.scale": (128,)},
    "a LoRA: give it to a model": {
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320),
        "lora_unet_down_blocks_0_attentions_0_proj_in.alpha": ()},
    "a LoRA": {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (8, 320)},
    "a ControlNet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        NET + "input_blocks.0.0.weight": (320, 4, 3, 3)},
    "a VAE alone: give it as a model's `vae` part": {
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1)},
    "a VAE alone": {"decoder.mid.block_1.norm1.weight": (512,),
        "encoder.conv_in.weight": (128, 3, 3, 3)},
    "a textual inversion embedding: give it to a model": {"emb_params": (4, 768)},
    "a textual inversion embedding": {"clip_l": (4, 768), "clip_g": (4, 1280)},
    "a textual inversion embedding:": {"<my-token>": (1024,)},
    "a denoiser alone": {"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)},
    "a text encoder alone": {"text_model.embeddings.token_embedding.weight": (49408, 768)},
    "an upscaler": {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)},
    "a v-prediction model": {"v_pred": (0,), NET + "input_blocks.0.0.weight": (320, 4, 3, 3)},
    "a model of the EDM kind": {"edm_mean": (4,), NET + "input_blocks.0.0.weight": (320, 4, 3, 3)},
    "unknown tensors \\(bias, weights of a name longer": {
        "weights of a name longer than a line should be, and then some more of it": (3, 3, 3),
        "bias": (3, 3, 3)},
    "no tensors": {},
}  # fmt: skip


@pytest.mark.parametrize("said", HEADERS)
def test_what_is_no_checkpoint_says_what_it_is(said):
    with pytest.raises(RequestError, match=f"^The file holds {said}") as caught:
        kind_of(HEADERS[said])
    assert "; supported are whole checkpoints of Stable Diffusion 1, 2" in str(
        caught.value
    ) and "\n" not in str(caught.value)


def test_a_pruned_relative_is_not_taken_for_its_kind(large):
    kind, made = large
    shapes = {key: tuple(value.shape) for key, value in tensors(made, kind).items()}
    fewer = {
        key: shape
        for key, shape in shapes.items()
        if not key.startswith((NET + "middle_block", NET + "joint_blocks.23."))
    }
    with pytest.raises(RequestError, match="an unknown network"):
        kind_of(fewer)


def test_a_file_is_named_and_only_its_header_is_read(tmp_path):
    from safetensors.torch import save_file

    save_file(
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(8, 4)},
        tmp_path / "style.safetensors",
    )
    with pytest.raises(RequestError, match=r"^File 'style\.safetensors' holds a LoRA"):
        checkpoints.identify(tmp_path / "style.safetensors")
