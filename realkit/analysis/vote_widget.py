"""Blind votes in a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from realkit.analysis.metrics import column_names
from realkit.analysis.trials import TRIALS, Trial, picture_id, trials
from realkit.analysis.vote_page import embedded
from realkit.runs.folder import read
from realkit.runs.store import Store


class VoteWidget:
    """Shows one pair after another, and appends each choice to the folder's votes at once."""

    def __init__(self, store: Store, pictures: dict[str, Path], ballot: Sequence[Trial]) -> None:
        """`pictures` is the file of each picture's id."""
        from ipywidgets import HTML, Button, HBox, Label, Layout, Text, VBox

        self._store, self._pictures, self._left_to_do = store, pictures, list(ballot)
        self._done = 0
        self._images = HTML(), HTML()
        # A Label would set what is between two dollars as mathematics.
        self._prompt, self._progress = HTML(), Label()
        self.voter = Text(description="Voter", placeholder="name or initials")
        half = Layout(width="50%")
        for image in self._images:
            image.layout = half
        self.buttons = {}
        for side, label in (("left", "← left"), ("tie", "no difference"), ("right", "right →")):
            self.buttons[side] = Button(description=label)
            self.buttons[side].on_click(lambda _, side=side: self.choose(side))
        choices = HBox(list(self.buttons.values()))
        self.widget = VBox([self.voter, self._prompt, HBox(self._images), choices, self._progress])
        self._show()

    def choose(self, side: str) -> None:
        """Cast a vote for "left", "right" or "tie"; nothing without a voter's name."""
        voter = self.voter.value.strip()
        if not voter:
            self._progress.value = "Give a name or initials first."
            return
        if not self._left_to_do:
            return
        trial = self._left_to_do.pop(0)
        right = {"a": "b", "b": "a"}[trial.left]
        vote = {"a": trial.a, "b": trial.b, "left": trial.left, "prompt": trial.prompt}
        choice = {"left": trial.left, "right": right, "tie": "tie"}[side]
        self._store.add_votes([vote | {"choice": choice, "voter": voter[:80], "at": time.time()}])
        self._done += 1
        self._show()

    def _show(self) -> None:
        if not self._left_to_do:
            self._prompt.value, self._progress.value = "", f"Thank you: {self._done} votes."
            for image in self._images:
                image.value = ""
            return
        trial = self._left_to_do[0]
        right = {"a": trial.b, "b": trial.a}[trial.left]
        left = trial.a if trial.left == "a" else trial.b
        for image, name in zip(self._images, (left, right), strict=True):
            image.value = f'<img style="width: 100%" src="{embedded(self._pictures[name])}">'
        self._prompt.value = f"<b>{escape(trial.prompt)}</b>"
        self._progress.value = f"{self._done + 1} of {self._done + len(self._left_to_do)}"


def vote(folder: str | Path, by: str | Sequence[str], count: int = TRIALS, seed: int = 0) -> Any:
    """A notebook widget that shows two pictures of one prompt, names hidden and sides shuffled, and
    keeps each choice in the folder's votes.jsonl.

    The pairs differ in `by` alone. `realkit vote` makes the same as a page with keys, for several
    voters. Raises RequestError where no two pictures can be paired.
    """
    run = read(folder)
    df = run.table()
    names = column_names("by", by)
    pictures = {picture_id(name): run.folder / name for name in df["image"].dropna()}
    return VoteWidget(run.store, pictures, trials(df, names, count, seed=seed)).widget
