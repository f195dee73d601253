"""Two legs: a schedule cut between whole steps, and a base that hands over to a refiner, in a call
and in a sweep."""

import dataclasses

import numpy as np
import pytest
import torch

import realkit as rk
from realkit.catalog.lookup import Table
from realkit.models import spec as spec_module
from realkit.models.lock import ModelLock, lock_model
from realkit.models.model import Model
from realkit.models.spec import Leg, ModelSpec
from realkit.samplers import share
from realkit.samplers.build import build
from realkit.samplers.table import SAMPLERS
from realkit.sweeps import check
from realkit.sweeps.ids import ids
from tests.cuts import representatives, thinned

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
WITHOUT_MEMORY = [
    "Euler",
    "Euler Karras",
    "Heun",
    "DPM2 Karras",
    "Euler Trailing",
]  # each step depends on the state alone


def go(
    name: str, steps: int, x: torch.Tensor, share: tuple[float, float] = (0.0, 1.0)
) -> tuple[torch.Tensor, int]:
    """The state after these legs of a sampler on a toy denoiser, and its calls; `x` is at the first
    level of the leg."""
    scheduler = build(name, SCHEDULE)
    scheduler.cut(*share)
    scheduler.set_timesteps(steps)
    generator = [torch.Generator().manual_seed(7)]
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(
            torch.tanh(scaled) * 0.7 + t / 3000, t, x, generator=generator
        ).prev_sample
    return x, len(scheduler.timesteps)


@pytest.mark.parametrize("name", WITHOUT_MEMORY)
@pytest.mark.parametrize("steps", [5, 20])
def test_two_legs_of_one_model_are_the_whole_way(name, steps):
    scheduler = build(name, SCHEDULE)
    scheduler.set_timesteps(steps)
    start = (
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        * scheduler.init_noise_sigma
    )
    whole, calls = go(name, steps, start)
    between, first = go(name, steps, start, (0.0, 0.6))
    end, second = go(name, steps, between, (0.6, 1.0))
    assert (end - whole).abs().max() < 1e-5 and first + second == calls and first and second


@pytest.mark.parametrize(
    "name",
    thinned(
        [name for name, spec in SAMPLERS.items() if spec.divides and spec.solver], representatives()
    ),
)
def test_every_sampler_that_divides_hands_over_at_a_level_of_its_schedule(name):
    whole, one, two = (build(name, SCHEDULE) for _ in range(3))
    whole.set_timesteps(12)
    for scheduler, part in ((one, (0.0, 0.7)), (two, (0.7, 1.0))):
        scheduler.cut(*part)
        scheduler.set_timesteps(12)
    assert one.sigmas[-1] == two.sigmas[0] > 0 and two.sigmas[-1] == 0
    assert torch.equal(torch.cat([one.sigmas, two.sigmas[1:]]), whole.sigmas)
    assert len(one.timesteps) + len(two.timesteps) <= len(whole.timesteps) + 1


@pytest.mark.parametrize("name", ["DPM fast", "Restart", "PLMS", "DPM adaptive"])
def test_a_sampler_that_goes_whole_only_is_refused_before_anything_is_loaded(name, tmp_path):
    assert not SAMPLERS[name].divides
    with pytest.raises(rk.RequestError, match=f"{name}' cannot hand over in the middle"):
        rk.run(
            rk.Sweep(models="rehearsal/xl+refiner", prompts="a red cube", samplers=name), tmp_path
        )
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_refiner_alone_is_refused(tmp_path):
    with pytest.raises(rk.RequestError, match="continues another model's latents"):
        rk.run(rk.Sweep(models="rehearsal/refiner", prompts="a red cube"), tmp_path)
    with pytest.raises(rk.RequestError, match="continues another model's latents"):
        rk.load("rehearsal/refiner")("a red cube")


def test_what_cannot_take_over_is_no_second_leg(tmp_path, monkeypatch):
    (tmp_path / "models.toml").write_text(
        '[mine]\nsource = "package:base"\nthen = { model = "rehearsal/base", at = 0.5 }\n'
    )
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    monkeypatch.setattr(spec_module, "MODELS", Table("model", ModelSpec))
    with pytest.raises(rk.RequestError, match="which does not take over from another model"):
        lock_model("mine")


@pytest.mark.slow
def test_base_and_refiner_in_a_call_and_in_a_sweep_are_one_picture(tmp_path):
    asked = dict(samplers="DPM++ 2M Karras", steps=6, guidance=3.0)
    sweep = rk.Sweep(
        models=["rehearsal/xl", "rehearsal/xl+refiner"],
        prompts=["a photo of a matte red cube on grass at noon"],
        seeds=2,
        **asked,
    )
    done = rk.run(sweep, tmp_path)
    df = done.table()
    assert set(df["status"]) == {"ok"}
    assert list(df["nfe"]) == [6] * 4 and list(df["network_passes"]) == [12] * 4
    model = rk.load("rehearsal/xl+refiner")
    from PIL import Image

    image = model(
        "a photo of a matte red cube on grass at noon",
        sampler="DPM++ 2M Karras",
        steps=6,
        guidance=3.0,
        seed=1,
    )
    mine, theirs = (
        np.asarray(image).astype(int),
        np.asarray(Image.open(tmp_path / df["image"][3])).astype(int),
    )
    assert np.abs(mine - theirs).max() <= 1  # batches of two and of one differ by rounding
    alone = np.asarray(Image.open(tmp_path / df["image"][1])).astype(int)
    assert 0 < np.abs(mine - alone).mean() < 30  # another picture, of the same thing
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    rk.run(sweep, tmp_path)
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == rows


def test_what_a_second_leg_changes_is_in_the_ids():
    cell = rk.Sweep(models="rehearsal/xl+refiner", prompts="a").cells()[0]
    lock = lock_model("rehearsal/xl+refiner")
    first = ids(cell, lock, None)
    assert lock.then and lock.spec.then
    leg = Leg(model="rehearsal/refiner", at=0.9)
    later = dataclasses.replace(lock, spec=lock.spec.model_copy(update={"then": leg}))
    second = ids(cell, later, None)
    alone = ids(cell, lock_model("rehearsal/xl"), None)
    assert (
        len({first.latents, second.latents, alone.latents, first.begun, second.begun}) == 5
        and not alone.begun
    )
    assert ModelLock.from_json(lock.name, lock.to_json()) == lock


def test_too_few_steps_for_two_legs_start_nothing(tmp_path):
    asked = dict(models="rehearsal/xl+refiner", prompts="a", samplers="Euler", steps=1, size=64)
    with pytest.raises(rk.RequestError, match="would have no step"):
        rk.run(rk.Sweep(**asked), tmp_path)
    assert not (tmp_path / "rows.jsonl").exists()
    with pytest.raises(rk.RequestError, match="would have no step"):
        rk.load("rehearsal/xl+refiner")("a", sampler="Euler", steps=1, size=64)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_first_leg_that_fails_fails_alone(tmp_path, monkeypatch, bad):
    """Of a batch of two, one picture's first leg is not finite, as float16 may leave it: the other
    goes its whole way."""
    denoise = Model.denoise

    def overflows(model, requests, *rest, **more):
        made = denoise(model, requests, *rest, **more)
        if more.get("begun") is not None:
            return made
        latents = made.latents.clone()
        latents[[request.seed == bad for request in requests]] = float("nan")
        return dataclasses.replace(made, latents=latents)

    sweep = rk.Sweep(
        models="rehearsal/xl+refiner",
        prompts="a red cube",
        samplers="Euler",
        steps=5,
        size=64,
        seeds=2,
    )
    with monkeypatch.context() as patch:
        patch.setattr(Model, "denoise", overflows)
        frame = rk.run(sweep, tmp_path, batch=2).table().set_index("seed")
    assert (
        frame.status.to_dict() == {bad: "failed", 1 - bad: "ok"}
        and "the latents are not finite" in frame.error[bad]
    )
    assert set(rk.run(sweep, tmp_path, batch=2).table().status) == {"ok"}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].divides])
def test_the_steps_of_the_first_leg_are_told_without_torch(name):
    spec = SAMPLERS[name]
    if spec.model != "diffusion" or spec.most_steps < 1000:
        return
    scheduler = build(name, SCHEDULE)
    for steps in (1, 2, 3, 8, 20, 77):
        if spec.refusal(steps):
            continue
        scheduler.set_timesteps(steps)
        timesteps = np.array(scheduler.timesteps, float)[:: scheduler.order]
        for at in (0.5, 0.8):
            told = share.steps_before(spec, steps, SCHEDULE, at)
            assert told == (timesteps >= 1000 - round(at * 1000)).sum()


@pytest.mark.parametrize(
    ("sampler", "steps", "enough"), [("Euler", 1, 2), ("Euler Trailing", 4, 5), ("DDIM", 1, 2)]
)
def test_a_refiner_without_a_step_is_refused_beforehand(sampler, steps, enough):
    asked = dict(models="rehearsal/xl+refiner", prompts="a cube", samplers=sampler, steps=steps)
    says = rf"steps {steps} with model .* would have no step: take {enough} or more"
    with pytest.raises(rk.RequestError, match=says):
        check.plan(rk.Sweep(**asked))
    check.plan(rk.Sweep(**asked | {"steps": enough}))
