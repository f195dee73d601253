"""Stability's two diffusion upscalers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from realkit.base import files
from realkit.base.device import batch_limit, device_for, dtype_for, out_of_memory
from realkit.base.errors import RequestError, one_line, shown
from realkit.models import ladder, loading, parts
from realkit.models.decoder import Decoder
from realkit.models.families import FAMILIES
from realkit.models.ladder import LADDERS, Placed
from realkit.models.precision import keep_state_float32
from realkit.upscalers.redraw import EIGHTH, asked, checked_number, encoded
from realkit.upscalers.tiles import piecewise

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.upscalers.tiles import Tiles


class _Upscaler(Placed):
    """One of diffusers' upscaling pipelines on a rung of the memory ladder. `used` is as
    Redraw's."""

    pipeline: ClassVar[str]
    family: ClassVar[str]  # whose text encoder and VAE it has

    def __init__(self, pipe: Any, on: torch.device, rung: str) -> None:
        self.pipe, self.device, self.rung, self.rungs = pipe, on, rung, LADDERS["both"][on.type]
        self.dtype, self.used = pipe.unet.dtype, dict[str, Any]()
        self._decode = Decoder(pipe.vae, self.family, on, rung)
        pipe.set_progress_bar_config(disable=True)
        keep_state_float32(pipe.unet)

    def _drawn(
        self,
        image: Image,
        request: dict[str, Any],
        call: Callable[[Tiles], dict[str, Any]],
        **how: Any,
    ) -> Image:
        """The picture that the pipeline makes of tiles with the arguments of `call(tiles)`; `how`
        is piecewise's."""
        import torch

        def go(tiles: Tiles, seeds: list[int]) -> torch.Tensor:
            own = {
                "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                "output_type": "latent",
            }
            with torch.inference_mode():
                made = self.pipe(
                    **call(tiles),
                    num_inference_steps=request["steps"],
                    guidance_scale=request["guidance"],
                    **own,
                )[0]
                return made.float().cpu()  # type: ignore[no-any-return]

        made, tile = piecewise(image, request["seed"], self, go, self._decode, **how)
        self.used = {
            "tile": tile,
            "dtype": str(self.dtype).removeprefix("torch."),
            "rung": self.rung,
        }
        return made


class X4(_Upscaler):
    """stabilityai/stable-diffusion-x4-upscaler and its like, which see the small picture, with some
    noise, beside the latents.

    Settings: prompt; negative "", seed 0, steps 25; guidance 9.0 and noise_level 20 (to 350), both
    its pipeline's own.
    """

    scale, pipeline, family = 4, "StableDiffusionUpscalePipeline", "sd2"
    WHOLE, TILE, SHARED = (
        512,
        128,
        16,
        # pixels of the small picture: with a longer side it goes in tiles as long as the network
        # was
        # trained on
    )

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The picture four times as wide and high, RGB. Raises what Redraw does."""
        import torch

        request = asked(settings, 25, 9.0)
        level = checked_number(
            settings,
            "noise_level",
            20,
            min(self.pipe.config.max_noise_level, len(self.pipe.low_res_scheduler) - 1),
        )

        def call(tiles: Tiles) -> dict[str, Any]:
            prompts, negatives = ([request[name]] * len(tiles) for name in ("prompt", "negative"))
            words = FAMILIES[self.family].encode(
                self.pipe, prompts, negatives, request["guidance"] > 1
            )
            return words | {
                "image": torch.tensor(tiles).permute(0, 3, 1, 2) / 255,
                "noise_level": level,
            }

        tiled = max(image.size) > self.WHOLE
        batch = (
            batch_limit(self.device, (EIGHTH * self.TILE) ** 2)
            if tiled and self.device.type == "cuda"
            else 1
        )  # latents are as large as tiles
        return self._drawn(
            image,
            request,
            call,
            side=self.TILE if tiled else None,
            overlap=self.SHARED,
            multiple=8,
            batch=batch,
            scale=self.scale,
        )


class Latent(_Upscaler):
    """stabilityai/sd-x2-latent-upscaler and its like: latents twice as large from a picture's
    latents.

    Settings: seed 0; steps 20 and guidance 0.0, as its model card has them; with more guidance a
    prompt, and negative "": without, its pipeline reads neither.
    """

    scale, pipeline, family = 2, "StableDiffusionLatentUpscalePipeline", "sd1"

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The picture twice as wide and high, RGB. Raises what Redraw does."""
        request = asked(settings, 20, 0.0, prompted=False)

        def call(tiles: Tiles) -> dict[str, Any]:
            return {
                "prompt": request["prompt"],
                "negative_prompt": request["negative"],
                "image": encoded(self.pipe.vae, tiles, self.device),
            }

        return self._drawn(
            image, request, call, side=None, overlap=0, multiple=64, scale=self.scale
        )


ENGINES: dict[str, type[X4] | type[Latent]] = {"diffusers-x4": X4, "diffusers-latent": Latent}


def load_stability(
    engine: str,
    folder: Path,
    device: torch.device | str | None = None,
    dtype: str | None = None,
    rung: str | None = None,
) -> X4 | Latent:
    """An upscaling pipeline from a folder in diffusers' layout; the other arguments are those of
    `loading.load`. Raises RequestError where it is none."""
    import diffusers
    import torch

    kind, on = ENGINES[engine], device_for(None if device is None else str(device))
    rungs, number, asked_rung = (
        LADDERS["both"][on.type],
        dtype_for(on, dtype),
        ladder.checked_rung(rung, on),
    )
    if (
        named := files.json_object(folder / "model_index.json").get("_class_name")
    ) != kind.pipeline:
        raise RequestError(
            f"Folder {folder.name!r} is made for the pipeline {shown(named)}: engine {engine!r}"
            f" expects {kind.pipeline}"
        )
    made = getattr(diffusers, kind.pipeline)
    without = dict.fromkeys(
        {"safety_checker", "feature_extractor", "watermarker"} & loading.modules(made)
    )
    vae = parts.vae_dtype(
        {"force_upcast": kind is X4} | files.json_object(folder / "vae" / "config.json"), number
    )  # X4's overflows float16
    # The pipelines draw noise in the text encoder's number format: float32, as the sampler's state.
    how = {
        "dtype": {"default": number, "vae": vae, "text_encoder": torch.float32},
        "local_files_only": True,
        "use_safetensors": True,
        **without,
    }
    loading.quiet()
    try:
        pipe = ladder.climbing_load(lambda: made.from_pretrained(str(folder), **how))
        return kind(
            pipe,
            on,
            ladder.placed(
                pipe, asked_rung or ladder.first_rung(on, rungs, ladder.part_bytes(pipe)), rungs, on
            ),
        )
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        AttributeError,
        TypeError,
        ImportError,
    ) as error:
        if out_of_memory(error):
            raise
        raise RequestError(
            f"Folder {folder.name!r} does not load as {kind.pipeline}: {one_line(error, 300)}"
        ) from error
