"""Every family of models in miniature: tiny random networks, written in the layouts in which the
real repositories publish theirs."""

from __future__ import annotations

import copy
import json
import shutil
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from realkit.apps.training.ship import WEIGHTS
from realkit.models.spec import MODELS, ModelSpec
from realkit.weights import checkpoints
from realkit.weights.folders import PART
from realkit.weights.pickles import ALLOW_PICKLE
from realkit.weights.reference import HUB_FILE, HUB_ID
from tests import originals

KINDS = {  # what can be made: the family of each
    "sd1": "sd1", "sd2": "sd2", "sd2-base": "sd2", "sdxl": "sdxl", "sdxl-refiner": "sdxl-refiner",
    "sd3": "sd3", "sd35-medium": "sd3",
    "cascade": "cascade", "cascade-decoder": "cascade-decoder",
}  # fmt: skip
NARROW, WIDE = (
    16,
    32,
)  # widths of the first text tower where there are two, and of the only or second one
T5 = 64  # width of the third, and of what Stable Diffusion 3 attends to
PIPELINE, LOOSE = (
    0,
    1,
)  # seeds of the weights of a whole pipeline, and of a part that is published by itself
TIMES = 8  # width of each number (sizes, crops, aesthetic score) that SDXL is told
WORDS = 822  # tokens of the rehearsal models' vocabulary
SCHEDULER = {
    "_class_name": "DDPMWuerstchenScheduler",
    "scaler": 1.0,
    "s": 0.008,
}  # of Stable Cascade, both stages
UNSAFE = {
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
}
CASCADE_PRIOR = {
    "conditioning_dim": 32, "block_out_channels": [32, 32], "num_attention_heads": [2, 2],
    "down_num_layers_per_block": [1, 1],
    "up_num_layers_per_block": [1, 1], "switch_level": [False], "clip_image_in_channels": 32,
    "clip_text_in_channels": WIDE,
    "clip_text_pooled_in_channels": WIDE,
}  # fmt: skip
CASCADE_DECODER = {
    "in_channels": 4, "out_channels": 4, "conditioning_dim": 32,
    "block_out_channels": [8, 16, 32, 32], "num_attention_heads": [-1, -1, 2, 2],
    "down_num_layers_per_block": [1, 1, 1, 1], "up_num_layers_per_block": [1, 1, 1, 1],
    "down_blocks_repeat_mappers": [1, 1, 1, 1],
    "up_blocks_repeat_mappers": [3, 3, 2, 2], "patch_size": 2, "kernel_size": 3,
    "dropout": [0, 0, 0.1, 0.1], "self_attn": True,
    "block_types_per_layer": [["SDCascadeResBlock", "SDCascadeTimestepBlock"]] * 2
    + [["SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"]] * 2,
    "clip_text_pooled_in_channels": WIDE, "clip_seq": 4, "effnet_in_channels": 16,
    "pixel_mapper_in_channels": 3, "timestep_conditioning_type": ["sca"],
}  # fmt: skip


def miniature(kind: str, folder: Path, *, t5: bool = False) -> Path:
    """Write a pipeline of a kind in the diffusers layout, float32 under the plain names; `t5`: with
    Stable Diffusion 3's third text encoder."""
    for part, network in vars(networks(kind, t5=t5)).items():
        network.save_pretrained(folder / part)
    return configs(kind, folder, t5=t5)


def configs(kind: str, folder: Path, *, t5: bool = False) -> Path:
    """Write what a pipeline's folder holds beside the weights: configs, tokenizers,
    model_index.json."""
    index = _index(kind, t5)
    for part, config in _parts(kind, t5).items():
        _write(folder / part / "config.json", config)
    _write(
        folder / "scheduler" / "scheduler_config.json",
        _shipped(kind, "scheduler/scheduler_config.json") if _ships(kind) else SCHEDULER,
    )
    for part in [name for name in index if name.startswith("tokenizer")]:
        if part == "tokenizer_3":
            _t5_tokenizer().save_pretrained(folder / part)
        elif index[part][0]:
            shutil.copytree(WEIGHTS / "tokenizer", folder / part, dirs_exist_ok=True)
    _write(folder / "model_index.json", index)
    return folder


def networks(kind: str, *, t5: bool = False, seed: int = PIPELINE) -> SimpleNamespace:
    """The networks of a kind by the names of their parts: of a seed, the same weights each time.
    They are the caller's own to change."""
    return copy.deepcopy(_networks(kind, t5, seed))


@lru_cache(maxsize=4)
def _networks(kind: str, t5: bool, seed: int) -> SimpleNamespace:
    import diffusers
    import torch
    import transformers
    from diffusers.pipelines.stable_cascade import (
        pipeline_stable_cascade,  # which has PaellaVQModel in every version
    )

    torch.manual_seed(seed)
    made = {}
    for part, config in _parts(kind, t5).items():
        library, name = _index(kind, t5)[part]
        if part == "vqgan":
            made[part] = pipeline_stable_cascade.PaellaVQModel.from_config(config)
        elif library == "diffusers":
            made[part] = getattr(diffusers, name).from_config(config)
        elif part == "text_encoder_3":
            made[part] = transformers.T5EncoderModel(transformers.T5Config(**config))
        else:
            made[part] = getattr(transformers, name)(transformers.CLIPTextConfig(**config))
        made[part].eval()
    return SimpleNamespace(**made)


def loose(kind: str, part: str, ref: str = "") -> Any:
    """A part that is published by itself, under the reference `ref`: of another kind where TAESD is
    a pipeline's VAE."""
    if "taesd" not in ref:
        return getattr(networks(kind, seed=LOOSE), part)
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(LOOSE)
    narrow, few = (8, 8, 8, 8), (1, 1, 1, 1)
    widths = {
        "encoder_block_out_channels": narrow,
        "decoder_block_out_channels": narrow,
        "num_encoder_blocks": few,
        "num_decoder_blocks": few,
    }
    return AutoencoderTiny(**widths)


def single(kind: str, path: Path, *, without: Iterable[str] = ()) -> Path:
    """Write a kind as one checkpoint in its original layout, half precision, `without` some of its
    parts ("vae")."""
    from safetensors.torch import save_file

    left_out = {
        key.split(".")[0] + "."
        for part in without
        for key in [checkpoints.KINDS[kind].parts.get(part, "-")]
    }
    kept = {
        key: value
        for key, value in originals.tensors(networks(kind), kind).items()
        if not key.startswith(tuple(left_out))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous().clone() for key, value in kept.items()}, path)
    return path


def lora(kind: str, path: Path, form: str = "kohya") -> Path:
    """Write a random LoRA of rank 2 for a kind's denoiser, in the naming of kohya's scripts (as
    LCM, Hyper-SD and Lightning publish) or of peft."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    tensors = {}
    for name, module in networks(kind).unet.named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_v")):
            down, up = (
                torch.randn(2, module.in_features) / 4,
                torch.randn(module.out_features, 2) / 4,
            )
            if form == "kohya":
                key = "lora_unet_" + name.replace(".", "_")
                tensors |= {
                    f"{key}.lora_down.weight": down,
                    f"{key}.lora_up.weight": up,
                    f"{key}.alpha": torch.tensor(2.0),
                }
            else:
                tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


# --- a folder made into what real repositories are
# ------------------------------------------------------------------


def add_variant(
    folder: Path, variant: str, parts: Iterable[str] = (), *, alone: bool = False
) -> Path:
    """Beside each part's weights (of `parts` only, where given) the same in a half-precision
    variant; `alone`: instead of them."""
    import torch
    from safetensors.torch import load_file, save_file

    number = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    for path in _weights(folder):
        if not parts or path.parent.name in parts:
            half = {
                key: value.to(number) if value.is_floating_point() else value
                for key, value in load_file(path).items()
            }
            save_file(half, path.with_suffix(f".{variant}.safetensors"), metadata={"format": "pt"})
            if alone:
                path.unlink()
    return folder


def pickle_weights(folder: Path, parts: Iterable[str] = (), *, beside: bool = False) -> Path:
    """Each part's weights (of `parts` only, where given) as the .bin of old repositories; `beside`:
    without taking the .safetensors away."""
    import torch
    from safetensors.torch import load_file

    for path in _weights(folder):
        if not parts or path.parent.name in parts:
            stem = path.name.removesuffix(".safetensors")
            name = stem.replace("model", "pytorch_model", 1) if stem.startswith("model") else stem
            torch.save(load_file(path), path.with_name(f"{name}.bin"))
            if not beside:
                path.unlink()
    return folder


def shard(folder: Path, part: str, variant: str = "") -> Path:
    """A part's weights in two files with an index, as large ones are published."""
    from safetensors.torch import load_file, save_file

    dot = f".{variant}" if variant else ""
    path = next(path for path in (folder / part).glob(f"*model{dot}.safetensors"))
    tensors, stem = load_file(path), path.name.removesuffix(f"{dot}.safetensors")
    names, where = sorted(tensors), {}
    for number, own in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"{stem}{dot}-{number:05}-of-00002.safetensors"
        save_file(
            {name: tensors[name] for name in own}, path.with_name(file), metadata={"format": "pt"}
        )
        where |= dict.fromkeys(own, file)
    path.unlink()
    total = sum(value.nbytes for value in tensors.values())
    _write(
        path.with_name(f"{stem}.safetensors.index{dot}.json"),
        {"metadata": {"total_size": total}, "weight_map": where},
    )
    return folder


def with_safety_checker(folder: Path) -> Path:
    """The folders that old Stable Diffusion repositories have beside the networks, the image
    processor under the name it no longer has."""
    _write(
        folder / "safety_checker" / "config.json",
        {"architectures": ["StableDiffusionSafetyChecker"], "model_type": "clip"},
    )
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"nobody should ask for this")
    _write(
        folder / "feature_extractor" / "preprocessor_config.json",
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224},
    )
    index = folder / "model_index.json"
    _write(index, json.loads(index.read_text(encoding="utf-8")) | UNSAFE)
    return folder


def with_what_others_read(folder: Path) -> Path:
    """What lies in the real repositories for other programs: none of it is ours to fetch. Last of
    all, for it is no weights."""
    junk = [
        "README.md",
        ".gitattributes",
        "v1-5-pruned.safetensors",
        "v1-5-pruned-emaonly.ckpt",
        "unet/flax_model.msgpack",
        "unet/openvino_model.bin",
    ]
    for name in [
        *junk,
        "unet/model.onnx",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "vae_decoder/model.onnx",
    ]:
        if name.startswith("vae_") or (folder / name).parent.is_dir():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"for another program")
    return folder


def alone(kind: str, part: str, path: Path) -> Path:
    """A part's weights as one file by itself, in the names of diffusers and half precision (SDXL
    Lightning's networks)."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.half().contiguous() for key, value in loose(kind, part).state_dict().items()},
        path,
    )
    return path


def _weights(folder: Path) -> list[Path]:
    """The plain .safetensors of a folder's parts."""
    found = [
        path
        for path in sorted(folder.rglob("*.safetensors"))
        if path.parent.name != "safety_checker"
    ]
    return [
        path
        for path in found
        if (match := PART.match(path.name)) and not match["variant"] and not match["shard"]
    ]


# --- what the catalogue refers to


def kind_of(spec: ModelSpec) -> str:
    """The miniature that an entry is served as."""
    if spec.family == "sd2" and spec.prediction == "epsilon":
        return "sd2-base"
    return "sd35-medium" if spec.family == "sd3" and "3.5" in spec.source else spec.family


def pickled(spec: ModelSpec) -> bool:
    """Whether an entry says of itself that its repository holds no .safetensors."""
    return ALLOW_PICKLE in spec.about


class Shelf:
    """Folders of miniature repositories by id, filled with what entries refer to."""

    def __init__(self, root: Path) -> None:
        self.root, self.repositories = root, dict[str, Path]()

    def add(self, spec: ModelSpec) -> None:
        kind = kind_of(spec)
        if file := HUB_FILE.match(spec.source):
            single(kind, self.folder(file["id"]) / file["file"], without=spec.parts)
        elif named := HUB_ID.match(spec.source):
            self._pipeline(named["id"], kind, spec.variant or named["variant"] or "", pickled(spec))
        for part, ref in spec.parts.items():
            if file := HUB_FILE.match(ref):
                alone(kind, part, self.folder(file["id"]) / file["file"])
            elif named := HUB_ID.match(ref):
                self._part(named["id"], kind, part)
        for number, ref in enumerate(spec.loras):
            file = HUB_FILE.match(ref)
            assert file, ref
            lora(
                kind,
                self.folder(file["id"]) / file["file"],
                "kohya" if "Hyper" in ref or number else "peft",
            )

    def folder(self, name: str) -> Path:
        return self.repositories.setdefault(name, self.root / name.replace("/", "--"))

    def _pipeline(self, name: str, kind: str, variant: str, pickled: bool) -> None:
        """As the repositories are: the variant beside the plain weights, old .bin files beside
        both, the safety checker, files for other programs."""
        folder = self.folder(name)
        if (folder / "model_index.json").exists():
            return
        miniature(kind, folder, t5=kind.startswith("sd3"))
        if variant:
            add_variant(folder, variant)
        if kind in ("sd1", "sd2", "sd2-base"):
            with_safety_checker(folder)
            pickle_weights(folder, beside=not pickled)
        if kind.startswith("sd3"):
            shard(folder, "text_encoder_3")
        with_what_others_read(folder)

    def _part(self, name: str, kind: str, part: str) -> None:
        folder = self.folder(name)
        if part.startswith("tokenizer"):
            shutil.copytree(WEIGHTS / "tokenizer", folder, dirs_exist_ok=True)
        elif not (folder / "config.json").exists():
            loose(kind, part, name).save_pretrained(folder)
            pickle_weights(folder, beside=True)


def own_catalogue(folder: Path, names: Iterable[str]) -> Path:
    """A user's catalogue that repeats shipped entries of single files with the configs of their
    miniature, whose shapes do not tell its kind."""
    shipped = tomllib.loads(
        resources.files("realkit.catalog").joinpath("models.toml").read_text(encoding="utf-8")
    )
    lines = []
    for name in names:
        if HUB_FILE.match(MODELS[name].source):
            config = configs(kind_of(MODELS[name]), folder / "configs" / kind_of(MODELS[name]))
            lines += [
                f"[{json.dumps(name)}]",
                *(
                    f"{key} = {_toml(value)}"
                    for key, value in (shipped[name] | {"config": str(config)}).items()
                ),
            ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
            + " }"
        )
    return json.dumps(value, ensure_ascii=False)


# --- the widths


def _parts(kind: str, t5: bool) -> dict[str, dict[str, Any]]:
    """The configs of a kind's networks: the shipped ones with every width divided and the structure
    kept."""
    if kind == "cascade":
        return {"text_encoder": _tower(WIDE), "prior": CASCADE_PRIOR}
    if kind == "cascade-decoder":
        vqgan = {"bottleneck_blocks": 1, "embed_dim": 16, "num_vq_embeddings": 2}
        return {"text_encoder": _tower(WIDE), "decoder": CASCADE_DECODER, "vqgan": vqgan}
    found: dict[str, dict[str, Any]] = {}
    for part in ("text_encoder", "text_encoder_2"):
        if (checkpoints.folder(kind) / part / "config.json").is_file():
            two = kind == "sdxl" or kind.startswith("sd3")
            found[part] = _shipped(kind, f"{part}/config.json") | _tower(
                NARROW if two and part == "text_encoder" else WIDE
            )
    if kind.startswith("sd3"):
        found["transformer"] = _mmdit(kind)
    else:
        found["unet"] = _unet(kind)
    found["vae"] = _shipped(kind, "vae/config.json") | {
        "block_out_channels": [8, 8, 16, 16],
        "norm_num_groups": 8,
        "sample_size": 64,
    }
    if t5:  # last, so that the others' weights are the same without it
        gated = {"feed_forward_proj": "gated-gelu", "d_ff": 2 * T5}
        found["text_encoder_3"] = {
            "vocab_size": 64,
            "d_model": T5,
            "d_kv": 8,
            "num_layers": 1,
            "num_heads": 2,
            **gated,
        }
    return found


def _tower(width: int) -> dict[str, Any]:
    own = {
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    return own | {
        "vocab_size": WORDS,
        "bos_token_id": WORDS - 2,
        "eos_token_id": WORDS - 1,
        "pad_token_id": WORDS - 1,
    }


def _unet(kind: str) -> dict[str, Any]:
    config = _shipped(kind, "unet/config.json")
    heads, widths = config["attention_head_dim"], config["block_out_channels"]
    config |= {
        "block_out_channels": [8 * (width // min(widths)) for width in widths],
        "norm_num_groups": 8,
        "sample_size": 8,
        "cross_attention_dim": NARROW + WIDE if kind == "sdxl" else WIDE,
        "attention_head_dim": (
            2 if isinstance(heads, int) else [max(1, head // 5) for head in heads]
        ),
    }
    if "transformer_layers_per_block" in config:
        config["transformer_layers_per_block"] = [1, 1, 2] if kind == "sdxl" else 1
    if "addition_embed_type" in config:
        numbers = 6 if kind == "sdxl" else 5
        config |= {
            "addition_time_embed_dim": TIMES,
            "projection_class_embeddings_input_dim": WIDE + numbers * TIMES,
        }
    return config


def _mmdit(kind: str) -> dict[str, Any]:
    config = _shipped(kind, "transformer/config.json") | {
        "num_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "caption_projection_dim": 16,
        "joint_attention_dim": T5,
        "pooled_projection_dim": NARROW + WIDE,
        "pos_embed_max_size": 12,
        "sample_size": 8,
    }
    return config | ({"dual_attention_layers": [0, 1]} if "dual_attention_layers" in config else {})


def _index(kind: str, t5: bool) -> dict[str, Any]:
    clip = {
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    }
    scheduler = {"scheduler": ["diffusers", "DDPMWuerstchenScheduler"]}
    if kind == "cascade":
        unread = {
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        }
        own = {"prior": ["diffusers", "StableCascadeUNet"], "resolution_multiple": 42.67}
        return {"_class_name": "StableCascadePriorPipeline", **unread, **clip, **scheduler, **own}
    if kind == "cascade-decoder":
        own = {
            "decoder": ["diffusers", "StableCascadeUNet"],
            "vqgan": ["wuerstchen", "PaellaVQModel"],
            "latent_dim_scale": 10.67,
        }
        return {"_class_name": "StableCascadeDecoderPipeline", **clip, **scheduler, **own}
    index = _shipped(kind, "model_index.json")
    for part in [part for part in index if part.startswith("text_encoder") and index[part][0]]:
        index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    if t5:
        index |= {
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"],
        }
    return index


def _t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    pieces = ["▁", *(chr(letter) for letter in range(ord("a"), ord("z") + 1))]
    return T5TokenizerFast(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -2.0) for piece in pieces)],
        extra_ids=0,
    )


def _ships(kind: str) -> bool:
    return kind in checkpoints.KINDS


def _shipped(kind: str, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((checkpoints.folder(kind) / name).read_text(encoding="utf-8"))
    return data


def _write(path: Path, data: object) -> None:
    """Write JSON where the libraries have not written a richer config themselves."""
    if path.name != "config.json" or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1), encoding="utf-8")
