"""Models, LoRAs and upscalers for the golden cells: the same bytes on every machine.

Ids hash files. So weights are copies of shipped ones, or filled by integer arithmetic, and the
files are written here: a library could order or pad them otherwise in its next version.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests import originals

SHIPPED = Path(str(resources.files("realkit.rehearsal"))) / "weights"
NUMBERS = {"float16": "F16", "float32": "F32"}  # numpy's name of a number format: that in a file
PARTS = {"unet": "base/unet", "vae": "vae", "text_encoder": "text_encoder"}
# Repositories of the hub that catalogue entries refer to, as if attached to a notebook:
# their pipeline, its parts with weights, and the variant of those files.
REPOSITORIES = {
    "stabilityai/stable-diffusion-xl-base-1.0": (
        "StableDiffusionXLPipeline", ("unet", "vae", "text_encoder", "text_encoder_2"), "fp16"
    ),
    "stabilityai/stable-diffusion-xl-refiner-1.0": (
        "StableDiffusionXLImg2ImgPipeline", ("unet", "vae", "text_encoder_2"), "fp16"
    ),
    "stabilityai/stable-cascade-prior": (
        "StableCascadePriorPipeline", ("prior", "text_encoder"), "bf16"
    ),
    "stabilityai/stable-cascade": (
        "StableCascadeDecoderPipeline", ("decoder", "vqgan", "text_encoder"), "bf16"
    ),
    "stabilityai/stable-diffusion-x4-upscaler": (
        "StableDiffusionUpscalePipeline", ("unet", "vae", "text_encoder"), ""
    ),
    "stabilityai/sd-x2-latent-upscaler": (
        "StableDiffusionLatentUpscalePipeline", ("unet", "vae", "text_encoder"), ""
    ),
}  # fmt: skip
CATALOGUE = """
["mine/single"]
family = "sd1"
source = "{folder}/single.safetensors"
config = "{folder}/configs"
size = 128
settings = {{ sampler = "Euler", steps = 6, guidance = 3.0 }}

["mine/film"]
family = "sd1"
source = "package:base"
parts.vae = "package:vae"
parts.text_encoder = "package:text_encoder"
parts.tokenizer = "package:tokenizer"
loras = {{ "{folder}/film.safetensors" = 0.75 }}
size = 128
settings = {{ sampler = "Euler", steps = 6, guidance = 3.0 }}

["mine/film+grain"]
family = "sd1"
source = "package:base"
parts.vae = "package:vae"
parts.text_encoder = "package:text_encoder"
parts.tokenizer = "package:tokenizer"
loras = {{ "{folder}/film.safetensors" = 0.5, "{folder}/grain.safetensors" = -0.25 }}
size = 128
settings = {{ sampler = "Euler", steps = 6, guidance = 3.0 }}

["mine/early-refiner"]
family = "sdxl"
source = "package:xl"
parts.vae = "package:vae"
parts.text_encoder = "package:text_encoder"
parts.tokenizer = "package:tokenizer"
parts.text_encoder_2 = "package:text_encoder_2"
parts.tokenizer_2 = "package:tokenizer_2"
then = {{ model = "rehearsal/refiner", at = 0.5 }}
size = 128
settings = {{ sampler = "Euler", steps = 6, guidance = 3.0 }}

["mine/flow"]
family = "sd3"
source = "{folder}/flow"
parts = {{ text_encoder_3 = "", tokenizer_3 = "" }}
"""


def write(folder: Path) -> None:
    """Fill an empty folder, which becomes the current one: names of files in it are part of ids."""
    _whole(folder / "whole")
    _single(folder)
    _lora(folder / "film.safetensors", 37)
    _lora(folder / "grain.safetensors", 41)
    shutil.copy(SHIPPED / "compact-x4" / "model.safetensors", folder / "network.safetensors")
    flow = ("transformer", "vae", "text_encoder", "text_encoder_2")
    _placeholder(folder / "flow", "StableDiffusion3Pipeline", flow, "")
    for name, (pipeline, parts, variant) in REPOSITORIES.items():
        _placeholder(folder / "inputs" / name, pipeline, parts, variant)
    fixed_vae = folder / "inputs" / "madebyollin" / "sdxl-vae-fp16-fix"
    _json(fixed_vae / "config.json", {"_class_name": "AutoencoderKL", "scaling_factor": 0.13025})
    _weight(fixed_vae / "diffusion_pytorch_model.safetensors", 3)
    (folder / "catalogue").mkdir()
    models = CATALOGUE.format(folder=folder.as_posix())
    (folder / "catalogue" / "models.toml").write_text(models, encoding="utf-8")


def enter(folder: Path) -> None:
    """Make them what names mean in this process. Call it before realkit reads its catalogue."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["REALKIT_CATALOG"] = str(folder / "catalogue")
    os.environ["REALKIT_INPUTS"] = str(folder / "inputs")
    os.chdir(folder)


# --- pipelines ------------------------------------------------------------------------------------


def _whole(folder: Path) -> None:
    """rehearsal/base as a folder in diffusers' layout, all parts in it."""
    without = shutil.ignore_patterns("figures.json")
    shutil.copytree(SHIPPED / "base", folder, ignore=without)
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(SHIPPED / part, folder / part, ignore=without)


def _single(folder: Path) -> None:
    """rehearsal/base as one file in the original layout, and the configs it is read with."""
    from safetensors.numpy import load_file

    pipeline = SimpleNamespace()
    for part, place in PARTS.items():
        config = json.loads((SHIPPED / place / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(next((SHIPPED / place).glob("*.safetensors")))
        network = SimpleNamespace(config=SimpleNamespace(**config), state_dict=tensors.copy)
        setattr(pipeline, part, network)
    _tensors(folder / "single.safetensors", originals.tensors(pipeline, "sd1"))
    without = shutil.ignore_patterns("figures.json", "*.safetensors")
    shutil.copytree(folder / "whole", folder / "configs", ignore=without)


def _placeholder(folder: Path, pipeline: str, parts: tuple[str, ...], variant: str) -> None:
    """A pipeline's folder that can be locked, not loaded: each part's weights are one number."""
    index: dict[str, Any] = {"_class_name": pipeline, "scheduler": ["diffusers", "AnyScheduler"]}
    for number, part in enumerate(parts):
        words = part.startswith("text_encoder")
        index[part] = ["transformers" if words else "diffusers", "AnyNetwork"]
        stem = "model" if words else "diffusion_pytorch_model"
        dot = f".{variant}" if variant else ""
        _json(folder / part / "config.json", {"_class_name": "AnyNetwork", "sample_size": 32})
        _weight(folder / part / f"{stem}{dot}.safetensors", len(pipeline) + number)
        if dot:  # beside the variant: another file, which no id may depend on
            _weight(folder / part / f"{stem}.safetensors", 1)
    trained = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear"}
    if pipeline == "StableDiffusion3Pipeline":
        trained = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    _json(folder / "scheduler" / "scheduler_config.json", trained)
    _json(folder / "model_index.json", index)


def _lora(path: Path, factor: int) -> None:
    """A LoRA of rank 2 for rehearsal/base's denoiser, in the naming of kohya's scripts."""
    from safetensors.numpy import load_file

    tensors = {}
    for key, value in load_file(next((SHIPPED / "base" / "unet").glob("*.safetensors"))).items():
        if key.endswith(("attn1.to_q.weight", "attn2.to_v.weight")):
            name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
            tensors[f"{name}.lora_down.weight"] = _pattern((2, value.shape[1]), factor)
            tensors[f"{name}.lora_up.weight"] = _pattern((value.shape[0], 2), factor + 2)
            tensors[f"{name}.alpha"] = np.array(2.0, np.float32)
    _tensors(path, tensors)


# --- files ----------------------------------------------------------------------------------------


def _pattern(shape: tuple[int, ...], factor: int) -> np.ndarray:
    """Float32 numbers from -1/4 to 1/4, each exact: multiples of 1/256."""
    whole = np.arange(int(np.prod(shape))) * factor % 129 - 64
    return (whole.astype(np.float32) / 256).reshape(shape)


def _weight(path: Path, number: int) -> None:
    _tensors(path, {"weight": np.array([number], np.float32)})


def _json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(value, sort_keys=True).encode())


def _tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a .safetensors file: the length of a JSON header, the header, the tensors' bytes.

    The format: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {}
    chunks, end = [], 0
    for name, value in sorted(tensors.items()):
        chunk = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        begin, end = end, end + len(chunk)
        kind = NUMBERS[value.dtype.name]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [begin, end]}
        chunks.append(chunk)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of eight bytes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))
