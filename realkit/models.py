"""Models: catalogue entries and other references → a pipeline on the device it fits, and pictures from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, FiniteFloat

from realkit import hub, placement, samplers
from realkit.errors import RequestError
from realkit.families import FAMILIES
from realkit.lookup import Spec, Table, find
from realkit.measure import Stopwatch

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Settings(Spec):
    """What a model's author recommends; used wherever a request leaves a setting open."""

    sampler: str = "DPM++ 2M Karras"
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance: Annotated[FiniteFloat, Field(ge=0, le=100)] = 5.0
    negative: str = ""


class ModelSpec(Spec):
    family: str = "sd1"
    source: str
    parts: dict[str, str] = Field(default_factory=dict)
    config: str = ""  # folder with the diffusers configs of a single-file checkpoint
    size: Annotated[int, Field(ge=64, le=8192, multiple_of=8)] = 512
    pass_tflop: float | None = None  # 10¹² operations of a denoiser pass at that size, where it is not the family's
    decode_tflop: float | None = None  # of decoding a megapixel
    settings: Settings = Settings()
    licence: str = "unknown"
    about: str = ""
    aliases: tuple[str, ...] = ()


MODELS: Table[ModelSpec] = Table("model", ModelSpec)
PART_CLASSES = {
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}


@dataclass(frozen=True)
class ModelLock:
    """A model's references, locked: the main one first, then its parts by name, and the original scheduler config."""

    name: str
    spec: ModelSpec
    main: hub.Lock
    parts: dict[str, hub.Lock]
    scheduler: dict[str, Any]

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of what determines a picture: {"main": …, "vae": …, …}. The VAE's does not concern the latents."""
        return {"main": self.main.digest(without="vae/")} | {name: lock.fingerprint for name, lock in sorted(self.parts.items())}

    @property
    def vae_fingerprint(self) -> str:
        return self.parts["vae"].fingerprint if "vae" in self.parts else self.main.digest(within="vae/")

    def to_json(self) -> dict[str, Any]:
        parts = {name: lock.to_json() for name, lock in self.parts.items()}
        return {"spec": self.spec.model_dump(mode="json"), "main": self.main.to_json(), "parts": parts, "scheduler": self.scheduler}

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> ModelLock:
        parts = {part: hub.Lock(**lock) for part, lock in data["parts"].items()}
        return cls(name, ModelSpec(**data["spec"]), hub.Lock(**data["main"]), parts, data["scheduler"])


def identify(name: str) -> tuple[str, ModelSpec]:
    """A catalogue name as the table spells it, or any other reference as itself, with its entry."""
    if isinstance(name, str) and name.strip() and _is_path(name):
        return name, ModelSpec(source=name)
    try:
        known = find(MODELS, name)
    except RequestError:
        if hub.HUB_ID.match(name) and not name.startswith("rehearsal/"):
            return name, ModelSpec(source=name)
        raise
    return known, MODELS[known]


def _is_path(name: str) -> bool:
    if name.endswith(".safetensors") or name.startswith(("/", ".", "~")):
        return True
    try:
        return Path(name).exists()
    except OSError:  # too long to be one
        return False


def lock(name: str) -> ModelLock:
    """Resolve a model's references once: nothing is loaded, only headers and configs are read."""
    known, spec = identify(name)
    if spec.family not in FAMILIES:
        raise RequestError(f"Model {known!r} is of family {spec.family!r}: expected one of {', '.join(FAMILIES)}")
    if unknown := [part for part in spec.parts if part not in PART_CLASSES]:
        raise RequestError(f"Model {known!r} has an unknown part {unknown[0]!r}: expected some of {', '.join(PART_CLASSES)}")
    main = hub.lock(spec.source, weights=True)
    if main.kind == "file" and not spec.config:
        raise RequestError(f"Single file {spec.source!r}: give its catalogue entry a `config` folder with the diffusers configs of its kind")
    config = hub.lock(spec.config) if main.kind == "file" else main
    scheduler = hub.read_json(config, "scheduler/scheduler_config.json")
    if not scheduler:
        raise RequestError(f"Model {known!r} has no scheduler/scheduler_config.json: expected a diffusers folder")
    return ModelLock(known, spec, main, {part: hub.lock(ref) for part, ref in spec.parts.items()}, scheduler)


@dataclass(frozen=True)
class Request:
    """One picture of a batch: what may differ between the pictures of one batch."""

    prompt: str
    negative: str
    seed: int


@dataclass
class Denoised:
    """Latents (B, C, H/8, W/8), float32 on the CPU, with the measurements of the batch that made them."""

    latents: torch.Tensor
    encode_s: float
    denoise_s: float
    nfe: int
    network_passes: int
    truncated: list[int]
    scheduler: dict[str, Any]


class Decoder:
    """A loaded VAE: latents (C, h, w) → picture. Raises FloatingPointError where either is not finite."""

    def __init__(self, vae: Any) -> None:
        from diffusers.image_processor import VaeImageProcessor

        self.vae, self.device, self._to_picture = vae, vae.device, VaeImageProcessor().postprocess

    def __call__(self, latents: torch.Tensor) -> Image:
        import torch

        if not torch.isfinite(latents).all():
            raise FloatingPointError("the latents are not finite: the model overflowed in its number format; try float32")
        with torch.inference_mode():
            z = (latents[None] / self.vae.config.scaling_factor).to(self.device, self.vae.dtype)
            picture = self.vae.decode(z, return_dict=False)[0].float().cpu()
        if not torch.isfinite(picture).all():
            raise FloatingPointError("the VAE's picture is not finite: it overflowed in its number format; use a half-precision-safe VAE")
        return self._to_picture(picture, output_type="pil")[0]


class Model:
    """A loaded model. Calling it makes a picture; the stages use `denoise` and `decode`."""

    def __init__(self, locked: ModelLock, pipe: Any, load_s: float) -> None:
        self.locked, self.name, self.spec, self.pipe, self.load_s = locked, locked.name, locked.spec, pipe, load_s
        self.family = FAMILIES[self.spec.family]
        self.device, self.dtype = pipe.unet.device, pipe.unet.dtype
        self._calls, self._pictures, self._warm = 0, 0, set[tuple[int, ...]]()
        pipe.set_progress_bar_config(disable=True)
        pipe.unet.register_forward_pre_hook(self._before, with_kwargs=True)
        pipe.unet.register_forward_hook(self._after)

    # The sampler's state stays float32, whatever the network runs in: noise and arithmetic are then the same on every device.
    def _before(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._calls, self._pictures = self._calls + 1, self._pictures + len(args[0])
        return (args[0].to(self.dtype), *args[1:]), kwargs

    @staticmethod
    def _after(_: Any, __: Any, output: Any) -> Any:
        return (output[0].float(), *output[1:]) if isinstance(output, tuple) else output

    def __call__(
        self,
        prompt: str,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        negative: str | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Image:
        """One picture of the prompt, its settings noted in `image.info`; what is left out is the model's recommendation.

        Raises RequestError for a bad setting.
        """
        from realkit.provenance import annotate, pixel_hash
        from realkit.sweep import Sweep, denoise_determined

        axes = {"samplers": sampler, "steps": steps, "guidance": guidance, "negatives": negative, "size": size}
        sweep = Sweep(models=self.name, prompts=prompt, seeds=[seed], **{k: v for k, v in axes.items() if v is not None})
        cells = sweep.cells({self.name: self.spec})
        if len(cells) != 1:
            raise RequestError(f"{len(cells)} pictures asked for: a model makes one at a time, rk.Sweep makes grids")
        cell = cells[0]
        request = Request(cell.prompt, cell.negative, cell.seed)
        image = self.decode(self.denoise([request], cell.sampler, cell.steps, cell.guidance, (cell.width, cell.height)).latents[0])
        determined = denoise_determined(cell, self.locked) | {"vae": self.locked.vae_fingerprint}
        return annotate(image, {"stage": "decode", "cell": asdict(cell), "determined": determined, "pixels": pixel_hash(image)})

    def denoise(self, requests: Sequence[Request], sampler: str, steps: int, guidance: float, size: tuple[int, int]) -> Denoised:
        """Latents for a batch that shares sampler, steps, guidance and size (width, height)."""
        import torch

        sampler = find(samplers.SAMPLERS, sampler)
        samplers.check(sampler, steps, self.locked.scheduler)
        if len(requests) > 1 and samplers.SAMPLERS[sampler].adaptive:
            raise RequestError(f"Sampler {sampler!r} chooses its steps by the picture: give it one at a time, not {len(requests)}")
        config = samplers.swap(self.pipe, sampler)
        guided = guidance > 1
        self._warm_up(len(requests) * (1 + guided), size)
        with torch.inference_mode():
            with Stopwatch(self.device) as encoding:
                words = self.family.encode(self.pipe, [r.prompt for r in requests], [r.negative for r in requests], guided)
            drawn = [torch.Generator("cpu").manual_seed(r.seed) for r in requests]
            shape = (self.pipe.unet.config.in_channels, size[1] // 8, size[0] // 8)
            noise = torch.stack([torch.randn(shape, generator=g) for g in drawn])
            self._calls, self._pictures = 0, 0
            with Stopwatch(self.device) as denoising:
                made = self.pipe(
                    **words, latents=noise, generator=drawn, num_inference_steps=steps, guidance_scale=guidance,
                    width=size[0], height=size[1], output_type="latent", **samplers.call_settings(sampler),
                ).images  # fmt: skip
        truncated = [max(0, self._tokens(r.prompt) - self.pipe.tokenizer.model_max_length) for r in requests]
        passes = self._pictures // len(requests)
        return Denoised(made.float().cpu(), encoding.seconds, denoising.seconds, self._calls, passes, truncated, config)

    def decode(self, latents: torch.Tensor) -> Image:
        """The picture of latents (C, h, w). Raises FloatingPointError where they or the picture are not finite."""
        return Decoder(self.pipe.vae)(latents)

    def _tokens(self, prompt: str) -> int:
        return len(self.pipe.tokenizer(prompt, truncation=False).input_ids)

    def _warm_up(self, pictures: int, size: tuple[int, int]) -> None:
        """One call of the network at a shape it has not seen, so that set-up costs are not timed."""
        import torch

        shape = (pictures, self.pipe.unet.config.in_channels, size[1] // 8, size[0] // 8)
        if shape in self._warm or self.spec.family == "sdxl":
            return
        with torch.inference_mode():
            words = torch.zeros(pictures, 77, self.pipe.unet.config.cross_attention_dim, device=self.device, dtype=self.dtype)
            self.pipe.unet(torch.zeros(shape, device=self.device), torch.tensor(1, device=self.device), words, return_dict=False)
        self._warm.add(shape)


def load(name: str, locked: ModelLock | None = None) -> Model:
    """A catalogue model, hub id, diffusers folder or single file, ready on this machine's device.

    Raises RequestError for a name that means nothing or files that are damaged.
    """
    locked = locked or lock(name)
    import diffusers

    kind = getattr(diffusers, FAMILIES[locked.spec.family].pipeline)  # imports what it needs, before the clock starts
    _quiet()
    on = placement.device()
    number = placement.dtype(on)
    began = time.perf_counter()
    with _named(locked):
        parts = {part: _part(part, hub.fetch(lock), number) for part, lock in locked.parts.items()}
        pipe = _read(locked, kind, number, parts).to(on)  # weights that fit no layer are noticed when they are moved
    pipe.original_scheduler_config = locked.scheduler
    return Model(locked, pipe, time.perf_counter() - began)


def load_decoder(locked: ModelLock) -> Decoder:
    """A model's VAE alone, ready on this machine's device."""
    from diffusers import AutoencoderKL

    _quiet()
    on = placement.device()
    with _named(locked):
        if part := locked.parts.get("vae"):
            vae = _part("vae", hub.fetch(part), placement.dtype(on))
        else:
            vae = _read(locked, AutoencoderKL, placement.dtype(on), {"subfolder": "vae"})
        return Decoder(vae.to(on))


def _read(locked: ModelLock, kind: Any, number: torch.dtype, settings: dict[str, Any]) -> Any:
    """A pipeline, or one part of it, from a model's main reference."""
    path = str(hub.fetch(locked.main))
    if locked.main.kind == "file":
        return kind.from_single_file(path, config=str(hub.fetch(hub.lock(locked.spec.config))), dtype=number, local_files_only=True, **settings)
    if locked.main.variant:
        settings = settings | {"variant": locked.main.variant}
    if "subfolder" not in settings and locked.spec.family != "sdxl":
        settings = settings | {"safety_checker": None, "requires_safety_checker": False}
    return kind.from_pretrained(path, dtype=number, local_files_only=True, use_safetensors=True, **settings)


@contextmanager
def _named(locked: ModelLock) -> Iterator[None]:
    """Turn what the libraries raise while loading into one line that names the model."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"Model {locked.name!r} does not load from {locked.main.ref!r}: {' '.join(str(error).split())[:300]}") from error


def _quiet() -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_diffusers.disable_progress_bar()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()


def _part(name: str, path: Path, number: torch.dtype) -> Any:
    import importlib

    library, kind = PART_CLASSES[name]
    module = getattr(importlib.import_module(library), kind)
    if name == "tokenizer":
        return module.from_pretrained(path)
    return module.from_pretrained(path, dtype=number, use_safetensors=True)
