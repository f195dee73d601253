"""Models: catalogue entries and other references, and the locks that fix what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from realkit import civitai, hub, single_file, tokens
from realkit.errors import RequestError
from realkit.families import FAMILIES
from realkit.lookup import Spec, Table, find, shown
from realkit.samplers import SAMPLERS


class Settings(Spec):
    """What a model's author recommends; used wherever a request leaves a setting open."""

    sampler: str = "DPM++ 2M Karras"
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance: Annotated[FiniteFloat, Field(ge=0, le=100)] = 5.0
    negative: str = ""


class Leg(Spec):
    """The second leg of denoising: a model of the catalogue, and the share of the noise schedule at which it takes over."""

    model: str
    at: Annotated[float, Field(gt=0, le=1)]


def _ordered(steps: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= steps[0] <= steps[1]:
        raise ValueError("expected [fewest, most], from 1 on")
    return steps


def _sides(written: tuple[str, ...]) -> tuple[str, ...]:
    for size in written:
        sides = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size, re.ASCII)
        if not sides or any(int(side) % 8 or not 64 <= int(side) <= 8192 for side in sides.groups()):
            raise ValueError(f"expected WIDTHxHEIGHT in multiples of 8 from 64 to 8192, got {size!r}")
    return written


class ModelSpec(Spec):
    family: str = ""  # "": as the files say
    source: str
    variant: str = ""  # taken of the source and its parts where they have it
    parts: dict[str, str] = Field(default_factory=dict)  # "": left out
    loras: dict[str, FiniteFloat] = Field(default_factory=dict)  # reference: weight; merged into the weights when loaded
    config: str = ""  # the shipped configs a single file is read with, or a folder of them; "": as its tensors say
    prediction: Literal["", "epsilon", "v_prediction"] = ""  # of a single file whose tensors do not say
    then: Leg | None = None
    size: Annotated[int, Field(ge=64, le=8192, multiple_of=8)] = 512
    sizes: Annotated[tuple[str, ...], AfterValidator(_sides)] = ()  # others its author names, WIDTHxHEIGHT
    steps: Annotated[tuple[int, int], AfterValidator(_ordered)] | None = None  # fewest and most that a distilled model is made for
    pass_tflop: Annotated[FiniteFloat, Field(gt=0)] | None = None  # 10¹² operations of a denoiser pass at that size, where it is not the family's
    decode_tflop: Annotated[FiniteFloat, Field(gt=0)] | None = None  # of decoding a megapixel
    settings: Settings = Settings()
    settings_from: str = ""  # where the settings are recommended
    licence: str = "unknown"
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"  # whether the licence allows commercial use
    gated: bool = False  # its licence must be accepted on its page before it can be fetched
    about: str = ""
    aliases: tuple[str, ...] = ()


MODELS: Table[ModelSpec] = Table("model", ModelSpec)
PART_CLASSES = {  # where a model's own index does not say
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "transformer": ("diffusers", "SD3Transformer2DModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "text_encoder_3": ("transformers", "T5EncoderModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
    "tokenizer_3": ("transformers", "T5TokenizerFast"),
}
OF_PIPELINE = {  # the class in a model_index.json: its family
    "StableDiffusionPipeline": "sd1", "StableDiffusionXLPipeline": "sdxl", "StableDiffusionXLImg2ImgPipeline": "sdxl-refiner",
    "StableDiffusion3Pipeline": "sd3", "StableCascadePriorPipeline": "cascade", "StableCascadeDecoderPipeline": "cascade-decoder",
}  # fmt: skip


@dataclass(frozen=True)
class ModelLock:
    """A model's references, locked: the main one, its parts and LoRAs, the configs a single file is read with, the original scheduler config, and the
    second leg's model."""

    name: str
    spec: ModelSpec
    main: hub.Lock
    parts: dict[str, hub.Lock]
    scheduler: dict[str, Any]
    loras: dict[str, hub.Lock]
    config: hub.Lock | None = None
    then: ModelLock | None = None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Hashes of what determines latents and picture: {"main": …, "vae": …, …}. The VAE's does not concern the latents."""
        vae = FAMILIES[self.spec.family].vae
        prints: dict[str, Any] = {"main": self.main.digest(without=f"{vae}/")} | {name: lock.fingerprint for name, lock in sorted(self.parts.items())}
        if self.config:
            prints["config"] = self.config.digest(without=f"{vae}/")
        if self.loras:
            prints["loras"] = sorted([lock.fingerprint, self.spec.loras[ref]] for ref, lock in self.loras.items())
        if left_out := sorted(part for part, ref in self.spec.parts.items() if not ref):
            prints["without"] = left_out
        return prints

    @property
    def decoding(self) -> ModelLock:
        """The leg whose VAE makes the picture: the first, but for a second leg with a decoder of its own kind."""
        return self.then if self.then and FAMILIES[self.then.spec.family].vae != "vae" else self

    @property
    def configs(self) -> hub.Lock:
        """Where the configs of its parts stand that are single files."""
        return self.config or self.main

    @property
    def vae_fingerprint(self) -> str:
        of, part = self.decoding, FAMILIES[self.decoding.spec.family].vae
        source = of.parts.get(part, of.main)
        found = source.digest(within="" if part in of.parts else f"{part}/")
        return f"{found} {of.configs.digest(within=f'{part}/')}" if source.single else found

    @property
    def locks(self) -> list[hub.Lock]:
        """All references, the second leg's too."""
        config = [self.config] if self.config else []
        return [self.main, *config, *self.parts.values(), *self.loras.values(), *(self.then.locks if self.then else [])]

    def to_json(self) -> dict[str, Any]:
        locks = {kind: {name: lock.to_json() for name, lock in found.items()} for kind, found in (("parts", self.parts), ("loras", self.loras))}
        config = {"config": self.config.to_json()} if self.config else {}
        then = {"then": {"name": self.then.name, **self.then.to_json()}} if self.then else {}
        return {"spec": self.spec.model_dump(mode="json"), "main": self.main.to_json(), "scheduler": self.scheduler, **locks, **config, **then}

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> ModelLock:
        parts, loras = ({key: hub.Lock(**lock) for key, lock in data.get(kind, {}).items()} for kind in ("parts", "loras"))
        then = cls.from_json(data["then"]["name"], data["then"]) if "then" in data else None
        config = hub.Lock(**data["config"]) if "config" in data else None
        return cls(name, ModelSpec(**data["spec"]), hub.Lock(**data["main"]), parts, data["scheduler"], loras, config, then)


def identify(name: str) -> tuple[str, ModelSpec]:
    """A catalogue name as the table spells it, or any other reference as itself, with its entry.

    A repository, file or version of a model that the catalogue knows has that entry's settings.
    """
    if not isinstance(name, str):
        return find(MODELS, name), ModelSpec(source="")  # raises
    if tokens.holds_secret(name):
        raise RequestError(
            f"Reference {tokens.scrub(name)!r} holds a secret, which would be written into every row: leave it out, and set HF_TOKEN or CIVITAI_TOKEN"
        )
    found = _identified(name)
    for ref in (found[1].source, *found[1].parts.values(), *found[1].loras, found[1].config):
        if tokens.holds_secret(ref):
            raise RequestError(
                f"Model {found[0]!r} names {tokens.scrub(ref)!r}, which holds a secret: leave it out of the entry, and set HF_TOKEN or CIVITAI_TOKEN"
            )
    _check_settings(*found)
    return found


def _identified(name: str) -> tuple[str, ModelSpec]:
    if name in MODELS:
        return name, MODELS[name]
    name = hub.plain(f"https://{name}" if name.startswith(("huggingface.co/", "hf.co/")) else name)
    if name.strip() and _is_reference(name):
        known = _listed(name)
        return (known, MODELS[known]) if known else (name, ModelSpec(source=name))
    try:
        known = find(MODELS, name)
    except RequestError:
        if name.startswith("rehearsal/"):
            raise
        if match := hub.HUB_ID.match(name) or hub.HUB_FILE.match(name):
            return _of_hub(name, match)
        if (swapped := re.fullmatch(r"(.+?)(:[\w-]+)(@.+)", name)) and hub.HUB_ID.match(right := swapped[1] + swapped[3] + swapped[2]):
            raise RequestError(f"Unknown model {shown(name)}: the revision comes before the variant, {right!r}") from None
        raise
    return known, MODELS[known]


def _of_hub(name: str, match: re.Match[str]) -> tuple[str, ModelSpec]:
    """A hub reference with the entry of the same repository, which may have moved, or with an empty one."""
    given = match.groupdict()
    for known, spec in MODELS.items():
        home = hub.HUB_ID.match(spec.source) or hub.HUB_FILE.match(spec.source)
        if not home or spec.loras or spec.then or "unet" in spec.parts or given["id"] not in (home["id"], *spec.aliases):
            continue
        revision = f"@{given['revision']}" if given["revision"] else ""
        file = given.get("file") or home.groupdict().get("file")  # the entry knows which file of a repository is meant
        variant = "" if file else given["variant"] or home["variant"] or ""
        source = home["id"] + revision + (f"/{file}" if file else f":{variant}" if variant else "")
        return (known, spec) if source == spec.source else (name, spec.model_copy(update={"source": source}))
    return name, ModelSpec(source=name)


def _is_reference(name: str) -> bool:
    if name.endswith((".safetensors", ".ckpt")) and not hub.HUB_FILE.match(name):
        return True
    if name.startswith(("/", ".", "~", "kaggle:", "http://", "https://")) or name.lower().startswith("civitai:"):
        return True
    try:
        return Path(name).exists()
    except OSError:  # too long to be one
        return False


def _listed(name: str) -> str | None:
    """The entry that has a Civitai model (no version of it named) or a hub file among its aliases or as its source."""
    alias = str(found) if (found := civitai.parse(name)) else name
    return next((known for known, spec in MODELS.items() if alias in (spec.source, *spec.aliases)), None)


def lock(name: str) -> ModelLock:
    """Resolve a model's references once: nothing is loaded, only headers, hashes and configs are read.

    Raises RequestError for an entry that means nothing, and where a reference cannot be had.
    """
    known, spec = identify(name)
    if spec.family and spec.family not in FAMILIES:
        raise RequestError(f"Model {known!r} is of family {spec.family!r}: expected one of {', '.join(FAMILIES)}")
    if unknown := [part for part in spec.parts if part not in PART_CLASSES]:
        raise RequestError(f"Model {known!r} has an unknown part {unknown[0]!r}: expected some of {', '.join(PART_CLASSES)}")
    main = hub.lock(spec.source, weights=True, variant=spec.variant, left_out=set(spec.parts))
    spec = _completed(known, spec, main)
    config = hub.lock(spec.config) if main.single else None
    scheduler = hub.read_json(config or main, "scheduler/scheduler_config.json")
    if not scheduler:
        raise RequestError(f"Model {known!r} has no scheduler/scheduler_config.json: expected a diffusers folder")
    if spec.prediction:
        scheduler = scheduler | {"prediction_type": spec.prediction}
    parts = {part: hub.lock(ref, variant=spec.variant) for part, ref in spec.parts.items() if ref}
    loras = {ref: hub.lock(ref) for ref in spec.loras}
    if broad := [ref for ref, locked in loras.items() if not locked.single]:
        raise RequestError(f"Model {known!r} has the LoRA {broad[0]!r}: expected one .safetensors file, for the hub OWNER/NAME/FILE.safetensors")
    return ModelLock(known, spec, main, parts, scheduler, loras, config, _second(known, spec.then) if spec.then else None)


def _check_settings(name: str, spec: ModelSpec) -> None:
    """Raise RequestError for recommended settings that no request could use."""
    try:
        find(SAMPLERS, spec.settings.sampler)
    except RequestError as error:
        raise RequestError(f"Model {name!r}: {error}") from None
    if spec.steps and not spec.steps[0] <= spec.settings.steps <= spec.steps[1]:
        raise RequestError(f"Model {name!r} recommends {spec.settings.steps} steps and is made for {spec.steps[0]} to {spec.steps[1]}: change one of them")


def _second(name: str, leg: Leg) -> ModelLock:
    if identify(leg.model)[1].then:
        raise RequestError(f"Model {name!r} goes on with {leg.model!r}, which goes on with another: expected two legs at most")
    then = lock(leg.model)
    family = FAMILIES[then.spec.family]
    if not family.second:
        raise RequestError(f"Model {name!r} goes on with {then.name!r}, of family {then.spec.family!r}, which does not take over from another model")
    if leg.at == 1 and family.vae == "vae":
        raise RequestError(f"Model {name!r} goes on with {then.name!r} at 1.0, where nothing is left of the noise: expected less, such as 0.8")
    return then


def _completed(name: str, spec: ModelSpec, main: hub.Lock) -> ModelSpec:
    """The entry with what its files say where it is silent: configs of a single file, family, size."""
    configs = main
    if main.single:
        path = hub.fetch(main)
        kind = single_file.identify(path) if not spec.config else ""
        if kind == "sd2" and not spec.prediction:
            raise RequestError(
                f"Single file {spec.source!r} is of Stable Diffusion 2, and its tensors do not tell the 768 px v-prediction model from the 512 px epsilon one: "
                'give it a catalogue entry with config = "config:sd2" or "config:sd2-base"'
            )
        spec = spec.model_copy(update={"config": spec.config or hub.CONFIG + kind})
        shipped = spec.config.removeprefix(hub.CONFIG)
        if shipped in single_file.KINDS and (lacking := [part for part in single_file.missing(shipped, single_file.header(path)[0]) if part not in spec.parts]):
            raise RequestError(f"Single file {spec.source!r} lacks {', '.join(lacking)}: name them in the `parts` of a catalogue entry")
        configs = hub.lock(spec.config)
    elif spec.config:
        raise RequestError(f"Model {name!r} has a `config` and its source {spec.source!r} is a folder, which has its own: leave `config` out")
    found: dict[str, Any] = {}
    if not spec.family:
        pipeline = str(hub.read_json(configs, "model_index.json").get("_class_name", "none"))
        if pipeline not in OF_PIPELINE:
            raise RequestError(f"Model {name!r} is made for the pipeline {pipeline!r}: expected one of {', '.join(OF_PIPELINE)}")
        found["family"] = OF_PIPELINE[pipeline]
        if "size" not in spec.model_fields_set:
            side = hub.read_json(configs, f"{FAMILIES[found['family']].denoiser}/config.json").get("sample_size")
            found["size"] = min(8192, max(64, side * 8)) if isinstance(side, int) else 1024
    if "settings" not in spec.model_fields_set and (usual := FAMILIES[found.get("family", spec.family)].usual):
        found["settings"] = Settings(**usual)
    return spec.model_copy(update=found)
