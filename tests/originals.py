"""Writes a diffusers pipeline as the single file that the original Stable Diffusion code and most community sites use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip


def single_file(pipe: Any, path: Path) -> Path:
    """Write UNet, VAE and text encoder of an SD1 pipeline under their original names."""
    from safetensors.torch import save_file

    layers, attends = pipe.unet.config.layers_per_block, ["CrossAttn" in kind for kind in pipe.unet.config.up_block_types]
    blocks = len(pipe.vae.config.block_out_channels)
    found = {f"model.diffusion_model.{_unet(key, layers, attends)}": value for key, value in pipe.unet.state_dict().items()}
    found |= {f"first_stage_model.{_vae(key, blocks)}": value for key, value in pipe.vae.state_dict().items()}
    for key, value in pipe.text_encoder.state_dict().items():
        found["cond_stage_model.transformer." + (key if key.startswith("text_model.") else f"text_model.{key}")] = value
    save_file({key: value.contiguous().clone() for key, value in found.items()}, path)
    return path


def _unet(key: str, layers: int, attends: list[bool]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(ours + "."):
            return _resnet(key.replace(ours, theirs, 1)) if "resnets" in ours else key.replace(ours, theirs, 1)
    way, block, kind, index, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key).groups()
    block, index = int(block), int(index)
    if kind == "downsamplers":
        return f"input_blocks.{1 + block * (layers + 1) + layers}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + attends[block]}.{rest}"
    number = 1 + block * (layers + 1) + index if way == "down" else block * (layers + 1) + index
    place = f"{'input' if way == 'down' else 'output'}_blocks.{number}.{'0' if kind == 'resnets' else '1'}"
    return _resnet(f"{place}.{rest}") if kind == "resnets" else f"{place}.{rest}"


def _resnet(key: str) -> str:
    return re.sub(r"\.(norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut)\.", lambda m: f".{RESNET[m[1]]}.", key)


def _vae(key: str, blocks: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", key)
    return re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", key)
