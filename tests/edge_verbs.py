"""The verbs of the command line at their edges: right words of each, and what is refused of {wrong
type, missing, empty, read-only, not ours}."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click
from click.testing import CliRunner

from realkit.apps.cli.main import main
from tests.edge_functions import READS, _trials
from tests.edge_world import READ_ONLY, World

NO_INPUT = "it takes no input"


@dataclass
class Verb:
    """A verb: right words, by place (a word that begins with "--" is an option, the rest are its
    values or arguments); trials as in Edge, with the words that replace others by place. A verb
    that is slow when all is right has a `gate`, the place of a word whose wrong values are refused
    at once."""

    words: list[str]
    trials: dict[str, Any]
    codes: tuple[int, ...] = (0,)  # of right words
    gate: int | None = None
    right: dict[int, list[str]] = field(default_factory=dict)  # other right words, by place


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    raised: BaseException | None


def invoked(words: list[str]) -> Ended:
    result = CliRunner().invoke(main, words, prog_name="realkit")
    raised = result.exception if not isinstance(result.exception, SystemExit) else None
    return Ended(result.exit_code, result.stdout, result.stderr, raised)


def names(command: click.Command = main, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every verb of the command line, those of its groups too."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from names(inner, f"{path} {name}".strip())
    else:
        yield path, command


def _of_folder(world: World, at: int = 0) -> dict[str, Any]:
    """The trials of a verb that reads a results folder."""
    return _trials(
        {at: str(world.path("picture.png"))}, {at: str(world.path("nowhere"))},
        {at: str(world.path("nothing"))}, READS, {at: str(world.path("foreign"))},
    )  # fmt: skip


def _of_file(world: World, at: int = 0, out: int | None = None, wrong: str = "") -> dict[str, Any]:
    """The trials of a verb that reads a file and may write to a place."""
    read_only = {out: f"{READ_ONLY}/a.png"} if out is not None else READS
    return _trials(
        {at: wrong or str(world.files["binary"])}, {at: str(world.path("nowhere"))},
        {at: str(world.files["empty"])}, read_only, {at: str(world.path("foreign"))},
    )  # fmt: skip


def verbs(world: World) -> dict[str, Verb]:
    """Every verb, as one types it after `realkit`."""
    run, picture, out = (str(world.path(name)) for name in ("run", "picture.png", "out"))
    sweep, made = str(world.path("sweep.yaml")), str(world.path("made.png"))
    glob = str(world.path("[a]*?.png"))
    keys = str(world.files["keys.yaml"])
    nothing = _trials({0: "--nothing"}, NO_INPUT, {0: ""}, NO_INPUT, NO_INPUT)
    return {
        "run": Verb([sweep, "--out", out, "--device", "cpu"], _of_file(world, out=2, wrong=keys),
                    gate=0),
        "plan": Verb([sweep], _of_file(world, wrong=keys), gate=0),
        "sweep": Verb([sweep, "--out", out], _of_file(world, out=2, wrong=keys), codes=(2,)),
        "generate": Verb(
            ["a red cube", "--model", "rehearsal/turbo", "--steps", "1", "--size", "64", "--out",
             made], _trials({4: "one"}, {2: str(world.path("nowhere.safetensors"))},
             {2: str(world.files["empty.safetensors"])}, {8: f"{READ_ONLY}/a.png"},
             {2: str(world.path("foreign"))}), gate=2, right={0: ["", "猫", "(a:1.2)"], 4: ["2"]},
        ),
        "upscale": Verb([picture, "--with", "lanczos", "--to", "80", "--out", made],
                        _of_file(world, out=6), right={
                            2: ["bicubic", "nearest", "lanczos + bicubic"], 0: [glob],
                            4: ["1", "64x64", "300x20", "49", " 80 "]}),
        "score": Verb([picture, "a red cube", "--scorer", "colour-cast"], _of_file(world),
                      right={0: [glob], 1: ["", "猫", "(a:1.2)", "a\nb"]}),
        "table": Verb([run, "--by", "sampler"], _of_folder(world),
                      right={1: ["--csv"], 2: ["model,sampler", "seed", " steps "]}),
        "compare": Verb([run, "--by", "sampler", "--confidence", "0.9"], _of_folder(world),
                        right={4: ["0.5", "0.99", "9e-1", ".75"]}),
        "info": Verb([picture, "--json"], _of_file(world), right={0: [glob]}),
        "prune": Verb([run, "--latents", "--dry-run"], _of_folder(world)),
        "sets": Verb([run, "--by", "sampler"], _of_folder(world), codes=(2,)),
        "edits": Verb([run, "rehearsal-edits", "--by", "sampler"], _of_folder(world), codes=(2,)),
        "vote": Verb([run, "--by", "sampler", "--count", "2", "--out", f"{out}.html"],
                     _of_folder(world) | {"read-only": {6: f"{READ_ONLY}/v.html"}},
                     right={4: ["1", "7", "500"]}),
        "votes": Verb([run, "--by", "sampler"], _of_folder(world), codes=(2,)),
        "list": Verb(["samplers"], _trials({0: "5"}, {0: "nobody"}, {0: ""}, NO_INPUT, NO_INPUT),
                     right={0: ["models", "upscalers", "scorers", "encoders", "prompts"]}),
        "prompts import": Verb(
            [str(world.path("prompts.txt")), "--name", "mine", "--licence", "unknown", "--replace"],
            _of_file(world), right={2: ["b", "c-d", "e.f"], 4: ["MIT", "Apache-2.0"]},
        ),
        "columns": Verb([], nothing),
        "doctor": Verb(["--json"], nothing, codes=(0, 1), gate=0),
        "kaggle push": Verb(
            ["--sweep", sweep, "--owner", "me", "--dry-run", "--out", out],
            _of_file(world, 1, out=6, wrong=keys), gate=1,
        ),
        "kaggle fetch": Verb(
            ["me/nothing", "--out", out], _trials({0: "nothing"}, {0: "me/"}, {0: ""},
            {2: READ_ONLY}, {0: "../x/y"}), codes=(1, 2), gate=2,
        ),
        "kaggle wheel": Verb(
            ["--out", str(world.place)], _trials({1: picture}, {1: str(world.path("nowhere"))},
            {1: ""}, {1: "/proc"}, NO_INPUT), gate=0,
        ),
    }  # fmt: skip


def replaced(words: list[str], others: dict[int, str]) -> list[str]:
    """The words with some replaced, by place."""
    return [others.get(place, word) for place, word in enumerate(words)] + [
        word for place, word in others.items() if place >= len(words)
    ]


def in_one_line(ended: Ended) -> str:
    """What is wrong with how a command refused; "" where it is one line and a promised code."""
    if ended.raised is not None:
        return f"raised {type(ended.raised).__name__}: {ended.raised}"
    if ended.code not in (1, 2):
        return f"exit code {ended.code}"
    lines = [line for line in ended.err.splitlines() if line.startswith("realkit: ")]
    if len(lines) != 1 or "Traceback" in ended.err:
        return f"stderr is {ended.err[:300]!r}"
    return "not foreseen: " + lines[0] if "please report this line" in lines[0] else ""


def environment_kept() -> dict[str, str]:
    return dict(os.environ)
