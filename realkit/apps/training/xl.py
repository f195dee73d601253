"""The recipes for `rehearsal/xl`, in the layout of SDXL, and its refiner.

The layout: two text encoders, size and crop as conditions, v-prediction. The first text encoder is
`rehearsal/base`'s, the second `rehearsal/clip`'s; only the UNets learn, from base's weights. Size
and crop mean what they mean in SDXL (arXiv 2307.01952, section 2.2): some training pictures were
enlarged from a smaller original, others are cropped. The refiner learns at low noise only, with a
score that tells clean pictures from enlarged ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from realkit.apps.training.autoencoder import PICTURES
from realkit.apps.training.autoencoder import latents as plain_latents
from realkit.apps.training.text2image import MIN_SNR, OFFSET_NOISE, SCHEDULE, UNCAPTIONED, UNET
from realkit.apps.training.tokenizer import CONTEXT
from realkit.apps.training.training import device, fit, to_tensor
from realkit.rehearsal.data import pictures, training_scene
from realkit.rehearsal.wording import training_caption

SIDE = 128
TIME_ID = 32  # sinusoids for each number of the added conditions
WIDTH = 128  # of either text encoder, and of the second's pooled embedding
XL: dict[str, Any] = UNET | dict(
    cross_attention_dim=2 * WIDTH, transformer_layers_per_block=(1, 2), use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=TIME_ID, projection_class_embeddings_input_dim=WIDTH + 6 * TIME_ID,
)  # fmt: skip
REFINER: dict[str, Any] = XL | dict(
    cross_attention_dim=WIDTH,
    transformer_layers_per_block=(1, 1),
    projection_class_embeddings_input_dim=WIDTH + 5 * TIME_ID,
)
REFINED = 0.25  # share of the noise schedule that the refiner is trained on
BEST, WORST = 6.0, 2.0  # aesthetic scores of an untouched picture, and of one enlarged from nothing


def second_encoder(folder: Path):
    """The text tower of an open_clip folder as transformers' CLIPTextModelWithProjection.

    Positions past its context repeat the last.
    """
    import json

    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    text, state = config["text_cfg"], load_file(folder / "open_clip_model.safetensors")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ends = {
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
    }
    made = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=CONTEXT,
            projection_dim=config["embed_dim"],
            hidden_act="gelu",
            pad_token_id=ends["eos_token_id"],
            **ends,
        )
    )
    positions = state["positional_embedding"]
    found = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": torch.cat(
            [positions, positions[-1:].expand(CONTEXT - len(positions), -1)]
        ),
        "final_layer_norm.weight": state["ln_final.weight"],
        "final_layer_norm.bias": state["ln_final.bias"],
    }
    for layer in range(text["layers"]):
        ours, theirs = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for name, part in zip(
                ("q_proj", "k_proj", "v_proj"),
                state[f"{theirs}attn.in_proj_{kind}"].chunk(3),
                strict=True,
            ):
                found[f"{ours}self_attn.{name}.{kind}"] = part
            names = {
                "self_attn.out_proj": "attn.out_proj",
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }
            found |= {
                f"{ours}{mine}.{kind}": state[f"{theirs}{its}.{kind}"]
                for mine, its in names.items()
            }
    wanted = made.state_dict()
    prefix = "text_model." if any(key.startswith("text_model.") for key in wanted) else ""
    made.load_state_dict(
        {f"{prefix}{key}": value.float() for key, value in found.items()}
        | {"text_projection.weight": state["text_projection"].T.float()}
    )
    return made.eval()


def build(config: dict[str, Any], base: nn.Module, seen: slice):
    """A UNet of a layout that begins with base's weights.

    `seen` are the text columns that base's encoder fills.
    """
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**config)
    found, known = unet.state_dict(), base.state_dict()
    for name, value in found.items():
        if name in known:
            if value.shape == known[name].shape:
                found[name] = known[name]
            elif name.endswith(
                ("proj_in.weight", "proj_out.weight")
            ):  # 1×1 convolutions here, linear there
                found[name] = known[name][:, :, 0, 0]
            else:  # keys and values of the text
                value.zero_()
                value[:, seen] = known[name]
        elif ".transformer_blocks.1." in name and name.endswith(
            ("to_out.0.weight", "to_out.0.bias", "ff.net.2.weight", "ff.net.2.bias")
        ):
            value.zero_()  # a deeper block begins as nothing
        elif name.startswith("add_embedding.linear_2"):
            value.zero_()
    unet.load_state_dict(found)
    return unet


def latents(folder: Path, vae: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents of pictures plain, mirrored, enlarged and cropped.

    Returns them with their scene's number and time ids (original, crop, target; height first).
    """
    plain = plain_latents(folder, "base", vae)
    path = folder / "latents-xl.pt"
    if not path.exists():
        data, found = pictures(folder, PICTURES, SIDE), []
        with torch.inference_mode():
            for start in range(0, PICTURES, 64):
                x = np.stack(
                    [
                        _altered(data[i], *_alteration(i))
                        for i in range(start, min(start + 64, PICTURES))
                    ]
                )
                with torch.autocast(device().type, torch.bfloat16):
                    found.append(
                        vae.to(device())
                        .encode(to_tensor(x).to(device()))
                        .latent_dist.mean.float()
                        .cpu()
                    )
        torch.save(torch.cat(found) * vae.config.scaling_factor, path)
    ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * len(plain))
    altered = torch.tensor(
        [
            [size, size, top, left, SIDE, SIDE]
            for size, _, top, left in map(_alteration, range(PICTURES))
        ]
    )
    scenes = torch.arange(PICTURES).repeat(len(plain) // PICTURES + 1)
    return (
        torch.cat([plain, torch.load(path, weights_only=True)]),
        scenes,
        torch.cat([ids, altered]),
    )


def _alteration(index: int) -> tuple[int, int, int, int]:
    """(original side, side before cropping, crop's top, crop's left) of a training picture.

    Even pictures are enlarged, odd ones cropped.
    """
    rng = np.random.default_rng([31, index])
    if index % 2 == 0:
        return int(rng.integers(24, SIDE)), SIDE, 0, 0
    side = int(rng.integers(SIDE, SIDE * 3 // 2))
    return SIDE, side, int(rng.integers(side - SIDE + 1)), int(rng.integers(side - SIDE + 1))


def _altered(picture: np.ndarray, original: int, before: int, top: int, left: int) -> np.ndarray:
    image = Image.fromarray(picture)
    if original < SIDE:
        image = image.resize((original, original), Image.Resampling.BOX)
    image = image.resize((before, before), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def train(
    folder: Path,
    unet: nn.Module,
    encoders: list[tuple[Any, Any]],
    z: tuple[torch.Tensor, ...],
    *,
    name: str,
    steps: int,
    batch: int = 48,
    rate: float,
):
    """Train `xl` or `refiner`; `encoders` holds (tokenizer, model).

    `xl` has both encoders and predicts v. `refiner` has the second, predicts noise, and learns
    at low noise only.
    """
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**SCHEDULE)
    alphas = scheduler.alphas_cumprod.to(device())
    clean, scenes, ids = z
    refining = name == "refiner"
    if refining:
        score = WORST + (BEST - WORST) * ids[:, :1] / SIDE
        ids = torch.cat([ids[:, :4].float(), score], 1)
    unet.to(device())
    for _, encoder in encoders:
        encoder.to(device()).eval()
    noise_to = torch.Generator()

    def loss(step: int, progress: float) -> torch.Tensor:
        rng = np.random.default_rng([37, step])
        noise_to.manual_seed(step)
        index = rng.integers(0, len(clean), batch)
        said = [
            (
                ""
                if rng.random() < UNCAPTIONED
                else training_caption(training_scene(int(scenes[i])), rng)
            )
            for i in index
        ]
        x = clean[index]
        noise = torch.randn(x.shape, generator=noise_to)
        noise = noise + OFFSET_NOISE * torch.randn(batch, x.shape[1], 1, 1, generator=noise_to)
        x, noise = x.to(device()), noise.to(device())
        t = torch.from_numpy(
            rng.integers(0, int(len(alphas) * (REFINED if refining else 1)), batch)
        ).to(device())
        signal = alphas[t].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * x + (1 - signal).sqrt() * noise
        target = noise if refining else signal.sqrt() * noise - (1 - signal).sqrt() * x
        with torch.autocast(device().type, torch.bfloat16):
            words, pooled = encode(encoders, said)
            guess = unet(
                noisy,
                t,
                words,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": ids[index].to(device())},
            ).sample.float()
        snr = alphas[t] / (1 - alphas[t])
        weight = (
            snr.clamp(max=MIN_SNR) / snr if refining else snr.clamp(max=MIN_SNR) / (snr + 1) + 0.1
        )  # some for pure noise too
        return (((guess - target) ** 2).mean((1, 2, 3)) * weight).mean()

    return fit(name, unet, loss, steps=steps, rate=rate, folder=folder)


@torch.no_grad()
def encode(encoders: list[tuple[Any, Any]], said: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Second-to-last states side by side (B, 77, D), and the last pooled embedding (B, 128).

    SDXL's pipelines condition on the same.
    """
    states = []
    for tokenizer, encoder in encoders:
        tokens = tokenizer(
            said, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids.to(device())
        made = encoder(tokens, output_hidden_states=True)
        states.append(made.hidden_states[-2])
    return torch.cat(states, -1), made[0]
