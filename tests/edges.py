"""Every public function and every verb with right and wrong arguments at random, with figures:
`python -m tests.edges [N [NAME …]]`.

N inputs in all (500 by default), spread evenly. Each is right, or ends in one RequestError line, of
a command with exit code 1 or 2. Anything else is a fault: another exception, a line that nobody
foresaw, more than 10 s of work or 90 s in all, more than 1.5 GiB more of memory, a file that shows
that code was run. The exit code is 1 where there was one.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from realkit.base.errors import RequestError, Unforeseen
from tests import edge_functions, edge_verbs, edge_world
from tests.edge_functions import Edge
from tests.edge_verbs import Verb
from tests.edge_world import World

SLOWEST_S = 10  # of one core
HANGS_S = 90  # of the clock, after which an input is interrupted
MEMORY = 3 * 2**29  # bytes that an input may add to the largest so far
OPTIONS = ("--nothing", "-x", "--", "--out", "--by", "--to")
ADDRESS_SPACE = 12 * 2**30


class Hangs(BaseException):
    """An input that does not end."""


@dataclass
class Figures:
    """What became of the inputs of a function or verb."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)  # the first input of each
    slowest: float = 0.0  # seconds of work
    grown: int = 0  # most bytes that an input added to the largest memory so far


@st.composite
def arguments(draw: Any, edge: Edge, world: World, small: bool) -> dict[str, Any]:
    """Right arguments of which up to two are replaced or left out."""
    given = {name: draw(st.sampled_from(right)) for name, right in edge.right.items()}
    others = edge_world.values(world)
    most = draw(st.sampled_from((0, 0, 1, 1, 2)))
    wrong = draw(st.lists(st.sampled_from(sorted(given)), max_size=most, unique=True))
    if edge.gate and (small or draw(st.integers(0, 59))):
        wrong = [*wrong, edge.gate]
    for name in wrong:
        how = draw(st.integers(0, 11))
        if how == 0 and name != edge.gate:
            given.pop(name, None)
        elif how == 1 and name != edge.gate:
            given[name] = [draw(st.sampled_from(others)), given.get(name)]
        else:
            given[name] = draw(st.sampled_from(others))
    if draw(st.integers(0, 29)) == 0:
        given["nonsense"] = 1
    return given


@st.composite
def words(draw: Any, verb: Verb, world: World, small: bool) -> list[str]:
    """Right words of which up to two are replaced, left out or added."""
    line, others = list(verb.words), edge_world.texts(world)
    for place, right in verb.right.items():
        line[place] = draw(st.sampled_from([line[place], *right]))
    if verb.gate is not None and (small or draw(st.integers(0, 59))):
        line[verb.gate] = draw(st.sampled_from(others))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        how, at = draw(st.integers(0, 9)), draw(st.integers(0, max(0, len(line) - 1)))
        if how == 0 and line:
            del line[at]
        elif how == 1:
            line.insert(at, draw(st.sampled_from(others)))
        elif how == 2:
            line.insert(
                at, draw(st.sampled_from(["--nothing", "-x", "--", "--out", "--by", "--to"]))
            )
        elif line:
            line[at] = draw(st.sampled_from(others))
    return [word.replace("\0", "") for word in line]  # no shell can say it


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANGS_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _call(edge: Edge, given: dict[str, Any]) -> str:
    """What became of a call: "right", "refused", or a fault's words."""
    try:
        result = edge.call(**given)
    except Unforeseen as error:
        return f"not foreseen: {str(error)[:160]}"
    except RequestError as error:
        plain = 0 < len(str(error)) <= 2000 and "\n" not in str(error)
        return "refused" if plain else f"a line of {len(str(error))} characters"
    except Exception as error:
        return _raw(error)
    return "right" if edge.judge(given, result) else f"a wrong result: {result!r}"[:160]


def _raw(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:100]}"


def _invoke(name: str, line: list[str]) -> str:
    ended = edge_verbs.invoked([*name.split(), *line])
    if ended.raised is None and ended.code == 0:
        return "right"
    if ended.raised is not None:
        return _raw(ended.raised)  # type: ignore[arg-type]
    problem = edge_verbs.in_one_line(ended)
    doctor = name == "doctor" and ended.code == 1 and not ended.err
    return problem[:200] or ("right" if doctor else f"refused, exit code {ended.code}")


def attempt(figures: Figures, world: World, of: Edge | Verb, name: str, given: Any) -> None:
    """Try one input, and note what became of it."""
    began, before = time.process_time(), _peak()
    place = Path.cwd()
    try:
        with alarm(), contextlib.redirect_stdout(io.StringIO()) as _, quiet():
            end = _call(of, given) if isinstance(of, Edge) else _invoke(name, given)
    except Hangs:
        end = f"it takes more than {HANGS_S} s"
    seconds, grown = time.process_time() - began, _peak() - before
    figures.slowest, figures.grown = max(figures.slowest, seconds), max(figures.grown, grown)
    os.chdir(place)
    if end.startswith(("right", "refused")):
        if world.ran_code():
            Path(os.environ[edge_world.MARK]).unlink()
            end = "it ran code"
        elif grown > MEMORY:
            end = f"it takes {grown / 2**30:.1f} GiB more"
        elif seconds > SLOWEST_S and (of.gate is None or end != "right"):
            end = f"it takes {seconds:.0f} s"
    known = end.startswith(("right", "refused"))
    figures.counts[end if known else "faults"] += 1
    if not known:
        figures.faults.setdefault(end, _shown(given))


def _shown(given: Any) -> str:
    try:
        return " ".join(repr(given).split())[:400]
    except Exception as error:
        return f"a value whose repr raises {type(error).__name__}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, and without what progress bars and notices write."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def edges(world: World) -> dict[str, Edge | Verb]:
    """Every function, as rk.NAME, and every verb."""
    functions = {f"rk.{name}": edge for name, edge in edge_functions.functions(world).items()}
    return functions | edge_verbs.verbs(world)


def examine(name: str, of: Edge | Verb, world: World, count: int, small: bool) -> Figures:
    """Try `count` inputs: in the small run the same each time, and nothing that takes seconds."""
    figures = Figures()
    made = arguments(of, world, small) if isinstance(of, Edge) else words(of, world, small)

    @settings(
        max_examples=count,
        derandomize=small,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(made)
    def run(given: Any) -> None:
        attempt(figures, world, of, name, given)

    run()
    return figures


@contextlib.contextmanager
def prepared(place: Path) -> Iterator[World]:
    """The world in a folder, which is the working folder too; then the environment as it was."""
    before, here = dict(os.environ), Path.cwd()
    work = place / "work"
    work.mkdir()
    try:
        world = edge_world.world(place)
        os.environ["REALKIT_CATALOG"] = str(place)
        os.chdir(work)
        yield world
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def line(name: str, figures: Figures, seconds: float) -> str:
    counts = figures.counts
    ended = [f"{counts[f'refused, exit code {code}']} with {code}" for code in (1, 2)]
    of_verb = "" if name.startswith("rk.") else f" ({', '.join(ended)})"
    refused = sum(count for key, count in counts.items() if key.startswith("refused"))
    return (
        f"{name:<32} {counts.total():5} inputs: {counts['right']:4} right, {refused:4}"
        f" refused{of_verb}, {counts['faults']} faults, longest {figures.slowest:.2f} s,"
        f" memory +{figures.grown / 2**20:.0f} MiB, {seconds:.0f} s in all"
    )


def main(count: int, wanted: list[str]) -> int:
    import torch  # noqa: F401  imported here, so that no input's memory counts it

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    total: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder)) as world:
        every = edges(world) | {"model(…)": edge_functions.model()}
        edge_functions.extend(every, world)
        chosen = {name: of for name, of in every.items() if not wanted or name in wanted}
        for name, of in chosen.items():
            began = time.process_time()
            figures = examine(name, of, world, -(-count // len(chosen)), small=False)
            print(line(name, figures, time.process_time() - began), flush=True)
            for what, value in figures.faults.items():
                print(f"    {what}\n        {value}", flush=True)
            total += figures.counts
            slowest = max(slowest, figures.slowest)
    ends = ", ".join(f"{number} {what}" for what, number in sorted(total.items()))
    print(
        f"{total.total()} inputs: {ends}; longest {slowest:.2f} s, peak {_peak() / 2**30:.2f} GiB"
    )
    return 1 if total["faults"] else 0


if __name__ == "__main__":
    sys.exit(main(int(*sys.argv[1:2] or [500]), sys.argv[2:]))
