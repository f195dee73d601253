"""ImageReward (arXiv 2304.05977): BLIP reads the prompt with the picture in view, and a head of
linear layers turns the first token into a reward. A source is its file of weights; the part
`tokenizer` is BERT's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError
from realkit.scorers import aesthetic, references, tokens
from realkit.scorers.references import SOURCE, Kind, Locks
from realkit.scorers.table import Rate, Scorer

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

TOKENIZER = "tokenizer"
WEIGHTS: Mapping[str, Kind] = {SOURCE: "file", TOKENIZER: "configs"}
HEAD_WIDTH = 64  # of BLIP's attention heads, in both towers
# Mean and deviation of rewards on the authors' data, which their code takes off
# (github.com/THUDM/ImageReward, ImageReward/ImageReward.py).
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
# Names of the vision tower's tensors: timm's, as published, and those of transformers.
VISION = {
    r"cls_token$": "embeddings.class_embedding",
    r"pos_embed$": "embeddings.position_embedding",
    r"patch_embed\.proj\.": "embeddings.patch_embedding.",
    r"blocks\.(\d+)\.norm(\d)\.": r"encoder.layers.\1.layer_norm\2.",
    r"blocks\.(\d+)\.attn\.qkv\.": r"encoder.layers.\1.self_attn.qkv.",
    r"blocks\.(\d+)\.attn\.proj\.": r"encoder.layers.\1.self_attn.projection.",
    r"blocks\.(\d+)\.mlp\.": r"encoder.layers.\1.mlp.",
    r"norm\.": "post_layernorm.",
}
VISION_TOWER, TEXT_TOWER, REWARD = "blip.visual_encoder.", "blip.text_encoder.", "mlp."
UNUSED = ("blip.vision_proj.", "blip.text_proj.")  # of BLIP's contrastive training


def check(name: str, entry: Scorer) -> None:
    """Raise RequestError for an entry without a tokenizer."""
    references.check(name, entry, WEIGHTS)


def towers(name: str, weights: Mapping[str, torch.Tensor]) -> tuple[Any, Any, Any]:
    """The vision tower, the text tower that attends to it, and the head of these weights, whose
    shapes tell the sizes. Raises RequestError for the weights of another network."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    known = (VISION_TOWER, TEXT_TOWER, REWARD, *UNUSED)
    references.refuse(name, set(), {key for key in weights if not key.startswith(known)}, set())
    vision = {_renamed(key): value for key, value in _below(weights, VISION_TOWER).items()}
    text = _below(weights, TEXT_TOWER)
    try:
        patches = vision["embeddings.patch_embedding.weight"]
        positions = vision["embeddings.position_embedding"].shape[1] - 1
        words = text["embeddings.word_embeddings.weight"]
        places = text["embeddings.position_embeddings.weight"]
        seen = BlipVisionConfig(
            hidden_size=patches.shape[0], intermediate_size=4 * patches.shape[0],
            num_hidden_layers=_layers(vision, "encoder.layers."),
            num_attention_heads=patches.shape[0] // HEAD_WIDTH, patch_size=patches.shape[-1],
            image_size=round(positions**0.5) * patches.shape[-1], layer_norm_eps=1e-6,
            hidden_act="gelu",
        )  # fmt: skip
        read = BlipTextConfig(
            vocab_size=words.shape[0], hidden_size=words.shape[1],
            intermediate_size=4 * words.shape[1], encoder_hidden_size=patches.shape[0],
            num_hidden_layers=_layers(text, "encoder.layer."),
            num_attention_heads=words.shape[1] // HEAD_WIDTH,
            max_position_embeddings=places.shape[0], layer_norm_eps=1e-12, hidden_act="gelu",
        )  # fmt: skip
    except KeyError as error:
        raise RequestError(
            f"Scorer {name!r}: its weights lack {error}: take the published ones"
        ) from None
    sight = references.fill(name, BlipVisionModel(seen), vision)
    reader = references.fill(name, BlipTextModel(read, add_pooling_layer=False), text)
    return sight, reader, aesthetic.head(name, weights, words.shape[1], prefix=REWARD)


def _below(weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }


def _renamed(key: str) -> str:
    for pattern, name in VISION.items():
        if re.match(pattern, key):
            return re.sub(f"^{pattern}", name, key)
    return key


def _layers(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len(
        {key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)}
    )


def load(name: str, entry: Scorer, locks: Locks) -> Rate:
    """The reward of a picture for its prompt, in deviations over the authors' data. Raises
    RequestError where the weights cannot be loaded."""
    import torch
    from open_clip import image_transform

    sight, reader, reward = towers(name, references.tensors(name, locks[SOURCE]))
    path = references.fetch(name, locks[TOKENIZER]) / tokens.FILE
    prepare = image_transform(sight.config.image_size, is_train=False)  # as CLIP's

    def rate(images: Iterable[Image], prompts: Sequence[str]) -> list[float]:
        ids, seen = tokens.padded(path, prompts, entry.tokens)
        pixels = torch.stack([prepare(image) for image in images])
        with torch.inference_mode():
            pictures = sight(pixel_values=pixels.to(sight.device)).last_hidden_state
            states = reader(
                input_ids=ids.to(sight.device),
                attention_mask=seen.to(sight.device),
                encoder_hidden_states=pictures,
            ).last_hidden_state
            rewards = aesthetic.apply(reward, states[:, 0])
        return ((rewards - MEAN) / DEVIATION).tolist()

    return rate
