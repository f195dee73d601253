"""Models: catalogue entries and other references, and the locks that fix what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from realkit import civitai, hub, single_file, tokens
from realkit.errors import RequestError
from realkit.families import FAMILIES
from realkit.lookup import Spec, Table, find


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
    sizes: tuple[str, ...] = ()  # others its author names, WIDTHxHEIGHT
    steps: Annotated[tuple[int, int], AfterValidator(_ordered)] | None = None  # fewest and most that a distilled model is made for
    pass_tflop: float | None = None  # 10¹² operations of a denoiser pass at that size, where it is not the family's
    decode_tflop: float | None = None  # of decoding a megapixel
    settings: Settings = Settings()
    settings_from: str = ""  # where the settings are recommended
    licence: str = "unknown"
    commercial: Literal["yes", "no", "conditions", "unknown"] = "unknown"  # whether the licence allows commercial use
    gated: bool = False  # its licence must be accepted on its page before it can be fetched
    about: str = ""
    aliases: tuple[str, ...] = ()


MODELS: Table[ModelSpec] = Table("model", ModelSpec)
PART_CLASSES = {
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
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
    """A model's references, locked: the main one, its parts and LoRAs, the original scheduler config, and the second leg's model."""

    name: str
    spec: ModelSpec
    main: hub.Lock
    parts: dict[str, hub.Lock]
    scheduler: dict[str, Any]
    loras: dict[str, hub.Lock]
    then: ModelLock | None = None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Hashes of what determines latents and picture: {"main": …, "vae": …, …}. The VAE's does not concern the latents."""
        vae = FAMILIES[self.spec.family].vae
        prints: dict[str, Any] = {"main": self.main.digest(without=f"{vae}/")} | {name: lock.fingerprint for name, lock in sorted(self.parts.items())}
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
    def vae_fingerprint(self) -> str:
        of, part = self.decoding, FAMILIES[self.decoding.spec.family].vae
        return of.parts[part].fingerprint if part in of.parts else of.main.digest(within=f"{part}/")

    @property
    def locks(self) -> list[hub.Lock]:
        """All references, the second leg's too."""
        return [self.main, *self.parts.values(), *self.loras.values(), *(self.then.locks if self.then else [])]

    def to_json(self) -> dict[str, Any]:
        locks = {kind: {name: lock.to_json() for name, lock in found.items()} for kind, found in (("parts", self.parts), ("loras", self.loras))}
        then = {"then": {"name": self.then.name, **self.then.to_json()}} if self.then else {}
        return {"spec": self.spec.model_dump(mode="json"), "main": self.main.to_json(), "scheduler": self.scheduler, **locks, **then}

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> ModelLock:
        parts, loras = ({key: hub.Lock(**lock) for key, lock in data.get(kind, {}).items()} for kind in ("parts", "loras"))
        then = cls.from_json(data["then"]["name"], data["then"]) if "then" in data else None
        return cls(name, ModelSpec(**data["spec"]), hub.Lock(**data["main"]), parts, data["scheduler"], loras, then)


def identify(name: str) -> tuple[str, ModelSpec]:
    """A catalogue name as the table spells it, or any other reference as itself, with its entry."""
    if isinstance(name, str):
        if tokens.scrub(name) != name:
            raise RequestError(f"Reference {name!r} holds a token, which would be written into every row: leave it out, and set HF_TOKEN or CIVITAI_TOKEN")
        name = hub.plain(name)
    if isinstance(name, str) and name.strip() and _is_reference(name):
        known = _listed(name)
        return (known, MODELS[known]) if known else (name, ModelSpec(source=name))
    try:
        known = find(MODELS, name)
    except RequestError:
        if (hub.HUB_ID.match(name) or hub.HUB_FILE.match(name)) and not name.startswith("rehearsal/"):
            return name, ModelSpec(source=name)
        raise
    return known, MODELS[known]


def _is_reference(name: str) -> bool:
    if name.endswith((".safetensors", ".ckpt")) or name.startswith(("/", ".", "~", "kaggle:", "civitai:", "http://", "https://")):
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
    config = hub.lock(spec.config) if main.single else main
    scheduler = hub.read_json(config, "scheduler/scheduler_config.json")
    if not scheduler:
        raise RequestError(f"Model {known!r} has no scheduler/scheduler_config.json: expected a diffusers folder")
    if spec.prediction:
        scheduler = scheduler | {"prediction_type": spec.prediction}
    parts = {part: hub.lock(ref, variant=spec.variant) for part, ref in spec.parts.items() if ref}
    loras = {ref: hub.lock(ref) for ref in spec.loras}
    if broad := [ref for ref, locked in loras.items() if not locked.single]:
        raise RequestError(f"Model {known!r} has the LoRA {broad[0]!r}: expected one .safetensors file, for the hub OWNER/NAME/FILE.safetensors")
    then = lock(spec.then.model) if spec.then else None
    if then and not FAMILIES[then.spec.family].second:
        raise RequestError(f"Model {known!r} goes on with {then.name!r}, of family {then.spec.family!r}, which does not take over from another model")
    return ModelLock(known, spec, main, parts, scheduler, loras, then)


def _completed(name: str, spec: ModelSpec, main: hub.Lock) -> ModelSpec:
    """The entry with what its files say where it is silent: configs of a single file, family, size."""
    configs = main
    if main.single:
        path = hub.fetch(main)
        spec = spec.model_copy(update={"config": spec.config or hub.CONFIG + single_file.identify(path)})
        shipped = spec.config.removeprefix(hub.CONFIG)
        if shipped in single_file.KINDS and (lacking := [part for part in single_file.missing(shipped, single_file.header(path)[0]) if part not in spec.parts]):
            raise RequestError(f"Single file {spec.source!r} lacks {', '.join(lacking)}: name them in the `parts` of a catalogue entry")
        configs = hub.lock(spec.config)
    if spec.family:
        return spec
    pipeline = str(hub.read_json(configs, "model_index.json").get("_class_name", "none"))
    if pipeline not in OF_PIPELINE:
        raise RequestError(f"Model {name!r} is made for the pipeline {pipeline!r}: expected one of {', '.join(OF_PIPELINE)}")
    found: dict[str, Any] = {"family": OF_PIPELINE[pipeline]}
    if "size" not in spec.model_fields_set:
        side = hub.read_json(configs, f"{FAMILIES[found['family']].denoiser}/config.json").get("sample_size")
        found["size"] = min(8192, max(64, side * 8)) if isinstance(side, int) else 1024
    return spec.model_copy(update=found)
