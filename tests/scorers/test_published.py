"""Scorers with published weights, on miniatures: each number is that of a direct computation on the
same weights, and what does not fit is refused by name."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from realkit.rehearsal.scenes import render
from realkit.scorers import hps, image_reward, judge
from realkit.scorers.engines import ENGINES
from realkit.scorers.score import cut_tokens, load_scorer, lock_scorer
from realkit.scorers.table import SCORERS
from tests import scorer_miniatures
from tests.scorer_miniatures import ARCHITECTURE, OPENAI_MEAN, OPENAI_STD, SIDE

pytestmark = pytest.mark.usefixtures("published")
CAPTIONS = [
    "a photo of a matte red cube",
    "Two blue spheres!",
    "",
    "a cone on sand, at dawn, 1.5 m",
]


@pytest.fixture(scope="module")
def pictures():
    scenes = [render("a photo of a matte red cube on grass at noon", seed) for seed in range(4)]
    return [scenes[0], scenes[1].resize((96, 48)), scenes[2].resize((20, 50)), scenes[3]]


def normalised(embeddings):
    return embeddings / embeddings.norm(dim=-1, keepdim=True)


def by_siglip(made, picture, caption):
    """The model's own logit, without its scale and bias; tokens by hand."""
    from transformers import SiglipImageProcessorPil, SiglipModel

    folder = made.folders["google/siglip2-base-patch16-224"]
    model = SiglipModel.from_pretrained(folder)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *scorer_miniatures.LETTERS]
    ids = [words.index(letter) for letter in caption.lower().replace(" ", "▁")][:63]
    ids = torch.tensor([[*ids, 1, *[0] * (63 - len(ids))]])
    pixels = SiglipImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt")
    logit = model(input_ids=ids, **pixels).logits_per_image
    return 100 * ((logit - model.logit_bias) / model.logit_scale.exp()).item()


def by_pickscore(made, picture, caption):
    """The README of PickScore."""
    from transformers import AutoModel, AutoProcessor

    place = made.folders["laion/CLIP-ViT-H-14-laion2B-s32B-b79K"]
    processor = AutoProcessor.from_pretrained(place, backend="pil")
    model = AutoModel.from_pretrained(made.folders["yuvalkirstain/PickScore_v1"]).eval()
    cut = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
    inputs = processor(images=picture, **cut), processor(text=caption, **cut)
    return model(**inputs[0], **inputs[1]).logits_per_text.item()


def by_hps(made, picture, caption):
    """hpsv2's img_score.py: the longer side resized over floats, black around it."""
    path = made.folders["xswu/HPSv2"] / "HPS_v2.1_compressed.pt"
    model = open_clip.create_model(ARCHITECTURE, output_dict=True).eval()
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key: value.float() for key, value in state.items()})
    pixels = torch.tensor(np.asarray(picture) / 255).permute(2, 0, 1)[None].float()
    scale = SIDE / max(picture.size)
    size = [round(picture.height * scale), round(picture.width * scale)]
    pixels = torch.nn.functional.interpolate(
        pixels, size, mode="bicubic", antialias=True, align_corners=False
    )
    right, below = SIDE - size[1], SIDE - size[0]
    border = (right // 2, right - right // 2, below // 2, below - below // 2)
    pixels = torch.nn.functional.pad(pixels, border)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    output = model((pixels - mean) / std, open_clip.get_tokenizer(ARCHITECTURE)([caption]))
    return 100 * (output["image_features"] @ output["text_features"].T).item()


def by_image_reward(made, picture, caption):
    """timm's vision tower, BERT's own tokenizer, and the reward of ImageReward.py."""
    from transformers import BertTokenizer

    sight, reader, reward = scorer_miniatures.image_reward_towers()
    state = torch.load(made.folders["THUDM/ImageReward"] / "ImageReward.pt", weights_only=True)
    for network, prefix in ((sight, "blip.visual_encoder."), (reader, "blip.text_encoder."),
                            (reward, "mlp.")):  # fmt: skip
        own = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
        network.load_state_dict({key: v for key, v in own.items() if "position_ids" not in key})
    tokenizer = BertTokenizer.from_pretrained(made.folders["google-bert/bert-base-uncased"])
    text = tokenizer(
        caption, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    seen = sight.forward_features(clip_pixels(picture))
    output = reader(
        input_ids=text.input_ids, attention_mask=text.attention_mask, encoder_hidden_states=seen,
        encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long),
    )  # fmt: skip
    number = reward.layers(output.last_hidden_state[:, 0]).item()
    return (number - 0.16717362830052426) / 1.0333394966054072


def clip_pixels(picture):
    """CLIP's preparation, by Pillow."""
    scale = SIDE / min(picture.size)
    sides = [max(SIDE, int(side * scale)) for side in picture.size]
    resized = picture.resize(sides, Image.Resampling.BICUBIC)
    left, top = (round((side - SIDE) / 2) for side in sides)
    levels = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE))) / 255
    return torch.tensor((levels - OPENAI_MEAN) / OPENAI_STD).permute(2, 0, 1)[None].float()


def by_laion(made, picture, caption):
    """simple_inference.py: a normalised embedding through the linear layers."""
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(made.folders["openai/clip-vit-large-patch14"]).eval()
    head = scorer_miniatures.head(24, 0)
    head.load_state_dict(torch.load(made.entries["laion-aesthetic"].source, weights_only=True))
    pooled = model.vision_model(pixel_values=clip_pixels(picture)).pooler_output
    return head.layers(normalised(model.visual_projection(pooled))).item()


def by_judge(made, picture, caption, question=""):
    """One picture through the model, and each answer's probability."""
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration

    folder = made.folders["HuggingFaceTB/SmolVLM-256M-Instruct"]
    model = Idefics3ForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    question = question or f'Does this picture show "{caption}"? Answer yes or no.'
    text = f"<|im_start|>User:<image>{question}<end_of_utterance>\nAssistant:"
    inputs = processor(images=[picture], text=text, return_tensors="pt", do_image_splitting=False)
    probabilities = model(**inputs).logits[0, -1].softmax(-1)
    words = processor.tokenizer.get_vocab()
    yes = sum(
        probabilities[words[f"{start}{word}"]] for start in ("", "Ġ") for word in ("yes", "Yes")
    )
    no = sum(probabilities[words[f"{start}{word}"]] for start in ("", "Ġ") for word in ("no", "No"))
    return 100 * (yes / (yes + no)).item()


def by_photograph(made, picture, caption):
    return by_judge(made, picture, caption, SCORERS["judge-photograph"].question)


ORACLES = {
    "siglip2-base": by_siglip, "pickscore": by_pickscore, "hpsv2.1": by_hps,
    "image-reward": by_image_reward, "laion-aesthetic": by_laion, "judge-prompt": by_judge,
    "judge-photograph": by_photograph,
}  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_a_number_is_that_of_a_direct_computation_alone_and_in_any_batch(made, pictures, name):
    rate = load_scorer(name)
    together = rate(iter(pictures), CAPTIONS)
    backwards = rate(pictures[::-1], CAPTIONS[::-1])[::-1]
    alone = []
    for picture, caption in zip(pictures, CAPTIONS, strict=True):
        alone += rate([picture], [caption])
    np.testing.assert_allclose([together, backwards], [alone, alone], atol=1e-4)
    low, high = SCORERS[name].range
    with torch.no_grad():
        for number, picture, caption in zip(together, pictures[:2], CAPTIONS[:2], strict=False):
            expected = ORACLES[name](made, picture, caption)
            assert number == pytest.approx(expected, abs=1e-3 * min(high - low, 10))
    assert max(together) - min(together) > 1e-2  # pictures have numbers of their own


def test_every_engine_of_published_weights_is_here():
    local = {"open_clip", "open_clip_chunks", "open_clip_contrast", "open_clip_rank", "lab",
             "pixels", "function", "pyiqa"}  # fmt: skip
    assert {SCORERS[name].engine for name in ORACLES} == ENGINES.keys() - local


LONG = "a red cube on grass, " * 20


@pytest.mark.parametrize(
    ("name", "count"),
    [("siglip2-base", len(LONG) + 1), ("pickscore", 122), ("hpsv2.1", 122),
     ("image-reward", 16 * 20 + 2), ("laion-aesthetic", 0), ("judge-prompt", 0)],
)  # fmt: skip
def test_tokens_that_a_scorer_does_not_see_are_counted(name, count):
    assert cut_tokens(name, LONG) == max(0, count - SCORERS[name].tokens)
    assert cut_tokens(name, "a red cube") == 0


def test_a_cut_prompt_is_read_to_its_last_seen_token(pictures):
    """What is cut changes nothing; what is not, does."""
    for name in ("siglip2-base", "pickscore", "hpsv2.1", "image-reward"):
        texts = [LONG, f"{LONG} no, a blue sphere", f"no {LONG}"]
        first, second, third = load_scorer(name)(pictures[:1] * 3, texts)
        assert first == pytest.approx(second, abs=1e-4) and abs(first - third) > 1e-3


def test_long_prompts_are_the_mean_of_their_chunks(pictures):
    from realkit.scorers import clip

    short = "a photo of a matte red cube on grass at noon"
    chunked = load_scorer("rehearsal/clip-long")
    plain = load_scorer("rehearsal/clip")
    one = [pictures[0]]
    assert chunked(one, [short]) == pytest.approx(plain(one, [short]))
    assert chunked(one, [""]) == pytest.approx(plain(one, [""]))
    words = short.split() * 7  # each word is a token
    text = " ".join(words)
    encoders = clip.Encoders("it", "package:clip", lock_scorer("rehearsal/clip")["source"])
    assert cut_tokens("rehearsal/clip", text) == len(words) + 2 - 32
    assert cut_tokens("rehearsal/clip-long", text) == 0
    parts = [" ".join(words[start : start + 30]) for start in range(0, len(words), 30)]
    mean = encoders.texts(parts).mean(0)
    expected = 100 * (normalised(mean) @ encoders.images(one)[0]).item()
    assert chunked(one, [text])[0] == pytest.approx(expected, abs=1e-3)
    assert abs(expected - plain(one, [text])[0]) > 0.1


def test_yes_and_no_are_tokens_of_their_own(made):
    from transformers import AutoTokenizer

    folder = made.folders["HuggingFaceTB/SmolVLM-256M-Instruct"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [
        tokenizer.convert_ids_to_tokens(judge.answers(tokenizer, word)) for word in ("yes", "no")
    ]
    assert {word.strip("Ġ") for word in words[0]} == {"Yes", "yes"} and len(words[0]) == 4
    assert {word.strip("Ġ") for word in words[1]} == {"No", "no"} and len(words[1]) == 4


def test_networks_of_the_real_sizes_have_the_published_shapes(monkeypatch):
    """HPS: the names of open_clip's ViT-H-14, 986 million parameters. ImageReward: BLIP with ViT-L,
    read from the shapes of tensors under the published names."""
    monkeypatch.setattr("realkit.base.device.default_device", lambda: torch.device("meta"))
    with torch.device("meta"):
        network = hps.network("it", "ViT-H-14")
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert len(shapes) == 686 and sum(map(np.prod, shapes.values())) == 986_109_441
        assert shapes["visual.proj"] == (1280, 1024) and shapes["text_projection"] == (1024, 1024)
        sight, reader, reward = image_reward.towers("it", published_image_reward())
    assert sight.config.num_hidden_layers == 24 and sight.config.image_size == 224
    assert reader.config.num_hidden_layers == 12 and reader.config.num_attention_heads == 12
    assert sight.config.num_attention_heads == 16 and reader.config.vocab_size == 30524
    assert [layer.out_features for layer in reward.layers.values()] == [1024, 128, 64, 16, 1]


def published_image_reward():
    """The names and shapes of ImageReward.pt, on the meta device."""
    from timm.models.vision_transformer import VisionTransformer
    from transformers import BertConfig, BertModel

    sight = VisionTransformer(embed_dim=1024, depth=24, num_heads=16, num_classes=0)
    config = BertConfig(vocab_size=30524, add_cross_attention=True, is_decoder=True)
    reader = BertModel(config, add_pooling_layer=False).state_dict()
    reader.pop("embeddings.token_type_embeddings.weight")  # which BLIP's text tower has not
    for key in list(reader):
        if "crossattention.self.key.weight" in key or "crossattention.self.value.weight" in key:
            reader[key] = torch.empty(768, 1024)
    weights = {f"blip.visual_encoder.{key}": value for key, value in sight.state_dict().items()}
    weights |= {f"blip.text_encoder.{key}": value for key, value in reader.items()}
    sizes = (768, 1024, 128, 64, 16, 1)
    for number, place in enumerate((0, 2, 4, 6, 7)):
        weights[f"mlp.layers.{place}.weight"] = torch.empty(sizes[number + 1], sizes[number])
        weights[f"mlp.layers.{place}.bias"] = torch.empty(sizes[number + 1])
    return weights
