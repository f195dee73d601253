"""Every model of the catalogue is complete, and means what people type."""

import re
from collections import Counter

import pytest

import realkit as rk
from realkit.base.suggest import fold
from realkit.catalog.lookup import Table, find
from realkit.models import spec as spec_module
from realkit.models.families import FAMILIES, PART_CLASSES
from realkit.models.spec import MODELS, ModelSpec, Settings, identify
from realkit.samplers import build
from realkit.weights import clip_tokenizer
from realkit.weights.clip_tokenizer import TOKENS
from realkit.weights.reference import HUB_FILE, HUB_ID, PACKAGE, parse

BY_HUB_ID = {  # the models that the kit promises, as people name them
    "CompVis/stable-diffusion-v1-4": "sd-1.4",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd-1.5",
    "runwayml/stable-diffusion-v1-5": "sd-1.5",
    "stabilityai/stable-diffusion-2": "sd-2.0",
    "stabilityai/stable-diffusion-2-1": "sd-2.1",
    "stabilityai/stable-diffusion-2-1-base": "sd-2.1-base",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl-base",
    "stabilityai/stable-diffusion-xl-refiner-1.0": "sdxl-refiner",
    "stabilityai/sdxl-turbo": "sdxl-turbo",
    "ByteDance/SDXL-Lightning": "sdxl-lightning-4step",
    "tianweiy/DMD2": "dmd2-sdxl",
    "SG161222/RealVisXL_V5.0": "realvisxl-5",
    "RunDiffusion/Juggernaut-XL-v9": "juggernaut-xl-9",
    "cyberdelia/CyberRealisticXL": "cyberrealistic-xl",
    "latent-consistency/lcm-lora-sdv1-5": "lcm-sd15",
    "latent-consistency/lcm-lora-sdxl": "lcm-sdxl",
    "stabilityai/stable-diffusion-3-medium-diffusers": "sd3-medium",
    "stabilityai/stable-diffusion-3.5-medium": "sd3.5-medium",
    "stabilityai/stable-cascade": "stable-cascade",
    "stabilityai/stable-cascade-prior": "stable-cascade",
    "SG161222/Realistic_Vision_V6.0_B1_noVAE": "realistic-vision-6",
    "SG161222/Realistic_Vision_V6.0_B1_noVAE/Realistic_Vision_V6.0_NV_B1_fp16.safetensors": (
        "realistic-vision-6"
    ),
    "emilianJR/epiCRealism": "epicrealism",
    "emilianJR/CyberRealistic_V3": "cyberrealistic-3",
    "cyberdelia/CyberRealistic": "cyberrealistic",
    "dreamlike-art/dreamlike-photoreal-2.0": "dreamlike-photoreal-2",
    "digiplay/NextPhoto_v3": "nextphoto-3",
    "digiplay/NextPhoto_v3/nextphoto_v30.safetensors": "nextphoto-3",
    "digiplay/NextPhoto_v2": "nextphoto-2",
}
BY_CIVITAI = {
    "4201": "realistic-vision-6",
    "25694": "epicrealism",
    "15003": "cyberrealistic",
    "3811": "dreamlike-photoreal-2",
    "84335": "nextphoto-3",
    "139562": "realvisxl-5",
    "133005": "juggernaut-xl-9",
    "312530": "cyberrealistic-xl",
}
LIGHTNING = {f"sdxl-lightning-{steps}step": steps for steps in (1, 2, 4, 8)}
HYPER = {f"hyper-{base}-{steps}step": steps for base in ("sd15", "sdxl") for steps in (2, 4, 8)}
UNGUIDED = [
    "sdxl-turbo",
    "rehearsal/turbo",
    "hyper-sd15-1step",
    "hyper-sdxl-1step",
    "dmd2-sdxl",
    "stable-cascade-decoder",
    *LIGHTNING,
    *HYPER,
]
OF_THE_FAMILY = {
    "sd3": "flow",
    "cascade": "wuerstchen",
    "cascade-decoder": "wuerstchen",
}  # what its samplers are made for; the others are "diffusion"

every_model = pytest.mark.parametrize("name", list(rk.MODELS))


@pytest.mark.parametrize(("reference", "name"), BY_HUB_ID.items())
def test_hub_ids_mean_their_entries(reference, name):
    assert identify(reference) == (name, rk.MODELS[name])


@pytest.mark.parametrize(("number", "name"), BY_CIVITAI.items())
def test_civitai_pages_mean_their_entries_unless_a_version_is_named(number, name):
    assert (
        identify(f"civitai:{number}")[0]
        == identify(f"https://civitai.com/models/{number}/some-words")[0]
        == name
    )
    version = f"https://civitai.com/models/{number}?modelVersionId=1"
    assert identify(version) == (version, ModelSpec(source=version))


@pytest.mark.parametrize(
    ("reference", "source", "of"),
    [
        ("stabilityai/sdxl-turbo@main", "stabilityai/sdxl-turbo@main:fp16", "sdxl-turbo"),
        (
            "runwayml/stable-diffusion-v1-5@abc:non_ema",
            "stable-diffusion-v1-5/stable-diffusion-v1-5@abc:non_ema",
            "sd-1.5",
        ),
        (
            "runwayml/stable-diffusion-v1-5/v1-5-pruned.safetensors",
            "stable-diffusion-v1-5/stable-diffusion-v1-5/v1-5-pruned.safetensors",
            "sd-1.5",
        ),
        (
            "huggingface.co/stabilityai/sdxl-turbo/tree/v2",
            "stabilityai/sdxl-turbo@v2:fp16",
            "sdxl-turbo",
        ),
        (
            "digiplay/NextPhoto_v3@1f",
            "digiplay/NextPhoto_v3@1f/nextphoto_v30.safetensors",
            "nextphoto-3",
        ),
    ],
)
def test_a_revision_a_variant_or_a_file_of_a_known_repository_keeps_its_entrys_settings(
    reference, source, of
):
    name, spec = identify(reference)
    assert (
        name.startswith(reference.removeprefix("huggingface.co/").split("@")[0].split("/tree")[0])
        and spec.source == source
    )
    assert (spec.settings, spec.size, spec.steps, spec.licence) == (
        rk.MODELS[of].settings,
        rk.MODELS[of].size,
        rk.MODELS[of].steps,
        rk.MODELS[of].licence,
    )


def test_a_plain_reference_that_equals_an_entrys_is_the_entry():
    assert (
        identify("stabilityai/sdxl-turbo:fp16")[0]
        == identify("huggingface.co/stabilityai/sdxl-turbo")[0]
        == "sdxl-turbo"
    )
    with pytest.raises(
        rk.RequestError, match="the revision comes before the variant, 'owner/name@main:fp16'"
    ):
        identify("owner/name:fp16@main")


@every_model
def test_an_entry_is_of_a_known_family_and_its_references_are_of_known_forms(name):
    spec = rk.MODELS[name]
    assert name == name.lower() and spec.family in FAMILIES and set(spec.parts) <= set(PART_CLASSES)
    for ref in (spec.source, *filter(None, spec.parts.values()), *spec.loras):
        assert (
            ref.startswith(PACKAGE)
            or HUB_FILE.match(ref)
            or HUB_ID.match(ref)
            or parse(ref).kind == "civitai"
        ), ref
    assert all(HUB_FILE.match(ref) for ref in spec.loras)


@every_model
def test_the_recommended_settings_can_be_run(name):
    spec = rk.MODELS[name]
    sampler = find(rk.SAMPLERS, spec.settings.sampler)
    assert sampler == spec.settings.sampler
    assert rk.SAMPLERS[sampler].model == OF_THE_FAMILY.get(spec.family, "diffusion")
    build.check_steps(sampler, spec.settings.steps)
    assert spec.steps is None or spec.steps[0] <= spec.settings.steps <= spec.steps[1]
    if spec.family != "cascade-decoder":
        assert len(rk.Sweep(models=name, prompts="a photo", seeds=1).cells()) == 1


@every_model
def test_a_second_leg_is_an_entry_that_can_be_one(name):
    if then := rk.MODELS[name].then:
        assert then.model in rk.MODELS and FAMILIES[rk.MODELS[then.model].family].second
        assert rk.MODELS[then.model].size == rk.MODELS[name].size
        assert then.at == 1.0 or rk.SAMPLERS[rk.MODELS[name].settings.sampler].divides


def test_names_and_aliases_stay_apart_when_folded():
    typed = Counter(
        fold(word) for name, spec in rk.MODELS.items() for word in (name, *spec.aliases)
    )
    assert [word for word, count in typed.items() if count > 1] == []


@every_model
def test_licence_use_and_origin_of_the_settings_are_said(name):
    spec = rk.MODELS[name]
    assert spec.licence and spec.about and "\n" not in spec.about
    assert (spec.licence == "unknown") == (spec.commercial == "unknown")
    if not name.startswith("rehearsal/"):
        assert spec.settings_from in ("unknown", "third-party guide") or re.match(
            r"https://\S+$", spec.settings_from
        )
        assert spec.settings_from != "unknown" or spec.settings == Settings()


@every_model
def test_what_could_not_be_looked_up_is_marked(name):
    spec = rk.MODELS[name]
    found = spec.settings_from.startswith("https://") and spec.licence != "unknown"
    assert found or spec.unverified or name.startswith("rehearsal/")


@every_model
def test_sizes_are_ones_a_model_can_make(name):
    for size in rk.MODELS[name].sizes:
        width, height = map(int, re.fullmatch(r"(\d+)x(\d+)", size).groups())
        assert width % 8 == height % 8 == 0 and 64 <= width <= 8192 and 64 <= height <= 8192


@pytest.mark.parametrize("name", UNGUIDED)
def test_what_is_distilled_without_guidance_is_run_without(name):
    assert rk.MODELS[name].settings.guidance == 0


@pytest.mark.parametrize(("name", "steps"), {**LIGHTNING, **HYPER}.items())
def test_a_file_for_so_many_steps_is_run_in_so_many_on_trailing_timesteps(name, steps):
    spec = rk.MODELS[name]
    file = spec.parts["unet"] if name in LIGHTNING else next(iter(spec.loras))
    assert spec.steps == (steps, steps) and spec.settings.sampler == "Euler Trailing"
    assert re.search(rf"{steps}steps?[-_](unet|unet_x0|lora)\.safetensors$", file)
    with pytest.raises(rk.RequestError, match=f"distilled for {steps} steps"):
        rk.Sweep(models=name, prompts="a photo", steps=steps + 1).cells()


def test_what_the_models_need_besides_their_files():
    known = rk.MODELS
    assert all(
        spec.parts["vae"] in ("madebyollin/sdxl-vae-fp16-fix", "madebyollin/taesdxl")
        for name, spec in known.items()
        if spec.family == "sdxl" and "rehearsal" not in name
    )
    assert known["realistic-vision-6"].parts["vae"] == "stabilityai/sd-vae-ft-mse"
    assert {known[name].prediction for name in ("sd-2.0", "sd-2.1")} == {"v_prediction"} and known[
        "sd-2.1-base"
    ].prediction == "epsilon"
    predicting = {name for name, spec in known.items() if spec.prediction == "sample"}
    assert predicting == {"sdxl-lightning-1step"}
    assert [name for name, spec in known.items() if spec.gated] == ["sd3-medium", "sd3.5-medium"]
    assert all(
        known[name].parts == {"text_encoder_3": "", "tokenizer_3": ""}
        for name in ("sd3-medium", "sd3.5-medium")
    )
    assert all(
        5 <= known[f"hyper-{base}-8step-cfg"].settings.guidance <= 8 for base in ("sd15", "sdxl")
    )
    assert "REALKIT_ALLOW_PICKLE=1" in known["cyberrealistic-3"].about


def test_recommended_negative_prompts_fit_what_clip_sees():
    tokenizer = clip_tokenizer.load("<|endoftext|>")
    assert {
        name: n
        for name, spec in rk.MODELS.items()
        if (n := len(tokenizer(spec.settings.negative).input_ids)) > TOKENS
    } == {}


def test_a_users_file_adds_and_replaces_models(tmp_path, monkeypatch):
    (tmp_path / "models.toml").write_text(
        '["mine"]\nsource = "civitai:4201@245598"\nfamily = "sd1"\n["sd-1.5"]\nsource ='
        ' "me/other"\naliases = ["old one"]\n'
    )
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    shipped, table = MODELS, Table("model", ModelSpec)
    monkeypatch.setattr(spec_module, "MODELS", table)
    assert set(table) == {*shipped, "mine"}
    assert identify("Mine") == ("mine", ModelSpec(source="civitai:4201@245598", family="sd1"))
    assert identify("old one") == ("sd-1.5", ModelSpec(source="me/other", aliases=("old one",)))
    assert table["sdxl-base"] == shipped["sdxl-base"]
