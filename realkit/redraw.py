"""Diffusion upscalers: SD upscale with any checkpoint, diffusers' x4 and latent upscalers. Tiles have noise of their own and are blended in pixel space."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from realkit import hub, loading, pipelines, placement, samplers
from realkit.errors import RequestError
from realkit.families import FAMILIES, Going
from realkit.lookup import find, shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    from realkit.models import ModelLock

    Tiles = NDArray[np.uint8]  # (B, h, w, 3), 0 to 255
    Go = Callable[[Tiles, list[int]], torch.Tensor]  # tiles and their seeds → latents (B, C, h', w')
    Decode = Callable[[torch.Tensor], Image]

REDRAWS = ("sd1", "sd2", "sdxl", "sd3")  # families whose pipelines go on from the latents they are given
OVERLAP = 64  # pixels, at most: stable-diffusion-webui's for SD upscale
EIGHTH = 8  # pixels a side that one latent stands for


def asked(settings: Mapping[str, Any], steps: int, guidance: float, negative: str = "", prompted: bool = True) -> dict[str, Any]:
    """Prompt, negative, seed, steps and guidance of `settings`, and these where one is missing or None. Raises RequestError for a value that is none."""
    found: dict[str, Any] = {"prompt": "", "negative": negative} | {n: settings[n] for n in ("prompt", "negative") if settings.get(n) is not None}
    if wrong := [f"{name} {shown(value)}" for name, value in found.items() if not isinstance(value, str)]:
        raise RequestError(f"{wrong[0]}: expected text")
    found |= {"seed": _number(settings, "seed", 0, 2**63 - 1), "steps": _number(settings, "steps", steps, 999, least=1)}  # not 1000: offsets
    found["guidance"] = float(_number(settings, "guidance", float(guidance), 100))
    if not found["prompt"].strip() and (prompted or found["guidance"] > 0):
        raise RequestError('A diffusion upscaler draws what a prompt says, and none was given: expected prompt="…", such as the one that made the picture')
    return found


def _number(settings: Mapping[str, Any], name: str, otherwise: float, most: int, least: float = 0) -> Any:
    """A setting between two limits; a whole one where what stands for it otherwise is."""
    value = otherwise if settings.get(name) is None else settings[name]
    whole = isinstance(otherwise, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
        raise RequestError(f"{name} {shown(value)}: expected a {'whole ' * whole}number from {least} to {most}")
    return value


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the fewest tiles begin that cover a side and overlap by at least so much, evenly spread."""
    count = 1 if side == tile else math.ceil((side - overlap) / (tile - overlap))
    return [round(i * (side - tile) / max(1, count - 1)) for i in range(count)]


def shares(begins: list[int], tile: int, overlap: int, side: int) -> NDArray[np.float32]:
    """Each tile's share of each pixel of a side, (tiles, side): they add to one, and fade into the next tile's amid what both cover."""
    import numpy as np

    middles = (np.array(begins[1:]) + begins[:-1] + tile) / 2
    ramps = np.pad(np.clip((np.arange(side) + 0.5 - middles[:, None]) / (overlap or 1) + 0.5, 0, 1), ((1, 1), (0, 0)))
    ramps[0] = 1
    return (ramps[:-1] - ramps[1:]).astype(np.float32)


def tile_seed(seed: int, row: int, column: int) -> int:
    """The seed of a tile's own noise."""
    return int.from_bytes(hashlib.sha256(f"tile {row} {column} of {seed}".encode()).digest()[:7], "big")


def piecewise(
    image: Image, seed: int, tool: pipelines.Placed, go: Go, decode: Decode, *, side: int | None, overlap: int, multiple: int, scale: int, batch: int = 1
) -> tuple[Image, str]:
    """The picture `scale` times as large, and the tiles' size, "WIDTHxHEIGHT". Out of memory, the tool climbs its ladder.

    Tiles are `side` pixels square. A picture that is smaller (or any, where that is None) is one, its right and lower edge reflected up to a `multiple`.
    """
    import numpy as np
    from PIL import Image

    (width, height), pixels = image.size, np.asarray(image.convert("RGB"))
    h, w = (min(side or length + multiple, -(-length // multiple) * multiple) for length in (height, width))
    pixels = np.pad(pixels, ((0, max(0, h - height)), (0, max(0, w - width)), (0, 0)), "reflect")
    rows, columns = starts(len(pixels), h, overlap), starts(pixels.shape[1], w, overlap)
    down = shares([y * scale for y in rows], h * scale, overlap * scale, len(pixels) * scale)
    across = shares([x * scale for x in columns], w * scale, overlap * scale, pixels.shape[1] * scale)
    blended = np.zeros((down.shape[1], across.shape[1], 3), np.float32)
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    for some in (places[at : at + batch] for at in range(0, len(places), batch)):
        tiles = np.stack([pixels[rows[r] : rows[r] + h, columns[c] : columns[c] + w] for r, c in some])
        latents = pipelines.climbing(tool, partial(go, tiles, [tile_seed(seed, r, c) for r, c in some]))
        for (r, c), z in zip(some, latents, strict=True):
            made = np.asarray(pipelines.climbing(tool, partial(decode, z)), np.float32)
            y, x = (slice(begin * scale, (begin + length) * scale) for begin, length in ((rows[r], h), (columns[c], w)))
            blended[y, x] += made * down[r, y, None, None] * across[c, None, x, None]
    return Image.fromarray(blended[: height * scale, : width * scale].round().clip(0, 255).astype(np.uint8)), f"{w}x{h}"


def encoded(vae: Any, tiles: Tiles, on: torch.device) -> torch.Tensor:
    """Latents (B, C, h/8, w/8) as denoisers know them, float32 on the CPU: the middle of the VAE's posterior, not a draw from it."""
    import torch

    found = vae.encode(torch.tensor(tiles).permute(0, 3, 1, 2).to(on, vae.dtype) / 127.5 - 1)
    latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    return (latents.float().cpu() - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor


class Tail:
    """A scheduler in a text-to-image pipeline that goes only the last strength · steps (rounded down as in diffusers, but one at least) of its schedule."""

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
        begin, mixed = self.timesteps[:1].repeat(len(latents)), getattr(self._whole, "scale_noise", None)  # which flows have
        return mixed(latents, begin, noise) if mixed else self._whole.add_noise(latents, noise, begin)


def check_model(lock: ModelLock) -> None:
    """Raise RequestError for a model that does not redraw."""
    if lock.spec.family not in REDRAWS:
        raise RequestError(f"Model {lock.name!r} is of family {lock.spec.family!r}, which does not redraw: expected one of {', '.join(REDRAWS)}")
    if lock.spec.then:
        raise RequestError(f"Model {lock.name!r} has two legs, and a redraw is one: expected a model of one leg, such as its first")


def check(lock: ModelLock, sampler: str, steps: int) -> str:
    """The sampler's name in the table. Raises RequestError where a model does not redraw, or a sampler cannot begin in the middle of its way."""
    check_model(lock)
    known = find(samplers.SAMPLERS, sampler)
    samplers.check(known, steps, lock.scheduler)
    if not samplers.SAMPLERS[known].divides:
        raise RequestError(f"Sampler {known!r} cannot begin in the middle of its way, as a redraw does: take Euler or DPM++ 2M")
    return known


class Redraw:
    """SD upscale: a picture of its final size drawn again by a loaded checkpoint, tile by tile, from some way up the noise.

    Settings: prompt; negative, steps, guidance, sampler: the model's; seed 0; strength 0.3, up to 1: the share of `steps` that is gone.
    `used` says of the last call: tile "WIDTHxHEIGHT", dtype, rung.
    """

    scale = 1

    def __init__(self, model: pipelines.Model) -> None:
        check_model(model.locked)
        self.model, self.device, self.used = model, model.device, dict[str, Any]()

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The picture redrawn, RGB. Raises RequestError for a bad setting, FloatingPointError where numbers are not finite, out of memory on the last rung."""
        model, advice, side = self.model, self.model.spec.settings, self.model.spec.size
        request = asked(settings, advice.steps, advice.guidance, advice.negative)
        strength = _number(settings, "strength", 0.3, 1, least=0.001)
        sampler = check(model.locked, advice.sampler if settings.get("sampler") is None else settings["sampler"], request["steps"])
        how = {"side": side, "overlap": min(OVERLAP, max(EIGHTH, side // 8 // EIGHTH * EIGHTH)), "multiple": EIGHTH, "scale": self.scale}
        batch = placement.batch_limit(self.device, side**2) if self.device.type == "cuda" else 1
        made, tile = piecewise(image, request["seed"], model, partial(self._denoised, request, sampler, strength), model.decode, **how, batch=batch)
        self.used = {"tile": tile, "dtype": str(model.dtype).removeprefix("torch."), "rung": model.rung}
        return made

    def _denoised(self, request: dict[str, Any], sampler: str, strength: float, tiles: Tiles, seeds: list[int]) -> torch.Tensor:
        """The redrawn latents, (B, C, h, w), float32 on the CPU."""
        import torch

        model, pipe, steps, guidance = self.model, self.model.pipe, request["steps"], request["guidance"]
        samplers.swap(pipe, sampler)
        whole = pipe.scheduler
        try:
            with torch.inference_mode():
                latents, drawn = encoded(pipe.vae, tiles, model.device), [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
                noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in drawn])
                words = model.family.encode(pipe, [request["prompt"]] * len(tiles), [request["negative"]] * len(tiles), guidance > 1)
                pipe.scheduler = tail = Tail(whole, steps, strength)
                going = model.family.arguments(pipe, Going(tail.noised(latents, noise), (tiles.shape[2], tiles.shape[1])))
                how = {"num_inference_steps": steps, "guidance_scale": guidance, **samplers.call_settings(sampler)}
                return pipe(**words, **going, generator=drawn, **how)[0].float().cpu()  # type: ignore[no-any-return]
        finally:
            pipe.scheduler = whole


class _Upscaler(pipelines.Placed):
    """One of diffusers' upscaling pipelines on a rung of the memory ladder. `used` is as Redraw's."""

    pipeline: ClassVar[str]
    family: ClassVar[str]  # whose text encoder and VAE it has

    def __init__(self, pipe: Any, on: torch.device, rung: str) -> None:
        self.pipe, self.device, self.rung, self.rungs = pipe, on, rung, placement.LADDERS["both"][on.type]
        self.dtype, self.used = pipe.unet.dtype, dict[str, Any]()
        self._decode = pipelines.Decoder(pipe.vae, self.family, on, rung)
        pipe.set_progress_bar_config(disable=True)
        pipe.unet.register_forward_pre_hook(self._before, with_kwargs=True)
        pipe.unet.register_forward_hook(self._after)

    # As in pipelines.Model, the sampler's state stays float32. Noise is drawn in the text encoder's format: `load` makes it float32 for that.
    def _before(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cast = {name: kwargs[name].to(self.dtype) for name in ("encoder_hidden_states", "timestep_cond") if kwargs.get(name) is not None}
        return (args[0].to(self.dtype), *args[1:]), kwargs | cast

    @staticmethod
    def _after(_: Any, __: Any, output: Any) -> Any:
        return (output[0].float(), *output[1:]) if isinstance(output, tuple) else type(output)(sample=output.sample.float())

    def _drawn(self, image: Image, request: dict[str, Any], call: Callable[[Tiles], dict[str, Any]], **how: Any) -> Image:
        """The picture that the pipeline makes of tiles with the arguments of `call(tiles)`; `how` is piecewise's."""
        import torch

        def go(tiles: Tiles, seeds: list[int]) -> torch.Tensor:
            own = {"generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds], "output_type": "latent"}
            with torch.inference_mode():
                made = self.pipe(**call(tiles), num_inference_steps=request["steps"], guidance_scale=request["guidance"], **own)[0]
                return made.float().cpu()  # type: ignore[no-any-return]

        made, tile = piecewise(image, request["seed"], self, go, self._decode, **how)
        self.used = {"tile": tile, "dtype": str(self.dtype).removeprefix("torch."), "rung": self.rung}
        return made


class X4(_Upscaler):
    """stabilityai/stable-diffusion-x4-upscaler and its like, which see the small picture, with some noise, beside the latents.

    Settings: prompt; negative "", seed 0, steps 25; guidance 9.0 and noise_level 20 (to 350), both its pipeline's own.
    """

    scale, pipeline, family = 4, "StableDiffusionUpscalePipeline", "sd2"
    WHOLE, TILE, SHARED = 512, 128, 16  # pixels of the small picture: with a longer side it goes in tiles as long as the network was trained on

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The picture four times as wide and high, RGB. Raises what Redraw does."""
        import torch

        request = asked(settings, 25, 9.0)
        level = _number(settings, "noise_level", 20, min(self.pipe.config.max_noise_level, len(self.pipe.low_res_scheduler) - 1))

        def call(tiles: Tiles) -> dict[str, Any]:
            prompts, negatives = ([request[name]] * len(tiles) for name in ("prompt", "negative"))
            words = FAMILIES[self.family].encode(self.pipe, prompts, negatives, request["guidance"] > 1)
            return words | {"image": torch.tensor(tiles).permute(0, 3, 1, 2) / 255, "noise_level": level}

        tiled = max(image.size) > self.WHOLE
        batch = placement.batch_limit(self.device, (EIGHTH * self.TILE) ** 2) if tiled and self.device.type == "cuda" else 1  # latents are as large as tiles
        return self._drawn(image, request, call, side=self.TILE if tiled else None, overlap=self.SHARED, multiple=8, batch=batch, scale=self.scale)


class Latent(_Upscaler):
    """stabilityai/sd-x2-latent-upscaler and its like: latents twice as large from a picture's latents.

    Settings: seed 0; steps 20 and guidance 0.0, as its model card has them; with more guidance a prompt, and negative "": without, its pipeline reads neither.
    """

    scale, pipeline, family = 2, "StableDiffusionLatentUpscalePipeline", "sd1"

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The picture twice as wide and high, RGB. Raises what Redraw does."""
        request = asked(settings, 20, 0.0, prompted=False)

        def call(tiles: Tiles) -> dict[str, Any]:
            return {"prompt": request["prompt"], "negative_prompt": request["negative"], "image": encoded(self.pipe.vae, tiles, self.device)}

        return self._drawn(image, request, call, side=None, overlap=0, multiple=64, scale=self.scale)


ENGINES: dict[str, type[X4] | type[Latent]] = {"diffusers-x4": X4, "diffusers-latent": Latent}


def load(engine: str, folder: Path, device: torch.device | str | None = None, dtype: str | None = None, rung: str | None = None) -> X4 | Latent:
    """An upscaling pipeline from a folder in diffusers' layout; the other arguments are those of `loading.load`. Raises RequestError where it is none."""
    import diffusers
    import torch

    kind, on = ENGINES[engine], loading.device_for(None if device is None else str(device))
    rungs, number, asked_rung = placement.LADDERS["both"][on.type], placement.dtype(on, dtype), loading.checked_rung(rung, on)
    if (named := hub.json_object(folder / "model_index.json").get("_class_name")) != kind.pipeline:
        raise RequestError(f"Folder {folder.name!r} is made for the pipeline {shown(named)}: engine {engine!r} expects {kind.pipeline}")
    made = getattr(diffusers, kind.pipeline)
    without = dict.fromkeys({"safety_checker", "feature_extractor", "watermarker"} & loading.modules(made))
    vae = placement.vae_dtype({"force_upcast": kind is X4} | hub.json_object(folder / "vae" / "config.json"), number)  # X4's overflows float16
    how = {"dtype": {"default": number, "vae": vae, "text_encoder": torch.float32}, "local_files_only": True, "use_safetensors": True, **without}
    loading.quiet()
    try:
        pipe = loading.climbing_load(lambda: made.from_pretrained(str(folder), **how))
        return kind(pipe, on, loading.placed(pipe, asked_rung or placement.first_rung(on, rungs, loading.part_bytes(pipe)), rungs, on))
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError) as error:
        if placement.out_of_memory(error):
            raise
        raise RequestError(f"Folder {folder.name!r} does not load as {kind.pipeline}: {' '.join(str(error).split())[:300]}") from error
