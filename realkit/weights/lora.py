"""LoRA files: the names of a file's tensors → a patch for each tensor of the base that changes.

Only the header is read here. Each tensor belongs to exactly one patch, or the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import json_value
from realkit.weights import deltas, header
from realkit.weights.header import quoted

# Endings of names → the tensor's role in its formula (deltas.FORMULAS). The longest one counts.
ROLES = {
    # kohya's scripts and LyCORIS (LoRA, LoCon)
    ".lora_down.weight": "down", ".lora_up.weight": "up", ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    # peft, and diffusers since 0.22
    ".lora_A.weight": "down", ".lora_B.weight": "up",
    ".lora_A.default.weight": "down", ".lora_B.default.weight": "up",
    # diffusers before
    ".lora.down.weight": "down", ".lora.up.weight": "up",
    "_lora.down.weight": "down", "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down", ".lora_linear_layer.up.weight": "up",
    # LyCORIS: LoHa, LoKr, full differences, norms
    ".hada_w1_a": "w1_a", ".hada_w1_b": "w1_b", ".hada_w2_a": "w2_a", ".hada_w2_b": "w2_b",
    ".hada_t1": "t1", ".hada_t2": "t2",
    ".lokr_w1": "kron_w1", ".lokr_w1_a": "kron_w1_a", ".lokr_w1_b": "kron_w1_b",
    ".lokr_w2": "kron_w2", ".lokr_w2_a": "kron_w2_a", ".lokr_w2_b": "kron_w2_b",
    ".lokr_t2": "kron_t2",
    ".diff": "difference", ".w_norm": "difference",
    ".diff_b": "bias", ".b_norm": "bias",
}  # fmt: skip
# Parts of names that mean a method which is not supported.
REFUSED = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", ".boft": "BOFT", ".oft_": "OFT",
    "vera_lambda": "VeRA", ".on_input": "IA3", ".a1.weight": "GLoRA", ".a2.weight": "GLoRA",
    ".b1.weight": "GLoRA", ".b2.weight": "GLoRA", "lora_B.bias": "LoRA with biases",
    "lora_up.bias": "LoRA with biases", ".scalar": "LyCORIS with a loose scalar",
    ".bias_indices": "LyCORIS with a sparse bias", ".reshape_weight": "LoRA of another shape",
    "base_model.model.": "peft's own layout, whose scale is in a second file",
    "lora_controlnet": "Control-LoRA",
}  # fmt: skip
MOST_ALPHA = 1e6  # far above any alpha or rank that is used
METADATA = "lora_adapter_metadata"  # where diffusers keeps the alphas of peft's layout
PLAIN = frozenset({"down", "up", "alpha"})
# Layers that diffusers' reader drops without an error in some spellings
DROPPED = ("add_embedding", "text_projection")
PREFIXES = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.")  # of peft's layout


@dataclass(frozen=True)
class Patch:
    """What a file holds for one tensor of the base.

    `module` is the module's name as the file spells it; `target` its "weight" or "bias"; `names`
    the file's tensors by role. `alpha` is the one that the header states, if any.
    """

    module: str
    target: str
    names: Mapping[str, str]
    alpha: float | None = None


@dataclass(frozen=True)
class LoraFile:
    """The header of a LoRA file, `label` its reference in messages."""

    label: str
    path: Path
    patches: tuple[Patch, ...]
    shapes: Mapping[str, tuple[int, ...]]


def read_header(path: Path, label: str) -> LoraFile:
    """The patches of a LoRA file. Raises RequestError, which names the file, for a tensor of an
    unknown or unsupported method, and for one without its counterpart."""
    try:
        file = header.read(path)
    except RequestError as error:
        raise RequestError(f"LoRA {label!r} cannot be read: {one_line(error, 300)}") from error
    shapes = file.shapes
    if empty := [name for name, shape in shapes.items() if 0 in shape]:
        raise RequestError(
            f"LoRA {label!r} holds {quoted(empty[0])}, which is empty: download it again"
        )
    metadata = _metadata(file.metadata, label)
    grouped = _grouped(shapes, label)
    _check_numbers(grouped.values(), file.formats, label)
    patches = []
    for (module, target), names in grouped.items():
        if frozenset(names) - {"alpha"} not in deltas.FORMULAS:
            first = next(iter(names.values()))
            raise RequestError(
                f"LoRA {label!r} holds {quoted(first)} without its counterpart ({len(names)} of the"
                f" tensors that {quoted(module)} needs): the file is incomplete, download it again"
            )
        if "alpha" in names and not deltas.has_rank(names):
            raise RequestError(f"LoRA {label!r} holds {quoted(names['alpha'])}, which nothing uses")
        alpha = None
        if metadata and "alpha" not in names and "down" in names:
            alpha = _alpha(metadata, module, shapes[names["down"]][0], label)
        patches.append(Patch(module, target, names, alpha))
    ranked = [patch for patch in patches if deltas.has_rank(patch.names)]
    without = [patch for patch in ranked if "alpha" not in patch.names]
    if 0 < len(without) < len(ranked):
        raise RequestError(
            f"LoRA {label!r} holds no alpha for {quoted(without[0].module)}, and one for other"
            " layers: the file is incomplete, download it again"
        )
    return LoraFile(label, path, tuple(patches), shapes)


def _check_numbers(
    groups: Iterable[Mapping[str, str]], formats: Mapping[str, str], label: str
) -> None:
    """Raise RequestError for numbers that are no weights as they stand. An alpha may be whole."""
    for names in groups:
        for role, name in names.items():
            number = formats[name]
            whole = role == "alpha" and number.startswith(("I", "U"))
            if number not in header.FLOATING and not whole:
                raise RequestError(
                    f"LoRA {label!r} holds {quoted(name)} in {number}: a quantised LoRA is not"
                    " supported, take one in float16 or float32"
                )


def merged_whole_before(file: LoraFile) -> bool:
    """Whether diffusers' own reader, which realkit used at first, merged all of a file.

    True for files of one rank and one alpha, in kohya's names or peft's, whose text encoders
    have `out_proj` too: of all others it may have left tensors or scales out without a word.
    """
    ranks, alphas = set(), set()
    encoders: dict[str, bool] = {}
    kohya = all(patch.module.startswith("lora_") for patch in file.patches)
    blocks = {_original_blocks(patch.module) for patch in file.patches}
    for patch in file.patches:
        down = patch.names.get("down", "")
        peft = ".lora_A.weight" in down and patch.module.startswith(PREFIXES)
        if not set(patch.names) <= PLAIN or not (peft or kohya) or patch.alpha is not None:
            return False
        if peft and "alpha" in patch.names:
            return False
        if any(layer in patch.module for layer in DROPPED):
            return False
        ranks.add(file.shapes[down][0])
        alphas.add("alpha" in patch.names)
        if patch.module.startswith("lora_te"):
            encoder = patch.module.split("_")[1]
            encoders[encoder] = encoders.get(encoder, False) or "out_proj" in patch.module
    uniform = len(ranks) == 1 and len(alphas) == 1 and len(_alphas(file)) <= 1
    return uniform and all(encoders.values()) and not blocks >= {True, False}


def _original_blocks(module: str) -> bool | None:
    """Whether a U-Net's module is named as in the original code (True) or in diffusers (False)."""
    if any(block in module for block in ("input_blocks", "middle_block", "output_blocks")):
        return True
    if any(block in module for block in ("down_blocks", "mid_block", "up_blocks")):
        return False
    return None


def _alphas(file: LoraFile) -> set[float]:
    """The different alphas among a file's tensors."""
    from safetensors import safe_open

    names = [patch.names["alpha"] for patch in file.patches if "alpha" in patch.names]
    with safe_open(file.path, framework="pt") as tensors:
        return {float(tensors.get_tensor(name).float().sum()) for name in names}


def _grouped(names: Iterable[str], label: str) -> dict[tuple[str, str], dict[str, str]]:
    """(module, "weight" or "bias") → role → the tensor's name."""
    grouped: dict[tuple[str, str], dict[str, str]] = {}
    for name in sorted(names):
        for part, method in REFUSED.items():
            if part in name:
                raise RequestError(
                    f"LoRA {label!r} is of a kind that is not supported, {method} ({quoted(name)}):"
                    " take a LoRA, LoCon, LoHa or LoKr"
                )
        ending = max((end for end in ROLES if name.endswith(end)), key=len, default="")
        if not ending:
            raise RequestError(
                f"LoRA {label!r} holds {quoted(name)}, which belongs to no known format: expected a"
                " LoRA, LoCon, LoHa or LoKr in the names of kohya, LyCORIS, peft or diffusers"
            )
        module = name.removesuffix(ending).replace(".processor.", ".")
        role = ROLES[ending]
        target = "bias" if role == "bias" else "weight"
        group = grouped.setdefault((module, target), {})
        if role in group:
            raise RequestError(
                f"LoRA {label!r} holds both {quoted(group[role])} and {quoted(name)}, which"
                " are for the same layer: expected one of them"
            )
        group[role] = name
    return grouped


def _metadata(header: Mapping[str, str], label: str) -> dict[str, Any]:
    """What diffusers wrote about the adapter: {} where it wrote nothing."""
    try:
        metadata = json_value(header.get(METADATA) or "{}")
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise RequestError(f"LoRA {label!r} has an invalid header: {METADATA} is no JSON object")
    for key, value in metadata.items():
        name = key.rpartition(".")[2]
        if value and name in ("use_dora", "use_rslora", "lora_bias"):
            raise RequestError(
                f"LoRA {label!r} is of a kind that is not supported, {name}: take a plain LoRA"
            )
        numbers = [value] if name in ("lora_alpha", "r") else []
        if name in ("alpha_pattern", "rank_pattern"):
            numbers = list(value.values()) if isinstance(value, dict) else [None] * bool(value)
        for number in numbers:
            if type(number) not in (int, float) or not 0 < number < MOST_ALPHA:
                raise RequestError(
                    f"LoRA {label!r} has an invalid header: {METADATA} gives {key} the value"
                    f" {shown(number)}, expected a positive number"
                )
    return metadata


def _alpha(metadata: Mapping[str, Any], module: str, rank: int, label: str) -> float | None:
    """The alpha that peft's metadata gives a module; None where it says nothing of the module.

    Raises RequestError where its rank is not the tensors' own: peft scales by alpha / rank.
    """
    part, _, rest = module.partition(".")
    prefix = f"{part}." if f"{part}." in PREFIXES else ""
    own = rest if prefix else module
    values: dict[str, Any] = {}
    for name, pattern in (("lora_alpha", "alpha_pattern"), ("r", "rank_pattern")):
        # `save_lora_adapter` of diffusers writes bare names, with or without the part in the header
        for before in dict.fromkeys((prefix, "", "unet.", "transformer.")):
            if before + name in metadata:
                values[name] = metadata[before + name]
                values |= _matching(metadata.get(before + pattern), own, name, label)
                break
    if len(values) == 2 and values["r"] != rank:
        raise RequestError(
            f"LoRA {label!r} states rank {values['r']} for {quoted(module)}, whose tensors have"
            f" rank {rank}: its scale is unknown, download it again"
        )
    return float(values["lora_alpha"]) if "lora_alpha" in values else None


def _matching(patterns: Any, module: str, name: str, label: str) -> dict[str, Any]:
    """The value that the first matching pattern gives a module, by peft's rule
    (peft.utils.other.get_pattern_key)."""
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return {name: value}
        except re.error as error:
            raise RequestError(
                f"LoRA {label!r} has an invalid header: {shown(pattern)} is no pattern ({error})"
            ) from None
    return {}
