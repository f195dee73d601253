"""Scorers with published weights in miniature: tiny random networks in the layouts in which the
real repositories publish theirs, under the real file names and config keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realkit.scorers.table import SCORERS, Scorer
from realkit.weights import clip_tokenizer
from realkit.weights.reference import HUB_FILE
from tests.miniatures import _toml

ARCHITECTURE = "miniature-H-14"  # of open_clip, for HPS
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!\"'"
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": SIDE, "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    path.write_text(text, encoding="utf-8")


def spread(network: Any, seed: int) -> Any:
    """A network whose weights are large enough that pictures and texts get numbers of their own."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                scale = 1.5 / max(1, parameter[0].numel()) ** 0.5
                scale = 0.5 if "embed" in name or "position" in name else scale
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network.eval()


# --- SigLIP 2


def siglip2(folder: Path) -> Path:
    """As google/siglip2-base-patch16-224."""
    from transformers import SiglipConfig, SiglipModel

    text = TEXT | {"vocab_size": 5 + len(LETTERS), "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    spread(SiglipModel(config), 1).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    steps = {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True}
    own = {"image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor"}
    resampled = {"resample": 2, "rescale_factor": 1 / 255, "size": size}
    write(folder / "preprocessor_config.json", steps | halves | own | resampled)
    write(folder / "tokenizer.json", gemma_tokenizer())
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    write(folder / "special_tokens_map.json", special)
    settings = {"add_bos_token": False, "add_eos_token": True, "tokenizer_class": "GemmaTokenizer"}
    write(folder / "tokenizer_config.json", special | settings | {"model_max_length": 10**30})
    return others(folder)


def gemma_tokenizer() -> dict[str, Any]:
    """A tokenizer.json with the marks, padding and post-processor of SigLIP 2's."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS]
    padding = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    end = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {
        "type": "TemplateProcessing", "single": [text, end], "pair": [text, end],
        "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}},
    }  # fmt: skip
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": False,
        "vocab": {word: index for index, word in enumerate(words)}, "merges": [],
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": padding,
        "added_tokens": [special(index, word) for index, word in enumerate(words[:4])],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None, "post_processor": template, "decoder": None, "model": model,
    }  # fmt: skip


def special(index: int, word: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": word, "special": True} | flags


# --- CLIP


def clip(folder: Path, activation: str, seed: int) -> Path:
    """As yuvalkirstain/PickScore_v1 ("gelu") or openai/clip-vit-large-patch14 ("quick_gelu")."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    text = TEXT | {"vocab_size": 49408, "eos_token_id": 2, "hidden_act": activation}
    vision = VISION | {"hidden_act": activation}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    network = spread(CLIPModel(config), seed)
    network.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return clip_processor(folder)


def clip_processor(folder: Path) -> Path:
    """The tokenizer and preprocessor_config.json of a CLIP, as
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K has them beside weights that nobody should ask for."""
    from transformers import AutoTokenizer

    clip_tokenizer.write(folder, pad=clip_tokenizer.END)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    steps = dict.fromkeys(("do_center_crop", "do_normalize", "do_resize"), True)
    means = {"image_mean": OPENAI_MEAN, "image_std": OPENAI_STD}
    own = {"crop_size": SIDE, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3}
    write(folder / "preprocessor_config.json", steps | means | own | {"size": SIDE})
    if not (folder / "config.json").exists():
        write(folder / "config.json", {"model_type": "clip"})
        unasked(folder / "model.safetensors")
        (folder / "open_clip_pytorch_model.bin").write_bytes(b"nobody should ask for this")
    return others(folder)


def unasked(path: Path) -> None:
    """Weights that nobody should ask for."""
    import torch
    from safetensors.torch import save_file

    save_file({"of nobody": torch.zeros(1)}, path)


def others(folder: Path) -> Path:
    """What lies in the real repositories for other programs."""
    for name in ("README.md", ".gitattributes", "flax_model.msgpack"):
        (folder / name).write_bytes(b"for another program")
    return folder


# --- HPS, the LAION head, ImageReward


def architecture(folder: Path) -> Path:
    """A config of open_clip's for ARCHITECTURE, to be told to open_clip.add_model_config."""
    vision = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
    path = folder / f"{ARCHITECTURE}.json"
    write(path, {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})
    return path


def hps(path: Path) -> Path:
    """As HPS_v2.1_compressed.pt; open_clip must know ARCHITECTURE."""
    import open_clip
    import torch

    network = spread(open_clip.CLIP(**open_clip.get_model_config(ARCHITECTURE)), 4)
    half = {name: value.half() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 1, "name": "HPS", "state_dict": half}, path)
    return path


def head(width: int, seed: int) -> Any:
    """The linear layers of the LAION head and of ImageReward's, with the dropouts between them."""
    from torch import nn

    layers = nn.Sequential(
        nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2),
        nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
    )  # fmt: skip
    network = nn.Module()
    network.layers = layers
    network.forward = lambda vectors: layers(vectors)
    return spread(network, seed)


def laion(path: Path) -> Path:
    """As sac+logos+ava1-l14-linearMSE.pth."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(head(24, 5).state_dict(), path)
    return path


def image_reward_towers() -> tuple[Any, Any, Any]:
    """timm's vision tower, the text tower and the head of a miniature ImageReward."""
    import torch
    from timm.models.vision_transformer import VisionTransformer
    from transformers import BlipTextConfig, BlipTextModel

    torch.manual_seed(0)
    sight = VisionTransformer(
        img_size=SIDE, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=0
    )
    config = BlipTextConfig(
        vocab_size=len(bert_words()) + 2, hidden_size=64, encoder_hidden_size=128,
        intermediate_size=256, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=64,
    )  # fmt: skip
    reader = BlipTextModel(config, add_pooling_layer=False)
    return spread(sight, 6), spread(reader, 7), head(64, 8)


def image_reward(path: Path) -> Path:
    """As ImageReward.pt, with what only BLIP's training used."""
    import torch

    sight, reader, reward = image_reward_towers()
    state = {f"blip.visual_encoder.{key}": value for key, value in sight.state_dict().items()}
    state |= {f"blip.text_encoder.{key}": value for key, value in reader.state_dict().items()}
    state |= {f"mlp.{key}": value for key, value in reward.state_dict().items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    for name, width in (("vision_proj", 128), ("text_proj", 64)):
        layer = torch.nn.Linear(width, 8)
        state |= {f"blip.{name}.{key}": value for key, value in layer.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def bert_words() -> list[str]:
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]


def bert(folder: Path) -> Path:
    """As google-bert/bert-base-uncased, whose weights nobody should ask for."""
    from tokenizers import BertWordPieceTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "vocab.txt", "\n".join(bert_words()) + "\n")
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512})
    write(folder / "config.json", {"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    unasked(folder / "model.safetensors")
    return others(folder)


# --- the judge

CHAT = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
MARKS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>",
    "<end_of_utterance>", "<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
]  # fmt: skip
SPOKEN = ["Yes", "yes", "No", "no"]


def smolvlm(folder: Path) -> Path:
    """As HuggingFaceTB/SmolVLM-256M-Instruct."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    words = [
        *MARKS,
        *SPOKEN,
        *(f"Ġ{word}" for word in SPOKEN),
        "Ġ",
        "Ċ",
        *LETTERS,
        *LETTERS.upper(),
    ]
    words = list(dict.fromkeys(words))
    text = TEXT | {
        "model_type": "llama", "vocab_size": len(words), "num_key_value_heads": 2,
        "pad_token_id": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    config = Idefics3Config(
        vision_config=VISION, text_config=text, scale_factor=2, pad_token_id=2,
        image_token_id=words.index("<image>"),
    )  # fmt: skip
    spread(Idefics3ForConditionalGeneration(config), 9).save_pretrained(folder)
    edge = {"longest_edge": SIDE}
    steps = ("do_convert_rgb", "do_image_splitting", "do_normalize", "do_pad", "do_rescale")
    settings = dict.fromkeys((*steps, "do_resize"), True)
    own = {"image_processor_type": "Idefics3ImageProcessor", "processor_class": "Idefics3Processor"}
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
    sizes = {"max_image_size": edge, "size": {"longest_edge": 2 * SIDE}, "resample": 1}
    write(folder / "preprocessor_config.json", settings | own | halves | sizes)
    write(
        folder / "processor_config.json",
        {"image_seq_len": 4, "processor_class": "Idefics3Processor"},
    )
    write(folder / "chat_template.json", {"chat_template": CHAT})
    write(folder / "tokenizer.json", smol_tokenizer(words))
    marks = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
    }
    settings = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    write(
        folder / "tokenizer_config.json",
        marks | settings | {"processor_class": "Idefics3Processor"},
    )
    write(folder / "special_tokens_map.json", marks | {"unk_token": "<|endoftext|>"})
    return others(folder)


def smol_tokenizer(words: list[str]) -> dict[str, Any]:
    """Byte-level words, in which yes and no are one token each."""
    merges = []
    vocabulary = list(words)
    for start in ("Ġ", ""):
        for word in SPOKEN:
            whole = start + word
            for end in range(2, len(whole) + 1):
                merges.append([whole[: end - 1], whole[end - 1]])
                vocabulary.append(whole[:end])
    vocabulary = list(dict.fromkeys(vocabulary))
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, "vocab": {word: n for n, word in enumerate(vocabulary)},
        "merges": [merge for n, merge in enumerate(merges) if merge not in merges[:n]],
    }  # fmt: skip
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [special(index, word) for index, word in enumerate(MARKS)],
        "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": model,
    }  # fmt: skip


# --- what the catalogue refers to

MAKERS: dict[str, Callable[[Path], Path]] = {
    "google/siglip2-so400m-patch14-384": siglip2,
    "google/siglip2-base-patch16-224": siglip2,
    "yuvalkirstain/PickScore_v1": lambda folder: clip(folder, "gelu", 2),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": clip_processor,
    "openai/clip-vit-large-patch14": lambda folder: clip(folder, "quick_gelu", 3),
    "xswu/HPSv2": lambda folder: hps(folder / "HPS_v2.1_compressed.pt").parent,
    "THUDM/ImageReward": lambda folder: image_reward(folder / "ImageReward.pt").parent,
    "google-bert/bert-base-uncased": bert,
    "HuggingFaceTB/SmolVLM-256M-Instruct": smolvlm,
}
PUBLISHED = [
    "siglip2", "siglip2-base", "pickscore", "hpsv2.1", "image-reward", "laion-aesthetic",
    "judge-prompt", "judge-photograph",
]  # fmt: skip


def repositories(root: Path) -> dict[str, Path]:
    """A folder for each hub id."""
    return {name: make(root / name.replace("/", "--")) for name, make in MAKERS.items()}


def entry(name: str, folders: dict[str, Path], head: str) -> Scorer:
    """A shipped entry whose references are these folders, or a LAION `head` elsewhere. It pins no
    hash, which only the real file has."""
    spec = SCORERS[name]

    def there(text: str) -> str:
        if text.startswith("https:"):
            return head
        file = HUB_FILE.match(text)
        return str(folders[file["id"]] / file["file"] if file else folders[text])

    parts = {part: there(text) for part, text in spec.parts.items()}
    changes: dict[str, Any] = {"source": there(spec.source), "parts": parts, "sha256": ""}
    if spec.architecture:
        changes["architecture"] = ARCHITECTURE
    return spec.model_copy(update=changes)


def catalogue(folder: Path, entries: dict[str, dict[str, Any]]) -> Path:
    """A user's catalogue of these entries."""
    lines = []
    for name, settings in entries.items():
        lines.append(f"[{json.dumps(name)}]")
        lines += [f"{key} = {_toml(value)}" for key, value in settings.items()]
    write(folder / "scorers.toml", "\n".join(lines))
    return folder
