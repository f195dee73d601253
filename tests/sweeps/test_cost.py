import dataclasses

import pytest
from PIL import Image

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
    assert cost.tflop([cell], dict(rk.MODELS), cost.Extras()) == pytest.approx(
        50 * 0.803 + 2.5, rel=0.01
    )
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
        cost.tflop(plain, specs, cost.Extras())
        == cost.tflop(resized, specs, cost.Extras())
        < cost.tflop(plain, specs, cost.Extras(["rehearsal/clip"]))
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


SD15 = dict(models="sd-1.5", prompts="a", samplers="Euler", steps=25, seeds=100)


@pytest.mark.parametrize(
    "card, says",
    [
        ("", "about 8.5 h on two CPU cores, as here, 6.5 min on a T4, 12 min on a P100"),
        ("Tesla T4", "about 6.5 min on this Tesla T4"),
        ("Tesla P100-PCIE-16GB", "about 12 min on this Tesla P100-PCIE-16GB"),
        ("NVIDIA A100-SXM4-40GB", "about 1.5 min on this NVIDIA A100-SXM4-40GB"),
        ("NVIDIA L4", "about 3.6 min on this NVIDIA L4"),
        ("NVIDIA TITAN X", "12 min on a P100; how fast this machine's NVIDIA TITAN X is, nobody"),
    ],
)
def test_the_time_is_of_this_machine(card, says, monkeypatch):
    monkeypatch.setattr(cost, "first_card", lambda: card)
    text = rk.Sweep(**SD15).describe()
    assert says in text and ("on a T4" in text) == ("on a T4" in says or "TITAN" in card)
    small = rk.Sweep(models="rehearsal/base", prompts="a").describe()
    assert "on two CPU cores" in small and "T4" not in small


def test_batches_do_not_depend_on_this_machines_card(monkeypatch):
    asked = dict(models=MODELS, samplers=["Euler", "DDIM"], steps=20)
    monkeypatch.setattr(cost, "first_card", lambda: "NVIDIA A100-SXM4-40GB")
    there = batches(**asked)
    monkeypatch.setattr(cost, "first_card", lambda: "")
    assert batches(**asked) == there


def test_encoders_and_photographs_count(tmp_path):
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"{number}.png")
    asked = {**SD15, "encoders": ["dinov2", "clip"]}
    plain, more = rk.Sweep(**SD15), rk.Sweep(**asked, photographs=str(tmp_path))
    assert "embeddings" not in plain.describe()
    assert " 206 embeddings (3 photographs too)," in more.describe()
    cells, specs = plain.cells(), dict(rk.MODELS)
    extras = cost.Extras([], ["dinov2", "clip"], 3)
    more_work = cost.tflop(cells, specs, extras) - cost.tflop(cells, specs, cost.Extras())
    assert more_work == pytest.approx(103 * (0.046 + 0.162))


def test_what_nobody_counted_is_said():
    asked = {**SD15, "scorers": ["clip", "judge-prompt", "sharpness"], "target": 1024}
    text = rk.Sweep(**asked, upscalers=["realesrgan-x4plus", "sd-upscale", "lanczos"]).describe()
    assert "not in that time, for nobody has counted their work: judge-prompt, sd-upscale" in text
    assert "nobody" not in rk.Sweep(**SD15).describe().replace("nobody has measured", "")


def test_a_plan_says_what_a_folder_has_already(finished, tmp_path):
    from realkit.runs.plan import existing
    from tests.conftest import SMALL

    before = {path: path.read_bytes() for path in finished.folder.glob("*.json*")}
    assert existing(rk.Sweep(**SMALL), finished.folder).endswith("8 of 8 pictures, 16 of 16 scores")
    line = existing(rk.Sweep(**SMALL | {"seeds": 3, "scorers": "sharpness"}), finished.folder)
    assert "already: 8 of 12 pictures, 0 of 12 scores; the rest about" in line
    assert existing(rk.Sweep(**SMALL), tmp_path / "new").endswith("new': nothing yet")
    assert before == {path: path.read_bytes() for path in finished.folder.glob("*.json*")}
    assert not (tmp_path / "new").exists()
