"""Our scheduler inside diffusers' pipelines: it drops in, and gives what diffusers' own Euler
gives."""

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image

import realkit as rk
from realkit.samplers import build
from tests.cuts import thinned

KARRAS = {"timestep_spacing": "linspace", "use_karras_sigmas": True}
PROMPT = "a photo of a matte red cube on grass at noon"


def again(strength: float, base, scheduler, steps: int = 10) -> np.ndarray:
    pipe = StableDiffusionImg2ImgPipeline(**base.pipe.components | {"scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    start = Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8))
    return pipe(
        PROMPT,
        image=start,
        strength=strength,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images


@pytest.mark.parametrize("strength", thinned([0.3, 0.5, 1.0], [0.5]))
def test_image_to_image_is_as_with_diffusers_euler(base, strength):
    config = base.pipe.original_scheduler_config
    known = {
        key: value
        for key, value in config.items()
        if key
        not in ("steps_offset", "skip_prk_steps", "set_alpha_to_one", "clip_sample", "_class_name")
    }
    theirs = EulerDiscreteScheduler.from_config(known, **KARRAS)
    assert (
        np.abs(
            again(strength, base, build.build("Euler Karras", config))
            - again(strength, base, theirs)
        ).max()
        < 2e-3
    )


TWO_CALLS = ["Heun Karras", "DPM++ SDE Karras", "DPM++ 2S a", "DPM2 a Karras"]


@pytest.mark.parametrize("name", thinned(TWO_CALLS, TWO_CALLS[:2]))
def test_image_to_image_counts_in_steps_where_a_step_has_two_calls(base, name):
    picture = again(0.5, base, build.build(name, base.pipe.original_scheduler_config))
    assert np.isfinite(picture).all()
    assert (
        np.abs(
            picture - again(0.9, base, build.build(name, base.pipe.original_scheduler_config))
        ).max()
        > 0.05
    )


@pytest.mark.parametrize(
    "name", ["Euler Karras", "DPM adaptive", "DPM++ 3M SDE", "Heun Karras", "DPM fast", "Restart"]
)
def test_sdxl_takes_it_too(base, name):
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    torch.manual_seed(0)
    config = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "_class_name": "EulerDiscreteScheduler",
        "timestep_spacing": "leading",
    }
    pipe = StableDiffusionXLPipeline(
        base.pipe.vae,
        None,
        None,
        None,
        None,
        unet,
        build.build(name, config),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    words, pooled = torch.randn(1, 5, 32), torch.randn(1, 16)
    made = pipe(
        prompt_embeds=words,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=words * 0,
        negative_pooled_prompt_embeds=pooled * 0,
        num_inference_steps=6,
        height=64,
        width=64,
        output_type="latent",
        generator=[torch.Generator().manual_seed(1)],
    ).images
    assert made.isfinite().all() and rk.SAMPLERS[name].solver
