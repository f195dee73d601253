"""Every tensor of a model's files against its networks, by headers alone: nothing is missing, and
nothing is left unread.

The networks are built without memory, and a single file's names go through the conversion that
loads it, on tensors that remember where they come from.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError
from realkit.models import configs
from realkit.models.lock import ModelLock
from realkit.models.tracing import traced_tensors
from realkit.weights import checkpoints, folders, header, resolve
from realkit.weights.header import HARMLESS, quoted
from realkit.weights.lock import Lock

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]

# Parts → how a single file's names begin
PREFIXES = {
    "vae": ("first_stage_model.", "vae."),
    "unet": ("model.diffusion_model.",),
    "transformer": ("model.diffusion_model.",),
    "text_encoder": (
        "cond_stage_model.", "conditioner.embedders.0.transformer.", "text_encoders.clip_l.",
    ),
    "text_encoder_2": (
        "conditioner.embedders.1.", "conditioner.embedders.0.model.", "text_encoders.clip_g.",
    ),
    "text_encoder_3": ("text_encoders.t5xxl.",),
}  # fmt: skip
# Text encoders in a single file: the tensor that tells the width → the beginning of its names
CLIP = {
    f"{prefix}text_model.embeddings.position_embedding.weight": prefix
    for prefix in (
        "cond_stage_model.transformer.", "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer.",
    )
}  # fmt: skip
OPEN_CLIP = {
    f"{prefix}positional_embedding": prefix
    for prefix in (
        "cond_stage_model.model.", "conditioner.embedders.1.model.",
        "conditioner.embedders.0.model.",
    )
}  # fmt: skip
# The first tower's projection in Stable Diffusion 3's files, the unit matrix in published ones
# (diffusers.loaders.single_file_utils.create_diffusers_clip_model_from_ldm)
UNIT = "text_encoders.clip_l.transformer.text_projection.weight"
# Networks that are half of a published one: the names of the other half
OTHER_HALF = {
    "CLIPTextModel": re.compile(r"vision_model\.|visual_projection\.|text_projection\."),
    "CLIPTextModelWithProjection": re.compile(r"vision_model\.|visual_projection\."),
    "T5EncoderModel": re.compile(r"decoder\.|lm_head\."),
}
# Names in folders → names in the networks of today
RENAMED = (
    (r"^text_model\.", ""),
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."), (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)  # fmt: skip


def check(lock: ModelLock, pipeline: Any, with_vae: bool) -> None:
    """Compare the tensors of a model's files with its networks. Loads nothing.

    Raises RequestError, which names the file and the tensors, where one is missing, of another
    shape, or has no place, and where numbers are quantised with scales.
    """
    index = resolve.read_json(lock.configs, "model_index.json")
    accepted = set(inspect.signature(pipeline.__init__).parameters)
    networks: dict[str, Any] = {}
    held: dict[str, Shapes] = {}
    whole = _held(lock, "") if lock.main.single else {}
    for part, value in index.items():
        named = isinstance(value, list) and len(value) == 2 and all(value)
        if not named or part not in accepted or part in lock.family.absent:
            continue
        if part == lock.family.vae and (lock.family.refines or not (with_vae or lock.main.single)):
            continue
        if part not in lock.spec.parts:
            tensors = whole or _held(lock, part)
            network = configs.network(lock, part, value, configs.folder(lock, part), tensors)
            if network is not None:
                networks[part], held[part] = network, tensors
    present = {*networks, *lock.parts}
    for need in (lock.family.denoiser, "text_encoder"):
        if not any(part.startswith(need) for part in present):
            raise RequestError(
                f"{_owner(lock, lock.configs)} has no {need} in its model_index.json: name it in"
                " the `parts` of a catalogue entry, or download the model again"
            )
    if whole:
        _check_file(_owner(lock, lock.main), whole, networks, accepted)
        if UNIT in whole and "text_encoder" in networks:
            _check_unit(_owner(lock, lock.main), resolve.fetch(lock.main))
    else:
        for part, network in networks.items():
            _check_folder(_owner(lock, lock.main), held[part], part, network)
    for part, part_lock in lock.parts.items():
        if with_vae or part != lock.family.vae:
            check_part(lock, part, part_lock, index.get(part))


def check_vae(lock: ModelLock) -> None:
    """The same for the VAE alone."""
    vae = lock.family.vae
    if vae in lock.parts:
        check_part(lock, vae, lock.parts[vae], None)
        return
    owner, held = _owner(lock, lock.main), _held(lock, vae)
    network = configs.network(lock, vae, None, configs.folder(lock, vae), held)
    if lock.main.single:
        _used(owner, vae, _converted(owner, vae, network, held), _shapes(network), held)
    else:
        _check_folder(owner, held, vae, network)


def check_part(lock: ModelLock, part: str, source: Lock, indexed: Any) -> None:
    """The same for a part that replaces the model's own; its errors name the part's file."""
    owner = f"Part {part!r} of model {lock.name!r} does not load from {source.ref!r}: it"
    held = _shapes_in(owner, source, "")
    folder = resolve.fetch(lock.configs) / part if source.single else resolve.fetch(source)
    network = configs.network(lock, part, indexed, folder, held)
    if network is None:
        return
    if not source.single:
        _check_folder(owner, held, part, network)
        return
    expected = _shapes(network)
    if len(expected.keys() & held.keys()) * 2 >= len(expected):  # in the names of diffusers
        _missing(owner, part, expected, held)
        _unread(owner, held.keys() - expected.keys())
        return
    converted = _converted(owner, part, network, held)
    _unread(owner, held.keys() - _used(owner, part, converted, expected, held))


def _owner(lock: ModelLock, source: Lock) -> str:
    return f"Model {lock.name!r} does not load from {source.ref!r}: it"


def _held(lock: ModelLock, part: str) -> Shapes:
    """The tensors of a part's folder, or those of a single file."""
    return _shapes_in(_owner(lock, lock.main), lock.main, "" if lock.main.single else f"{part}/")


def _shapes_in(owner: str, source: Lock, within: str) -> Shapes:
    """The tensors of a single file, or of those files of a folder that a loader reads. Raises
    RequestError for numbers that are no weights."""
    path = resolve.fetch(source)
    shapes: dict[str, tuple[int, ...]] = {}
    names = [""] if source.single else folders.weights(source.files, source.variant, within)
    for name in names:
        tensors = header.read(path / name)
        header.check_numbers(owner, tensors)
        shapes |= checkpoints.shapes_of(owner, tensors)
    return shapes


def _shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _check_folder(owner: str, held: Shapes, part: str, network: torch.nn.Module) -> None:
    """The weights of a part's folder, in one file or several, against its network. The other half
    of a whole CLIP or T5 is not needed."""
    other = OTHER_HALF.get(type(network).__name__)
    if other:
        held = {name: shape for name, shape in held.items() if not other.match(name)}
    held = {_renamed(name): shape for name, shape in held.items()}
    expected = {_renamed(name): shape for name, shape in _shapes(network).items()}
    for name in _tied(network) - held.keys():
        expected.pop(name, None)
    _missing(owner, part, expected, held)
    _unread(owner, held.keys() - expected.keys())


def _check_file(
    owner: str, held: Shapes, networks: Mapping[str, torch.nn.Module], accepted: Iterable[str]
) -> None:
    """A single file against all networks that are made of it. Tensors of parts that come from
    elsewhere, or are left out, are not counted."""
    used: set[str] = set()
    for part, network in networks.items():
        converted = _converted(owner, part, network, held)
        used |= _used(owner, part, converted, _shapes(network), held)
    elsewhere: tuple[str, ...] = ()
    for part in set(PREFIXES) - networks.keys():
        if part in accepted:
            elsewhere += PREFIXES[part]
    _unread(owner, {name for name in held if not name.startswith(elsewhere)} - used)


def _check_unit(owner: str, path: Path) -> None:
    """Raise RequestError for a projection that is not the unit matrix that the loader takes for
    it."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        projection = file.get_tensor(UNIT).float()
    unit = torch.eye(*projection.shape) if projection.ndim == 2 else torch.empty(0)
    if projection.shape != unit.shape or not torch.allclose(projection, unit, atol=1e-3):
        raise RequestError(
            f"{owner} holds {UNIT!r}, which is not the unit matrix of Stable Diffusion 3 and would"
            " not be read: give its text_encoder as a folder in the `parts` of a catalogue entry"
        )


def _converted(
    owner: str, part: str, network: torch.nn.Module, held: Shapes
) -> dict[str, torch.Tensor]:
    """A single file's tensors of a part, under the network's names, as diffusers converts them."""
    from diffusers.loaders import single_file_utils as convert

    traced = traced_tensors(held)
    kind = type(network).__name__
    try:
        if part.startswith("text_encoder"):
            return _converted_tower(network, traced)
        if kind == "UNet2DConditionModel":
            return convert.convert_ldm_unet_checkpoint(traced, network.config)
        if kind == "SD3Transformer2DModel":
            return convert.convert_sd3_transformer_checkpoint_to_diffusers(traced)
        return convert.convert_ldm_vae_checkpoint(traced, network.config)
    except (KeyError, IndexError, RuntimeError, AttributeError, TypeError) as error:
        raise RequestError(
            f"{owner} lacks tensors of its {part}, or has them in another shape ({error}):"
            " download it again"
        ) from error


def _converted_tower(network: Any, traced: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A text encoder's tensors under the network's names: {} where the file holds none of its
    width."""
    import torch
    from diffusers.loaders import single_file_utils as convert

    if type(network).__name__.startswith("T5"):
        return convert.convert_sd3_t5_checkpoint_to_diffusers(traced)
    wrapped = hasattr(network, "text_model")
    text = network.text_model if wrapped else network
    width = text.embeddings.position_embedding.weight.shape[-1]
    tower: dict[str, torch.Tensor] = {}
    for mark, prefix in {**CLIP, **OPEN_CLIP}.items():
        if mark not in traced or traced[mark].shape[-1] != width:
            continue
        if mark in CLIP:
            tower = convert.convert_ldm_clip_checkpoint(traced, prefix)
            tower = {name: tower[name] for name in tower if prefix + name in traced}
        else:
            tower = convert.convert_open_clip_checkpoint(network, traced, prefix=prefix)
        if "clip_l" in prefix:
            tower["text_projection.weight"] = torch.empty(width, width, device="meta")
        break
    if wrapped:
        return tower
    return {name.removeprefix("text_model."): value for name, value in tower.items()}


def _used(
    owner: str, part: str, converted: Mapping[str, torch.Tensor], expected: Shapes, held: Shapes
) -> set[str]:
    """The names of a file that a part's tensors are made of. Raises RequestError where a tensor is
    missing or of another shape, and where the conversion drops some of a tensor's numbers."""
    _missing(owner, part, expected, converted)
    numbers: Counter[str] = Counter()
    for name in expected:
        for source in getattr(converted[name], "sources", ()):
            numbers[source] += converted[name].numel()
    for source, count in numbers.items():
        if count != prod(held[source]):
            raise RequestError(
                f"{owner} holds {quoted(source)} of its {part} in shape {list(held[source])}, of"
                f" which the network takes {count} numbers: they do not belong together"
            )
    return set(numbers)


def _renamed(name: str) -> str:
    for pattern, now in RENAMED:
        name = re.sub(pattern, now, name)
    return name


def _tied(network: Any) -> set[str]:
    """Names of tensors that a network shares with others of its own, so that files leave them
    out."""
    tied = getattr(network, "_tied_weights_keys", None) or ()
    return {_renamed(name) for name in tied}


def _missing(owner: str, part: str, expected: Shapes, held: Mapping[str, Any]) -> None:
    """Raise RequestError where an expected tensor is missing or of another shape."""
    if missing := sorted(expected.keys() - held.keys()):
        what = f"{len(missing)} of the {len(expected)} tensors of its {part}"
        if len(missing) == len(expected):
            what = f"its {part}, all {len(expected)} tensors"
        raise RequestError(f"{owner} lacks {what}, such as {quoted(missing[0])}: download it again")
    for name, shape in expected.items():
        own = tuple(getattr(held[name], "shape", held[name]))
        if own != shape:
            raise RequestError(
                f"{owner} holds {quoted(name)} of its {part} in shape {list(own)}, and the config"
                f" expects {list(shape)}: they do not belong together"
            )


def _unread(owner: str, names: Iterable[str]) -> None:
    """Raise RequestError for tensors that nothing uses, harmless ones apart."""
    if unread := sorted(name for name in names if not HARMLESS.search(name)):
        examples = ", ".join(map(quoted, unread[:2]))
        raise RequestError(
            f"{owner} holds {len(unread)} tensors that none of its networks has a place for, such"
            f" as {examples}: the file is of another kind of model"
        )
