"""Stability's two diffusion upscalers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from realkit.base import files
from realkit.base.device import dtype_for, out_of_memory
from realkit.base.errors import RequestError, one_line, shown
from realkit.models import ladder, loading, parts
from realkit.models.decoder import Decoder
from realkit.models.families import FAMILIES
from realkit.models.ladder import LADDERS, Placed
from realkit.models.precision import keep_state_float32
from realkit.upscalers.redraw import EIGHTH, Drawing, encoded, tile_batch
from realkit.upscalers.settings import Settings
from realkit.upscalers.tiles import piecewise
from realkit.upscalers.tool import LoadRequest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.upscalers.tiles import Tiles

# Parts of published pipelines that are not loaded, where the pipeline's class has them.
LEFT_OUT = {"safety_checker", "feature_extractor", "watermarker"}
# What diffusers raises for a folder that does not hold what its model_index.json says.
BROKEN = (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, ImportError)


class _Upscaler(Placed):
    """One of diffusers' upscaling pipelines on a rung of the memory ladder. `used` is as
    Redraw's."""

    pipeline: ClassVar[str]
    family: ClassVar[str]  # whose text encoder and VAE it has
    upcasts: ClassVar[bool]  # its VAE overflows float16

    def __init__(self, pipe: Any, on: torch.device, rung: str) -> None:
        self.pipe, self.device, self.rung, self.rungs = pipe, on, rung, LADDERS["both"][on.type]
        self.dtype, self.used = pipe.unet.dtype, dict[str, Any]()
        self._decode = Decoder(pipe.vae, self.family, on, rung)
        pipe.set_progress_bar_config(disable=True)
        keep_state_float32(pipe.unet)

    def _drawn(
        self,
        image: Image,
        drawing: Drawing,
        arguments: Callable[[Tiles], dict[str, Any]],
        **layout: Any,
    ) -> Image:
        """The picture that the pipeline makes of tiles with `arguments(tiles)`; `layout` is
        piecewise's."""
        import torch

        def denoise(tiles: Tiles, seeds: list[int]) -> torch.Tensor:
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            with torch.inference_mode():
                latents = self.pipe(
                    **arguments(tiles),
                    num_inference_steps=drawing.steps,
                    guidance_scale=drawing.guidance,
                    generator=generators,
                    output_type="latent",
                )[0]
                return latents.float().cpu()  # type: ignore[no-any-return]

        drawn, tile = piecewise(image, drawing.seed, self, denoise, self._decode, **layout)
        number = str(self.dtype).removeprefix("torch.")
        self.used = {"tile": tile, "dtype": number, "rung": self.rung}
        return drawn


class X4(_Upscaler):
    """stabilityai/stable-diffusion-x4-upscaler and its like, which see the small picture, with some
    noise, beside the latents. Steps 25; guidance 9.0, as its pipeline has it."""

    scale, pipeline, family, upcasts = 4, "StableDiffusionUpscalePipeline", "sd2", True
    # Pixels of the small picture: with a longer side than WHOLE, it is drawn in tiles as long as
    # the network was trained on.
    WHOLE, TILE, SHARED = 512, 128, 16

    def __call__(self, image: Image, settings: Settings) -> Image:
        """The picture four times as wide and high, RGB. Raises what Redraw does."""
        import torch

        drawing = Drawing.of(settings, 25, 9.0)

        def arguments(tiles: Tiles) -> dict[str, Any]:
            embeddings = FAMILIES[self.family].encode(
                self.pipe,
                [drawing.prompt] * len(tiles),
                [drawing.negative] * len(tiles),
                drawing.guidance > 1,
            )
            small = torch.tensor(tiles).permute(0, 3, 1, 2) / 255
            return embeddings | {"image": small, "noise_level": settings.noise_level}

        layout: dict[str, Any] = {"side": None}
        if max(image.size) > self.WHOLE:
            # Latents are as large as tiles: a tile costs what a picture with EIGHTH times its side
            # costs.
            layout = {"side": self.TILE, "batch": tile_batch(self.device, EIGHTH * self.TILE)}
        return self._drawn(
            image, drawing, arguments, overlap=self.SHARED, multiple=8, scale=self.scale, **layout
        )


class Latent(_Upscaler):
    """stabilityai/sd-x2-latent-upscaler and its like: latents twice as large from a picture's
    latents. Steps 20 and guidance 0.0, as its model card has them; without guidance, its pipeline
    reads neither prompt nor negative."""

    scale, pipeline, family, upcasts = 2, "StableDiffusionLatentUpscalePipeline", "sd1", False

    def __call__(self, image: Image, settings: Settings) -> Image:
        """The picture twice as wide and high, RGB. Raises what Redraw does."""
        drawing = Drawing.of(settings, 20, 0.0)

        def arguments(tiles: Tiles) -> dict[str, Any]:
            return {
                "prompt": drawing.prompt,
                "negative_prompt": drawing.negative,
                "image": encoded(self.pipe.vae, tiles, self.device),
            }

        return self._drawn(
            image, drawing, arguments, side=None, overlap=0, multiple=64, scale=self.scale
        )


Kind = TypeVar("Kind", bound=_Upscaler)


def load_x4(request: LoadRequest) -> X4:
    return _load(X4, request)


def load_latent(request: LoadRequest) -> Latent:
    return _load(Latent, request)


def _load(kind: type[Kind], request: LoadRequest) -> Kind:
    placement = {key: value for key, value in request.placement.items() if key != "device"}
    return load_stability(kind, request.path, request.device, **placement)


def load_stability(
    kind: type[Kind],
    folder: Path,
    on: torch.device,
    dtype: str | None = None,
    rung: str | None = None,
) -> Kind:
    """An upscaling pipeline from a folder in diffusers' layout; `dtype` and `rung` are those of
    `rk.load`. Raises RequestError for any other folder."""
    import diffusers

    number, rung = dtype_for(on, dtype), ladder.checked_rung(rung, on)
    name = files.json_object(folder / "model_index.json").get("_class_name")
    if name != kind.pipeline:
        raise RequestError(
            f"Folder {folder.name!r} is made for the pipeline {shown(name)}: expected"
            f" {kind.pipeline}"
        )
    pipeline = getattr(diffusers, kind.pipeline)
    loading.quiet()
    try:
        pipe = ladder.climbing_load(lambda: _pipe(pipeline, folder, number, kind.upcasts))
        rungs = LADDERS["both"][on.type]
        first = rung or ladder.first_rung(on, rungs, ladder.part_bytes(pipe))
        return kind(pipe, on, ladder.placed(pipe, first, rungs, on))
    except BROKEN as error:
        if out_of_memory(error):
            raise
        raise RequestError(
            f"Folder {folder.name!r} does not load as {kind.pipeline}: {one_line(error, 300)}"
        ) from error


def _pipe(pipeline: Any, folder: Path, number: torch.dtype, upcasts: bool) -> Any:
    import torch

    config = {"force_upcast": upcasts} | files.json_object(folder / "vae" / "config.json")
    vae = parts.vae_dtype(config, number)
    return pipeline.from_pretrained(
        str(folder),
        dtype={"default": number, "vae": vae, "text_encoder": torch.float32},
        local_files_only=True,
        use_safetensors=True,
        **dict.fromkeys(LEFT_OUT & loading.modules(pipeline)),
    )
