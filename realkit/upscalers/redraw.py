"""Diffusion upscalers: SD upscale with any checkpoint, diffusers' x4 and latent upscalers. Tiles
have noise of their own and are blended in pixel space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from realkit.base.device import batch_limit
from realkit.base.errors import RequestError, shown
from realkit.catalog.lookup import find
from realkit.models.families import FAMILIES, LegInput
from realkit.models.model import Model
from realkit.samplers import build
from realkit.samplers.table import SAMPLERS
from realkit.upscalers.tiles import piecewise

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.models.lock import ModelLock
    from realkit.upscalers.tiles import Tiles

OVERLAP = 64  # pixels, at most: stable-diffusion-webui's for SD upscale
EIGHTH = 8  # pixels a side that one latent stands for


def asked(
    settings: Mapping[str, Any],
    steps: int,
    guidance: float,
    negative: str = "",
    prompted: bool = True,
) -> dict[str, Any]:
    """Prompt, negative, seed, steps and guidance of `settings`, and these where one is missing or
    None. Raises RequestError for a value that is none."""
    found: dict[str, Any] = {"prompt": "", "negative": negative} | {
        n: settings[n] for n in ("prompt", "negative") if settings.get(n) is not None
    }
    if wrong := [
        f"{name} {shown(value)}" for name, value in found.items() if not isinstance(value, str)
    ]:
        raise RequestError(f"{wrong[0]}: expected text")
    found |= {
        "seed": checked_number(settings, "seed", 0, 2**63 - 1),
        "steps": checked_number(settings, "steps", steps, 999, least=1),
    }  # not 1000: offsets
    found["guidance"] = float(checked_number(settings, "guidance", float(guidance), 100))
    if not found["prompt"].strip() and (prompted or found["guidance"] > 0):
        raise RequestError(
            "A diffusion upscaler draws what a prompt says, and none was given: expected"
            ' prompt="…", such as the one that made the picture'
        )
    return found


def checked_number(
    settings: Mapping[str, Any], name: str, otherwise: float, most: int, least: float = 0
) -> Any:
    """A setting between two limits; a whole one where what stands for it otherwise is."""
    value = otherwise if settings.get(name) is None else settings[name]
    whole = isinstance(otherwise, int)
    if (
        isinstance(value, bool)
        or not isinstance(value, int if whole else (int, float))
        or not least <= value <= most
    ):
        raise RequestError(
            f"{name} {shown(value)}: expected a {'whole ' * whole}number from {least} to {most}"
        )
    return value


def encoded(vae: Any, tiles: Tiles, on: torch.device) -> torch.Tensor:
    """Latents (B, C, h/8, w/8) as denoisers know them, float32 on the CPU: the middle of the VAE's
    posterior, not a draw from it."""
    import torch

    found = vae.encode(torch.tensor(tiles).permute(0, 3, 1, 2).to(on, vae.dtype) / 127.5 - 1)
    latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    return (
        latents.float().cpu() - (getattr(vae.config, "shift_factor", None) or 0.0)
    ) * vae.config.scaling_factor


class Tail:
    """A scheduler in a text-to-image pipeline that goes only the last strength · steps (rounded
    down as in diffusers, but one at least) of its schedule."""

    init_noise_sigma = 1.0

    def __init__(self, scheduler: Any, steps: int, strength: float) -> None:
        self._whole, self._strength = scheduler, strength
        self.set_timesteps(steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        self._whole.set_timesteps(num_inference_steps, device=device)
        kept = max(1, int(num_inference_steps * self._strength + 1e-9))  # 100 · 0.57 is 56.99…
        first = (num_inference_steps - kept) * self._whole.order
        if hasattr(self._whole, "set_begin_index"):
            self._whole.set_begin_index(first)
        self.timesteps = self._whole.timesteps[first:]

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Nothing: SDXL's pipeline would go back to the first step of all."""

    def noised(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) at the level of noise where the tail begins."""
        begin, mixed = (
            self.timesteps[:1].repeat(len(latents)),
            getattr(self._whole, "scale_noise", None),
        )  # which flows have
        return (
            mixed(latents, begin, noise) if mixed else self._whole.add_noise(latents, noise, begin)
        )


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
            f"Model {lock.name!r} has two legs, and a redraw is one: expected a model of one leg,"
            " such as its first"
        )


def check(lock: ModelLock, sampler: str, steps: int) -> str:
    """The sampler's name in the table. Raises RequestError where a model does not redraw, or a
    sampler cannot begin in the middle of its way."""
    check_model(lock)
    known = find(SAMPLERS, sampler)
    build.check(known, steps, lock.scheduler)
    if not SAMPLERS[known].divides:
        raise RequestError(
            f"Sampler {known!r} cannot begin in the middle of its way, as a redraw does: take Euler"
            " or DPM++ 2M"
        )
    return known


class Redraw:
    """SD upscale: a picture of its final size drawn again by a loaded checkpoint, tile by tile,
    from some way up the noise.

    Settings: prompt; negative, steps, guidance, sampler: the model's; seed 0; strength 0.3, up to
    1: the share of `steps` that is gone. `used` says of the last call: tile "WIDTHxHEIGHT", dtype,
    rung.
    """

    scale = 1

    def __init__(self, model: Model) -> None:
        check_model(model.locked)
        self.model, self.device, self.used = model, model.device, dict[str, Any]()

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The picture redrawn, RGB. Raises RequestError for a bad setting, FloatingPointError where
        numbers are not finite, out of memory on the last rung."""
        model, advice, side = self.model, self.model.spec.settings, self.model.spec.size
        request = asked(settings, advice.steps, advice.guidance, advice.negative)
        strength = checked_number(settings, "strength", 0.3, 1, least=0.001)
        sampler = check(
            model.locked,
            advice.sampler if settings.get("sampler") is None else settings["sampler"],
            request["steps"],
        )
        how = {
            "side": side,
            "overlap": min(OVERLAP, max(EIGHTH, side // 8 // EIGHTH * EIGHTH)),
            "multiple": EIGHTH,
            "scale": self.scale,
        }
        batch = batch_limit(self.device, side**2) if self.device.type == "cuda" else 1
        made, tile = piecewise(
            image,
            request["seed"],
            model,
            partial(self._denoised, request, sampler, strength),
            model.decode,
            **how,
            batch=batch,
        )
        self.used = {
            "tile": tile,
            "dtype": str(model.dtype).removeprefix("torch."),
            "rung": model.rung,
        }
        return made

    def _denoised(
        self, request: dict[str, Any], sampler: str, strength: float, tiles: Tiles, seeds: list[int]
    ) -> torch.Tensor:
        """The redrawn latents, (B, C, h, w), float32 on the CPU."""
        import torch

        model, pipe, steps, guidance = (
            self.model,
            self.model.pipe,
            request["steps"],
            request["guidance"],
        )
        build.swap(pipe, sampler)
        whole = pipe.scheduler
        try:
            with torch.inference_mode():
                latents, drawn = (
                    encoded(pipe.vae, tiles, model.device),
                    [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                )
                noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in drawn])
                words = model.family.encode(
                    pipe,
                    [request["prompt"]] * len(tiles),
                    [request["negative"]] * len(tiles),
                    guidance > 1,
                )
                pipe.scheduler = tail = Tail(whole, steps, strength)
                going = model.family.arguments(
                    pipe, LegInput(tail.noised(latents, noise), (tiles.shape[2], tiles.shape[1]))
                )
                how = {
                    "num_inference_steps": steps,
                    "guidance_scale": guidance,
                    **build.call_settings(sampler),
                }
                return pipe(**words, **going, generator=drawn, **how)[0].float().cpu()  # type: ignore[no-any-return]
        finally:
            pipe.scheduler = whole
