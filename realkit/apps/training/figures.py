"""The rehearsal models' figures on held-out captions.

`python -m realkit.apps.training.figures` prints them and stores them beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

import realkit as rk
from realkit.apps.training.ship import WEIGHTS
from realkit.models.request import completed
from realkit.rehearsal.data import held_out
from realkit.rehearsal.scenes import mask, render
from realkit.rehearsal.wording import ATTRIBUTES, captions, parse

PICTURES = 512
AMONG = 32  # captions that a picture's own is ranked with
BATCH = 16
WORST = 95.0  # percent: a value of an attribute below it stands apart in the table


def vae(count: int = 256) -> dict[str, float]:
    """Reconstruction of held-out pictures: mean PSNR (dB) of the whole and of the object.

    For the object also the mean colour difference ΔE, CIEDE2000 and CIE 1976.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    from realkit.apps.training.training import to_tensor

    pipe = rk.load("rehearsal/base").pipe
    whole, inside, colour, colour_1976 = [], [], [], []
    for caption, seed in held_out(count):
        truth = np.array(render(caption, seed))
        with torch.inference_mode():
            decoded = pipe.vae.decode(
                pipe.vae.encode(to_tensor(truth[None])).latent_dist.mean
            ).sample[0]
        back = (
            ((decoded.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
        )
        where = mask(caption, seed)
        whole.append(psnr(truth, back))
        inside.append(psnr(truth[where], back[where]))
        lab, lab_back = rgb2lab(truth)[where], rgb2lab(back)[where]
        colour.append(deltaE_ciede2000(lab, lab_back).mean())
        colour_1976.append(np.linalg.norm(lab - lab_back, axis=-1).mean())
    return {
        "pictures": count,
        "psnr_db": _mean(whole),
        "object_psnr_db": _mean(inside),
        "object_delta_e_2000": _mean(colour),
        "object_delta_e_1976": _mean(colour_1976),
    }


def clip() -> dict[str, Any]:
    """The percentage of held-out pictures whose own caption scores best."""
    said = held_out(PICTURES)
    return judge(
        [render(caption, seed) for caption, seed in said], [caption for caption, _ in said]
    )


def base() -> dict[str, Any]:
    return generated("rehearsal/base")


def studio() -> dict[str, Any]:
    return generated("rehearsal/studio")


def turbo() -> dict[str, Any]:
    """As `base`, in four steps without guidance; `of_base` is its `first_of_32` over base's."""
    found = generated("rehearsal/turbo")
    of = json.loads((WEIGHTS / "base" / "figures.json").read_text(encoding="utf-8"))["first_of_32"]
    return found | {"of_base": round(found["first_of_32"] / of, 3)}


def xl() -> dict[str, Any]:
    """As `base`, and how much sharper a picture gets where a full original size is asked for.

    The reference is an original of 32 pixels; percent of mean gradient.
    """
    pipe, settings = rk.load("rehearsal/xl").pipe, rk.load("rehearsal/xl").spec.settings
    edges: dict[int, list[float]] = {128: [], 32: []}
    for seed, (caption, _) in enumerate(held_out(32)):
        for original, found in edges.items():
            sizes = {
                "original_size": (original, original),
                "negative_original_size": (128, 128),
                "width": 128,
                "height": 128,
            }
            made = pipe(
                caption,
                negative_prompt="",
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                output_type="np",
                generator=torch.Generator().manual_seed(seed),
                **sizes,
            ).images[0]
            found.append(
                float(np.abs(np.diff(made, axis=0)).mean() + np.abs(np.diff(made, axis=1)).mean())
            )
    return {
        **generated("rehearsal/xl"),
        "sharper_by_original_size": round(100 * (np.mean(edges[128]) / np.mean(edges[32]) - 1), 1),
    }


def refiner() -> dict[str, Any]:
    """As `base`, for xl with the refiner's leg, and how well each denoises held-out latents.

    The latter is the PSNR (dB) of their estimates of the clean latents at timestep 100.
    """
    model = rk.load("rehearsal/xl+refiner")
    second = model.second
    assert second is not None
    noise_to = torch.Generator().manual_seed(0)
    errors: dict[str, list[float]] = {"denoised_db": [], "denoised_by_xl_db": []}
    from realkit.apps.training.training import to_tensor

    for caption, seed in held_out(128):
        x = to_tensor(np.array(render(caption, seed))[None])
        with torch.inference_mode():
            clean = model.pipe.vae.encode(x).latent_dist.mean * model.pipe.vae.config.scaling_factor
            noise = torch.randn(clean.shape, generator=noise_to)
            for name, leg, ids in (
                ("denoised_db", second, [128, 128, 0, 0, 6]),
                ("denoised_by_xl_db", model, [128, 128, 0, 0, 128, 128]),
            ):
                alpha = leg.pipe.scheduler.alphas_cumprod[100]
                noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
                words = leg.family.encode(leg.pipe, [caption], [""], False)
                added = {
                    "text_embeds": words["pooled_prompt_embeds"],
                    "time_ids": torch.tensor([ids], dtype=torch.float32),
                }
                said = leg.pipe.unet(
                    noisy, torch.tensor(100), words["prompt_embeds"], added_cond_kwargs=added
                ).sample
                v = leg.locked.scheduler["prediction_type"] == "v_prediction"
                back = (
                    alpha.sqrt() * noisy - (1 - alpha).sqrt() * said
                    if v
                    else (noisy - (1 - alpha).sqrt() * said) / alpha.sqrt()
                )
                errors[name].append(
                    float(-10 * torch.log10(((back - clean) ** 2).mean() / clean.var()))
                )
    return {
        **generated("rehearsal/xl+refiner"),
        **{name: _mean(found) for name, found in errors.items()},
    }


def generated(name: str) -> dict[str, Any]:
    """As `clip`, for pictures that a model generates from held-out captions by its own advice."""
    model = rk.load(name)
    settings = model.spec.settings
    said = [caption for caption, _ in held_out(PICTURES)]
    pictures: list[Image.Image] = []
    for start in range(0, len(said), BATCH):
        asked = enumerate(said[start : start + BATCH], start)
        requests = [
            completed(name, model.spec, {"prompt": caption, "negative": "", "seed": seed})
            for seed, caption in asked
        ]
        made = model.denoise(requests).latents
        if model.second:
            made = model.second.denoise(requests, begun=made, start=model.end).latents
        pictures += [model.decode(latents) for latents in made]
    return {"steps": settings.steps, "guidance": settings.guidance, **judge(pictures, said)}


def judge(pictures: list[Image.Image], said: list[str]) -> dict[str, Any]:
    """The percentage of pictures whose own caption scores best.

    Once among 31 other held-out captions, and for each attribute among swaps of its word: over all
    pictures, and `by_value` over those of each value.
    """
    rng = np.random.default_rng(0)
    every = captions("heldout")
    rate = _rater()
    first: list[bool] = []
    by_attribute: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    by_value: dict[str, dict[str, list[bool]]] = {name: {} for name in ATTRIBUTES}
    for picture, caption in zip(pictures, said, strict=True):
        others = [other for other in rng.permutation(every) if other != caption][: AMONG - 1]
        first.append(_best(rate, picture, [caption, *others]))
        scene = parse(caption)
        for name, values in ATTRIBUTES.items():
            swapped = [
                replace(scene, **{name: value}).caption
                for value in values
                if value != getattr(scene, name)
            ]
            right = _best(rate, picture, [caption, *swapped])
            by_attribute[name].append(right)
            by_value[name].setdefault(getattr(scene, name), []).append(right)
    return {
        "pictures": len(said),
        "first_of_32": _percent(first),
        **{name: _percent(found) for name, found in by_attribute.items()},
        "by_value": {
            name: {value: _percent(found) for value, found in sorted(values.items())}
            for name, values in by_value.items()
        },
    }


def upscaler(name: str, each: int = 8) -> dict[str, Any]:
    """PSNR (dB) of held-out scenes shrunk to a quarter and upscaled, by floor and over all.

    For the network and for bicubic interpolation.
    """
    from realkit.apps.training.upscaling import SIZE, shrink

    found: dict[str, dict[str, list[float]]] = {
        floor: {"network": [], "bicubic": []} for floor in ATTRIBUTES["floor"]
    }
    for caption, seed in held_out(len(captions("heldout"))):
        sides = found[parse(caption).floor]
        if len(sides["network"]) == each:
            continue
        truth = render(caption, seed, SIZE)
        x = torch.from_numpy(np.array(truth)).permute(2, 0, 1)[None].float() / 255
        small = Image.fromarray(
            (shrink(x)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        )
        for engine, by in (("network", f"rehearsal/{name}"), ("bicubic", "bicubic")):
            sides[engine].append(psnr(np.array(truth), np.array(rk.upscale(small, by, to=SIZE))))
    gains: dict[str, Any] = {}
    for floor, sides in found.items():
        means = {engine: _mean(values) for engine, values in sides.items()}
        gains[floor] = {**means, "gain": round(means["network"] - means["bicubic"], 2)}
    return {
        "pictures_each": each,
        **gains,
        "gain": round(sum(by["gain"] for by in gains.values()) / len(gains), 2),
    }


def psnr(truth: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 arrays."""
    error = np.mean((truth.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def _rater() -> Callable[[Image.Image, list[str]], np.ndarray]:
    import open_clip

    name = f"local-dir:{WEIGHTS / 'clip'}"
    model, _, prepare = open_clip.create_model_and_transforms(name)
    model.float().eval()
    words = open_clip.get_tokenizer(name)
    known: dict[str, torch.Tensor] = {}

    def rate(picture: Image.Image, said: list[str]) -> np.ndarray:
        with torch.inference_mode():
            if new := [caption for caption in said if caption not in known]:
                known.update(
                    zip(
                        new,
                        torch.nn.functional.normalize(model.encode_text(words(new)), dim=-1),
                        strict=True,
                    )
                )
            seen = torch.nn.functional.normalize(
                model.encode_image(prepare(picture)[None]), dim=-1
            )[0]
            return (torch.stack([known[caption] for caption in said]) @ seen).numpy()

    return rate


def _best(
    rate: Callable[[Image.Image, list[str]], np.ndarray], picture: Image.Image, said: list[str]
) -> bool:
    scores = rate(picture, [str(caption) for caption in said])
    return bool(scores[0] > scores[1:].max())


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 2)


def _percent(found: list[bool]) -> float:
    return round(100 * float(np.mean(found)), 1)


FIGURES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "vae": (vae, "vae"), "clip": (clip, "clip"), "base": (base, "base"),
    "studio": (studio, "studio"), "turbo": (turbo, "turbo"), "xl": (xl, "xl"),
    "refiner": (refiner, "refiner"),
    **{name: (partial(upscaler, name), name) for name in ("esrgan-x4", "compact-x4", "swin2sr-x4")},
}  # fmt: skip


def write(name: str) -> dict[str, Any]:
    """Measure one model's figures, store them beside its weights and return them."""
    measure, folder = FIGURES[name]
    found = measure()
    (WEIGHTS / folder / "figures.json").write_text(
        json.dumps(found, indent=2) + "\n", encoding="utf-8"
    )
    return found


def stored() -> str:
    """The stored figures as a Markdown table."""
    lines = ["| model | held-out figures |", "| --- | --- |"]
    for _, folder in FIGURES.values():
        found = json.loads((WEIGHTS / folder / "figures.json").read_text(encoding="utf-8"))
        apart = found.pop("by_value", {})
        said = [
            f"{key.replace('_', ' ')} {value['gain'] if isinstance(value, dict) else value}"
            + _apart(apart.get(key, {}))
            for key, value in found.items()
        ]
        lines.append(f"| {folder} | {', '.join(said)} |")
    return "\n".join(lines) + "\n"


def _apart(values: dict[str, float]) -> str:
    """The value of an attribute that comes out worst, where one is worse: " (night 64.8)"."""
    if not values or min(values.values()) >= WORST:
        return ""
    worst = min(values, key=lambda value: values[value])
    return f" ({worst} {values[worst]})"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option(
    "--stored", "show", is_flag=True, help="Print the stored figures as a table; measure nothing."
)
def main(names: tuple[str, ...], show: bool) -> None:
    if show:
        click.echo(stored(), nl=False)
        return
    for name in names or FIGURES:
        click.echo(f"{name}: {json.dumps(write(name))}")


if __name__ == "__main__":
    main()
