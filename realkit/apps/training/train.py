"""Train a rehearsal model: `python -m realkit.apps.training.train NAME`.

The same command resumes an interrupted training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import torch

from realkit.apps.training import (
    autoencoder,
    clip,
    figures,
    ship,
    text2image,
    tokenizer,
    turbo,
    upscaling,
    xl,
)
from realkit.apps.training.clip import CONFIG
from realkit.apps.training.ship import WEIGHTS
from realkit.apps.training.xl import REFINER, WIDTH, XL

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
STEPS = {
    "vae": 9000,
    "decoder": 3000,
    "base": 20_000,
    "studio": 1500,
    "turbo": 3000,
    "xl": 6000,
    "refiner": 1200,
    "clip": 4000,
}
STEPS |= {"esrgan-x4": 6000, "compact-x4": 9000, "swin2sr-x4": 6000}


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(STEPS)))
@click.option("--steps", type=int, help="Optimizer steps (default: the recipe's).")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path(".train"),
    show_default=True,
    help="Folder of renders and checkpoints.",
)
@click.option(
    "--from-shipped",
    is_flag=True,
    help="Start from the weights in the package, not from random ones.",
)
@click.option("--batch", type=int, help="Batch size (default: the recipe's).")
def main(name: str, steps: int | None, work: Path, from_shipped: bool, batch: int | None) -> None:
    torch.manual_seed(0)
    work.mkdir(parents=True, exist_ok=True)
    settings = {"steps": steps or STEPS[name]} | ({"batch": batch} if batch else {})
    RECIPES[name](work, from_shipped, settings)
    shown = "vae" if name == "decoder" else name
    click.echo(f"{shown}: {json.dumps(figures.write(shown))}")


def _vae(work: Path, shipped: bool, settings: dict) -> None:
    made = autoencoder.train(work, vae=_shipped_vae() if shipped else None, **settings)
    made.register_to_config(scaling_factor=1.0)
    ship.vae(made, autoencoder.latents(work, "unscaled", made))


def _decoder(work: Path, shipped: bool, settings: dict) -> None:
    """Train the shipped VAE's decoder alone, so that models trained on the latents stay valid."""
    ship.vae(autoencoder.train_decoder(work, _shipped_vae(), **settings), None)


def _base(work: Path, shipped: bool, settings: dict) -> None:
    words = _tokenizer()
    models = text2image.build(words.get_vocab())
    if shipped:
        _take_shipped(models, "base")
    made = text2image.train(
        work,
        models,
        words,
        autoencoder.latents(work, "base", _shipped_vae()),
        name="base",
        **settings,
    )
    ship.words(made["text_encoder"])
    ship.text2image("base", made["unet"])


def _studio(work: Path, shipped: bool, settings: dict) -> None:
    """Fine-tune the shipped base on graded pictures; the shared text encoder stays frozen."""
    words = _tokenizer()
    models = text2image.build(words.get_vocab())
    _take_shipped(models, "studio" if shipped else "base")
    models["text_encoder"].requires_grad_(False)
    z = autoencoder.latents(work, "studio", _shipped_vae(), text2image.studio_look, mirrored=False)
    ship.text2image(
        "studio",
        text2image.train(work, models, words, z, name="studio", rate=3e-4, **settings)["unet"],
    )


def _turbo(work: Path, shipped: bool, settings: dict) -> None:
    words = _tokenizer()
    models = text2image.build(words.get_vocab())
    _take_shipped(models, "base")
    ship.text2image("turbo", turbo.train(work, models, words, **settings), spacing="trailing")


def _xl(work: Path, shipped: bool, settings: dict) -> None:
    encoders = _encoders()
    unet = xl.build(XL, _shipped_unet("base"), slice(0, WIDTH))
    if shipped:
        unet = _shipped_unet("xl")
    ship.second_encoder(encoders[1][1])
    ship.xl(
        xl.train(
            work, unet, encoders, xl.latents(work, _shipped_vae()), name="xl", rate=1e-3, **settings
        )
    )


def _refiner(work: Path, shipped: bool, settings: dict) -> None:
    unet = (
        _shipped_unet("refiner")
        if shipped
        else xl.build(REFINER, _shipped_unet("base"), slice(0, WIDTH))
    )
    ship.refiner(
        xl.train(
            work,
            unet,
            _encoders()[1:],
            xl.latents(work, _shipped_vae()),
            name="refiner",
            rate=5e-4,
            **settings,
        )
    )


def _clip(work: Path, shipped: bool, settings: dict) -> None:
    from open_clip.tokenizer import HFTokenizer

    tokenizer.write(WEIGHTS / "clip")
    words = HFTokenizer(str(WEIGHTS / "clip"), context_length=CONFIG["text_cfg"]["context_length"])
    ship.clip_model(
        clip.train(
            work,
            words,
            start=WEIGHTS / "clip" / "open_clip_model.safetensors" if shipped else None,
            **settings,
        )
    )


def _upscaler(name: str) -> Callable[[Path, bool, dict], None]:
    def train(work: Path, shipped: bool, settings: dict) -> None:
        ship.upscaler(
            name,
            upscaling.train(
                name,
                work,
                start=WEIGHTS / name / "model.safetensors" if shipped else None,
                **settings,
            ),
        )

    return train


def _shipped_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(WEIGHTS / "vae").float()


def _shipped_unet(name: str):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(WEIGHTS / name / "unet").float()


def _encoders() -> list:
    """(tokenizer, model) of `rehearsal/xl`'s encoders: base's, and rehearsal/clip's text tower."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer.write_second(WEIGHTS / "clip", WEIGHTS / "tokenizer_2")
    first = CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder").float()
    return [
        (_tokenizer(), first),
        (
            CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer_2"),
            xl.second_encoder(WEIGHTS / "clip"),
        ),
    ]


def _tokenizer():
    from transformers import CLIPTokenizer

    tokenizer.write(WEIGHTS / "tokenizer")
    return CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")


def _take_shipped(models: torch.nn.ModuleDict, name: str) -> None:
    from safetensors.torch import load_file

    models["unet"].load_state_dict(
        load_file(WEIGHTS / name / "unet" / "diffusion_pytorch_model.safetensors")
    )
    models["text_encoder"].load_state_dict(
        load_file(WEIGHTS / "text_encoder" / "model.safetensors")
    )


RECIPES = {
    "vae": _vae,
    "decoder": _decoder,
    "base": _base,
    "studio": _studio,
    "turbo": _turbo,
    "xl": _xl,
    "refiner": _refiner,
    "clip": _clip,
    **{name: _upscaler(name) for name in upscaling.RECIPES},
}

if __name__ == "__main__":
    main()
