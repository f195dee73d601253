"""SD upscale with any checkpoint: a picture drawn again tile by tile, from some way up the noise.
Tiles have noise of their own and are blended in pixel space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from realkit.base.device import batch_limit
from realkit.base.errors import RequestError
from realkit.catalog.lookup import find
from realkit.models import loading
from realkit.models.families import FAMILIES, LegInput
from realkit.models.model import Model
from realkit.samplers import build
from realkit.samplers.table import SAMPLERS
from realkit.upscalers.settings import Settings
from realkit.upscalers.tiles import piecewise
from realkit.upscalers.tool import LoadRequest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.models.lock import ModelLock
    from realkit.upscalers.tiles import Tiles

OVERLAP = 64  # pixels, at most: stable-diffusion-webui's for SD upscale
EIGHTH = 8  # pixels a side that one latent stands for


@dataclass(frozen=True)
class Drawing:
    """What a diffusion upscaler draws: settings, completed by a model's advice."""

    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float

    @classmethod
    def of(cls, settings: Settings, steps: int, guidance: float, negative: str = "") -> Drawing:
        if settings.guidance is not None:
            guidance = settings.guidance
        if settings.negative is not None:
            negative = settings.negative
        steps = settings.steps or steps
        return cls(settings.prompt or "", negative, settings.seed, steps, float(guidance))


def encoded(vae: Any, tiles: Tiles, on: torch.device) -> torch.Tensor:
    """Latents (B, C, h/8, w/8) as denoisers expect them, float32 on the CPU: the middle of the
    VAE's posterior, not a draw from it."""
    import torch

    output = vae.encode(torch.tensor(tiles).permute(0, 3, 1, 2).to(on, vae.dtype) / 127.5 - 1)
    latents = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (latents.float().cpu() - shift) * vae.config.scaling_factor


class Tail:
    """A scheduler in a text-to-image pipeline that takes only the last strength · steps (rounded
    down as in diffusers, but at least one) of its schedule."""

    init_noise_sigma = 1.0

    def __init__(self, scheduler: Any, steps: int, strength: float) -> None:
        self._whole, self._strength = scheduler, strength
        self.set_timesteps(steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        self._whole.set_timesteps(num_inference_steps, device=device)
        steps = max(1, int(num_inference_steps * self._strength + 1e-9))  # 100 · 0.57 is 56.99…
        first = (num_inference_steps - steps) * self._whole.order
        if hasattr(self._whole, "set_begin_index"):
            self._whole.set_begin_index(first)
        self.timesteps = self._whole.timesteps[first:]

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Do nothing: SDXL's pipeline would return to the first step of all."""

    def noised(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) at the level of noise where the tail begins."""
        begin = self.timesteps[:1].repeat(len(latents))
        if hasattr(self._whole, "scale_noise"):  # of flows
            return self._whole.scale_noise(latents, begin, noise)  # type: ignore[no-any-return]
        return self._whole.add_noise(latents, noise, begin)  # type: ignore[no-any-return]


def check_model(lock: ModelLock) -> None:
    """Raise RequestError for a model that does not redraw."""
    if not lock.family.redraws:
        able = [name for name, family in FAMILIES.items() if family.redraws]
        raise RequestError(
            f"Model {lock.name!r} is of family {lock.spec.family!r}, which does not redraw:"
            f" expected one of {', '.join(able)}"
        )
    if lock.spec.then:
        raise RequestError(
            f"Model {lock.name!r} has two legs, and a redraw has one: expected a model of one leg,"
            " such as its first"
        )


def check(lock: ModelLock, sampler: str, steps: int) -> str:
    """The sampler's name in the table. Raises RequestError where a model does not redraw, or a
    sampler cannot begin in the middle of its schedule."""
    check_model(lock)
    name = find(SAMPLERS, sampler)
    build.check(name, steps, lock.scheduler)
    if not SAMPLERS[name].divides:
        raise RequestError(
            f"Sampler {name!r} cannot begin in the middle of its schedule, as a redraw does: take"
            " Euler or DPM++ 2M"
        )
    return name


class Redraw:
    """SD upscale: a picture of its final size redrawn by a loaded checkpoint, tile by tile.

    `strength`, up to 1, is the share of `steps` that is taken. What the settings leave out is the
    model's advice. `used` says of the last call: tile "WIDTHxHEIGHT", dtype, rung.
    """

    scale = 1

    def __init__(self, model: Model) -> None:
        check_model(model.locked)
        self.model, self.device, self.used = model, model.device, dict[str, Any]()

    def __call__(self, image: Image, settings: Settings) -> Image:
        """The picture redrawn, RGB. Raises RequestError for a sampler that cannot redraw,
        FloatingPointError where numbers are not finite, out of memory on the last rung."""
        model, advice, side = self.model, self.model.spec.settings, self.model.spec.size
        drawing = Drawing.of(settings, advice.steps, advice.guidance, advice.negative)
        sampler = check(model.locked, settings.sampler or advice.sampler, drawing.steps)
        redrawn, tile = piecewise(
            image,
            drawing.seed,
            model,
            partial(self._denoised, drawing, sampler, settings.strength),
            model.decode,
            side=side,
            overlap=min(OVERLAP, max(EIGHTH, side // 8 // EIGHTH * EIGHTH)),
            multiple=EIGHTH,
            scale=self.scale,
            batch=tile_batch(self.device, side),
        )
        number = str(model.dtype).removeprefix("torch.")
        self.used = {"tile": tile, "dtype": number, "rung": model.rung}
        return redrawn

    def _denoised(
        self, drawing: Drawing, sampler: str, strength: float, tiles: Tiles, seeds: list[int]
    ) -> torch.Tensor:
        """The redrawn latents, (B, C, h, w), float32 on the CPU."""
        import torch

        model, pipe = self.model, self.model.pipe
        build.swap(pipe, sampler)
        whole = pipe.scheduler
        try:
            with torch.inference_mode():
                latents = encoded(pipe.vae, tiles, model.device)
                generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
                noise = torch.stack(
                    [torch.randn(latents.shape[1:], generator=each) for each in generators]
                )
                embeddings = model.family.encode(
                    pipe,
                    [drawing.prompt] * len(tiles),
                    [drawing.negative] * len(tiles),
                    drawing.guidance > 1,
                )
                pipe.scheduler = tail = Tail(whole, drawing.steps, strength)
                size = tiles.shape[2], tiles.shape[1]
                redrawn = pipe(
                    **embeddings,
                    **model.family.arguments(pipe, LegInput(tail.noised(latents, noise), size)),
                    **build.call_settings(sampler),
                    num_inference_steps=drawing.steps,
                    guidance_scale=drawing.guidance,
                    generator=generators,
                )[0]
                return redrawn.float().cpu()  # type: ignore[no-any-return]
        finally:
            pipe.scheduler = whole


def tile_batch(on: torch.device, side: int) -> int:
    """How many tiles of `side` pixels are denoised together: 1 on a CPU."""
    return batch_limit(on, side**2) if on.type == "cuda" else 1


def load(request: LoadRequest) -> Redraw:
    """Raises RequestError for a model that does not redraw."""
    assert request.model is not None
    return Redraw(loading.load(request.model.name, request.model, **request.placement))
