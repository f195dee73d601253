import json
from pathlib import Path

import numpy as np
import pytest
import torch

import realkit as rk
from realkit.samplers import build
from realkit.samplers.table import Sampler, Samplers
from tests.asking import denoised
from tests.cuts import representatives, thinned

CONFIG = {
    "_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
    "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False,
    "prediction_type": "epsilon",
}  # fmt: skip
PROMPT = "a photo of a matte red cube on grass at noon"


DIFFUSION = [name for name, spec in rk.SAMPLERS.items() if spec.model == "diffusion"]
FIXED = [
    name for name in DIFFUSION if not rk.SAMPLERS[name].adaptive
]  # those that take the steps asked for


# Each family of solvers, and those that count their calls in a way of their own.
COUNTED = ["Euler", "Heun", "DPM2 a", "DPM++ SDE", "DPM fast", "PLMS", "DPM adaptive", "Restart",
           "UniPC"]  # fmt: skip


@pytest.mark.parametrize("name", thinned(DIFFUSION, COUNTED))
def test_nfe_is_what_the_network_receives(base, name):
    # From 20 steps on Restart goes back. DPM fast ends by the remainder of a division by three.
    # An adaptive sampler reads no number of steps.
    counts = {"Restart": (1, 5, 21), "DPM fast": (1, 5, 21), "DPM adaptive": (2,)}
    for steps in counts.get(name, (1, 5)):
        made = denoised(base, [(PROMPT, "", 1)], name, steps, 1.0, (64, 64))
        assert made.nfe == made.network_passes and made.latents.isfinite().all()
        if not rk.SAMPLERS[name].adaptive:
            assert made.nfe == rk.SAMPLERS[name].nfe(steps), steps
    assert denoised(base, [(PROMPT, "", 1)], name, 2, 3.0, (64, 64)).network_passes % 2 == 0


# A batch meets no code of a deterministic solver: one stands for all. Noise is drawn a picture.
NOISY = ["Euler a", "DPM++ SDE", "DPM++ 2M SDE", "DDPM", "LCM"]


@pytest.mark.parametrize("name", thinned(FIXED, [*NOISY, "DPM++ 2M", "UniPC"]))
def test_a_batch_equals_its_singles(base, name):
    requests = [(PROMPT, "", 1), ("", "red", 2**40)]
    batch = denoised(base, requests, name, 3, 3.0, (64, 64)).latents
    for request, latents in zip(requests, batch, strict=True):
        single = denoised(base, [request], name, 3, 3.0, (64, 64)).latents[0]
        assert (single - latents).abs().max() < 2e-3 * latents.abs().max()


@pytest.mark.slow
def test_an_adaptive_sampler_goes_image_by_image_and_ignores_steps(tmp_path):
    sweep = rk.Sweep(
        models="rehearsal/base",
        samplers=["DPM adaptive", "Euler"],
        prompts=["a red cube", "a blue cone"],
        steps=[2, 3],
        size=64,
        guidance=1,
    )
    df = rk.run(sweep, tmp_path).table()
    adaptive = df[df["sampler"] == "DPM adaptive"]
    assert (
        len(df) == 8
        and set(adaptive["batch"]) == {1}
        and set(df.loc[df["sampler"] == "Euler", "batch"]) == {2}
    )
    assert adaptive["image"].nunique() == 2 and (adaptive["nfe"] > 20).all()
    single = denoised(
        rk.load("rehearsal/base"), [("a red cube", "", 0)], "DPM adaptive", 9, 1.0, (64, 64)
    )
    assert single.nfe == adaptive.loc[adaptive["prompt"] == "a red cube", "nfe"].iloc[0]


def short(base, name, seed=1, guidance=3.0):
    """Latents after four steps."""
    return denoised(base, [(PROMPT, "", seed)], name, 4, guidance, (64, 64)).latents


def test_seeds_repeat_and_differ(base):
    for name in ("Euler", "Euler a", "DPM++ SDE", "DDPM"):  # each source of noise
        assert torch.equal(short(base, name), short(base, name)), name
    assert (short(base, "Euler", 2) - short(base, "Euler")).abs().max() > 0.1


@pytest.mark.parametrize(
    "names",
    [
        ["Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "DDIM", "UniPC", "LCM"],
        pytest.param(DIFFUSION, marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_samplers_differ(base, names):
    made = {
        name: short(base, name, guidance=1.0)
        for name in names
        if name in DIFFUSION and name != "Restart"
    }  # below 20 steps Restart is Heun Karras
    stack = torch.stack(list(made.values())).flatten(1)
    same = [
        (a, b)
        for i, a in enumerate(made)
        for j, b in enumerate(made)
        if i < j and (stack[i] - stack[j]).abs().max() < 1e-3
    ]
    assert not same


def test_swapping_back_restores_exactly(base):
    first = build.swap(base.pipe, "DDIM")
    for name in DIFFUSION:
        build.swap(base.pipe, name)
    assert build.swap(base.pipe, "DDIM") == first


def test_spacing_is_pinned_not_inherited():
    trailing = CONFIG | {
        "timestep_spacing": "trailing",
        "use_karras_sigmas": True,
        "steps_offset": 0,
    }
    for name in set(FIXED) & set(representatives()):
        ours, other = build.build(name, CONFIG), build.build(name, trailing)
        ours.set_timesteps(20)
        other.set_timesteps(20)
        assert torch.equal(ours.timesteps, other.timesteps), name


def test_v_prediction_is_kept():
    assert all(
        build.build(name, CONFIG | {"prediction_type": "v_prediction"}).config.prediction_type
        == "v_prediction"
        for name in DIFFUSION
    )


@pytest.mark.parametrize(("name", "first"), [("DDIM", 951), ("Euler", 999), ("PLMS", 951)])
def test_where_the_reference_starts(name, first):
    scheduler = build.build(name, CONFIG)
    scheduler.set_timesteps(20)
    assert int(scheduler.timesteps[0]) == first


def test_euler_spans_the_training_noise():
    scheduler = build.build("Euler", CONFIG)
    scheduler.set_timesteps(20)
    assert scheduler.sigmas[0] == pytest.approx(14.6146, abs=1e-3) and scheduler.sigmas[-1] == 0
    karras = build.build("Euler Karras", CONFIG)
    karras.set_timesteps(20)
    rho = 7  # arXiv 2206.00364, equation 5
    low, high = 0.0291675 ** (1 / rho), 14.6146 ** (1 / rho)
    assert karras.sigmas[7] == pytest.approx((high + 7 / 19 * (low - high)) ** rho, rel=1e-3)


GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_schedules.json").read_text())
CONFIGS = {
    "sd-1.5": CONFIG,
    "sd-2.1": CONFIG | {"prediction_type": "v_prediction", "_class_name": "DDIMScheduler"},
    "sdxl": (
        CONFIG
        | {
            "_class_name": "EulerDiscreteScheduler",
            "timestep_spacing": "leading",
            "use_karras_sigmas": False,
            "interpolation_type": "linear",
        }
    ),
}


def laid_out(name: str, config: dict) -> dict[str, list[float]]:
    """Timesteps and, where the scheduler has them, sigmas at six steps."""
    scheduler = build.build(name, config)
    scheduler.set_timesteps(6)
    sigmas = getattr(scheduler, "sigmas", None)
    found = {"timesteps": scheduler.timesteps.tolist()} | (
        {} if sigmas is None else {"sigmas": sigmas.tolist()}
    )
    return {key: [float(f"{value:.5g}") for value in values] for key, values in found.items()}


@pytest.mark.parametrize("style", CONFIGS)
def test_timesteps_and_sigmas_are_the_golden_ones(style):
    for name in FIXED:
        for key, values in laid_out(name, CONFIGS[style]).items():
            assert GOLDEN[name][key] == pytest.approx(values, rel=2e-5), (
                f"{name} lays out other {key} for {style}: did diffusers change?"
            )


@pytest.mark.parametrize("name", thinned(DIFFUSION, representatives()))
def test_a_thousand_steps_are_right_or_refused(name):
    try:
        build.check_steps(name, 1000)
    except rk.RequestError as error:
        assert "expected at most 50" in str(error) or "Use 999 or fewer" in str(error)
        return
    scheduler = build.build(name, CONFIG)
    scheduler.set_timesteps(1000)
    if not rk.SAMPLERS[name].adaptive:
        assert len(scheduler.timesteps) == rk.SAMPLERS[name].nfe(1000)
        assert scheduler.timesteps.isfinite().all()


@pytest.mark.parametrize("name", ["Euler", "DDIM", "LCM"])
def test_more_steps_than_training_timesteps_are_refused(name):
    with pytest.raises(rk.RequestError, match="steps 1001"):
        rk.Sweep(models="rehearsal/base", samplers=name, prompts="a", steps=1001).cells()


def test_guidance_zero_and_one_are_the_plain_prediction(base):
    def latents(guidance):
        return denoised(
            base, [(PROMPT, "night", 1)], "DPM++ 2S a Karras", 5, guidance, (64, 64)
        ).latents

    assert torch.equal(latents(0.0), latents(1.0)) and not torch.equal(latents(1.0), latents(1.5))


def test_a_sampler_that_cannot_run_a_model_names_those_that_can():
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    with pytest.raises(
        rk.RequestError,
        match=(
            r"'Euler a' does not run rectified-flow models\. Those that do: Flow Euler, Flow Heun"
        ),
    ):
        build.build("Euler a", flow)
    with pytest.raises(
        rk.RequestError,
        match=r"'Flow Euler' does not run diffusion models\. Those that do: Euler, ",
    ):
        rk.run(rk.Sweep(models="rehearsal/base", samplers="Flow Euler", prompts="a"), "nowhere")


def test_our_samplers_begin_in_the_middle_as_image_to_image_asks():
    scheduler = build.build("Heun Karras", CONFIG)
    scheduler.set_timesteps(10)
    whole = scheduler.timesteps
    scheduler.set_begin_index(4 * scheduler.order)
    x = torch.randn(1, 4, 8, 8)
    for t in whole[4 * scheduler.order :]:
        x = scheduler.step(torch.zeros_like(x), t, x).prev_sample
    assert x.isfinite().all() and scheduler.sigmas[4] > 0
    noised = scheduler.add_noise(torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8), whole[8:9])
    assert noised.mean() == pytest.approx(scheduler.sigmas[4].item(), rel=1e-5)
    with pytest.raises(ValueError, match="cannot begin at call 3"):
        scheduler.set_begin_index(3)


def test_a_slice_of_the_timesteps_begins_where_it_says():
    whole, sliced = build.build("Heun Karras", CONFIG), build.build("Heun Karras", CONFIG)
    x = {}
    for scheduler, told in ((whole, True), (sliced, False)):
        scheduler.set_timesteps(10)
        if told:
            scheduler.set_begin_index(8)
        y = torch.ones(1, 4, 8, 8)
        for t in scheduler.timesteps[8:]:
            y = scheduler.step(0.1 * scheduler.scale_model_input(y, t), t, y).prev_sample
        x[told] = y
    assert torch.equal(x[True], x[False])


@pytest.mark.parametrize(
    "name", ["Euler", "Heun Karras", "DPM++ 2M", "LMS", "DPM2", "DPM fast", "DPM++ SDE"]
)
def test_a_sample_that_the_pipeline_changed_is_what_the_sampler_goes_on_with(name):
    def made(change):
        scheduler = build.build(name, CONFIG)
        scheduler.set_timesteps(6)
        y = torch.ones(1, 4, 8, 8) * scheduler.init_noise_sigma
        for i, t in enumerate(scheduler.timesteps):
            y = scheduler.step(
                0.1 * scheduler.scale_model_input(y, t),
                t,
                y,
                generator=[torch.Generator().manual_seed(1)],
            ).prev_sample
            if change and i == scheduler.order * 3 - 1:
                y = y + 1
        return y

    assert (made(True) - made(False)).abs().max() > 0.1


def test_a_scheduler_says_when_it_is_used_wrongly():
    scheduler = build.build("Euler a", CONFIG)
    scheduler.set_timesteps(1)
    x = torch.ones(3, 4, 8, 8)
    with pytest.raises(ValueError, match="1 generators for 3 images"):
        scheduler.step(x, scheduler.timesteps[0], x, generator=[torch.Generator()])
    x = scheduler.step(x, scheduler.timesteps[0], x, generator=torch.Generator()).prev_sample
    with pytest.raises(RuntimeError, match="call set_timesteps before another"):
        scheduler.scale_model_input(x, scheduler.timesteps[0])
    adaptive = build.build("DPM adaptive", CONFIG)
    adaptive.set_timesteps(1)
    for use in (list, lambda timesteps: timesteps[2:]):
        with pytest.raises(RuntimeError, match="makes pictures from text alone"):
            use(adaptive.timesteps)


def test_an_adaptive_sampler_stops_at_what_is_not_finite():
    scheduler = build.build("DPM adaptive", CONFIG)
    scheduler.set_timesteps(1)
    x = torch.ones(1, 4, 8, 8)
    with pytest.raises(FloatingPointError, match="not finite"):
        for t in scheduler.timesteps:
            x = scheduler.step(x * float("nan"), t, x, generator=[torch.Generator()]).prev_sample


@pytest.mark.parametrize("steps", [170, 334, 501])
def test_whole_strides_that_would_begin_far_below_full_noise_are_refused(steps):
    with pytest.raises(rk.RequestError, match="would begin at timestep"):
        build.check_steps("DDIM", steps)
    for fine in (1, 2, 5, 7, 20, 21, 30, 50, 64, 100, 150, 250, 333, 500, 999):
        build.check_steps("DDIM", fine)


def test_what_belongs_to_the_model_is_kept_and_nothing_else():
    odd = CONFIG | {
        "sigma_max": 3.0,
        "sigma_min": 1.0,
        "use_flow_sigmas": True,
        "lambda_min_clipped": -1.0,
        "variance_type": "learned",
        "solver_order": 1,
    }
    for name in ("UniPC Karras", "DEIS", "SA-Solver", "Euler", "DDPM"):
        assert build.build(name, odd).config == build.build(name, CONFIG).config, name
    zero = CONFIG | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    assert (
        build.build("DDIM", zero).alphas_cumprod[-1] == 0
        and build.build("Euler", zero).alphas_cumprod[-1] < 1e-6
    )
    with pytest.raises(rk.RequestError, match="zero terminal SNR"):
        build.build("PLMS", zero)


def test_a_pipeline_built_by_hand_is_judged_by_its_scheduler():
    from types import SimpleNamespace

    from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

    flow = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert build.swap(flow, "Flow Euler")["shift"] == 3.0
    with pytest.raises(rk.RequestError, match="rectified-flow"):
        build.swap(SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler()), "Euler")
    with pytest.raises(rk.RequestError, match="EDM models"):
        build.swap(SimpleNamespace(scheduler=EDMEulerScheduler()), "Euler")


@pytest.mark.parametrize(
    "name", thinned(["UniPC", "UniPC Karras", "DEIS Exponential", "SA-Solver"], ["UniPC Karras"])
)
def test_many_steps_run(base, name):
    assert denoised(base, [(PROMPT, "", 1)], name, 50, 1.0, (64, 64)).latents.isfinite().all()


def at_length(base, name, steps):
    return denoised(base, [(PROMPT, "", 1)], name, steps, 3.0, (64, 64)).latents


@pytest.fixture(scope="module")
def converged(base):
    return at_length(base, "DPM++ 2M Karras", 160)


ENDS = ["UniPC Karras", "UniPC Exponential", "DEIS Karras", "DEIS Exponential", "Heun", "LMS Beta"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_deterministic_samplers_end_at_the_same_picture(base, converged, name):
    assert (at_length(base, name, 80) - converged).square().mean().sqrt() < 0.03


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('solver = "eulerr"', "has the entry 'eulerr': expected one of euler, "),
        (
            'solver = "euler"\nschedules = ["karas"]',
            "has the entry 'karas': expected one of uniform, karras",
        ),
        ('class = "NoScheduler"', "has the class 'NoScheduler', which diffusers lacks"),
    ],
)
def test_an_entry_of_ones_own_that_means_nothing_is_named(tmp_path, monkeypatch, entry, says):
    (tmp_path / "samplers.toml").write_text(
        f'["Mine"]\n{entry}\ncalls = "n"\norder = 1\npaper = "mine"\nreference = "none"\n'
    )
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    monkeypatch.setattr(build, "SAMPLERS", Samplers("sampler", Sampler))
    with pytest.raises(rk.RequestError, match=says):
        build.build("Mine", CONFIG)


@pytest.mark.parametrize("count", [1000, 2000, 4000])
@pytest.mark.parametrize("name", ["Euler", "DPM++ 2M Karras", "Euler Trailing", "DPM++ SDE"])
def test_zero_terminal_snr_of_any_number_of_timesteps_begins_at_the_last(name, count):
    original = {
        "num_train_timesteps": count, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
    }  # fmt: skip
    scheduler = build.build(name, original)
    scheduler.set_timesteps(20)
    assert (np.diff(scheduler.trained) > 0).all()
    assert float(scheduler.timesteps[0]) == count - 1
    if count == 1000:  # as diffusers has it: pictures stay
        assert float(scheduler.alphas_cumprod[-1]) == 2**-24
    # The network of a world with one picture, 0.5 everywhere: it must be what comes out.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 8, 8, generator=generator) * scheduler.init_noise_sigma
    for number, t in enumerate(scheduler.timesteps):
        sigma = scheduler._call_levels[number]
        scheduler.scale_model_input(x, t)
        noise = (x - 0.5) / sigma
        velocity = (noise - 0.5 * sigma) / (sigma**2 + 1) ** 0.5
        x = scheduler.step(velocity, t, x, generator=[generator]).prev_sample
    assert (x - 0.5).abs().max() < 0.01


def test_on_the_mixture_diffusers_schedulers_stop_early_and_count_fewer_calls():
    # Why notebooks/samplers.ipynb counts 13 calls of DDIM at 16 steps, and 16 in pictures.
    assert rk.laboratory.run("DDIM", 16).calls == 13 and rk.SAMPLERS["DDIM"].nfe(16) == 16
    assert rk.laboratory.run("DDIM", 16, to_zero=True).calls == 16
    assert rk.laboratory.run("Euler", 16).calls == 16
