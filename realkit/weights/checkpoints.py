"""Checkpoints in one file, in the layout of the original code: which kind one is, and the configs
shipped for it, so that loading asks no network.

settings = single_file.arguments(single_file.identify(path))
StableDiffusionXLPipeline.from_single_file(path, local_files_only=True, **settings)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError
from realkit.weights import clip_tokenizer

NETWORK = "model.diffusion_model."
WORDS = (  # its last axis is the width of the text that is attended to
    "transformer_blocks.{}.attn2.to_k.weight"
)


@dataclass(frozen=True)
class Kind:
    """How one is told: shapes of tensors of its denoiser (None: not there), and a tensor of each of
    its other parts."""

    network: Mapping[str, tuple[int, ...] | None]
    parts: Mapping[str, str]


def _unet(text: int) -> dict[str, tuple[int, ...] | None]:
    blocks = {
        "input_blocks.1": 320,
        "input_blocks.8": 1280,
        "middle_block": 1280,
        "output_blocks.11": 320,
    }
    attends: dict[str, tuple[int, ...] | None] = {
        f"{block}.1.{WORDS.format(0)}": (width, text) for block, width in blocks.items()
    }
    return attends | {"input_blocks.0.0.weight": (320, 4, 3, 3), "label_emb.0.0.weight": None}


def _mmdit(positions: int, second: tuple[int, ...] | None) -> dict[str, tuple[int, ...] | None]:
    return {
        "x_embedder.proj.weight": (1536, 16, 2, 2),
        "pos_embed": (1, positions, 1536),
        "joint_blocks.23.x_block.attn.qkv.weight": (4608, 1536),
        "joint_blocks.12.x_block.attn2.qkv.weight": second,
        "joint_blocks.13.x_block.attn2.qkv.weight": None,
        "joint_blocks.24.x_block.attn.qkv.weight": None,
    }


VAE = {"vae": "first_stage_model.decoder.conv_in.weight"}
POSITIONS = "transformer.text_model.embeddings.position_embedding.weight"
SD1_PARTS = VAE | {"text_encoder": f"cond_stage_model.{POSITIONS}"}
SD2_PARTS = VAE | {"text_encoder": "cond_stage_model.model.token_embedding.weight"}
SD3_PARTS = VAE | {
    "text_encoder": f"text_encoders.clip_l.{POSITIONS}",
    "text_encoder_2": f"text_encoders.clip_g.{POSITIONS}",
}
SDXL_UNET: dict[str, tuple[int, ...] | None] = {
    "input_blocks.0.0.weight": (320, 4, 3, 3), f"input_blocks.4.1.{WORDS.format(1)}": (640, 2048),
    f"input_blocks.8.1.{WORDS.format(9)}": (1280, 2048),
    f"middle_block.1.{WORDS.format(9)}": (1280, 2048),
    f"output_blocks.0.1.{WORDS.format(9)}": (1280, 2048), "label_emb.0.0.weight": (1280, 2816),
}  # fmt: skip
REFINER_UNET: dict[str, tuple[int, ...] | None] = {
    "input_blocks.0.0.weight": (384, 4, 3, 3), f"input_blocks.4.1.{WORDS.format(3)}": (768, 1280),
    f"input_blocks.8.1.{WORDS.format(3)}": (1536, 1280),
    f"middle_block.1.{WORDS.format(3)}": (1536, 1280),
    "output_blocks.11.0.in_layers.2.weight": (384, 768, 3, 3), "label_emb.0.0.weight": (1536, 2560),
}  # fmt: skip
KINDS = {  # each has its folder in catalog/configs
    "sd1": Kind(_unet(768), SD1_PARTS),
    "sd2": Kind(_unet(1024), SD2_PARTS),  # 2.1 at 768 pixels, v-prediction
    "sd2-base": Kind(_unet(1024), SD2_PARTS),  # 2.1 at 512 pixels, epsilon
    "sdxl": Kind(SDXL_UNET, VAE | {
        "text_encoder": f"conditioner.embedders.0.{POSITIONS}",
        "text_encoder_2": "conditioner.embedders.1.model.positional_embedding",
    }),
    "sdxl-refiner": Kind(REFINER_UNET,
        VAE | {"text_encoder_2": "conditioner.embedders.0.model.text_projection"}),
    "sd3": Kind(_mmdit(192**2, None), SD3_PARTS),
    "sd35-medium": Kind(_mmdit(384**2, (4608, 1536)), SD3_PARTS),
}  # fmt: skip
SUPPORTED = (
    "supported are whole checkpoints of Stable Diffusion 1, 2, 3 medium and 3.5 medium, SDXL and"
    " its refiner, in the original layout; for another give a catalogue entry a `config` folder"
)
EMBEDDING = "a textual inversion embedding: give it to a model, not as one"
# What a file is that is no such checkpoint: the first line of which a tensor's name matches
OTHERS = {
    r"^lora_(unet|te|transformer)|[._]lora[_.](A|B|up|down|linear)|\.(hada_w\d|lokr_w\d|oft_)": (
        "a LoRA: give it to a model, not as one"
    ),
    r"^control_model\.|input_hint_block|controlnet_": "a ControlNet",
    r"^edm_(mean|vpred)": (
        "a model of the EDM kind (Playground 2.5 and the like), whose noise schedule is another"
    ),
    r"^(v_pred|ztsnr)$": (
        "a v-prediction model, which its kind's scheduler config would run as epsilon: give its"
        " catalogue entry a `config` folder"
    ),
    r"(^|\.)double_blocks\.\d": "a FLUX network",
    r"^(emb_params|string_to_param|clip_[lg])$": EMBEDDING,
}
ALONE = {
    r"^(first_stage_model\.|vae\.)?((en|de)coder\.(conv_in|mid|down|up)|(post_)?quant_conv)": (
        "a VAE alone: give it as a model's `vae` part"
    ),
    r"^(input_blocks|joint_blocks)\.|^(down_blocks|transformer_blocks)\.\d": (
        "a denoiser alone, without text encoder and VAE"
    ),
    r"^(text_model|transformer\.(text_model|resblocks)"
    r"|model\.(text_model|transformer\.resblocks))\.": "a text encoder alone",
    r"^(conv_first|model\.0|body\.0|upconv1)\.|^model\.1\.sub\.": (
        "an upscaler: give it as one, not as a model"
    ),
}


def kind_of(
    keys: Iterable[str], shapes: Mapping[str, tuple[int, ...]], *, name: str = "The file"
) -> str:
    """The config folder that a checkpoint belongs to, from the names and shapes of its tensors
    alone.

    Stable Diffusion 2 is taken for "sd2", the 768 pixel v-prediction model: the epsilon one of 512
    pixels, "sd2-base", differs in nothing a header shows. Raises RequestError with what was found
    instead; `name` begins its line.
    """
    keys = list(keys)
    network = {
        key.removeprefix(NETWORK): shapes[key]
        for key in keys
        if key.startswith(NETWORK) and key in shapes
    }
    found = _first(OTHERS, keys) or (
        _kind(network)
        if network
        else _first(ALONE, keys) or _embedding(keys, shapes) or _strange(keys)
    )
    if found in KINDS:
        return found
    raise RequestError(f"{name} holds {found}; {SUPPORTED}")


def identify(path: Path) -> str:
    """The kind of a .safetensors checkpoint, of which only the header is read. Raises RequestError
    where it is none of KINDS."""
    keys, shapes = header(path)
    return kind_of(keys, shapes, name=f"File {path.name!r}")


def header(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """The names of a .safetensors file's tensors and their shapes, without reading them."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return list(shapes), shapes


def missing(kind: str, keys: Iterable[str]) -> list[str]:
    """The parts ("vae", "text_encoder", …) that a checkpoint of a kind lacks, so that they must
    come from elsewhere."""
    held = set(keys)
    return [
        part
        for part, key in KINDS[kind].parts.items()
        if key not in held and key.replace("first_stage_model.", "vae.") not in held
    ]


def folder(kind: str) -> Path:
    """The shipped folder with the diffusers configs of a kind; the vocabularies of its tokenizers
    are not in it."""
    return Path(str(resources.files("realkit.catalog"))) / "configs" / kind


def arguments(kind: str) -> dict[str, Any]:
    """What `from_single_file` needs to ask no network: the config folder, the tokenizers, and None
    for the parts left out (Stable Diffusion 3's T5)."""
    place = folder(kind)
    pads = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["pad_token"]
        for path in sorted(place.glob("tokenizer*/tokenizer_config.json"))
    }
    index = json.loads((place / "model_index.json").read_text(encoding="utf-8"))
    left_out = {part: None for part, value in index.items() if value == [None, None]}
    return (
        {"config": str(place)}
        | left_out
        | {part: clip_tokenizer.load(pad) for part, pad in pads.items()}
    )


def _kind(network: Mapping[str, tuple[int, ...]]) -> str:
    """The kind of a denoiser, or what it is instead."""
    for kind, known in KINDS.items():
        if all(network.get(key) == shape for key, shape in known.network.items()):
            return kind
    first = network.get("input_blocks.0.0.weight") or network.get("x_embedder.proj.weight")
    if first is None:
        return f"an unknown network ({_some(network)})"
    if first[1] == 9:
        return "an inpainting model (9 input channels)"
    text = next(
        (shape[-1] for key, shape in network.items() if key.endswith("attn2.to_k.weight")), None
    )
    attends = f", text width {text}" if text else ""
    return f"an unknown network ({first[1]} input channels, first width {first[0]}{attends})"


def _first(table: Mapping[str, str], keys: list[str]) -> str | None:
    return next(
        (what for pattern, what in table.items() if any(re.search(pattern, key) for key in keys)),
        None,
    )


def _embedding(keys: list[str], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    few = 0 < len(keys) <= 2 and all(
        len(shapes.get(key, ())) in (1, 2) and shapes[key][-1] in (768, 1024, 1280) for key in keys
    )
    return EMBEDDING if few else None


def _strange(keys: list[str]) -> str:
    return f"unknown tensors ({_some(keys)})" if keys else "no tensors"


def _some(keys: Iterable[str]) -> str:
    return ", ".join(key if len(key) <= 60 else f"{key[:57]}…" for key in sorted(keys)[:2])
