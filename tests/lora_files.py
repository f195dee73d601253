"""LoRA files of every format, for any pipeline, with the differences that they mean: each formula
written a second time, in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests import originals

RANK, ALPHA = 3, 1.5
Parts = dict[str, np.ndarray]


def _lora(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    out, inner, *kernel = shape
    down, up = draw(RANK, inner, *kernel), draw(out, RANK, *[1] * len(kernel))
    return {"down": down, "up": up}, np.einsum("or,ri...->oi...", up.reshape(out, RANK), down)


def _tucker(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    out, inner, *kernel = shape
    up, mid, down = draw(out, RANK, 1, 1), draw(RANK, RANK, *kernel), draw(RANK, inner, 1, 1)
    whole = np.einsum("oaxy,abhw,bixy->oihw", up, mid, down)
    return {"down": down, "mid": mid, "up": up}, whole


def _loha(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    wide = int(np.prod(shape[1:]))
    parts = {f"hada_w{n}_a": draw(shape[0], RANK) for n in "12"}
    parts |= {f"hada_w{n}_b": draw(RANK, wide) for n in "12"}
    one, two = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in "12")
    return parts, (one * two).reshape(shape)


def _loha_tucker(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    parts, whole = {}, np.ones(shape, np.float32)
    for n in "12":
        parts[f"hada_t{n}"] = core = draw(RANK, RANK, *shape[2:])
        parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"] = draw(RANK, shape[0]), draw(RANK, shape[1])
        left, right = parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"]
        whole = whole * np.einsum("abhw,ao,bi->oihw", core, left, right)
    return parts, whole


def _kron(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    whole = np.einsum("ab,cd...->acbd...", one, two)
    return whole.reshape(one.shape[0] * two.shape[0], one.shape[1] * two.shape[1], *two.shape[2:])


def _lokr_whole(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    out, inner, *kernel = shape
    parts = {"lokr_w1": draw(2, 2), "lokr_w2": draw(out // 2, inner // 2, *kernel)}
    # both factors whole: no rank, and alpha has no effect
    return parts, _kron(*parts.values()) / (ALPHA / RANK)


def _lokr(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    out, inner, *kernel = shape
    parts = {
        "lokr_w1": draw(2, 2),
        "lokr_w2_a": draw(out // 2, RANK),
        "lokr_w2_b": draw(RANK, inner // 2, *kernel),
    }
    two = np.einsum("or,ri...->oi...", parts["lokr_w2_a"], parts["lokr_w2_b"])
    return parts, _kron(parts["lokr_w1"], two)


def _lokr_tucker(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    out, inner, *kernel = shape
    parts = {"lokr_w1_a": draw(2, RANK), "lokr_w1_b": draw(RANK, 2)}
    parts |= {"lokr_w2_a": draw(RANK, out // 2), "lokr_w2_b": draw(RANK, inner // 2)}
    parts["lokr_t2"] = draw(RANK, RANK, *kernel)
    two = np.einsum("abhw,ao,bi->oihw", parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    return parts, _kron(parts["lokr_w1_a"] @ parts["lokr_w1_b"], two)


def _difference(shape: tuple[int, ...], draw: Any) -> tuple[Parts, np.ndarray]:
    whole = draw(*shape)
    return {"diff": whole}, whole / (ALPHA / RANK)


KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
PEFT = {"down": "lora_A.weight", "up": "lora_B.weight"}
OLD = {"down": "lora.down.weight", "up": "lora.up.weight"}
# name → formula, its ends of names, how modules are named, kinds of layers, where alpha stands
FORMATS: dict[str, tuple[Callable[..., Any], dict[str, str], str, str, str]] = {
    "kohya": (_lora, KOHYA, "kohya", "linear", "tensor"),
    "kohya without alpha": (_lora, KOHYA, "kohya", "linear", ""),
    "kohya, original names": (_lora, KOHYA, "original", "linear", "tensor"),
    "LoCon": (_lora, KOHYA, "kohya", "convolution", "tensor"),
    "LoCon, original names": (_lora, KOHYA, "original", "convolution", "tensor"),
    "LoCon, Tucker": (_tucker, KOHYA, "kohya", "kernel", "tensor"),
    "LoHa": (_loha, {}, "kohya", "all", "tensor"),
    "LoHa, Tucker": (_loha_tucker, {}, "kohya", "kernel", "tensor"),
    "LoKr, whole": (_lokr_whole, {}, "kohya", "all", "tensor"),
    "LoKr": (_lokr, {}, "kohya", "all", "tensor"),
    "LoKr, Tucker": (_lokr_tucker, {}, "kohya", "kernel", "tensor"),
    "full difference": (_difference, {}, "kohya", "all", ""),
    "peft": (_lora, PEFT, "dotted", "linear", ""),
    "peft, alpha in the header": (_lora, PEFT, "dotted", "linear", "header"),
    "diffusers": (_lora, OLD, "dotted", "linear", ""),
    "old diffusers": (_lora, OLD, "processors", "linear", ""),
    "oldest diffusers, no prefix": (_lora, OLD, "bare processors", "linear", ""),
}
PREFIXES = {
    "unet": "lora_unet_", "transformer": "lora_transformer_",
    "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_",
}  # fmt: skip


def layers(pipe: Any, part: str, kind: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """A part's modules that a format changes, by name: "linear", "convolution", "kernel" (those
    larger than 1 x 1), or "all" of them; without "linear", only those of even sides."""
    for name, module in getattr(pipe, part).named_modules():
        linear = type(module).__name__ == "Linear"
        convolution = type(module).__name__ == "Conv2d"
        chosen = {
            "linear": linear,
            "convolution": convolution,
            "kernel": convolution and module.kernel_size != (1, 1),
            "all": linear or convolution,
        }[kind]
        even = chosen and all(side % 2 == 0 for side in module.weight.shape[:2])
        if chosen and (even or kind == "linear"):
            yield name, module


def spelled(pipe: Any, part: str, name: str, style: str) -> str:
    """A module's name as a format spells it."""
    own = name
    if part.startswith("text_encoder"):
        own = "text_model." + name.removeprefix("text_model.")
    if style == "original" and part == "unet":
        attends = ["CrossAttn" in kind for kind in pipe.unet.config.up_block_types]
        key = originals._unet(name + ".weight", pipe.unet.config.layers_per_block, attends)
        own = key.removesuffix(".weight")
    if style in ("kohya", "original"):
        return PREFIXES[part] + own.replace(".", "_")
    if "processors" in style:
        own = own.replace(".to_out.0", ".to_out")
        for way in ("q", "k", "v", "out"):
            own = own.replace(f"self_attn.{way}_proj", f"self_attn.to_{way}")
            if own.endswith(f"attn1.to_{way}") or own.endswith(f"attn2.to_{way}"):
                own = own.replace(".to_", ".processor.to_")
    return own if style.startswith("bare") and part == "unet" else f"{part}.{own}"


def write(
    pipe: Any,
    part: str,
    form: str,
    path: Path,
    number: torch.dtype = torch.float32,
    most: int = 999,
    without: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """Write a random file of a format for at most `most` layers of a part, `without` those of some
    names. Return the difference of each weight, by the module's name; where the format applies to
    no layer, {} and no file."""
    formula, ends, style, kind, scale = FORMATS[form]
    generator = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        values = generator.standard_normal(shape, np.float32) / 2
        return torch.from_numpy(values).to(number).float().numpy()

    tensors, meant, metadata = {}, {}, {}
    for name, module in list(layers(pipe, part, kind))[:most]:
        if name.startswith(without):
            continue
        module_name = spelled(pipe, part, name, style)
        parts, whole = formula(tuple(module.weight.shape), draw)
        for role, value in parts.items():
            end = ends.get(role, role)
            joint = "."
            if end.startswith("lora.") and ".to_" in module_name and "to_out.0" not in module_name:
                joint = "_" if "processors" in style else "."
            if end.startswith("lora.") and part != "unet" and joint == ".":
                end = end.replace("lora.", "lora_linear_layer.")
            tensors[f"{module_name}{joint}{end}"] = torch.from_numpy(value).to(number).contiguous()
        if scale == "tensor":
            tensors[f"{module_name}.alpha"] = torch.tensor(ALPHA)
        scaled = scale or form == "full difference"
        meant[name] = torch.from_numpy(whole * (ALPHA / RANK if scaled else 1.0)).float()
    if scale == "header":
        about = {f"{part}.r": RANK, f"{part}.lora_alpha": ALPHA}
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(about)}
    if tensors:
        save_file(tensors, path, metadata=metadata or None)
    return meant
