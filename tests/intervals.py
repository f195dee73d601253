"""How often intervals and verdicts are right, by simulation: the tables of analysis/coverage.md.

python -m tests.intervals [SAMPLES] > realkit/analysis/coverage.md   # 2,000 samples by default
python -m tests.intervals SAMPLES races >> …   # the part on races alone
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from realkit.analysis.metrics import Metric
from realkit.analysis.verdicts import judged
from realkit.base import racing, statistics
from realkit.base.statistics import family, mean_interval

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
BREAKS = 1 / 6  # the share of prompts in which something goes wrong


def _breaks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0, 1, shape) + 10 * ((rng.random(shape) < BREAKS) - BREAKS)


DRAWS: dict[str, Draw] = {  # each of mean 0
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "exponential": lambda rng, shape: rng.exponential(1, shape) - 1,
    "lognormal": lambda rng, shape: rng.lognormal(0, 1, shape) - math.exp(0.5),
    "one in six breaks": _breaks,
}
COUNTS = (5, 8, 12, 20, 50)
ARMS = 10  # 45 pairs
DECIDING = (6, 8, 12, 20, 50)  # fewer than 6 decide nothing
HEAD = """# How often intervals and verdicts are right

Simulated by `python -m tests.intervals` with fixed seeds: {samples:,} samples a cell, {families:,}
families. Rows are numbers of prompts, columns distributions of paired differences. "One in six
breaks" shifts one prompt in six by ten standard deviations: real life, where a model fails at a
prompt now and then. Below 20 prompts no interval covers such differences as often as it says: take
20 prompts or more, and look at the pictures."""
RACES = """# Races, which look before the grid is complete

Simulated by `python -m tests.intervals {count} races`: a race of `base/racing.py` over so many
prompts as the row says, {thrice:,} races a cell of two equal arms, {samples:,} of two arms one
margin apart, {families:,} of the others. A race states 95 %. Two arms differ from prompt to prompt
as the column says; each of five arms is distributed so, and their differences are symmetric.

What it means: a race keeps its rate where paired differences are normal, heavy-tailed, uniform or
as skewed as an exponential. Where the mean hangs on rare prompts (lognormal, "one in six breaks")
it does not: a look at 6 or 9 prompts may have seen none of them, and says what holds of the others.
(The full grid at one look is wrong in 7 % of lognormal cases at 12 and 20 prompts, 5 % at 50.)
Where an arm may break now and then, run the whole grid. Arms that are equal save nothing until
intervals are narrower than the margin: a race is worth most where differences are large, or
plainly small: five arms 4 deviations apart spare a third of the pictures at 12 prompts already."""
RACED = (12, 20, 50)
APART = {  # true means of the arms, in deviations
    "two, 1.5": (1.5, 0), "two, 3": (3, 0),
    "five, 3": (12, 9, 6, 3, 0), "five, 4": (16, 12, 8, 4, 0), "one best": (3, 0, 0, 0, 0),
}  # fmt: skip
TITLES = {
    "coverage": "95 % intervals that hold the true difference, percent (width over Student's t)",
    "false verdicts": "Sweeps of ten equal arms with any false verdict among 45 pairs, percent",
    "false equivalents": "Differences of one margin that are called equivalent, percent",
    "two equal": "Races of two equal arms with a false better or worse, percent",
    "five equal": "Races of five equal arms with any false verdict among 10 pairs, percent",
    "one margin": "Races of two arms one margin apart that call them equivalent, percent",
    "two, 1.5": "Pictures made where two arms are 1.5 deviations apart, percent (pairs decided)",
    "two, 3": "Pictures made where two arms are 3 deviations apart, percent (pairs decided)",
    "five, 3": "Pictures made where five arms are 3 deviations apart each (pairs decided)",
    "five, 4": "Pictures made where five arms are 4 deviations apart each (pairs decided)",
    "one best": "Pictures made where one of five equal arms is 3 deviations better (pairs decided)",
}
METRIC = Metric("score", "higher", margin=1.0)


def coverage(name: str, count: int, samples: int) -> tuple[float, float]:
    """(percent of intervals that hold the true mean, their median width over Student's t's)."""
    rng = np.random.default_rng([count, len(name)])
    held, widths = 0, []
    for _ in range(samples):
        values = DRAWS[name](rng, (count,))
        found = mean_interval(values)
        held += found.low <= 0 <= found.high
        student = 2 * stdtrit(count - 1, 0.975) * values.std(ddof=1) / math.sqrt(count)
        widths.append((found.high - found.low) / student)
    return 100 * held / samples, float(np.median(widths))


def false_verdicts(name: str, count: int, samples: int) -> float:
    """Percent of sweeps of ARMS equal arms with any better or worse among all pairs."""
    rng = np.random.default_rng([count, len(name), 1])
    first, second = np.triu_indices(ARMS, 1)
    false = 0
    for _ in range(samples):
        arms = DRAWS[name](rng, (count, ARMS))
        differences = arms[:, first] - arms[:, second]
        words = []
        for contrast, own in zip(family(differences), differences.T, strict=True):
            words.append(judged(contrast, dict(enumerate(own)), METRIC)[0])
        false += "better" in words or "worse" in words
    return 100 * false / samples


def false_equivalents(name: str, count: int, samples: int) -> float:
    """Percent of differences of one margin that are called equivalent."""
    rng = np.random.default_rng([count, len(name), 2])
    scale = 0.1 * math.sqrt(count)  # a narrow interval: a wide one is never equivalent
    false = 0
    for _ in range(samples):
        values = 1.0 + scale * DRAWS[name](rng, (count,))
        (contrast,) = family(values[:, None])
        false += judged(contrast, dict(enumerate(values)), METRIC)[0] == "equivalent"
    return 100 * false / samples


def race(arms: np.ndarray) -> tuple[dict[tuple[int, int], str], int]:
    """(the decided contrasts of (N, A) scores, pictures made) of a race over N prompts, A arms."""
    prompts, count = arms.shape
    looks = racing.looks(prompts)
    confidence = racing.confidence(len(looks))
    undecided, words = list(combinations(range(count), 2)), {}
    live, pictures, before = set(range(count)), 0, 0
    seen = np.full(arms.shape, np.nan)
    for look in looks:
        seen[before:look, list(live)] = arms[before:look, list(live)]
        pictures += (look - before) * len(live)
        before = look
        differences = np.column_stack([seen[:look, a] - seen[:look, b] for a, b in undecided])
        contrasts = family(differences, confidence)
        for pair, contrast, own in zip(tuple(undecided), contrasts, differences.T, strict=True):
            values = dict(enumerate(own[np.isfinite(own)]))
            if (word := judged(contrast, values, METRIC)[0]) != "undecided":
                words[pair] = word
                undecided.remove(pair)
        live = {arm for pair in undecided for arm in pair}
        if not live:
            break
    return words, pictures


def races(
    name: str, count: int, offsets: Sequence[float], samples: int, scale: float
) -> tuple[float, float, float]:
    """Percent of races with any false verdict, of contrasts decided, and of the grid's pictures
    made, over `count` prompts.

    `offsets` are the true means of the arms, none below the next. `scale` multiplies the
    distribution.
    """
    shape = count, len(offsets)
    rng = np.random.default_rng([*shape, len(name), round(100 * scale)])
    truth = {}
    for a, b in combinations(range(len(offsets)), 2):
        truth[a, b] = "better" if offsets[a] > offsets[b] else "equivalent"
    false = decided = pictures = 0
    for _ in range(samples):
        scores = scale * DRAWS[name](rng, shape)
        if len(offsets) == 2:
            scores[:, 1] = 0
        words, made = race(scores + np.array(offsets))
        false += any(truth[pair] != word for pair, word in words.items())
        decided += len(words)
        pictures += made
    parts = false, decided / len(truth), pictures / math.prod(shape)
    return tuple(100 * part / samples for part in parts)


def _race_cell(what: str, name: str, count: int, samples: int) -> str:
    deviation = DRAWS[name](np.random.default_rng(0), (200_000,)).std()
    few = samples // 4
    if what == "two equal":  # a margin small beside the deviation: few are called equivalent
        return f"{races(name, count, (0, 0), 3 * samples, 4)[0]:.1f}"
    if what == "five equal":
        return f"{races(name, count, (0,) * 5, few, 4)[0]:.1f}"
    if what == "one margin":  # intervals narrow enough to lie within it, too wide to exclude zero
        scale = 0.19 * math.sqrt(count) / deviation
        return f"{races(name, count, (1, 0), samples, scale)[0]:.1f}"
    _, decided, made = races(name, count, APART[what], few, 1 / deviation)
    return f"{made:.0f} ({decided:.0f})"


def _cell(task: tuple[str, str, int, int]) -> str:
    what, name, count, samples = task
    if what == "coverage":
        percent, width = coverage(name, count, samples)
        return f"{percent:.1f} ({width:.2f})"
    if what == "false verdicts":
        statistics.DRAWS = 2000  # of each of 45 intervals
        return f"{false_verdicts(name, count, samples // 4):.1f}"
    if what == "false equivalents":
        return f"{false_equivalents(name, count, samples):.1f}"
    return _race_cell(what, name, count, samples)


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    heads = {"coverage": HEAD, "two equal": RACES}
    parts = list(TITLES)
    if sys.argv[2:] == ["races"]:
        parts = parts[parts.index("two equal") :]
    with ProcessPoolExecutor(2) as pool:
        for what in parts:
            if what in heads:
                counts_of = {"families": samples // 4, "thrice": 3 * samples, "count": samples}
                print(heads[what].format(samples=samples, **counts_of))
            counts = COUNTS if what == "coverage" else DECIDING
            if parts.index(what) >= parts.index("two equal"):
                counts = RACED
            tasks = [(what, name, count, samples) for count in counts for name in DRAWS]
            cells = list(pool.map(_cell, tasks))
            print(f"\n## {TITLES[what]}\n\n| prompts | {' | '.join(DRAWS)} |")
            print(f"| --- |{' --- |' * len(DRAWS)}")
            for row, count in enumerate(counts):
                line = " | ".join(cells[row * len(DRAWS) : (row + 1) * len(DRAWS)])
                print(f"| {count} | {line} |", flush=True)


if __name__ == "__main__":
    main()
