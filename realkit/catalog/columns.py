"""The columns of a results table: stage, direction and meaning of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

# name: (the stage whose row holds it, or "" for the cell; better is; meaning)
COLUMNS: dict[str, tuple[str, str, str]] = {
    "cell": ("", "", "id of the cell"),
    "model": ("", "", "catalogue name or reference of the model"),
    "sampler": ("", "", "sampler, by the table's name"),
    "prompt": ("", "", "what is asked for"),
    "negative": ("", "", "what is steered away from; inert at guidance ≤ 1"),
    "seed": ("", "", "seed of the picture's own noise generator"),
    "steps": ("", "", "sampler steps"),
    "guidance": ("", "", "classifier-free guidance scale"),
    "width": ("", "", "native width, pixels"),
    "height": ("", "", "native height, pixels"),
    "upscaler": ("", "", "upscaler, or a chain of them; empty: native size"),
    "strength": (
        "",
        "",
        "share of the noise schedule that a redraw went through again; empty: nothing was redrawn",
    ),
    "nfe_budget": (
        "",
        "",
        "denoiser evaluations that the equal-nfe profile allowed; less nfe: the remainder",
    ),
    "nfe": ("denoise", "lower", "denoiser evaluations; a guided pair is one"),
    "network_passes": ("denoise", "lower", "network passes a picture; a guided pair is two"),
    "batch": ("denoise", "", "pictures denoised together; never pool times of different batches"),
    "dtype": ("denoise", "", "number format of the denoiser, as asked for or by the device"),
    "device": ("denoise", "", "cpu or cuda"),
    "rung": (
        "denoise",
        "",
        (
            "rung of the memory ladder: resident, vae-tiling, model-offload or group-offload; never"
            " pool times of different rungs"
        ),
    ),
    "decode_rung": ("decode", "", "the same of the VAE"),
    "truncated_tokens": (
        "denoise",
        "",
        "prompt tokens beyond the text encoder's length, which it never saw",
    ),
    "load_s": (
        "denoise",
        "lower",
        (
            "seconds to load the model, or both legs' models, once for all cells it served; all but"
            " a run's first may have had their files read ahead"
        ),
    ),
    "encode_s": ("denoise", "lower", "seconds to encode the prompts, of the batch over its size"),
    "denoise_s": ("denoise", "lower", "seconds to denoise, of the batch over its size"),
    "decode_s": ("decode", "lower", "seconds to decode the latents"),
    "upscale_s": ("upscale", "lower", "seconds to upscale"),
    "tile": (
        "upscale",
        "",
        (
            "pixels of a tile's side in the small picture, or of its sides; empty: the whole"
            " picture at once"
        ),
    ),
    "upscale_dtype": ("upscale", "", "number format of the upscaler's network"),
    "upscale_peak_vram_gib": ("upscale", "lower", "peak GPU memory allocated while upscaling, GiB"),
    "upscale_peak_ram_gib": (
        "upscale",
        "lower",
        "peak resident memory of the process up to then, GiB",
    ),
    "score_s": ("score", "lower", "seconds of all scores"),
    "seconds": (
        "",
        "lower",
        "encode + denoise + decode + upscale; empty if parts ran on different devices",
    ),
    "peak_vram_gib": ("denoise", "lower", "peak GPU memory allocated while denoising, GiB"),
    "peak_vram_reserved_gib": ("denoise", "lower", "peak GPU memory reserved while denoising, GiB"),
    "peak_ram_gib": ("denoise", "lower", "peak resident memory of the process up to then, GiB"),
    "image_width": ("image", "", "final width, pixels"),
    "image_height": ("image", "", "final height, pixels"),
    "image": ("", "", "final picture, relative to the results folder"),
    "run": ("denoise", "", "run that denoised it: see runs.jsonl"),
    "status": ("", "", "ok, failed or pending"),
    "error": ("", "", "why it failed"),
}
RENAMED = {  # columns that stand in their stage's row under another name
    "decode_rung": "rung", "upscale_dtype": "dtype", "upscale_peak_vram_gib": "peak_vram_gib",
    "upscale_peak_ram_gib": "peak_ram_gib",
}  # fmt: skip
SUMMED = ("load_s", "encode_s", "denoise_s", "nfe", "network_passes")  # over the legs
PARTS = ("encode_s", "denoise_s", "decode_s", "upscale_s")
