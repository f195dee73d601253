"""The recipe for `rehearsal/clip`, an open_clip model of the rehearsal world's captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from realkit.apps.training.autoencoder import PICTURES
from realkit.apps.training.training import device, fit
from realkit.rehearsal.data import pictures, training_scene
from realkit.rehearsal.wording import ATTRIBUTES, Scene, parse, scenes, training_caption

SIDE = 64  # pixels, what the model sees of a picture
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 24, "head_width": 48},
    "text_cfg": {
        "context_length": 32,
        "hf_tokenizer_name": "rehearsal",
        "width": 128,
        "heads": 4,
        "layers": 2,
    },
}
FAMILY = 8  # pictures of a batch that differ in one word from one another's first
RECALIBRATION = 40  # batches that renew the batch-norm statistics after the weights are averaged


def build(vocabulary_size: int):
    from open_clip import CLIP

    text = {key: value for key, value in CONFIG["text_cfg"].items() if key != "hf_tokenizer_name"}
    return CLIP(CONFIG["embed_dim"], CONFIG["vision_cfg"], text | {"vocab_size": vocabulary_size})


def train(
    folder: Path,
    tokenizer,
    steps: int,
    batch: int = 192,
    rate: float = 1e-3,
    start: Path | None = None,
):
    """Train by contrast of pictures and captions.

    `tokenizer` turns a list of strings into token ids (N, 32).
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    data = pictures(folder, PICTURES, 128)
    seen = [_sight(data, side) for side in (SIDE, SIDE * 9 // 8)]
    model = build(len(tokenizer.tokenizer)).to(device())
    if start:
        model.load_state_dict(load_file(start))
    model.visual.to(memory_format=torch.channels_last)
    where: dict[Scene, list[int]] = {}
    for index in range(PICTURES):
        where.setdefault(training_scene(index), []).append(index)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))

    def drawn(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shown = [scene for _ in range(batch // FAMILY) for scene in _family(rng)]
        index = np.array([rng.choice(where[scene]) for scene in shown])
        x = torch.from_numpy(seen[rng.integers(2)][index]).permute(0, 3, 1, 2).float() / 255
        said = [
            scene.caption if rng.random() < 0.5 else training_caption(scene, rng) for scene in shown
        ]
        fits = torch.tensor(
            [[_true(scene, caption) for caption in map(parse, said)] for scene in shown],
            dtype=torch.float32,
        )
        return (_disturb(x, rng) - mean) / std, tokenizer(said), fits

    def loss(step: int, progress: float) -> torch.Tensor:
        x, tokens, fits = drawn(np.random.default_rng([17, step]))
        with torch.autocast(device().type, torch.bfloat16):
            image, text, scale = model(
                x.to(device(), memory_format=torch.channels_last), tokens.to(device())
            )
        logits = scale.float().clamp(max=100) * image.float() @ text.float().T
        fits = fits.to(device())
        by_image = -(F.log_softmax(logits, 1) * fits / fits.sum(1, keepdim=True)).sum(1).mean()
        by_text = -(F.log_softmax(logits, 0) * fits / fits.sum(0, keepdim=True)).sum(0).mean()
        return (by_image + by_text) / 2

    fit("clip", model, loss, steps=steps, rate=rate, folder=folder)
    model.train()
    with torch.no_grad():
        for step in range(RECALIBRATION):
            model.encode_image(drawn(np.random.default_rng([18, step]))[0].to(device()))
    return model.eval()


def _family(rng: np.random.Generator) -> list[Scene]:
    """A training scene and others that differ from it in one attribute."""
    known = set(scenes("train"))
    first = scenes("train")[rng.integers(len(known))]
    near = []
    for name, values in ATTRIBUTES.items():
        near += [
            other
            for value in values
            if (other := Scene(**{**vars(first), name: value})) != first and other in known
        ]
    return [first, *(near[i] for i in rng.permutation(len(near))[: FAMILY - 1])]


def _true(scene: Scene, said: Scene) -> bool:
    return all(
        not getattr(said, name) or getattr(said, name) == getattr(scene, name)
        for name in ATTRIBUTES
    )


def _sight(data: np.ndarray, side: int) -> np.ndarray:
    """The pictures as the model sees them, uint8 (N, side, side, 3), resized as open_clip does."""
    return np.stack(
        [
            np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
            for picture in data
        ]
    )


def _disturb(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shift, mirror, soften and tint pictures in [0, 1] as decoders do.

    Takes (B, 3, 64 or more, 64 or more), returns (B, 3, 64, 64).
    """
    x = x.flip(3) if rng.random() < 0.5 else x
    if x.shape[-1] == SIDE:
        x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    top, left = rng.integers(0, x.shape[-1] - SIDE + 1, 2)
    x = x[:, :, top : top + SIDE, left : left + SIDE]
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, max(0.0, rng.uniform(-0.6, 1.0)))
    tint = torch.from_numpy(rng.uniform(0.92, 1.08, (len(x), 3, 1, 1))).float()
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    return (x * tint + 0.02 * noise).clamp(0, 1)
