"""What the looks of a race decided: which arms are out, and which cells are not needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from realkit.runs.store import Store

Arm = tuple[Any, ...]  # a value of each raced axis
Record = dict[str, Any]


class Looks:
    """The state of one race after the looks that decisions.jsonl records. One without new prompts
    was taken again, because cells that had failed were made."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records: list[Record] = []
        self.prompts: list[str] = []  # that were made for the looks, in their order
        self.contrasts: dict[tuple[Arm, Arm], Record] = {}  # the decision, or the last look's state
        self.live: list[Arm] = []  # arms that the next look needs; none before the first
        self.out: set[Arm] = set()  # arms whose contrasts are all decided
        self._played: dict[Arm, set[str]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take up the next look."""
        contrasts = {}
        for contrast in record["contrasts"]:
            contrasts[_arm(contrast["a"]), _arm(contrast["b"])] = contrast
        arms = dict.fromkeys(chain.from_iterable(contrasts))
        self.prompts += record["prompts"]
        for arm in self.live if self.records else arms:
            self._played.setdefault(arm, set()).update(self.prompts)
        self.records.append(record)
        self.contrasts |= contrasts
        # An arm without a single pair can decide nothing: it keeps no other in the race.
        met = [pair for pair in self.open() if self.contrasts[pair]["n_pairs"]]
        self.live = list(dict.fromkeys(chain.from_iterable(met)))
        self.out = self._played.keys() - set(chain.from_iterable(self.open()))

    @property
    def rounds(self) -> list[Record]:
        """The looks that ended a round of prompts."""
        return [record for record in self.records if record["prompts"]]

    def open(self) -> list[tuple[Arm, Arm]]:
        """The contrasts that are undecided."""
        return [pair for pair, last in self.contrasts.items() if last["verdict"] == "undecided"]

    def played(self, arm: Arm, prompt: str) -> bool:
        """Whether a look saw the cells of an arm and a prompt."""
        return prompt in self._played.get(arm, ())

    def spares(self, arm: Arm, prompt: str) -> bool:
        """Whether cells are not needed: all contrasts of their arm were decided without them."""
        return arm in self.out and not self.played(arm, prompt)


def arm_of(settings: Mapping[str, Any], by: Iterable[str]) -> Arm:
    """The arm of a cell's settings."""
    return tuple(settings.get(axis) for axis in by)


def races(store: Store) -> dict[str, Looks]:
    """The races of a folder, by name."""
    found: dict[str, Looks] = {}
    for record in store.looks.read():
        found.setdefault(record["race"], Looks([])).add(record)
    return found


def spared(store: Store) -> dict[str, set[str]]:
    """The ids of the cells that each race of a folder decided without."""
    found: dict[str, set[str]] = {}
    for race, looks in races(store).items():
        by, names = looks.records[0]["by"], set()
        for record in store.cells.read():
            if looks.spares(arm_of(record["cell"], by), record["cell"]["prompt"]):
                names.add(record["id"])
        found[race] = names
    return found


def _arm(settings: Mapping[str, Any]) -> Arm:
    return tuple(settings.values())
