"""Upscalers in miniature: diffusers' pipelines, built as those that stabilityai publishes, and
networks that spandrel reads. All are tiny and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from realkit.apps.training.ship import WEIGHTS
from tests.miniatures import WIDE, WORDS


def x4(folder: Path) -> Path:
    """Write a pipeline like stable-diffusion-x4-upscaler: a UNet of 7 channels, told how noisy the
    small picture is; a VAE that quarters."""
    import diffusers
    import torch

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        in_channels=7,
        out_channels=4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=WIDE,
        down_block_types=(
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ),
        num_class_embeds=1000,
        up_block_types=(
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
            "UpBlock2D",
        ),
        only_cross_attention=(True, True, True, False),
        use_linear_projection=True,
    )
    trained: dict[str, Any] = {
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "scaled_linear",
    }
    made = diffusers.StableDiffusionUpscalePipeline(
        vae=_vae(3, scaling_factor=0.08333),
        **_words(),
        unet=unet,
        low_res_scheduler=diffusers.DDPMScheduler(**trained),
        scheduler=diffusers.DDIMScheduler(
            **trained, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
        ),
    )
    made.save_pretrained(folder)
    return folder


def latent(folder: Path) -> Path:
    """Write a pipeline like sd-x2-latent-upscaler: k-diffusion's UNet, which has a channel of its
    own for the variance; a VAE that takes an eighth."""
    import diffusers
    import torch

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        in_channels=8,
        out_channels=5,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=None,
        attention_head_dim=8,
        cross_attention_dim=WIDE,
        time_cond_proj_dim=128 + WIDE,
        conv_in_kernel=1,
        conv_out_kernel=1,
        act_fn="gelu",
        timestep_post_act="gelu",
        down_block_types=(
            "KDownBlock2D",
            "KCrossAttnDownBlock2D",
            "KCrossAttnDownBlock2D",
            "KCrossAttnDownBlock2D",
        ),
        mid_block_type=None,
        up_block_types=(
            "KCrossAttnUpBlock2D",
            "KCrossAttnUpBlock2D",
            "KCrossAttnUpBlock2D",
            "KUpBlock2D",
        ),
        only_cross_attention=False,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="sample"
    )
    diffusers.StableDiffusionLatentUpscalePipeline(
        vae=_vae(4), **_words(), unet=unet, scheduler=scheduler
    ).save_pretrained(folder)
    return folder


def network(architecture: str, path: Path) -> Path:
    """Write a tiny random network of an architecture that spandrel tells by its tensors, four times
    larger: one of NETWORKS."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {}
    for name, value in NETWORKS[architecture]().state_dict().items():
        tensors[name] = value.clone().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _realplksr() -> Any:
    from spandrel.architectures.PLKSR import RealPLKSR

    return RealPLKSR(dim=16, n_blocks=2, kernel_size=5, upscaling_factor=4)


def _dat() -> Any:
    from spandrel.architectures.DAT import DAT

    shape = {"embed_dim": 32, "split_size": [4, 8], "depth": [2], "num_heads": [2]}
    return DAT(**shape, expansion_factor=2.0, upscale=4)


def _hat() -> Any:
    from spandrel.architectures.HAT import HAT

    shape = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "window_size": 8}
    return HAT(**shape, squeeze_factor=4, mlp_ratio=2.0, num_feat=16, upscale=4)


def _atd() -> Any:
    from spandrel.architectures.ATD import ATD

    shape = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "num_tokens": 8}
    return ATD(**shape, reducted_dim=2, upscale=4, upsampler="pixelshuffle")


def _esrgan() -> Any:
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN(num_filters=8, num_blocks=1, scale=4)


NETWORKS = {"RealPLKSR": _realplksr, "DAT": _dat, "HAT": _hat, "ATD": _atd, "ESRGAN": _esrgan}


def _vae(levels: int, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * levels, ("UpDecoderBlock2D",) * levels
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=8,
        sample_size=64,
        **more,
    )


def _words() -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    ends = {"bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1, "pad_token_id": WORDS - 1}
    config = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=WIDE,
        intermediate_size=2 * WIDE,
        num_hidden_layers=2,
        num_attention_heads=4,
        **ends,
    )
    return {
        "text_encoder": CLIPTextModel(config),
        "tokenizer": CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer"),
    }
