"""LoRAs merged into a pipeline: every spelling of its modules' names, and W₀ + Σ weight · Δ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError
from realkit.weights import deltas
from realkit.weights.header import quoted
from realkit.weights.lora import LoraFile, Patch

if TYPE_CHECKING:
    import torch

TEXT_ENCODERS = {  # part → the prefixes of its modules in kohya's names
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
    "text_encoder_3": ("lora_te3_",),
}
DENOISER = ("lora_unet_", "lora_transformer_", "lycoris_")  # the same of the denoiser
# Ends of modules' names → how diffusers' old attention processors spell them
PROCESSORS = {".to_out.0": ".to_out"}
TOWERS = {f".self_attn.{part}_proj": f".self_attn.to_{part}" for part in ("q", "k", "v", "out")}
# Modules of a U-Net outside its blocks → their names in the original code
ORIGINAL = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One patch of one LoRA, for one tensor, with the LoRA's weight."""

    file: LoraFile
    patch: Patch
    weight: float


Place = tuple[str, str]  # a part of the pipeline, and a tensor's name in it


def merge(pipe: Any, denoiser: str, loras: Iterable[tuple[LoraFile, float]]) -> None:
    """Set each touched tensor to W₀ + Σ weight · Δ, computed in float32 and rounded once.

    Raises RequestError, which names the LoRA's file, where one of its tensors has no place in the
    pipeline or another shape, or is not finite; the first two leave the pipeline unchanged.
    """
    import torch
    from safetensors import safe_open

    loras = list(loras)
    modules = spellings(pipe, denoiser)
    changes: dict[Place, list[Change]] = {}
    for file, weight in loras:
        for place, change in _placed(pipe, modules, file, weight).items():
            changes.setdefault(place, []).append(change)
    with torch.no_grad():
        readers = {file.label: safe_open(file.path, framework="pt") for file, _ in loras}
        for (part, name), parts in changes.items():
            parameter = getattr(pipe, part).get_parameter(name)
            merged = parameter.detach().to(torch.float32, copy=True)
            for change in parts:
                difference = _difference(readers[change.file.label], change)
                merged += change.weight * difference.reshape(merged.shape)
            rounded = merged.to(parameter.dtype)
            if not torch.isfinite(rounded).all():
                raise RequestError(
                    f"LoRA {parts[0].file.label!r}, merged, overflows {str(parameter.dtype)[6:]} in"
                    f" {part}.{name}: take a smaller weight, or dtype float32"
                )
            parameter.copy_(rounded)


def spellings(pipe: Any, denoiser: str) -> dict[str, Place]:
    """Every name that a LoRA file may give a module of the pipeline → its part and own name."""
    places: dict[str, Place] = {}
    network = getattr(pipe, denoiser)
    for name, original in _modules(network):
        for spelling in filter(None, (name, original, _old(name, PROCESSORS))):
            underscored = spelling.replace(".", "_")
            for prefix in (f"{denoiser}.", "diffusion_model.", "model.diffusion_model.", ""):
                places[prefix + spelling] = denoiser, name
            for prefix in DENOISER:
                places[prefix + underscored] = denoiser, name
    for part, prefixes in TEXT_ENCODERS.items():
        tower = getattr(pipe, part, None)
        for name, _ in _modules(tower) if tower is not None else ():
            for spelling in _tower_spellings(name):
                places[f"{part}.{spelling}"] = part, name
                for prefix in prefixes:
                    places[prefix + spelling.replace(".", "_")] = part, name
    return places


def _modules(network: torch.nn.Module) -> Iterable[tuple[str, str]]:
    """The modules with a weight: own names, and for a U-Net's blocks the original code's."""
    config = getattr(network, "config", None)
    layers = getattr(config, "layers_per_block", None)
    for name, module in network.named_modules():
        if getattr(module, "weight", None) is not None:
            original = original_name(name, network, layers) if isinstance(layers, int) else ""
            yield name, original


def original_name(name: str, unet: Any, layers: int) -> str:
    """The name that the code of Stable Diffusion (ldm, sgm) gives a module of a U-Net; "" where it
    has none. Its blocks are counted through: `layers` of them and one that changes the size."""
    if name in ORIGINAL:
        return ORIGINAL[name]
    steps = name.split(".")
    if steps[0] == "mid_block":
        kind, index, rest = steps[1], int(steps[2]), steps[3:]
        place = f"middle_block.{1 if kind == 'attentions' else 2 * index}"
    elif steps[0] in ("down_blocks", "up_blocks"):
        block, kind, index, rest = int(steps[1]), steps[2], int(steps[3]), steps[4:]
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
        number, side = block * (layers + 1) + index, "output"
        if steps[0] == "down_blocks":
            number, side = number + 1, "input"
        position = int(kind != "resnets")
        if kind == "upsamplers":
            number = block * (layers + 1) + layers
            position += int(getattr(unet.up_blocks[block], "attentions", None) is not None)
        place = f"{side}_blocks.{number}.{position}"
    else:
        return ""
    if kind == "resnets":
        rest = [RESNET[rest[0]], *rest[1:]]
    return ".".join([place, *rest])


def _tower_spellings(name: str) -> Iterable[str]:
    """A text encoder's module with and without the level `text_model`, by its name today and by
    that of diffusers' old attention processors."""
    plain = name.removeprefix("text_model.")
    for spelling in (plain, _old(plain, TOWERS)):
        if spelling:
            yield spelling
            yield f"text_model.{spelling}"


def _old(name: str, ends: Mapping[str, str]) -> str:
    """The name with its end replaced, "" where the table has no such end."""
    for end, old in ends.items():
        if name.endswith(end):
            return name.removesuffix(end) + old
    return ""


def _placed(
    pipe: Any, modules: Mapping[str, Place], file: LoraFile, weight: float
) -> dict[Place, Change]:
    """The place of every patch of a file. Raises RequestError where one has none, where two have
    the same, or where a shape does not fit."""
    changes: dict[Place, Change] = {}
    homeless: list[str] = []
    for patch in file.patches:
        part, name = modules.get(patch.module, ("", ""))
        module = getattr(pipe, part).get_submodule(name) if part else None
        if getattr(module, patch.target, None) is None:
            homeless += patch.names.values()
            continue
        place = part, f"{name}.{patch.target}"
        if place in changes:
            _same(file, patch, changes[place].patch)
            continue
        _check_shape(file, patch, tuple(getattr(module, patch.target).shape))
        changes[place] = Change(file, patch, weight)
    if homeless:
        raise RequestError(
            f"LoRA {file.label!r} does not fit the model: {len(homeless)} of its"
            f" {len(file.shapes)} tensors are for layers that the model lacks, such as"
            f" {', '.join(map(quoted, homeless[:2]))}: take a LoRA made for this kind of model"
        )
    return changes


def _same(file: LoraFile, one: Patch, two: Patch) -> None:
    """Raise RequestError where two patches for the same tensor differ. Some files hold each layer
    in the names of two programs."""
    import torch
    from safetensors import safe_open

    with safe_open(file.path, framework="pt") as reader:
        alike = one.names.keys() == two.names.keys() and one.alpha == two.alpha
        same = alike and all(
            torch.equal(reader.get_tensor(one.names[role]), reader.get_tensor(two.names[role]))
            for role in one.names
        )
    if not same:
        names = [next(iter(patch.names.values())) for patch in (two, one)]
        raise RequestError(
            f"LoRA {file.label!r} holds both {quoted(names[0])} and {quoted(names[1])}, which are"
            " for the same layer and differ: expected one of them"
        )


def _check_shape(file: LoraFile, patch: Patch, expected: tuple[int, ...]) -> None:
    """Raise RequestError for a patch whose difference is not one for a tensor of this shape."""
    import torch

    shapes = {role: file.shapes[name] for role, name in patch.names.items()}
    first = next(iter(patch.names.values()))
    alpha = shapes.pop("alpha", ())
    try:
        tensors = {role: torch.empty(shape, device="meta") for role, shape in shapes.items()}
        shape = tuple(deltas.delta(tensors, 1.0).shape)
    except (RuntimeError, ValueError, IndexError):
        shape = None
    if alpha not in ((), (1,)) or shape is None or not deltas.fits(shape, expected):
        sizes = ", ".join(
            f"{quoted(name)} {list(file.shapes[name])}" for name in patch.names.values()
        )
        raise RequestError(
            f"LoRA {file.label!r} does not fit the model: {quoted(first)} changes a tensor of shape"
            f" {list(expected)}, and the file holds {sizes}: take a LoRA made for this kind of"
            " model"
        )


def _difference(reader: Any, change: Change) -> torch.Tensor:
    """A patch's Δ in float32. Raises RequestError for numbers that are not finite."""
    import torch

    file, patch = change.file, change.patch
    tensors = {role: reader.get_tensor(name) for role, name in patch.names.items()}
    for role, name in patch.names.items():
        tensors[role] = tensors[role].to(torch.float32)
        if not torch.isfinite(tensors[role]).all():
            raise RequestError(
                f"LoRA {file.label!r} holds {quoted(name)}, in which some numbers are not finite:"
                " the file is damaged, download it again"
            )
    alpha = tensors.pop("alpha").item() if "alpha" in tensors else patch.alpha
    return deltas.delta(tensors, alpha)
