"""A race: rounds of prompts with all arms that are still in it, and a look after each."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import TYPE_CHECKING, Any

from realkit.base import racing
from realkit.base.errors import RequestError, shown
from realkit.models.identity import name_of
from realkit.models.spec import ModelSpec
from realkit.runs.jobs import Planned
from realkit.runs.looks import Arm, Looks, Record, arm_of
from realkit.runs.stopping import Stop
from realkit.runs.store import Store
from realkit.runs.table import build
from realkit.sweeps import cost
from realkit.sweeps.cell import Cell

if TYPE_CHECKING:
    import pandas as pd

# (table of the cells so far, contrasts of two arms by their settings, confidence) → the contrasts,
# judged: records.Contrast, in the same order
Judge = Callable[["pd.DataFrame", Sequence[tuple[Record, Record]], float], list[Record]]


@dataclass(frozen=True)
class Race:
    """What a race decides: the values of `by`, on `metric`, as `judge` says."""

    by: tuple[str, ...]
    metric: str
    judge: Judge


class Rounds:
    """The rounds of a race in a results folder. The order of prompts is drawn by their hash: that
    of a suite goes by subject, and its first prompts are no sample of it.

    Raises RequestError where looks were taken at prompts that the sweep lacks.
    """

    def __init__(
        self, race: Race, cells: Sequence[Cell], specs: Mapping[str, ModelSpec], store: Store
    ) -> None:
        self.name = _name(race, cells)
        self._race, self._store = race, store
        self._looks = Looks(line for line in store.looks.read() if line["race"] == self.name)
        prompts = dict.fromkeys(cell.prompt for cell in cells)
        self._count = len(prompts)
        arms = dict.fromkeys(arm_of(vars(cell), race.by) for cell in cells)
        self._contrasts = list(combinations(arms, 2))
        if gone := [prompt for prompt in self._looks.prompts if prompt not in prompts]:
            raise RequestError(
                f"The race in {str(store.folder)!r} looked at the prompt {shown(gone[0])}, which"
                " the sweep lacks: put it back, or race in another folder"
            )
        numbers = [record["look"] for record in self._looks.records]
        if numbers != list(range(1, len(numbers) + 1)):
            raise RequestError(
                f"{str(store.looks.path)!r} lacks a look of this race: restore the file, or race in"
                " another folder; what a look has cost of the error rate cannot be known without it"
            )
        self._blocks = [record["prompts"] for record in self._looks.rounds]
        self._plan(prompts, cells, specs)

    def _plan(
        self, prompts: Iterable[str], cells: Sequence[Cell], specs: Mapping[str, ModelSpec]
    ) -> None:
        """Divide the prompts to come among looks. Looks that were taken when the sweep had as many
        prompts belong to this plan; those before used up a part of the error rate."""
        records = self._looks.records
        same = takewhile(lambda record: record["planned"] == self._count, reversed(records))
        before = records[: len(records) - len(list(same))]
        done = sum(len(record["prompts"]) for record in before)
        spent = sum(1 - record["confidence"] for record in before)
        for growth in racing.GROWTHS:
            ends = racing.looks(self._count, done, growth)
            if cost.rounds_pay(cells, specs, len(ends)):
                break
        self._confidence = racing.confidence(max(1, len(ends)), spent)
        seen = set(self._looks.prompts)
        rest = sorted((prompt for prompt in prompts if prompt not in seen), key=_hash)
        start = len(seen)
        taken = len(self._blocks) - sum(bool(record["prompts"]) for record in before)
        for end in ends[taken:]:
            self._blocks.append(rest[: end - start])
            rest, start = rest[end - start :], end
        self._round_of: dict[str, int] = {}
        for number, block in enumerate(self._blocks):
            self._round_of |= dict.fromkeys(block, number)

    def part(self, cell: Cell) -> tuple[Any, ...]:
        """What cells of one batch share: no batch belongs to two rounds, or to two arms."""
        raced = cell.negative if "negative" in self._race.by else None
        return self._round_of[cell.prompt], raced

    def run(
        self, planned: list[Planned], do: Callable[[list[Planned]], None], stop: Stop, run: str
    ) -> None:
        """Do the rounds until all contrasts are decided or no prompts are left. `do` makes cells;
        `run` is the run's name. Cells of earlier looks that are lost or failed are made again, and
        looked at again where nothing else would; what was decided stands."""
        arms = {item.id: arm_of(vars(item.cell), self._race.by) for item in planned}

        def seen(item: Planned) -> bool:
            return self._looks.played(arms[item.id], item.cell.prompt)

        if self._looks.records:
            before = self._store.rows.path.stat().st_size
            do(part := list(filter(seen, planned)))
            if not stop.reason and self._store.rows.path.stat().st_size > before:
                self._look_again(part, planned, run)
        for block in self._blocks[len(self._looks.rounds) :]:
            if stop.reason or (self._looks.records and not self._looks.live):
                return
            live, reached = set(self._looks.live or arms.values()), {*self._looks.prompts, *block}
            part = []
            for item in planned:
                if item.cell.prompt in reached and arms[item.id] in live:
                    part.append(item)
            do(part)
            if not stop.reason:
                self._look([*filter(seen, planned), *part], block, planned, run)

    def _look(
        self, part: list[Planned], block: list[str], planned: list[Planned], run: str
    ) -> None:
        """Judge the open contrasts on these cells, and record what is decided."""
        self._record(self._judged(part, planned, self._confidence), self._confidence, block, run)

    def _look_again(self, part: list[Planned], planned: list[Planned], run: str) -> None:
        """Judge the open contrasts again where cells that failed have been made since, and no later
        look would see them: at the last prompts, or of an arm that had nothing to be paired. It
        spends half of the error rate that no look to come needs."""
        contrasts = self._looks.open()
        if not contrasts:
            return
        to_come = len(self._blocks) - len(self._looks.rounds)
        spent = sum(1 - record["confidence"] for record in self._looks.records)
        left = 1 - racing.CONFIDENCE - spent - to_come * (1 - self._confidence)
        confidence = 1 - left / 2
        judged = self._judged(part, planned, confidence)
        for pair, contrast in zip(contrasts, judged, strict=True):
            before = self._looks.contrasts[pair]["n_pairs"]
            if contrast["n_pairs"] > before and not (to_come and before):
                self._record(judged, confidence, [], run)
                return

    def _judged(
        self, part: list[Planned], planned: list[Planned], confidence: float
    ) -> list[Record]:
        """The open contrasts, all before the first look, as these cells show them."""
        frame = build(self._store, {item.id: (self._race.metric,) for item in planned})
        table = self._with_arms(frame[frame["cell"].isin({item.id for item in part})], planned)
        contrasts = self._looks.open() if self._looks.records else self._contrasts
        asked = [(self._settings(a), self._settings(b)) for a, b in contrasts]
        return self._race.judge(table, asked, confidence)

    def _record(self, judged: list[Record], confidence: float, block: list[str], run: str) -> None:
        record = {
            "race": self.name,
            "look": len(self._looks.records) + 1,
            "by": list(self._race.by),
            "metric": self._race.metric,
            "prompts": block,
            "planned": self._count,
            "confidence": confidence,
            "contrasts": judged,
            "run": run,
            "at": round(time.time(), 3),
        }
        self._store.looks.append([record])
        self._looks.add(record)
        done, open_ = len(self._looks.prompts), len(self._looks.open())
        print(
            f"look {record['look']}, {done} of {self._count} prompts:"
            f" {len(self._contrasts) - open_} of {len(self._contrasts)} pairs decided",
            file=sys.stderr,
        )

    def _with_arms(self, table: pd.DataFrame, planned: Iterable[Planned]) -> pd.DataFrame:
        """The table with the raced axes as its cells were asked: rows may say what came of it."""
        import pandas as pd

        cells = {item.id: vars(item.cell) for item in planned}
        table = table.reset_index(drop=True)
        for axis in self._race.by:
            values = [cells[name][axis] for name in table["cell"]]
            table[axis] = pd.Series(values, dtype=object)
        return table

    def _settings(self, arm: Arm) -> Record:
        return dict(zip(self._race.by, arm, strict=True))


def _name(race: Race, cells: Iterable[Cell]) -> str:
    """A race's name: of what it compares, all but the prompts, so that prompts can be added."""
    settings = set()
    for cell in cells:
        others = {name: value for name, value in vars(cell).items() if name != "prompt"}
        settings.add(json.dumps(others, sort_keys=True))
    asked = {"by": race.by, "metric": race.metric, "settings": sorted(settings)}
    return name_of("race", asked)


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()
