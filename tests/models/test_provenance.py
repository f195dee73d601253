"""What A1111's parameters say of our pictures, and what the record beside them says."""

import io
import json

import pytest
from PIL import Image

from realkit.base import infotext
from realkit.base.version import __version__
from realkit.models import provenance
from realkit.models.lock import lock_model
from realkit.samplers.table import SAMPLERS
from tests import picture_files as files

CELL = {
    "model": "rehearsal/base", "sampler": "Euler", "prompt": "a cat", "negative": "", "seed": 7,
    "steps": 20, "guidance": 7.0, "width": 64, "height": 96, "dtype": None,
}  # fmt: skip
# stable-diffusion-webui 1.10: modules/sd_schedulers.py
A1111_SCHEDULES = {
    "Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform",
    "KL Optimal", "Align Your Steps", "Simple", "Normal", "DDIM", "Beta",
}  # fmt: skip


def settings(**changes) -> dict[str, str]:
    return infotext.parsed(provenance.parameters(CELL | changes)).settings


def test_the_parameters_are_a1111s():
    text = provenance.parameters(CELL | {"negative": "dog"}, "6ce0161689")
    assert text == (
        "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler, Schedule type: Uniform, CFG scale:"
        " 7, Seed: 7, Size: 64x96, Model hash: 6ce0161689, Model: rehearsal/base, Version: realkit"
        f" {__version__}"
    )


def test_numbers_keep_their_digits():
    told = settings(guidance=7.123456789, seed=2**63 - 1)
    assert told["CFG scale"] == "7.123456789" and int(told["Seed"]) == 2**63 - 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_schedule_is_one_of_a1111s_or_a_key_that_it_ignores(name):
    told = settings(sampler=name)
    schedule = told.get("Schedule type")
    other = told.get(provenance.OTHER_SCHEDULE)
    assert schedule is None or schedule in A1111_SCHEDULES
    assert not (schedule and other) and told["Sampler"] in SAMPLERS
    back = f"{told['Sampler']} {other or schedule or ''}".removesuffix(" Uniform").strip()
    assert name in (back, told["Sampler"] if schedule == "Karras" else back, f"{back} Uniform")


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        ("DPM++ 2M Karras", {"Sampler": "DPM++ 2M", "Schedule type": "Karras"}),
        ("Euler a SGM Uniform", {"Sampler": "Euler a", "Schedule type": "SGM Uniform"}),
        ("Euler Trailing", {"Sampler": "Euler", "Realkit schedule": "Trailing"}),
        ("UniPC Karras", {"Sampler": "UniPC", "Realkit schedule": "Karras"}),
        ("Restart", {"Sampler": "Restart", "Schedule type": "Karras"}),
        ("DDIM", {"Sampler": "DDIM"}),
    ],
)
def test_how_a_schedule_is_told(sampler, told):
    keys = ("Sampler", "Schedule type", "Realkit schedule")
    assert {key: value for key, value in settings(sampler=sampler).items() if key in keys} == told


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("civitai:4201@245598", 'Model: "civitai:4201@245598",'),
        ("/home/me/models/mine, v2.safetensors", 'Model: "mine, v2",'),
        ("digiplay/NextPhoto_v3/nextphoto_v30.safetensors", "Model: nextphoto_v30,"),
        ("realistic-vision-6", "Model: realistic-vision-6,"),
        ("stable-diffusion-2.1", "Model: stable-diffusion-2.1,"),
    ],
)
def test_a_models_name_is_quoted_and_a_file_has_no_folder(model, told):
    assert told in provenance.parameters(CELL | {"model": model})


def test_a_folder_has_no_model_hash():
    assert provenance.model_hash(lock_model("rehearsal/base")) == ""


def test_a_picture_says_with_what_it_was_made(base):
    image = base("a cat", steps=1, size=64)
    made = provenance.noted(image)["made"]
    assert made["realkit"] == __version__ and made["device"] == "cpu" and made["batch"] == 1
    assert {"torch", "diffusers", "numpy"} <= set(made["versions"]) and made["threads"] >= 1
    determined = json.dumps(provenance.noted(image)["determined"])
    assert "versions" not in determined and "batch" not in determined


def test_an_enlarged_picture_says_how_and_its_native_size():
    image = files.gradient((128, 192))
    record = {"stage": "upscale", "cell": CELL, "upscaler": "lanczos", "determined": {}}
    told = infotext.parsed(provenance.annotate(image, record).info["parameters"]).settings
    assert told["Size"] == "64x96" and told["Postprocess upscale to"] == "128x192"
    assert told["Postprocess upscaler"] == "lanczos"
    # What A1111 itself wrote stays as it is, and upscalers are joined.
    for upscaler in ("4x, ultra", "lanczos"):
        image.info["parameters"] = image.info.get("words", files.A1111)
        record |= {"cell": None, "upscaler": upscaler}
        image.info["words"] = provenance.annotate(image, record).info["parameters"]
    assert image.info["words"] == (
        f'{files.A1111}, Postprocess upscale to: 128x192, Postprocess upscaler: "4x, ultra +'
        ' lanczos"'
    )
    photograph = files.gradient()
    provenance.annotate(photograph, record | {"upscaler": "/home/me/4x-mine.pth + gfpgan"})
    assert photograph.info.pop("postprocessing").endswith("Postprocess upscaler: 4x-mine + gfpgan")
    provenance.annotate(photograph, record)
    assert photograph.info["postprocessing"] == (
        "Postprocess upscale to: 40x24, Postprocess upscaler: lanczos"
    )
    assert "parameters" not in photograph.info


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "null", '{"cell": 7}', '{"cell": {}}', '{"determined": []}',
        '{"cell": {"model": 1}}', "[" * 5000, '{"a":' * 200 + "1" + "}" * 200,
        json.dumps({"cell": CELL | {"guidance": "7"}}), json.dumps({"cell": CELL | {"seed": True}}),
    ],
)  # fmt: skip
def test_a_record_of_another_form_is_none(text):
    assert provenance.read(text) == {}


def test_a_picture_is_a_png_that_the_record_comes_out_of():
    image, file = files.gradient(), io.BytesIO()
    record = {"stage": "decode", "cell": CELL, "determined": {}}
    provenance.save(provenance.annotate(image, record), file)
    again = Image.open(file)
    assert provenance.noted(again) == record
    assert again.text["parameters"] == provenance.parameters(CELL)
