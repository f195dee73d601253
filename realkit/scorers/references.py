"""The references of a scorer's entry: the weights that its engine reads, by part; their locks, and
their files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from realkit.base import device
from realkit.base.errors import RequestError, one_line, shown
from realkit.scorers.table import Scorer
from realkit.weights import pickles, resolve
from realkit.weights.folders import PICKLED, WEIGHTS, ends
from realkit.weights.lock import SINGLE, Lock
from realkit.weights.reference import parse
from realkit.weights.sources import disk

if TYPE_CHECKING:
    import torch

SOURCE = "source"  # the part that every entry has
UNREAD = "position_ids"  # of older files: positions 0, 1, 2, … that networks now make themselves

# What a part is: one file of weights, published pickled or not; a folder with configs and weights;
# of such a folder the configs alone; a folder of open_clip's, where open_clip does not fetch what
# the source names; a file, where the package does not fetch its own.
Kind = Literal["file", "folder", "configs", "open_clip", "file?"]
Locks = Mapping[str, Lock]


def check(name: str, entry: Scorer, kinds: Mapping[str, Kind]) -> None:
    """Raise RequestError for an entry whose parts are not those that its engine reads."""
    expected = set(kinds) - {SOURCE}
    if set(entry.parts) != expected:
        raise RequestError(
            f"Scorer {name!r} has the parts {shown(sorted(entry.parts))}: expected"
            f" {shown(sorted(expected))}"
        )


def lock(
    name: str, entry: Scorer, kinds: Mapping[str, Kind], before: Locks | None = None
) -> dict[str, Lock]:
    """The locks of an entry's weights, by part; a part that a package fetches by itself has none.

    Of the locks made `before`, those of a network still hold where they are of the same reference.
    Raises RequestError, which names the scorer, for weights that are missing or of another kind.
    """
    locks = {}
    for part, kind in kinds.items():
        text = entry.parts[part] if part != SOURCE else entry.source
        sha256 = entry.sha256 if part == SOURCE else ""
        try:
            locked = _lock(text, kind, sha256, (before or {}).get(part))
        except RequestError as error:
            raise RequestError(f"Scorer {name!r}: {error}") from None
        if locked:
            locks[part] = locked
    return locks


def _lock(text: str, kind: Kind, sha256: str, before: Lock | None) -> Lock | None:
    here = disk.local(text) if text else None
    if not here and (kind == "open_clip" or not text):
        return None
    ref = parse(text)
    pinned = {SINGLE: sha256} if sha256 else None
    if before and not here and before.ref == str(ref) and pinned in (None, before.files):
        return before
    single = kind in ("file", "file?")
    if pinned and not here and ref.kind in ("url", "hub"):  # nothing is left to look up
        return Lock(str(ref), ref.kind, ref.revision, files=pinned)
    with pickles.reading_pickles() if single else nullcontext():
        locked = resolve.lock(text, weights=True)
    if locked.single != single:
        expected = "one file of weights" if single else "a folder with its configs"
        raise RequestError(f"{text!r} is of the wrong kind: expected {expected}")
    if sha256 and locked.files[SINGLE] != sha256:
        raise RequestError(
            f"{text!r} does not have the published SHA-256 {sha256[:12]}…: download it again"
        )
    return _without_weights(locked) if kind == "configs" else locked


def _without_weights(locked: Lock) -> Lock:
    heavy = WEIGHTS + PICKLED
    files = {file: sha for file, sha in locked.files.items() if not ends(file, heavy)}
    return replace(locked, files=files)


def fetch(name: str, locked: Lock) -> Path:
    """The files of a lock: a folder, or one .safetensors file. Raises RequestError, which names the
    scorer."""
    try:
        with pickles.reading_pickles():
            return resolve.fetch(locked)
    except RequestError as error:
        raise RequestError(f"Scorer {name!r}: {error}") from None


def tensors(name: str, locked: Lock) -> dict[str, torch.Tensor]:
    """The tensors of a locked file, without those that no network reads any more."""
    from safetensors.torch import load_file

    loaded = load_file(fetch(name, locked))
    return {key: value for key, value in loaded.items() if not key.endswith(UNREAD)}


def fill(name: str, network: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    """The network with these weights: float32, on the default device, for inference. Raises
    RequestError, which names the scorer, unless names and shapes are the network's own."""
    own = network.state_dict()
    wrong = {key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape}
    refuse(name, own.keys() - weights.keys(), weights.keys() - own.keys(), wrong)
    network.load_state_dict(weights)
    return network.float().eval().to(device.default_device())


def pretrained(name: str, auto: Any, locked: Lock) -> Any:
    """A network of transformers, as `fill` leaves it; `auto` is one of its classes."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # what it would warn of is refused below
    logging.disable_progress_bar()
    folder = fetch(name, locked)
    try:
        network, report = auto.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # a config or a file may be wrong in many ways
        raise RequestError(
            f"Scorer {name!r} cannot load its weights ({locked.ref}): {one_line(error, 200)}"
        ) from error
    unread = {key for key in report["unexpected_keys"] if not key.endswith(UNREAD)}
    wrong = {str(key[0]) for key in report["mismatched_keys"]}
    refuse(name, set(report["missing_keys"]), unread, wrong)
    return network.eval().to(device.default_device())


def refuse(name: str, missing: set[str], unread: set[str], wrong: set[str]) -> None:
    """Raise RequestError where weights are not the network's own, with one tensor of each kind."""
    faults = []
    for tensors, fault in ((missing, "lack"), (unread, "also hold"), (wrong, "have other shapes:")):
        if tensors:
            faults.append(f"{fault} {min(tensors)!r} ({len(tensors)} in all)")
    if faults:
        raise RequestError(
            f"Scorer {name!r}: its weights {', '.join(faults)}: take the published ones"
        )
