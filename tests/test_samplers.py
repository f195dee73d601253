import pytest
import torch

import realkit as rk
from realkit import samplers
from realkit.models import Request

CONFIG = {
    "_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False, "prediction_type": "epsilon",
}  # fmt: skip
PROMPT = "a photo of a matte red cube on grass at noon"


@pytest.mark.parametrize("name", rk.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_nfe_is_what_the_network_receives(base, name, steps):
    made = base.denoise([Request(PROMPT, "", 1)], name, steps, 3.0, (128, 128))
    assert made.nfe == rk.SAMPLERS[name].nfe(steps) and made.network_passes == 2 * made.nfe
    assert made.latents.isfinite().all()


@pytest.mark.parametrize("name", rk.SAMPLERS)
def test_a_batch_equals_its_singles(base, name):
    requests = [Request(PROMPT, "", 1), Request("a blue cone at night", "", 2), Request("", "red", 2**40)]
    batch = base.denoise(requests, name, 4, 3.0, (128, 128)).latents
    for request, latents in zip(requests, batch, strict=True):
        single = base.denoise([request], name, 4, 3.0, (128, 128)).latents[0]
        assert (single - latents).abs().max() < 2e-3 * latents.abs().max()


def test_samplers_differ_and_seeds_repeat(base):
    def latents(name, seed=1):
        return base.denoise([Request(PROMPT, "", seed)], name, 6, 3.0, (128, 128)).latents

    made = {name: latents(name) for name in rk.SAMPLERS}
    assert all(torch.equal(latents(name), first) for name, first in made.items())
    names = list(made)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert (made[a] - made[b]).abs().max() > 1e-3, (a, b)
    assert (latents("Euler", 2) - made["Euler"]).abs().max() > 0.1


def test_swapping_back_restores_exactly(base):
    first = samplers.swap(base.pipe, "DDIM")
    for name in rk.SAMPLERS:
        samplers.swap(base.pipe, name)
    assert samplers.swap(base.pipe, "DDIM") == first


def test_spacing_is_pinned_not_inherited():
    trailing = CONFIG | {"timestep_spacing": "trailing", "use_karras_sigmas": True, "steps_offset": 0}
    for name in rk.SAMPLERS:
        ours, other = samplers.build(name, CONFIG), samplers.build(name, trailing)
        ours.set_timesteps(20)
        other.set_timesteps(20)
        assert torch.equal(ours.timesteps, other.timesteps), name


def test_v_prediction_is_kept():
    assert all(samplers.build(name, CONFIG | {"prediction_type": "v_prediction"}).config.prediction_type == "v_prediction" for name in rk.SAMPLERS)


@pytest.mark.parametrize(("name", "first"), [("DDIM", 951), ("Euler", 999), ("PLMS", 951)])
def test_where_the_reference_starts(name, first):
    scheduler = samplers.build(name, CONFIG)
    scheduler.set_timesteps(20)
    assert int(scheduler.timesteps[0]) == first


def test_euler_spans_the_training_noise():
    scheduler = samplers.build("Euler", CONFIG)
    scheduler.set_timesteps(20)
    assert scheduler.sigmas[0] == pytest.approx(14.6146, abs=1e-3) and scheduler.sigmas[-1] == 0
    karras = samplers.build("Euler Karras", CONFIG)
    karras.set_timesteps(20)
    rho = 7  # arXiv 2206.00364, equation 5
    low, high = 0.0291675 ** (1 / rho), 14.6146 ** (1 / rho)
    assert karras.sigmas[7] == pytest.approx((high + 7 / 19 * (low - high)) ** rho, rel=1e-3)
