"""Checkpoints in one file, in the layout of the original code: their kind, and the shipped configs
of that kind, so that loading asks no network.

settings = checkpoints.arguments(checkpoints.identify(path))
StableDiffusionXLPipeline.from_single_file(path, local_files_only=True, **settings)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError
from realkit.base.files import json_object
from realkit.weights import clip_tokenizer, header

CONFIGS = Path(str(resources.files("realkit.catalog"))) / "configs"
NETWORK = "model.diffusion_model."


@dataclass(frozen=True)
class Kind:
    """The marks of a kind: shapes of tensors of its denoiser (None: absent), and a tensor's name
    for each other part."""

    network: Mapping[str, tuple[int, ...] | None]
    parts: Mapping[str, str]


def _kinds() -> dict[str, Kind]:
    """Every kind whose configs are shipped, by name, as its folder's checkpoint.json marks it."""
    kinds = {}
    for path in sorted(CONFIGS.glob("*/checkpoint.json")):
        marks = json_object(path)
        network = {key: tuple(shape) if shape else None for key, shape in marks["network"].items()}
        kinds[path.parent.name] = Kind(network, marks["parts"])
    return kinds


# "sd2" (2.1 at 768 pixels, v-prediction) and "sd2-base" (512 pixels, epsilon) have the same tensors
KINDS = _kinds()
SUPPORTED = (
    "supported are whole checkpoints of Stable Diffusion 1, 2, 3 medium and 3.5 medium, SDXL and"
    " its refiner, in the original layout; for any other, give a catalogue entry a `config` folder"
)
# Where files descended from NovelAI's leave out the level `text_model` of CLIP's names
TOWERS = {
    "cond_stage_model.transformer.": "text_encoder",
    "conditioner.embedders.0.transformer.": "text_encoder",
}
LEVEL = "text_model."
EMBEDDING = "a textual inversion embedding: give it to a model, not as one"
# Other files, by a pattern that one of their tensors' names matches: the first match counts
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


def kind_of(shapes: Mapping[str, tuple[int, ...]], *, name: str = "The file") -> str:
    """The kind of a checkpoint, by its tensors' names and shapes alone: a key of KINDS.

    Stable Diffusion 2 is read as "sd2", the 768 pixel v-prediction model: the 512 pixel epsilon
    model "sd2-base" has the same tensors. Raises RequestError with what the file holds instead;
    `name` begins its line.
    """
    network = {}
    for key, shape in shapes.items():
        if key.startswith(NETWORK):
            network[key.removeprefix(NETWORK)] = shape
    other = _first(OTHERS, shapes)
    if not other and network:
        kind = _network_kind(network)
        if kind in KINDS:
            return kind
        other = kind
    other = other or _first(ALONE, shapes) or _embedding(shapes)
    if not other:
        other = f"unknown tensors ({_names(shapes)})" if shapes else "no tensors"
    raise RequestError(f"{name} holds {other}; {SUPPORTED}")


def identify(path: Path) -> str:
    """The kind of a .safetensors checkpoint, by its header alone. Raises RequestError where it is
    not supported."""
    owner = f"File {path.name!r}"
    return kind_of(shapes_of(owner, header.read(path)), name=owner)


def with_level(name: str) -> str:
    """A tensor's name with the level `text_model` that some files leave out of their text
    encoder's."""
    for prefix in TOWERS:
        rest = name.removeprefix(prefix)
        if rest != name and rest.startswith(("embeddings.", "encoder.", "final_layer_norm.")):
            return prefix + LEVEL + rest
    return name


def towers_without_level(path: Path) -> set[str]:
    """The text encoders ("text_encoder") whose names in a file lack the level `text_model`."""
    names = [name for name in header.read(path).shapes if with_level(name) != name]
    towers = set()
    for prefix, part in TOWERS.items():
        if any(name.startswith(prefix) for name in names):
            towers.add(part)
    return towers


def shapes_of(owner: str, tensors: header.Header) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors. Names of a text encoder have the level `text_model`, whether
    the file's have it or not. Raises RequestError, which `owner` begins, for a file that has
    both."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensors.shapes.items():
        if (plain := with_level(name)) in shapes:
            raise RequestError(
                f"{owner} holds a text encoder twice, with and without the level {LEVEL!r} in its"
                f" names ({header.quoted(name)}): which of them counts is unknown, take another"
            )
        shapes[plain] = shape
    return shapes


def missing(kind: str, keys: Iterable[str]) -> list[str]:
    """The parts ("vae", "text_encoder", …) that a checkpoint of a kind lacks, so that they must
    come from elsewhere."""
    keys, parts = set(keys), []
    for part, key in KINDS[kind].parts.items():
        if not keys & {key, key.replace("first_stage_model.", "vae.")}:
            parts.append(part)
    return parts


def folder(kind: str) -> Path:
    """The shipped folder of a kind's diffusers configs, without the tokenizers' vocabularies."""
    return CONFIGS / kind


def arguments(kind: str) -> dict[str, Any]:
    """What `from_single_file` needs to ask no network: the config folder, the tokenizers, and None
    for the parts left out (Stable Diffusion 3's T5)."""
    configs = folder(kind)
    arguments: dict[str, Any] = {"config": str(configs)}
    for part, value in json_object(configs / "model_index.json").items():
        if value == [None, None]:
            arguments[part] = None
    for path in sorted(configs.glob("tokenizer*/tokenizer_config.json")):
        arguments[path.parent.name] = clip_tokenizer.load(json_object(path)["pad_token"])
    return arguments


def _network_kind(network: Mapping[str, tuple[int, ...]]) -> str:
    """The kind of a denoiser, or a description of an unsupported one."""
    for name, kind in KINDS.items():
        if all(network.get(key) == shape for key, shape in kind.network.items()):
            return name
    first = network.get("input_blocks.0.0.weight") or network.get("x_embedder.proj.weight")
    if first is None:
        return f"an unknown network ({_names(network)})"
    if first[1] == 9:
        return "an inpainting model (9 input channels)"
    widths = [shape[-1] for key, shape in network.items() if key.endswith("attn2.to_k.weight")]
    text = f", text width {widths[0]}" if widths else ""
    return f"an unknown network ({first[1]} input channels, first width {first[0]}{text})"


def _first(table: Mapping[str, str], keys: Iterable[str]) -> str | None:
    """The meaning of the table's first pattern that a tensor's name matches."""
    for pattern, meaning in table.items():
        if any(re.search(pattern, key) for key in keys):
            return meaning
    return None


def _embedding(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """One or two tensors as wide as a text encoder are a textual inversion embedding."""
    if not 0 < len(shapes) <= 2:
        return None
    for shape in shapes.values():
        if len(shape) not in (1, 2) or shape[-1] not in (768, 1024, 1280):
            return None
    return EMBEDDING


def _names(keys: Iterable[str]) -> str:
    """The first two tensors' names, at most 60 characters of each."""
    return ", ".join(key if len(key) <= 60 else f"{key[:57]}…" for key in sorted(keys)[:2])
