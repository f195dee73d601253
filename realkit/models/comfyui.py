"""ComfyUI's two texts: the graph that it ran (`prompt`), and the one that a person sees
(`workflow`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from realkit.base.files import LENIENT, too_deep

TEXTS = ("prompt", "workflow")
CIVITAI = "extraMetadata"  # beside the nodes of a graph that Civitai ran
SETTINGS = ("steps", "cfg", "sampler_name", "scheduler", "denoise", "seed", "noise_seed")
WORDS = ("text", "text_g", "string", "prompt")  # inputs that hold a prompt, or lead to it
ONWARD = ("conditioning", "conditioning_1", "positive", "guider", "samples")
FILES = ("ckpt_name", "unet_name", "model_name")
FARTHEST = 50  # nodes on the way from a sampler to its words


def graphs(texts: dict[str, str]) -> dict[str, Any]:
    """The graphs among a picture's texts, which are taken out of them."""
    values: dict[str, Any] = {}
    for name in TEXTS:
        try:
            graph = LENIENT.decode(texts.get(name, ""))
        except (ValueError, RecursionError):
            continue
        if isinstance(graph, dict) and not too_deep(graph):
            values[name] = graph
            del texts[name]
    return values


def of_comment(text: str) -> dict[str, Any]:
    """The graphs in a user's comment: both under their names, as some nodes that save JPEG write
    them, or the graph that was run alone, as Civitai does."""
    try:
        comment = LENIENT.decode(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(comment, dict) or too_deep(comment):
        return {}
    if any(isinstance(node, dict) and "class_type" in node for node in comment.values()):
        return {"prompt": comment}
    values = {}
    for name in TEXTS:
        graph = comment.get(name)
        values[name] = graph if isinstance(graph, str) else json.dumps(graph)
    return graphs(values)


def settings(graph: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Prompt, negative prompt and settings of the first sampler in the graph that was run; empty
    where its nodes are not ComfyUI's own."""
    for node in graph.values():
        inputs = _inputs(node)
        if not any(name in inputs for name in ("positive", "sampler_name")):
            continue
        values = {}
        for name in SETTINGS:
            if isinstance(inputs.get(name), (int, float, str)):
                values[name] = inputs[name]
        if values:
            if model := _followed(graph, inputs.get("model"), FILES, ("model",)):
                values["model"] = model
            words = []
            for side in ("positive", "negative"):
                words.append(_followed(graph, inputs.get(side), WORDS, (*WORDS, *ONWARD)))
            return words[0], words[1], values
    return "", "", {}


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _followed(
    graph: Mapping[str, Any], link: Any, names: tuple[str, ...], onward: tuple[str, ...]
) -> str:
    """The first text under one of these names on the way of a link ([node, output]), which leads on
    by the inputs of `onward`."""
    for _ in range(FARTHEST):
        if not isinstance(link, list) or not link:
            return ""
        inputs = _inputs(graph.get(str(link[0])))
        for name in names:
            if isinstance(inputs.get(name), str):
                return str(inputs[name])
        links = [inputs[name] for name in onward if isinstance(inputs.get(name), list)]
        link = links[0] if links else None
    return ""
