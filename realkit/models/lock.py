"""The lock of a model: hashes of its references, its scheduler config, its completed entry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import meant_of
from realkit.models.families import FAMILIES, OF_PIPELINE, PART_CLASSES, Family
from realkit.models.spec import MODELS, Leg, ModelSpec, Settings, identify
from realkit.weights import checkpoints, header, resolve
from realkit.weights.checkpoints import KINDS
from realkit.weights.lock import Lock
from realkit.weights.lora import LoraFile, merged_whole_before, read_header
from realkit.weights.reference import CONFIG

# Repositories of the catalogue's LoRAs, known to have been merged whole from the first: planning
# need not fetch them.
PUBLISHED = ("ByteDance/Hyper-SD/", "latent-consistency/lcm-lora-")


MOST_TIMESTEPS = 100_000  # published models have 1,000


@dataclass(frozen=True)
class ModelLock:
    """A model's locked references: the main one, its parts and LoRAs, the configs of a single
    file; the original scheduler config; and the lock of the second leg's model."""

    name: str
    spec: ModelSpec
    main: Lock
    parts: dict[str, Lock]
    scheduler: dict[str, Any]
    loras: dict[str, Lock]
    config: Lock | None = None
    then: ModelLock | None = None
    # The version of the LoRA reader, where it changes what the LoRAs mean; 1 is diffusers' own.
    lora: int = 1

    @property
    def family(self) -> Family:
        return FAMILIES[self.spec.family]

    @cached_property  # each cell's ids ask for it
    def fingerprint(self) -> dict[str, Any]:
        """Hashes of what determines latents and picture: {"main": …, "vae": …, …}.

        The main reference counts without its VAE, which does not affect the latents.
        """
        vae = f"{self.family.vae}/"
        prints: dict[str, Any] = {"main": self.main.digest(without=vae)}
        prints |= {part: lock.fingerprint for part, lock in sorted(self.parts.items())}
        if self.config:
            prints["config"] = self.config.digest(without=vae)
        if self.loras:
            weights = self.spec.loras
            loras = self.loras.items()
            prints["loras"] = sorted([lock.fingerprint, weights[ref]] for ref, lock in loras)
        if self.lora != 1:
            prints["lora"] = self.lora
        if absent := sorted(part for part, ref in self.spec.parts.items() if not ref):
            prints["without"] = absent
        return prints

    @property
    def decoding(self) -> ModelLock:
        """The leg whose VAE makes the picture: the second where its latents are of another kind."""
        if self.then and not self.then.family.refines:
            return self.then
        return self

    @property
    def configs(self) -> Lock:
        """The reference that holds the configs of parts that are single files."""
        return self.config or self.main

    @cached_property
    def vae_fingerprint(self) -> str:
        """Hash of the VAE that decodes, with its config where it is part of a single file."""
        lock = self.decoding
        vae = lock.family.vae
        source = lock.parts.get(vae, lock.main)
        digest = source.digest(within="" if vae in lock.parts else f"{vae}/")
        if not source.single:
            return digest
        return f"{digest} {lock.configs.digest(within=f'{vae}/')}"

    @property
    def locks(self) -> list[Lock]:
        """All references, the second leg's too."""
        locks = [self.main, *self.parts.values(), *self.loras.values()]
        if self.config:
            locks.insert(1, self.config)
        if self.then:
            locks += self.then.locks
        return locks

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "spec": self.spec.model_dump(mode="json"),
            "main": self.main.to_json(),
            "scheduler": self.scheduler,
            "parts": {part: lock.to_json() for part, lock in self.parts.items()},
            "loras": {ref: lock.to_json() for ref, lock in self.loras.items()},
        }
        if self.config:
            data["config"] = self.config.to_json()
        if self.lora != 1:
            data["lora"] = self.lora
        if self.then:
            data["then"] = {"name": self.then.name, **self.then.to_json()}
        return data

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> ModelLock:
        """The lock that `to_json` gave. Raises ValueError, KeyError, TypeError or AttributeError
        for anything else."""
        return cls(
            name=name,
            spec=ModelSpec(**data["spec"]),
            main=Lock.from_json(data["main"]),
            parts={part: Lock.from_json(lock) for part, lock in data.get("parts", {}).items()},
            scheduler=dict(data["scheduler"].items()),
            loras={ref: Lock.from_json(lock) for ref, lock in data.get("loras", {}).items()},
            config=Lock.from_json(data["config"]) if "config" in data else None,
            then=cls.from_json(data["then"]["name"], data["then"]) if "then" in data else None,
            lora=data.get("lora", 1),
        )

    def lora_files(self) -> list[LoraFile]:
        """The headers of the LoRAs, on this disk. Raises RequestError for a file that is no LoRA,
        and for one that realkit read only in part when the lock was made."""
        files = [read_header(resolve.fetch(lock), ref) for ref, lock in self.loras.items()]
        for file in files:
            if self.lora == 1 and not _read_as_before(file):
                raise RequestError(
                    f"LoRA {file.label!r} was read only in part when this results folder was made:"
                    " use a new results folder"
                )
        return files


def lock_model(reference: str | PathLike[str]) -> ModelLock:
    """Resolve a model's references. Reads headers, hashes and configs; loads nothing.

    Raises RequestError for an entry that cannot work, and for a reference that cannot be resolved.
    """
    name, spec = identify(reference)
    if spec.family and spec.family not in FAMILIES:
        raise RequestError(
            f"Model {name!r} is of family {spec.family!r}: expected one of {', '.join(FAMILIES)}"
        )
    for part in spec.parts:
        if part not in PART_CLASSES:
            raise RequestError(
                f"Model {name!r} has an unknown part {part!r}: expected some of"
                f" {', '.join(PART_CLASSES)}"
            )
    try:
        left_out = set(spec.parts)
        main = resolve.lock(spec.source, weights=True, variant=spec.variant, left_out=left_out)
    except RequestError as error:
        if name in MODELS or not (meant := meant_of(MODELS, name)):
            raise
        raise RequestError(f"{error}.{meant}") from error
    spec = _completed(name, spec, main)
    config = resolve.lock(spec.config) if main.single else None
    scheduler = resolve.read_json(config or main, "scheduler/scheduler_config.json")
    if not scheduler:
        raise RequestError(
            f"Model {name!r} has no scheduler/scheduler_config.json: expected a diffusers folder"
        )
    _check_schedule(name, scheduler)
    if spec.prediction:
        scheduler = scheduler | {"prediction_type": spec.prediction}
    parts = {
        part: resolve.lock(ref, variant=spec.variant) for part, ref in spec.parts.items() if ref
    }
    loras = {ref: resolve.lock(ref) for ref in spec.loras}
    for ref, lora in loras.items():
        if not lora.single:
            raise RequestError(
                f"Model {name!r} has the LoRA {ref!r}: expected one .safetensors file, for the hub"
                " OWNER/NAME/FILE.safetensors"
            )
    then = _second(name, spec.then) if spec.then else None
    files = (
        read_header(resolve.fetch(lora), ref)
        for ref, lora in loras.items()
        if not ref.startswith(PUBLISHED)
    )
    version = 1 if all(_read_as_before(file) for file in files) else 2
    return ModelLock(name, spec, main, parts, scheduler, loras, config, then, lora=version)


def _read_as_before(file: LoraFile) -> bool:
    """Whether a LoRA means what it meant to the kit's first reader, so that ids stay."""
    return file.label.startswith(PUBLISHED) or merged_whole_before(file)


def _check_schedule(name: str, scheduler: dict[str, Any]) -> None:
    """Raise RequestError for a noise schedule of so many steps that to lay it out takes minutes."""
    steps = scheduler.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_TIMESTEPS:
        raise RequestError(
            f"Model {name!r} gives num_train_timesteps the value {shown(steps)} in its"
            f" scheduler_config.json: expected 1 to {MOST_TIMESTEPS:,}, download it again"
        )


def _second(name: str, leg: Leg) -> ModelLock:
    """The lock of the second leg's model. Raises RequestError where it cannot be a second leg."""
    if identify(leg.model)[1].then:
        raise RequestError(
            f"Model {name!r} continues with {leg.model!r}, which continues with another: expected"
            " two legs at most"
        )
    lock = lock_model(leg.model)
    if not lock.family.second:
        raise RequestError(
            f"Model {name!r} continues with {lock.name!r}, of family {lock.spec.family!r}, which"
            " does not take over from another model"
        )
    if leg.at == 1 and lock.family.refines:
        raise RequestError(
            f"Model {name!r} continues with {lock.name!r} at 1.0, where nothing is left of the"
            " noise: expected less, such as 0.8"
        )
    return lock


def _completed(name: str, spec: ModelSpec, main: Lock) -> ModelSpec:
    """The entry with what its files say where it is silent: configs, family, size, settings."""
    if main.single:
        spec = _with_config(spec, main)
        configs = resolve.lock(spec.config)
    elif spec.config:
        raise RequestError(
            f"Model {name!r} has a `config` and its source {spec.source!r} is a folder, which has"
            " its own: leave `config` out"
        )
    else:
        configs = main
    update: dict[str, Any] = {}
    if not spec.family:
        pipeline = str(resolve.read_json(configs, "model_index.json").get("_class_name", "none"))
        if pipeline not in OF_PIPELINE:
            raise RequestError(
                f"Model {name!r} is made for the pipeline {pipeline!r}: expected one of"
                f" {', '.join(OF_PIPELINE)}"
            )
        update["family"] = OF_PIPELINE[pipeline]
        if "size" not in spec.model_fields_set:
            update["size"] = _native_size(configs, FAMILIES[update["family"]].denoiser)
    usual = FAMILIES[update.get("family", spec.family)].usual
    if usual and "settings" not in spec.model_fields_set:
        update["settings"] = Settings(**usual)
    return spec.model_copy(update=update)


def _native_size(configs: Lock, denoiser: str) -> int:
    """The side in pixels that a denoiser's config names, from 64 to 8192; by default 1024."""
    side = resolve.read_json(configs, f"{denoiser}/config.json").get("sample_size")
    if not isinstance(side, int):
        return 1024
    return min(8192, max(64, side * 8))


def _with_config(spec: ModelSpec, main: Lock) -> ModelSpec:
    """The entry of a single file, with the shipped config that its tensors fit where it names none.

    Raises RequestError where the tensors leave it open, and where a part is missing.
    """
    path = resolve.fetch(main)
    tensors = header.read(path)
    owner = f"Single file {spec.source!r}"
    header.check_numbers(owner, tensors)
    if not spec.config:
        kind = checkpoints.identify(path)
        if kind == "sd2" and not spec.prediction:
            raise RequestError(
                f"Single file {spec.source!r} is of Stable Diffusion 2, and its tensors do not tell"
                " the 768 px v-prediction model from the 512 px epsilon one: give it a catalogue"
                ' entry with config = "config:sd2" or "config:sd2-base"'
            )
        spec = spec.model_copy(update={"config": CONFIG + kind})
    kind = spec.config.removeprefix(CONFIG)
    if kind in KINDS:
        parts = checkpoints.missing(kind, checkpoints.shapes_of(owner, tensors))
        if missing := [part for part in parts if part not in spec.parts]:
            raise RequestError(
                f"Single file {spec.source!r} lacks {', '.join(missing)}: name them in the `parts`"
                " of a catalogue entry"
            )
    return spec
