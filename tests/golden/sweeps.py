"""The sweeps whose cells are golden: of every kind that the kit tells apart."""

from __future__ import annotations

from typing import Any

CUBE = "a photo of a matte red cube on grass at noon"
SPHERE = "a blue sphere"
BASE = "rehearsal/base"
FEW = {"models": BASE, "prompts": CUBE, "samplers": "Euler", "steps": 4}
BASELINES = [
    None, "lanczos", "bicubic", "bilinear", "nearest", "opencv-lanczos4", "opencv-cubic",
    "opencv-linear", "opencv-nearest", "opencv-area",
]  # fmt: skip
SCORERS = ["clip", "rehearsal/clip", "colour-cast", "cast-green-red", "cast-blue-yellow"]
SOLVERS = [
    "Euler a", "LMS Karras", "DPM2 a", "DPM++ 2M SDE Karras", "DPM++ 3M SDE", "DPM++ 2S a",
    "DPM fast", "Restart", "DDIM", "PLMS", "DEIS", "UniPC", "LCM", "SA-Solver",
]  # fmt: skip

# What can be made on a CPU in seconds, from what ships and from tests.golden.materials.
RUNNABLE: dict[str, dict[str, Any]] = {
    "plain": {"models": BASE, "prompts": CUBE},
    "prompts and seeds": FEW | {"prompts": [CUBE, SPHERE], "seeds": [0, 2**40]},
    "each rehearsal model": {
        "models": ["rehearsal/turbo", "rehearsal/xl", "rehearsal/studio"], "prompts": CUBE
    },
    "turbo in one step": FEW | {"models": "rehearsal/turbo", "steps": 1, "guidance": 0.0},
    "two legs": {
        "models": "rehearsal/xl+refiner", "prompts": CUBE, "samplers": [None, "Heun"], "steps": 10
    },
    "two legs, an early second": {"models": "mine/early-refiner", "prompts": CUBE},
    "folder in diffusers' layout": FEW | {"models": "./whole"},
    "single file": {"models": "mine/single", "prompts": CUBE},
    "LoRAs": {"models": ["mine/film", "mine/film+grain"], "prompts": CUBE},
    "solvers": FEW | {"samplers": SOLVERS, "steps": 5},
    "number formats": FEW | {"dtype": [None, "float32", "bfloat16"], "size": 64},
    "sizes": FEW | {"size": [64, (128, 192), "192x64"]},
    "adaptive": FEW | {"samplers": "DPM adaptive", "steps": [5, 9], "size": 64},
    "without guidance": FEW | {
        "samplers": "DDIM", "guidance": [0.0, 1.0, 1.5], "negatives": ["", "blur"], "size": 64
    },
    "equal denoiser calls": FEW | {
        "samplers": ["Euler", "Heun", "DPM++ 2M"], "steps": 7, "profile": "equal-nfe"
    },
    "recommended": {
        "models": ["rehearsal/turbo", BASE], "prompts": SPHERE, "profile": "recommended"
    },
    "linked settings": {
        "models": [
            {"model": "rehearsal/turbo", "steps": 2, "guidance": 0.0},
            {"model": BASE, "steps": 3, "dtype": "float32"},
        ],
        "prompts": {"prompt": SPHERE, "negative": "red"}, "samplers": "Euler",
        "upscalers": [None, {"upscaler": "bicubic", "target": 200}],
    },
    "negatives": FEW | {"negatives": [None, "", "blur, noise"]},
    "unicode": FEW | {"prompts": ["ein würfel 猫 🐈", "ein wu\u0308rfel \\ \"quoted\"\nline"]},
    "baselines": FEW | {"upscalers": BASELINES, "target": 300},
    "targets": FEW | {"size": (128, 192), "upscalers": "lanczos", "target": [300, (320, 200)]},
    "networks": FEW | {
        "upscalers": [
            "rehearsal/esrgan-x4", "rehearsal/compact-x4", "rehearsal/swin2sr-x4",
            "./network.safetensors",
        ],
        "size": 64, "target": 200,
    },
    "redraw": FEW | {
        "upscalers": ["rehearsal/redraw", "sd-upscale"], "strength": [None, 0.5], "target": 192,
        "negatives": "blur",
    },
    "redraw by another family": FEW | {
        "models": "rehearsal/xl", "upscalers": "sd-upscale", "target": 192
    },
    "redraw without guidance": FEW | {
        "guidance": 1.0, "upscalers": "rehearsal/redraw", "target": 192
    },
    "redraw in a number format": FEW | {
        "dtype": "bfloat16", "upscalers": "sd-upscale", "size": 64, "target": 96
    },
    "chains": FEW | {
        "upscalers": [
            "rehearsal/esrgan-x4 + rehearsal/redraw",
            "rehearsal/compact-x4 + rehearsal/esrgan-x4",
            "lanczos + rehearsal/swin2sr-x4",
        ],
        "size": 64, "strength": 0.4, "target": 192,
    },
}  # fmt: skip
for sweep in RUNNABLE.values():
    sweep["scorers"] = ["rehearsal/clip", "colour-cast"]

# What can only be locked here: large models, as placeholders, and files that are not fetched.
LOCKED: dict[str, dict[str, Any]] = {
    "every scorer": FEW | {"scorers": SCORERS},
    "half precision": FEW | {"dtype": "float16"},
    "SDXL with its refiner": {
        "models": "sdxl-base+refiner", "prompts": CUBE, "size": [None, (1152, 896)],
        "dtype": "float16",
    },
    "Cascade": {"models": "stable-cascade", "prompts": CUBE, "guidance": [None, 1.0]},
    "Stable Diffusion 3 without its third text encoder": {"models": "mine/flow", "prompts": CUBE},
    "published networks": FEW | {
        "upscalers": [
            "realesrgan-x4plus", "realesrgan:realesrgan-x4plus", "realesr-general-x4v3", "bsrgan"
        ],
        "target": 512,
    },
    "faces": FEW | {"upscalers": ["gfpgan", "realesrgan-x4plus + codeformer"], "target": 512},
    "diffusion upscalers": FEW | {
        "upscalers": ["sd-x4-upscaler", "sd-x2-latent-upscaler"], "target": 512, "negatives": "blur"
    },
}  # fmt: skip
SWEEPS = RUNNABLE | LOCKED
