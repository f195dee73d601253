"""The lock of a model: hashes of its references, its original scheduler config, and its entry
completed by its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from realkit.base.errors import RequestError
from realkit.models.families import FAMILIES, OF_PIPELINE, PART_CLASSES
from realkit.models.spec import Leg, ModelSpec, Settings, identify
from realkit.weights import checkpoints, resolve
from realkit.weights.checkpoints import KINDS
from realkit.weights.lock import Lock
from realkit.weights.reference import CONFIG


@dataclass(frozen=True)
class ModelLock:
    """A model's references, locked: the main one, its parts and LoRAs, the configs a single file is
    read with, the original scheduler config, and the second leg's model."""

    name: str
    spec: ModelSpec
    main: Lock
    parts: dict[str, Lock]
    scheduler: dict[str, Any]
    loras: dict[str, Lock]
    config: Lock | None = None
    then: ModelLock | None = None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Hashes of what determines latents and picture: {"main": …, "vae": …, …}. The VAE's does
        not concern the latents."""
        vae = FAMILIES[self.spec.family].vae
        prints: dict[str, Any] = {"main": self.main.digest(without=f"{vae}/")} | {
            name: lock_model.fingerprint for name, lock_model in sorted(self.parts.items())
        }
        if self.config:
            prints["config"] = self.config.digest(without=f"{vae}/")
        if self.loras:
            prints["loras"] = sorted(
                [lock_model.fingerprint, self.spec.loras[ref]]
                for ref, lock_model in self.loras.items()
            )
        if left_out := sorted(part for part, ref in self.spec.parts.items() if not ref):
            prints["without"] = left_out
        return prints

    @property
    def decoding(self) -> ModelLock:
        """The leg whose VAE makes the picture: the first, but for a second leg with a decoder of
        its own kind."""
        return self.then if self.then and FAMILIES[self.then.spec.family].vae != "vae" else self

    @property
    def configs(self) -> Lock:
        """Where the configs of its parts stand that are single files."""
        return self.config or self.main

    @property
    def vae_fingerprint(self) -> str:
        of, part = self.decoding, FAMILIES[self.decoding.spec.family].vae
        source = of.parts.get(part, of.main)
        found = source.digest(within="" if part in of.parts else f"{part}/")
        return f"{found} {of.configs.digest(within=f'{part}/')}" if source.single else found

    @property
    def locks(self) -> list[Lock]:
        """All references, the second leg's too."""
        config = [self.config] if self.config else []
        return [
            self.main,
            *config,
            *self.parts.values(),
            *self.loras.values(),
            *(self.then.locks if self.then else []),
        ]

    def to_json(self) -> dict[str, Any]:
        locks = {
            kind: {name: lock_model.to_json() for name, lock_model in found.items()}
            for kind, found in (("parts", self.parts), ("loras", self.loras))
        }
        config = {"config": self.config.to_json()} if self.config else {}
        then = {"then": {"name": self.then.name, **self.then.to_json()}} if self.then else {}
        return {
            "spec": self.spec.model_dump(mode="json"),
            "main": self.main.to_json(),
            "scheduler": self.scheduler,
            **locks,
            **config,
            **then,
        }

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> ModelLock:
        parts, loras = (
            {key: Lock(**lock_model) for key, lock_model in data.get(kind, {}).items()}
            for kind in ("parts", "loras")
        )
        then = cls.from_json(data["then"]["name"], data["then"]) if "then" in data else None
        config = Lock(**data["config"]) if "config" in data else None
        return cls(
            name,
            ModelSpec(**data["spec"]),
            Lock(**data["main"]),
            parts,
            data["scheduler"],
            loras,
            config,
            then,
        )


def lock_model(name: str) -> ModelLock:
    """Resolve a model's references once: nothing is loaded, only headers, hashes and configs are
    read.

    Raises RequestError for an entry that means nothing, and where a reference cannot be had.
    """
    known, spec = identify(name)
    if spec.family and spec.family not in FAMILIES:
        raise RequestError(
            f"Model {known!r} is of family {spec.family!r}: expected one of {', '.join(FAMILIES)}"
        )
    if unknown := [part for part in spec.parts if part not in PART_CLASSES]:
        raise RequestError(
            f"Model {known!r} has an unknown part {unknown[0]!r}: expected some of"
            f" {', '.join(PART_CLASSES)}"
        )
    main = resolve.lock(spec.source, weights=True, variant=spec.variant, left_out=set(spec.parts))
    spec = _completed(known, spec, main)
    config = resolve.lock(spec.config) if main.single else None
    scheduler = resolve.read_json(config or main, "scheduler/scheduler_config.json")
    if not scheduler:
        raise RequestError(
            f"Model {known!r} has no scheduler/scheduler_config.json: expected a diffusers folder"
        )
    if spec.prediction:
        scheduler = scheduler | {"prediction_type": spec.prediction}
    parts = {
        part: resolve.lock(ref, variant=spec.variant) for part, ref in spec.parts.items() if ref
    }
    loras = {ref: resolve.lock(ref) for ref in spec.loras}
    if broad := [ref for ref, locked in loras.items() if not locked.single]:
        raise RequestError(
            f"Model {known!r} has the LoRA {broad[0]!r}: expected one .safetensors file, for the"
            " hub OWNER/NAME/FILE.safetensors"
        )
    return ModelLock(
        known,
        spec,
        main,
        parts,
        scheduler,
        loras,
        config,
        _second(known, spec.then) if spec.then else None,
    )


def _second(name: str, leg: Leg) -> ModelLock:
    if identify(leg.model)[1].then:
        raise RequestError(
            f"Model {name!r} goes on with {leg.model!r}, which goes on with another: expected two"
            " legs at most"
        )
    then = lock_model(leg.model)
    family = FAMILIES[then.spec.family]
    if not family.second:
        raise RequestError(
            f"Model {name!r} goes on with {then.name!r}, of family {then.spec.family!r}, which does"
            " not take over from another model"
        )
    if leg.at == 1 and family.vae == "vae":
        raise RequestError(
            f"Model {name!r} goes on with {then.name!r} at 1.0, where nothing is left of the noise:"
            " expected less, such as 0.8"
        )
    return then


def _completed(name: str, spec: ModelSpec, main: Lock) -> ModelSpec:
    """The entry with what its files say where it is silent: configs of a single file, family,
    size."""
    configs = main
    if main.single:
        path = resolve.fetch(main)
        kind = checkpoints.identify(path) if not spec.config else ""
        if kind == "sd2" and not spec.prediction:
            raise RequestError(
                f"Single file {spec.source!r} is of Stable Diffusion 2, and its tensors do not tell"
                " the 768 px v-prediction model from the 512 px epsilon one: give it a catalogue"
                ' entry with config = "config:sd2" or "config:sd2-base"'
            )
        spec = spec.model_copy(update={"config": spec.config or CONFIG + kind})
        shipped = spec.config.removeprefix(CONFIG)
        if shipped in KINDS and (
            lacking := [
                part
                for part in checkpoints.missing(shipped, checkpoints.header(path)[0])
                if part not in spec.parts
            ]
        ):
            raise RequestError(
                f"Single file {spec.source!r} lacks {', '.join(lacking)}: name them in the `parts`"
                " of a catalogue entry"
            )
        configs = resolve.lock(spec.config)
    elif spec.config:
        raise RequestError(
            f"Model {name!r} has a `config` and its source {spec.source!r} is a folder, which has"
            " its own: leave `config` out"
        )
    found: dict[str, Any] = {}
    if not spec.family:
        pipeline = str(resolve.read_json(configs, "model_index.json").get("_class_name", "none"))
        if pipeline not in OF_PIPELINE:
            raise RequestError(
                f"Model {name!r} is made for the pipeline {pipeline!r}: expected one of"
                f" {', '.join(OF_PIPELINE)}"
            )
        found["family"] = OF_PIPELINE[pipeline]
        if "size" not in spec.model_fields_set:
            side = resolve.read_json(
                configs, f"{FAMILIES[found['family']].denoiser}/config.json"
            ).get("sample_size")
            found["size"] = min(8192, max(64, side * 8)) if isinstance(side, int) else 1024
    if "settings" not in spec.model_fields_set and (
        usual := FAMILIES[found.get("family", spec.family)].usual
    ):
        found["settings"] = Settings(**usual)
    return spec.model_copy(update=found)
