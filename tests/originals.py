"""Writes a diffusers pipeline as the single file that the original Stable Diffusion code of its
kind and most community sites use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


MMDIT = {
    "attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q", "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q", "attn.norm_added_k": "context_block.attn.ln_k",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1", "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2",
}  # fmt: skip
MMDIT_ENDS = {
    "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1", "proj_out": "final_layer.linear",
}  # fmt: skip
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip


def single_file(pipe: Any, path: Path, kind: str = "sd1") -> Path:
    """Write a pipeline's networks under their original names."""
    from safetensors.torch import save_file

    save_file({key: value.contiguous().clone() for key, value in tensors(pipe, kind).items()}, path)
    return path


def tensors(pipe: Any, kind: str) -> dict[str, Any]:
    """The tensors of a pipeline's networks under the names that the original code of its kind gives
    them."""
    blocks = len(pipe.vae.config.block_out_channels)
    found = {
        f"first_stage_model.{_vae(key, blocks)}": _as_convolution(key, value)
        for key, value in pipe.vae.state_dict().items()
    }
    if kind.startswith("sd3"):
        found |= {
            f"model.diffusion_model.{key}": value for key, value in _mmdit(pipe.transformer).items()
        }
        found |= {
            f"text_encoders.clip_l.transformer.{key}": value
            for key, value in pipe.text_encoder.state_dict().items()
            if key != "text_projection.weight"  # the unit matrix, which the loader brings
        }
        return found | {
            f"text_encoders.clip_g.transformer.{key}": value
            for key, value in pipe.text_encoder_2.state_dict().items()
        }
    layers, attends = (
        pipe.unet.config.layers_per_block,
        ["CrossAttn" in kind for kind in pipe.unet.config.up_block_types],
    )
    found |= {
        f"model.diffusion_model.{_unet(key, layers, attends)}": value
        for key, value in pipe.unet.state_dict().items()
    }
    if kind in ("sd1", "sdxl"):
        place = {
            "sd1": "cond_stage_model.transformer.",
            "sdxl": "conditioner.embedders.0.transformer.",
        }[kind]
        found |= {
            place + (key if key.startswith("text_model.") else f"text_model.{key}"): value
            for key, value in pipe.text_encoder.state_dict().items()
        }
    if kind != "sd1":
        place = {
            "sdxl": "conditioner.embedders.1.model.",
            "sdxl-refiner": "conditioner.embedders.0.model.",
        }.get(kind, "cond_stage_model.model.")
        found |= {
            place + key: value
            for key, value in _open_clip(
                pipe.text_encoder if kind.startswith("sd2") else pipe.text_encoder_2
            ).items()
        }
    return found


def _open_clip(tower: Any) -> dict[str, Any]:
    """A text tower as open_clip names it: one matrix for query, key and value; the projection,
    where there is one, the other way round."""
    import torch

    found = {key.removeprefix("text_model."): value for key, value in tower.state_dict().items()}
    made = {"logit_scale": torch.zeros(())}
    for key, value in found.items():
        if key == "text_projection.weight":
            made["text_projection"] = value.T
        elif key in OPEN_CLIP_ENDS:
            made[OPEN_CLIP_ENDS[key]] = value
        elif match := re.fullmatch(
            r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key
        ):
            made[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(
                [found[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            )
        elif "k_proj" not in key and "v_proj" not in key and "position_ids" not in key:
            layer, rest = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", key).groups()
            name, end = rest.rsplit(".", 1)
            made[f"transformer.resblocks.{layer}.{OPEN_CLIP[name]}.{end}"] = value
    return made


def _mmdit(network: Any) -> dict[str, Any]:
    """Stable Diffusion 3's transformer as its original code names it: one matrix for query, key and
    value; shift before scale."""
    import torch

    found, made, last = network.state_dict(), {}, network.config.num_layers - 1
    for key, value in found.items():
        if match := re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", key):
            block, name, end = match.groups()
            if joined := re.fullmatch(r"(attn2?)\.(to_q|add_q_proj)", name):
                side = "x_block" if joined[2] == "to_q" else "context_block"
                three = [
                    found[key.replace(joined[2], joined[2].replace("q", part))] for part in "qkv"
                ]
                made[f"joint_blocks.{block}.{side}.{joined[1]}.qkv.{end}"] = torch.cat(three)
            elif name in MMDIT:
                swapped = name == "norm1_context.linear" and int(block) == last
                made[f"joint_blocks.{block}.{MMDIT[name]}.{end}"] = (
                    torch.cat(value.chunk(2)[::-1]) if swapped else value
                )
        else:
            name = next(
                (
                    key.replace(ours, theirs, 1)
                    for ours, theirs in MMDIT_ENDS.items()
                    if key.startswith(ours)
                ),
                key,
            )
            made[name] = torch.cat(value.chunk(2)[::-1]) if key.startswith("norm_out.") else value
    return made


def _unet(key: str, layers: int, attends: list[bool]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(ours + "."):
            return (
                _resnet(key.replace(ours, theirs, 1))
                if "resnets" in ours
                else key.replace(ours, theirs, 1)
            )
    way, block, kind, index, rest = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key
    ).groups()
    block, index = int(block), int(index)
    if kind == "downsamplers":
        return f"input_blocks.{1 + block * (layers + 1) + layers}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + attends[block]}.{rest}"
    number = 1 + block * (layers + 1) + index if way == "down" else block * (layers + 1) + index
    side = "input" if way == "down" else "output"
    place = f"{side}_blocks.{number}.{'0' if kind == 'resnets' else '1'}"
    return _resnet(f"{place}.{rest}") if kind == "resnets" else f"{place}.{rest}"


def _resnet(key: str) -> str:
    return re.sub(
        r"\.(norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut)\.",
        lambda m: f".{RESNET[m[1]]}.",
        key,
    )


def _as_convolution(key: str, value: Any) -> Any:
    """The VAE's attention is made of 1x1 convolutions in the original."""
    return value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value


def _vae(key: str, blocks: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if "mid_block.attentions" in key:
        for ours, theirs in {
            "mid_block.attentions.0": "mid.attn_1",
            "group_norm": "norm",
            "to_out.0": "proj_out",
            ".to_": ".",
        }.items():
            key = key.replace(ours, theirs)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", key)
    return re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", key
    )


def swin2sr(model: Any) -> dict[str, Any]:
    """The weights of transformers' Swin2SR under the names of the original code, which spandrel
    reads."""
    import torch
    from spandrel.architectures.Swin2SR import Swin2SR

    c, renamed = (
        model.config,
        SWIN + (DIRECT if model.config.upsampler == "pixelshuffledirect" else SHUFFLED),
    )
    sizes = dict(
        img_size=c.image_size,
        embed_dim=c.embed_dim,
        depths=c.depths,
        num_heads=c.num_heads,
        window_size=c.window_size,
        mlp_ratio=c.mlp_ratio,
    )
    original = Swin2SR(
        **sizes,
        upscale=c.upscale,
        upsampler=c.upsampler,
        resi_connection=c.resi_connection,
        img_range=c.img_range,
    )
    theirs, found = model.state_dict(), {}
    for key, value in original.state_dict().items():
        if key.endswith(("relative_position_index", "relative_coords_table", "attn_mask")):
            found[key] = value
            continue
        name = key
        for old, new in renamed:
            name = re.sub(old, new, name)
        if ".qkv." in name:
            found[key] = torch.cat(
                [theirs[name.replace("qkv", part)] for part in ("query", "key", "value")]
            )
        else:
            found[key] = theirs[name]
    return found


SWIN = (
    (r"^(patch_embed|layers|norm|conv_first|conv_after_body)\b", r"swin2sr.\1"),
    (r"^swin2sr\.norm\.", "swin2sr.layernorm."),
    (r"^swin2sr\.patch_embed\.proj", "swin2sr.embeddings.patch_embeddings.projection"),
    (r"^swin2sr\.patch_embed\.norm", "swin2sr.embeddings.patch_embeddings.layernorm"),
    (r"conv_first", "first_convolution"),
    (r"layers\.(\d+)\.residual_group\.blocks\.", r"encoder.stages.\1.layers."),
    (r"swin2sr\.layers\.", "swin2sr.encoder.stages."),
    (r"patch_embed\.proj\b", "patch_embed.projection"),
    (r"attn\.proj\.", "attention.output.dense."), (r"attn\.q_bias", "attention.self.query.bias"),
    (r"attn\.v_bias", "attention.self.value.bias"),
    (r"attn\.cpb_mlp", "attention.self.continuous_position_bias_mlp"),
    (r"attn\.", "attention.self."),
    (r"norm1", "layernorm_before"), (r"norm2", "layernorm_after"),
    (r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense"),
    (r"^conv_before_upsample\.0\.", "upsample.conv_before_upsample."),
    (r"^(conv_up\d|conv_hr)\.", r"upsample.\1."),
    (r"^conv_last\.", "upsample.final_convolution."),
)  # fmt: skip
DIRECT = ((r"^upsample\.0\.", "upsample.conv."),)
SHUFFLED = (
    (
        r"^upsample\.(\d)\.(weight|bias)",
        lambda m: f"upsample.upsample.convolution_{int(m[1]) // 2}.{m[2]}",
    ),
)
