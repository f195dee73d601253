"""How often intervals and verdicts are right, by simulation: the tables of analysis/coverage.md.

python -m tests.intervals [SAMPLES] > realkit/analysis/coverage.md   # 2,000 samples by default
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from scipy.special import stdtrit

from realkit.analysis.metrics import Metric
from realkit.analysis.verdicts import judged
from realkit.base import statistics
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
TITLES = {
    "coverage": "95 % intervals that hold the true difference, percent (width over Student's t)",
    "false verdicts": "Sweeps of ten equal arms with any false verdict among 45 pairs, percent",
    "false equivalents": "Differences of one margin that are called equivalent, percent",
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


def _cell(task: tuple[str, str, int, int]) -> str:
    what, name, count, samples = task
    if what == "coverage":
        percent, width = coverage(name, count, samples)
        return f"{percent:.1f} ({width:.2f})"
    if what == "false verdicts":
        statistics.DRAWS = 2000  # of each of 45 intervals
        return f"{false_verdicts(name, count, samples // 4):.1f}"
    return f"{false_equivalents(name, count, samples):.1f}"


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(HEAD.format(samples=samples, families=samples // 4))
    with ProcessPoolExecutor(2) as pool:
        for what in ("coverage", "false verdicts", "false equivalents"):
            counts = COUNTS if what == "coverage" else DECIDING
            tasks = [(what, name, count, samples) for count in counts for name in DRAWS]
            cells = list(pool.map(_cell, tasks))
            print(f"\n## {TITLES[what]}\n\n| prompts | {' | '.join(DRAWS)} |")
            print(f"| --- |{' --- |' * len(DRAWS)}")
            for row, count in enumerate(counts):
                line = " | ".join(cells[row * len(DRAWS) : (row + 1) * len(DRAWS)])
                print(f"| {count} | {line} |", flush=True)


if __name__ == "__main__":
    main()
