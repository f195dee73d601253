"""What a network predicts (noise, velocity or the clean picture) does not change what a sampler
makes of it."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

import realkit as rk
from realkit.models.spec import MODELS, ModelSpec
from realkit.samplers import build
from realkit.samplers.sigmas import of_timestep
from tests import miniatures
from tests.asking import denoised
from tests.cuts import solvers, thinned
from tests.samplers.test_reference import CONFIG, SEEDS, distance, generators, network, start

DIFFUSION = [name for name, spec in rk.SAMPLERS.items() if spec.model == "diffusion"]
ABLE = [name for name in DIFFUSION if "sample" in rk.SAMPLERS[name].predictions]
PROMPT = "a photo of a matte red cube on grass at noon"
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0).numpy()
TRAINED = np.sqrt((1 - ALPHAS) / ALPHAS)


def predicted(prediction: str, z: torch.Tensor, t: torch.Tensor, sigma: float) -> torch.Tensor:
    """One denoiser's answer to z = √ᾱ·x₀ + √(1-ᾱ)·ε at timestep t and level sigma, told as each
    kind of network tells it (v: arXiv 2202.00512, appendix D)."""
    clean = network(z, t.expand(len(z)))
    signal, noise = (sigma**2 + 1) ** -0.5, sigma * (sigma**2 + 1) ** -0.5
    epsilon = (z - signal * clean) / noise
    velocity = signal * epsilon - noise * clean
    return {"epsilon": epsilon, "v_prediction": velocity, "sample": clean}[prediction]


def made(name: str, prediction: str, steps: int) -> torch.Tensor:
    scheduler = build.build(name, CONFIG | {"prediction_type": prediction})
    scheduler.set_timesteps(steps)
    x, drawn = start().double() * scheduler.init_noise_sigma, generators()
    for place, t in enumerate(scheduler.timesteps):
        if rk.SAMPLERS[name].solver or not hasattr(scheduler, "sigmas"):
            sigma = float(of_timestep(t.double().numpy(), TRAINED))
        else:  # diffusers rounds the timesteps of these, and keeps their levels
            sigma = float(scheduler.sigmas[place])
        out = predicted(prediction, scheduler.scale_model_input(x, t), t, sigma)
        settings = {"generator": drawn} if rk.SAMPLERS[name].stochastic else {}
        x = scheduler.step(out, t, x, **settings).prev_sample
    return x


@pytest.mark.parametrize("name", thinned(ABLE, [name for name in ABLE if name in solvers()]))
def test_a_network_of_clean_pictures_is_sampled_as_one_of_noise(name):
    for steps in (1, 4):
        clean = made(name, "sample", steps)
        assert clean.shape[0] == len(SEEDS) and clean.isfinite().all()
        assert distance(clean, made(name, "epsilon", steps)) < 1e-3, steps
        assert distance(clean, made(name, "v_prediction", steps)) < 1e-3, steps


def test_what_a_sampler_cannot_read_is_refused_in_one_line():
    assert set(DIFFUSION) - set(ABLE) == {"PLMS"}
    with pytest.raises(rk.RequestError, match="'PLMS' cannot run a model that predicts 'sample'"):
        build.check("PLMS", 4, CONFIG | {"prediction_type": "sample"})
    with pytest.raises(ValueError, match="prediction_type"):  # as diffusers would, in the middle
        made("DEIS", "x0", 2)


@pytest.mark.parametrize("name", ["Euler", "DDIM"])
@pytest.mark.parametrize("prediction", ["x0", None, ["sample"], 3])
def test_an_unknown_prediction_is_refused_in_one_line(name, prediction):
    with pytest.raises(rk.RequestError, match="expected one of epsilon, v_prediction, sample"):
        build.check(name, 4, CONFIG | {"prediction_type": prediction})


@pytest.fixture(scope="module")
def lightning(tmp_path_factory):
    """A miniature of SDXL whose denoiser is said to predict the clean picture."""
    folder = miniatures.miniature("sdxl", tmp_path_factory.mktemp("lightning") / "xl")
    spec = ModelSpec(family="sdxl", source=str(folder), prediction="sample", size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS._entries, "lightning", spec)
        yield rk.load("lightning")


@pytest.mark.parametrize("steps", [1, 4])
def test_a_model_of_clean_pictures_is_as_with_diffusers_euler(lightning, steps):
    config = lightning.pipe.original_scheduler_config
    assert config["prediction_type"] == "sample"
    ours = denoised(lightning, [(PROMPT, "", 1)], "Euler Trailing", steps, 0.0, (64, 64)).latents
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    theirs = EulerDiscreteScheduler.from_config(known, timestep_spacing="trailing")
    pipe = StableDiffusionXLPipeline(**lightning.pipe.components | {"scheduler": theirs})
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=0.0,
        height=64,
        width=64,
        output_type="latent",
        generator=[torch.Generator().manual_seed(1)],
    ).images
    assert distance(ours, latents) < 2e-3


def test_a_model_of_clean_pictures_refuses_a_sampler_that_cannot_read_it(lightning):
    with pytest.raises(rk.RequestError, match="cannot run a model that predicts 'sample'"):
        lightning(PROMPT, sampler="PLMS", steps=4, size=64)
