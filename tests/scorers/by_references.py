"""Published scorers beside other people's implementations on the same random weights: run as
`python -m tests.scorers.by_references PACKAGES FOLDER`, it prints {scorer: [ours, theirs]} as JSON.
PACKAGES holds image-evaluator, diffsynth, hpsv2 and pyiqa, installed without what they require."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from realkit.rehearsal.scenes import render
from realkit.scorers import hps, image_reward, references
from realkit.scorers.score import load_scorer, lock_scorer
from realkit.scorers.table import SCORERS
from tests import scorer_miniatures
from tests.scorer_miniatures import SIDE

CAPTIONS = ["a photo of a matte red cube", "two blue spheres on sand"]
IQA = {"topiq": {"pretrained": False, "backbone_pretrain": False}, "musiq": {"pretrained": False}}


def package(name: str, path: Path) -> None:
    """Make a folder importable without its __init__.py, which imports what is not installed."""
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(path)]


def pickscore(folders: dict[str, Path], pictures: list[Any]) -> list[float]:
    from image_evaluator.pickscore_predictor import PickScorePredictor

    model = folders["yuvalkirstain/PickScore_v1"]
    processor = folders["laion/CLIP-ViT-H-14-laion2B-s32B-b79K"]
    reference = PickScorePredictor(
        model_name=str(model), processor_name=str(processor), device="cpu"
    )
    pairs = zip(pictures, CAPTIONS, strict=True)
    return [reference.evaluate(picture, caption) for picture, caption in pairs]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value.float() for key, value in state.get("state_dict", state).items()}


def hpsv2(folders: dict[str, Path], pictures: list[Any]) -> list[float]:
    """hpsv2's own transform, then open_clip's weights in transformers' CLIP by diffsynth."""
    from diffsynth.utils.state_dict_converters import image_metrics
    from hpsv2.src.open_clip.transform import image_transform
    from transformers import CLIPConfig, CLIPModel

    wide = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2}
    wide |= {"num_attention_heads": 4, "hidden_act": "gelu"}
    config = CLIPConfig(
        text_config=wide | {"vocab_size": 49408, "eos_token_id": 2},
        vision_config=wide | {"image_size": SIDE, "patch_size": 8}, projection_dim=24,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    state = tensors(folders["xswu/HPSv2"] / "HPS_v2.1_compressed.pt")
    model.load_state_dict(image_metrics.ImageMetricsOpenCLIPStateDictConverter(state), strict=True)
    prepare = image_transform(SIDE, is_train=False, resize_longest_max=True)
    numbers = []
    for picture, caption in zip(pictures, CAPTIONS, strict=True):
        pixels = prepare(picture)[None]
        assert float((hps.prepared(picture, SIDE) - pixels).abs().max()) < 1e-5
        ids = open_clip.tokenize([caption])
        logits = model(input_ids=ids, pixel_values=pixels).logits_per_image
        numbers.append(100 * (logits / model.logit_scale.exp()).item())
    return numbers


def reward(folders: dict[str, Path], pictures: list[Any]) -> list[float]:
    from diffsynth.models.image_reward import ImageRewardModel
    from diffsynth.utils.state_dict_converters import image_metrics
    from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval

    state = tensors(folders["THUDM/ImageReward"] / "ImageReward.pt")
    sight, reader, _ = image_reward.towers("it", {
        key: value for key, value in state.items() if not key.endswith(references.UNREAD)
    })  # fmt: skip
    config = BlipConfig(
        vision_config=sight.config.to_dict(), text_config=reader.config.to_dict(), projection_dim=8,
        image_text_hidden_size=8,
    )  # fmt: skip
    tokenizer = BertTokenizer.from_pretrained(folders["google-bert/bert-base-uncased"])
    model = ImageRewardModel(BlipForImageTextRetrieval(config), tokenizer, image_size=SIDE)
    state = image_metrics.ImageMetricsImageRewardStateDictConverter(state)
    missing, unread = model.load_state_dict(state, strict=False)
    assert not unread and {key.split(".")[1] for key in missing} <= {"text_proj", "vision_proj"}
    return model.eval()(CAPTIONS, pictures).tolist()


def laion(folders: dict[str, Path], pictures: list[Any]) -> list[float]:
    from diffsynth.models.aesthetic import AestheticMLP, AestheticModel
    from transformers import CLIPImageProcessor, CLIPModel

    folder = folders["openai/clip-vit-large-patch14"]
    clip = CLIPModel.from_pretrained(folder)
    mlp = AestheticMLP(24)
    mlp.load_state_dict(tensors(Path(SCORERS["laion-aesthetic"].source)))
    processor = CLIPImageProcessor.from_pretrained(folder)
    model = AestheticModel(mlp, clip.vision_model, clip.visual_projection, processor).eval()
    return model(pictures).tolist()


def iqa(name: str, root: Path, pictures: list[Any]) -> tuple[list[float], list[float]]:
    """Random weights in pyiqa's form, read by us and by pyiqa itself."""
    import pyiqa
    from torchvision.transforms.functional import to_tensor

    entry, bare = SCORERS[name], IQA[name]
    torch.manual_seed(1)
    network = pyiqa.create_metric(entry.architecture, device="cpu", **bare).net
    path = root / Path(entry.source).name
    state = network.state_dict()
    torch.save({"params": state} if name == "topiq" else state, path)  # as published
    SCORERS.add(name, entry.model_copy(update={"source": str(path), "sha256": ""}))
    reference = pyiqa.create_metric(
        entry.architecture, device="cpu", **bare, pretrained_model_path=str(path)
    )
    theirs = [reference(to_tensor(picture)[None]).item() for picture in pictures]
    return batches(name, pictures), theirs


def batches(name: str, pictures: list[Any]) -> list[float]:
    """A scorer's numbers, which neither the batch nor its order changes."""
    rate = load_scorer(name, lock_scorer(name))
    together = rate(iter(pictures), CAPTIONS)
    backwards = rate(pictures[::-1], CAPTIONS[::-1])[::-1]
    pairs = zip(pictures, CAPTIONS, strict=True)
    alone = [rate([picture], [caption])[0] for picture, caption in pairs]
    np.testing.assert_allclose([together, backwards], [alone, alone], atol=1e-4)
    return together


def main(packages: Path, root: Path) -> dict[str, tuple[list[float], list[float]]]:
    sys.path.append(str(packages))
    for name in ("diffsynth", "diffsynth.models", "hpsv2", "hpsv2.src", "hpsv2.src.open_clip"):
        package(name, packages / name.replace(".", "/"))
    torch.manual_seed(0)
    open_clip.add_model_config(scorer_miniatures.architecture(root))
    folders = scorer_miniatures.repositories(root)
    head = str(scorer_miniatures.laion(root / "head.pth"))
    for name in scorer_miniatures.PUBLISHED:
        SCORERS.add(name, scorer_miniatures.entry(name, folders, head))
    scene = render("a photo of a matte red cube on grass at noon", 1)
    pictures = [scene, scene.rotate(90).resize((96, 48))]
    results = {}
    with torch.no_grad():
        for name, theirs in (("pickscore", pickscore), ("hpsv2.1", hpsv2),
                             ("image-reward", reward), ("laion-aesthetic", laion)):  # fmt: skip
            results[name] = batches(name, pictures), theirs(folders, pictures)
        large = [scene.resize((160, 128)), scene.rotate(90).resize((128, 160))]
        for name in IQA:
            results[name] = iqa(name, root, large)
    return results


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
