import dataclasses

import pytest

import realkit as rk
from realkit.runs import plan
from realkit.sweeps import cost

MODELS = ["rehearsal/base", "rehearsal/studio"]


def batches(limit=4, **axes):
    sweep = rk.Sweep(**dict(prompts=["a", "b"], seeds=4) | axes)
    named = {
        f"{cell.model} {cell.sampler} {cell.prompt} {cell.seed} {cell.steps}": cell
        for cell in sweep.cells()
    }
    specs = {cell.model: rk.MODELS[cell.model] for cell in named.values()}
    return [[named[name] for name in batch] for batch in plan.batches(named, limit, specs)]


def test_a_picture_of_sd15_costs_what_the_field_counts():
    cell = rk.Sweep(models="sd-1.5", prompts="a", samplers="Euler", steps=25).cells()[0]
    assert cost.tflop([cell], dict(rk.MODELS), []) == pytest.approx(50 * 0.803 + 2.5, rel=0.01)
    assert cost.denoise_tflop(
        dataclasses.replace(cell, guidance=1.0), rk.MODELS["sd-1.5"]
    ) == pytest.approx(25 * 0.803)
    assert cost.denoise_tflop(
        dataclasses.replace(cell, width=1024), rk.MODELS["sd-1.5"]
    ) == pytest.approx(100 * 0.803)


def test_shared_denoising_is_counted_once():
    specs = dict(rk.MODELS)
    plain = rk.Sweep(models=MODELS[0], prompts="a").cells()
    resized = rk.Sweep(
        models=MODELS[0], prompts="a", upscalers=["lanczos", "bicubic"], target=256
    ).cells()
    assert (
        cost.tflop(plain, specs, [])
        == cost.tflop(resized, specs, [])
        < cost.tflop(plain, specs, ["rehearsal/clip"])
    )


def test_a_block_of_seeds_meets_every_model_before_the_next():
    made = batches(models=MODELS, samplers=["Euler", "DDIM"], steps=20)
    assert [(batch[0].model, batch[0].sampler) for batch in made[:4]] == [
        (model, sampler) for model in MODELS for sampler in ("Euler", "DDIM")
    ]
    assert all({cell.seed for cell in batch} == {0, 1} for batch in made[:4])
    assert all({cell.seed for cell in batch} == {2, 3} for batch in made[4:])


def test_a_model_takes_all_seeds_at_once_where_reading_it_again_costs_more_than_a_tenth():
    made = batches(models=MODELS, samplers="Euler", steps=1)
    assert [batch[0].model for batch in made] == [MODELS[0], MODELS[0], MODELS[1], MODELS[1]]


def test_batches_are_even():
    assert [len(batch) for batch in batches(limit=8, models=MODELS[0], prompts="a", seeds=12)] == [
        6,
        6,
    ]
