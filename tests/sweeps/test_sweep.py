import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import realkit as rk
from realkit.models.lock import lock_model
from realkit.models.spec import identify
from realkit.sweeps import ids

GOOD = dict(models="rehearsal/base", prompts="a red cube")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"models": "rehearsal/bass"},
            r"Unknown model 'rehearsal/bass'\. Did you mean 'rehearsal/base'\?",
        ),
        ({"models": []}, "models is an empty list"),
        ({"models": "weights/none.safetensors"}, "No such file or folder"),
        ({"samplers": "Eulr"}, r"Unknown sampler 'Eulr'\. Did you mean 'Euler'"),
        ({"scorers": "klip"}, "Unknown scorer 'klip'"),
        (
            {"upscalers": "lancsoz", "target": 512},
            r"Unknown upscaler 'lancsoz'\. Did you mean 'lanczos'",
        ),
        ({"upscalers": "lanczos"}, "needs a target"),
        ({"prompts": ""}, "expected words"),
        ({"prompts": "  "}, "expected words"),
        ({"prompts": []}, "prompts is an empty list"),
        ({"prompts": [None]}, "prompt None: Input should be a valid string"),
        ({"prompts": "suite:nothing"}, "Unknown prompt 'nothing'"),
        ({"prompts": ["a", "suite:nothing"]}, "Unknown prompt 'nothing'"),
        (
            {"models": {"model": "rehearsal/base", "prompt": "suite:rehearsal"}},
            "name a suite in the list of prompts",
        ),
        ({"prompts": "a \ud83d cube"}, r"prompt 'a .ud83d cube': expected text"),
        ({"negatives": "\udcff"}, "negative .*: expected text"),
        (
            {"prompts": 10**5000},
            "prompt a number too long to write: Input should be a valid string",
        ),
        ({"models": "a" * 5000}, "Unknown model"),
        ({"seeds": []}, "seeds is an empty list"),
        ({"seeds": 0}, "seeds 0"),
        ({"seeds": [-1]}, "seed -1"),
        ({"seeds": [True]}, "seed True"),
        ({"steps": -3}, "steps -3: Input should be greater than or equal to 1"),
        ({"steps": 0}, "steps 0"),
        ({"steps": "many"}, "steps 'many': Input should be a valid integer"),
        ({"steps": 2.5}, "steps 2.5"),
        ({"steps": 1001}, "expected 1 to 1000"),
        ({"steps": 1000, "samplers": "DDIM"}, "Use 999 or fewer"),
        ({"steps": 51, "samplers": "LCM"}, "expected at most 50"),
        ({"guidance": math.nan}, "guidance nan: Input should be a finite number"),
        ({"guidance": -1}, "guidance -1"),
        ({"guidance": True}, "guidance True: Input should be a valid number"),
        ({"guidance": "3"}, "guidance '3': Input should be a valid number"),
        ({"size": 100}, "size 100|size .100, 100.: Input should be a multiple of 8"),
        ({"size": "axb"}, "size 'axb': expected pixels, such as 512 or 768x1024"),
        ({"size": "²"}, "size '²': expected pixels"),
        ({"size": "9" * 5000}, "expected pixels"),
        (
            {"target": 0, "upscalers": "lanczos"},
            "target 0: Input should be greater than or equal to 1",
        ),
        (
            {"target": (0, 1), "upscalers": "lanczos"},
            r"target \(0, 1\): Input should be greater than or equal to 1",
        ),
        (
            {"target": [[64, 64, 64]], "upscalers": "lanczos"},
            "target .64, 64, 64.: Tuple should have at most 2 items",
        ),
        (
            {"target": "large", "upscalers": "lanczos"},
            "target 'large': Input should be a valid integer",
        ),
        (
            {"sampler": "Euler"},
            r"Unknown key 'sampler' in the sweep. Did you mean 'samplers'\? Expected some",
        ),
        ({"models": {"steps": 4}}, "lacks its own key 'model'"),
        ({"models": {"model": "rehearsal/base", "cfg": 4}}, "unknown setting 'cfg'"),
    ],
)
def test_bad_input_is_one_clear_line(given, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        for cell in rk.Sweep(**GOOD | given).cells():
            lock_model(cell.model)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_sweep_without_names_says_so():
    with pytest.raises(rk.RequestError, match="name it, such as models="):
        rk.Sweep("rehearsal/base")


def test_suites_stand_among_prompts_with_what_is_linked_to_them():
    from realkit.catalog.suites import PROMPTS

    cells = rk.Sweep(
        models="rehearsal/base", prompts=["a red cube", {"prompt": "suite:rehearsal", "seed": 7}]
    ).cells()
    assert [(cell.prompt, cell.seed) for cell in cells] == [
        ("a red cube", 0),
        *((prompt, 7) for prompt in PROMPTS["rehearsal"].prompts),
    ]


def test_a_size_is_one_however_it_is_written():
    sizes = [512, "512", " 512x512 ", (512, 512), [512, 512]]
    assert {cell for size in sizes for cell in rk.Sweep(**GOOD, size=size).cells()} == set(
        rk.Sweep(**GOOD, size=512).cells()
    )


def test_a_scorer_named_twice_scores_once():
    assert rk.Sweep(
        **GOOD, scorers=["rehearsal/clip", "Rehearsal CLIP", "rehearsal/clip"]
    ).scorers == ["rehearsal/clip"]


def test_axes_multiply_and_open_settings_are_the_models():
    cells = rk.Sweep(
        models=["rehearsal/base", "rehearsal/studio"],
        samplers=["euler", "ddim"],
        prompts=["a", "b"],
        seeds=3,
    ).cells()
    assert len(cells) == 24
    advised = rk.MODELS["rehearsal/base"]
    assert {(c.steps, c.guidance, c.width, c.negative) for c in cells} == {
        (advised.settings.steps, advised.settings.guidance, advised.size, "")
    }
    assert {c.seed for c in cells} == {0, 1, 2} and {c.sampler for c in cells} == {"Euler", "DDIM"}


def test_linked_settings_override_their_axes_and_duplicates_collapse():
    fast = {"model": "rehearsal/studio", "steps": 4, "guidance": 0}
    cells = rk.Sweep(models=["rehearsal/base", fast], prompts="a", steps=[10, 20]).cells()
    assert [(c.model, c.steps, c.guidance) for c in cells] == [
        ("rehearsal/base", 10, 3.0),
        ("rehearsal/base", 20, 3.0),
        ("rehearsal/studio", 4, 0.0),
    ]


def test_python_and_yaml_give_the_same_sweep(tmp_path):
    built = rk.Sweep(
        models="rehearsal/base",
        prompts=["a", "b"],
        seeds=[3, 5],
        size=(128, 192),
        upscalers=[None, "lanczos"],
        target=512,
        scorers=["colour-cast"],
    )
    path = tmp_path / "sweep.yaml"
    path.write_text(built.to_yaml())
    assert rk.Sweep.from_yaml(path).cells() == built.cells()
    assert built.cells()[0].height == 192


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not YAML"),
        ("- a\n- b", "holds list"),
        ("just words", "holds str"),
        ("", "holds NoneType"),
        ("\x00", "is not YAML"),
        ("prompts: !!timestamp 2024-12-01", "is not YAML"),
        ("seeds: " + "9" * 5000, "is not YAML: it holds a number of thousands of digits"),
        ("a: " + "[" * 5000, "nested more than 100 levels"),
        ("seeds: [1:30]", "seed '1:30'"),
        ("models: &a [*a]", "'a' holds itself"),
        ("\n".join(f"{n}: {n}" for n in range(30_001)), "more than 60,000 keys and values"),
        ("prompts: " + "word " * 2_000_001, "it has 10.0 MB, expected at most 10 MB"),
        (
            f"{{models: rehearsal/base, prompts: [a, b], seeds: 100000, steps: {[*range(1, 27)]}}}",
            r"has 5,200,000 cells \(2 prompts × 100,000 seeds × 26 steps\), expected at most 5,0",
        ),
        ("models: a\nmodels: b", "duplicate key 'models'"),
        ("models: [{model: a, steps: 1, steps: 2}]", "duplicate key 'steps'"),
    ],
)
def test_a_file_that_is_no_sweep(tmp_path, text, says):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.Sweep.from_yaml(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_sweep_is_refused_by_its_figure_before_cells_are_made():
    began = time.perf_counter()
    for _ in range(2):
        with pytest.raises(rk.RequestError, match="has 10,000,000,000 cells"):
            rk.Sweep(models="rehearsal/base", prompts="a", seeds=100_000, guidance=[1.0] * 100_000)
    assert time.perf_counter() - began < 5


def test_numbers_are_read_as_in_yaml_1_2(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "{models: rehearsal/base, seeds: [010, 0o10, 0x10], prompts: [yes, 2026-01-02],"
        " guidance: 1e1, steps: 08}"
    )
    sweep = rk.Sweep.from_yaml(path)
    assert (sweep.seeds, sweep.prompts) == ([10, 8, 16], ["yes", "2026-01-02"])
    assert (sweep.guidance, sweep.steps) == ([10.0], [8])
    path.write_text(sweep.to_yaml())
    assert rk.Sweep.from_yaml(path) == sweep
    many = rk.Sweep(models="rehearsal/base", prompts="a", seeds=100_000)
    path.write_text(many.to_yaml())
    assert rk.Sweep.from_yaml(path) == many


def test_ids_follow_what_matters_and_nothing_else():
    lock = lock_model("rehearsal/base")

    def made(**changed):
        cell = rk.Sweep(**GOOD | changed).cells()[0]
        return ids.ids(cell, lock, None)

    first = made()
    assert made() == first
    for changed in (
        {"prompts": "a blue cube"},
        {"seeds": [1]},
        {"steps": 19},
        {"guidance": 4},
        {"negatives": "dark"},
        {"samplers": "Euler"},
        {"size": 136},
    ):
        assert made(**changed).latents != first.latents, changed
    unguided = made(guidance=1)
    assert unguided.latents == made(guidance=0, negatives="dark").latents != first.latents


def test_ids_are_the_same_in_every_process():
    import subprocess
    import sys

    code = (
        "from realkit.models.lock import lock_model; from realkit.sweeps.ids import ids; import"
        " realkit as rk; c = rk.Sweep(models='rehearsal/base', prompts='a red"
        " cube').cells()[0];print(ids(c, lock_model('rehearsal/base'), None).image); import sys;"
        " assert 'torch' not in sys.modules"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    }
    cell = rk.Sweep(**GOOD).cells()[0]
    assert found == {ids.ids(cell, lock_model("rehearsal/base"), None).image + "\n"}


def test_describe_counts_work_once():
    text = rk.Sweep(
        models="rehearsal/base",
        samplers=["Heun", "Euler"],
        prompts="a",
        steps=10,
        upscalers=[None, "lanczos", "bicubic"],
        target=256,
    ).describe()
    assert "6 cells" in text and "2 pictures to denoise in 29 denoiser calls" in text


def test_dump_is_plain_json():
    assert json.loads(rk.Sweep(**GOOD).model_dump_json())["prompts"] == ["a red cube"]


def test_describe_estimates_the_time_from_counted_operations():
    many = dict(models="sd-1.5", prompts="a", samplers="Euler", steps=25)
    assert " 16 s on a T4, 19 s on a P100" in rk.Sweep(**many).describe()
    assert " 6.5 min on a T4, 12 min on a P100" in rk.Sweep(**many | {"seeds": 100}).describe()
    assert "on two CPU cores" in rk.Sweep(**GOOD).describe()


def test_the_equal_nfe_profile_gives_every_sampler_the_same_calls():
    asked = rk.Sweep(
        **GOOD,
        samplers=["Euler", "Heun", "PLMS", "DPM++ SDE Karras", "DPM fast"],
        steps=[5, 20],
        profile="equal-nfe",
    )
    assert {(c.sampler, c.steps) for c in asked.cells() if c.nfe_budget == 20} == {
        ("Euler", 20),
        ("Heun", 10),
        ("PLMS", 19),
        ("DPM++ SDE Karras", 10),
        ("DPM fast", 20),
    }
    assert (
        "Heun: 10 steps, 19 of 20 calls, 1 left" in asked.describe()
        and "PLMS: 4 steps, 5 of 5 calls, 0 left" in asked.describe()
    )
    lock = lock_model("rehearsal/base")
    plain = rk.Sweep(**GOOD, samplers="Heun", steps=10).cells()[0]
    assert ids.ids(
        next(c for c in asked.cells() if c.sampler == "Heun" and c.nfe_budget == 20), lock, None
    ) == ids.ids(plain, lock, None)


def test_the_recommended_profile_is_each_models_own():
    cells = rk.Sweep(
        models=["rehearsal/base", "sd-1.5", "sdxl-base"], prompts="a", profile="recommended"
    ).cells()
    assert [(c.sampler, c.steps, c.guidance, c.width) for c in cells] == [
        ("DPM++ 2M Karras", 20, 3.0, 128),
        ("PLMS", 50, 7.5, 512),
        ("Euler", 50, 5.0, 1024),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"profile": "equal"}, "profile"),
        ({"profile": "recommended", "steps": 20}, "leave out 'steps'"),
        (
            {"profile": "recommended", "models": {"model": "rehearsal/base", "guidance": 4.0}},
            "leave out 'guidance'",
        ),
        (
            {"profile": "equal-nfe", "samplers": "DPM adaptive"},
            "leave it out of an equal-nfe comparison",
        ),
    ],
)
def test_a_profile_that_cannot_be_is_one_line(given, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.Sweep(**GOOD | given).cells()
    assert "\n" not in str(error.value)


def test_equal_nfe_takes_the_most_steps_that_a_sampler_can():
    assert [
        c.steps
        for c in rk.Sweep(
            **GOOD, samplers=["Euler", "DDIM", "LCM"], steps=1000, profile="equal-nfe"
        ).cells()
    ] == [1000, 999, 50]


def test_what_cannot_matter_is_counted_once():
    assert (
        "1 pictures to denoise in 60"
        in rk.Sweep(**GOOD, samplers="DPM adaptive", steps=[4, 8]).describe()
    )
    assert (
        "1 pictures to denoise"
        in rk.Sweep(**GOOD, guidance=[0, 0.5, 1], negatives=["", "dark"]).describe()
    )


def test_a_sweep_that_its_own_file_could_not_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("realkit.base.yaml_core.MOST_NODES", 400)
    prompts = [f"cube {number}" for number in range(280)]
    (tmp_path / "s.yaml").write_text(rk.Sweep(models="rehearsal/base", prompts=prompts).to_yaml())
    assert rk.Sweep.from_yaml(tmp_path / "s.yaml").prompts == prompts
    with pytest.raises(rk.RequestError, match="lists 311 values, and a sweep file holds 400"):
        rk.Sweep(models="rehearsal/base", prompts=[f"cube {number}" for number in range(300)])
    assert len(rk.Sweep(models="rehearsal/base", prompts="a", seeds=100_000).seeds) == 100_000


def test_whole_floats_are_the_whole_numbers_that_they_are():
    common = {"models": "rehearsal/base", "prompts": "a red cube", "upscalers": "lanczos"}
    floats = {"seeds": 2.0, "steps": [np.float64(20), 4.0], "target": np.float64(128)}
    given = rk.Sweep(**common, **floats, size=pd.Series([128.0, 64.0]))
    meant = rk.Sweep(**common, seeds=2, steps=[20, 4], target=128, size=(128, 64))
    assert given == meant and given.to_yaml() == meant.to_yaml()
    assert repr(given.cells()) == repr(meant.cells())
    linked = {"model": "rehearsal/base", "steps": 4.0, "seed": 3.0}
    cell = rk.Sweep(models=[linked], prompts="a").cells()[0]
    assert repr((cell.steps, cell.seed)) == "(4, 3)"
    for name in ("steps", "seeds", "size", "target"):
        with pytest.raises(ValueError, match=f"{name.removesuffix('s')}.* 20.5"):
            rk.Sweep(**common, **{name: 20.5})


def test_a_table_is_no_list_of_its_columns_names():
    df = pd.DataFrame({"prompt": ["a red cube"], "seed": [1]})
    with pytest.raises(ValueError, match=r'prompts is a table: .* such as df\["prompt"\]'):
        rk.Sweep(models="rehearsal/base", prompts=df)
    assert rk.Sweep(models="rehearsal/base", prompts=df["prompt"]).prompts == ["a red cube"]


def test_a_path_names_a_model_and_an_upscaler_as_its_text_does(tmp_path):
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"")
    given = {"prompts": "a", "target": 64}
    sweep = rk.Sweep(models=[file, {"model": file}], upscalers=file, **given)
    assert sweep == rk.Sweep(models=[str(file), {"model": str(file)}], upscalers=str(file), **given)
    assert identify(file) == identify(str(file))
    with pytest.raises(ValueError, match=r"Unknown model 'rehearsal-bass'\. Did you mean"):
        rk.load(Path("rehearsal-bass"))
