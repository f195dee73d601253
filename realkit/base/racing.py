"""When a race looks at its results, and how sure each of its looks must be.

A race makes some prompts with all arms, looks, drops the arms whose contrasts are decided, and
continues with the rest. Looking often at intervals made for one look spoils their error rate:
group-sequential tests (Pocock 1977; Lan & DeMets 1983, Discrete sequential boundaries) share it out
over the looks, as here, by Bonferroni. The intervals stay those of `statistics.family`, only wider.

Simulated (analysis/coverage.md), this keeps the rate for exponential differences, where the t
confidence sequences that allow any number of looks do not (Wang & Ramdas, arXiv 2310.03722: a false
verdict in 7 % of races over 20 prompts), since those take differences to be normal. Nor do they
decide sooner: at 0.8 standard deviations, 60 % of such races against 67 % here.
"""

from __future__ import annotations

import math

from realkit.base.statistics import CONFIDENCE, LEAST_PROMPTS

FIRST = LEAST_PROMPTS  # prompts of the first look
# The numbers of prompts grow from look to look by about this factor: an interval narrows with their
# root, so that a few more prompts decide little. The larger ones are for models slow to load.
GROWTHS = (1.5, 2.0, 4.0)
# Of the error rate that is left, for the looks at the prompts that are planned now. The rest is for
# prompts that are added later; and for skewed differences, whose intervals fail more often than
# they say.
SHARE = 0.6


def looks(prompts: int, done: int = 0, growth: float = GROWTHS[0]) -> list[int]:
    """The numbers of prompts at which a race over `prompts` looks, after a look at `done`: evenly
    spaced in their logarithm, the last of them all."""
    if done >= prompts:
        return []
    start = done or FIRST
    ratio = prompts / start
    if not done and ratio < math.sqrt(GROWTHS[0]):  # too few for a look before the last
        return [prompts]
    steps = max(1, round(math.log(ratio) / math.log(growth)))
    later = [round(start * ratio ** (step / steps)) for step in range(1, steps + 1)]
    return later if done else [FIRST, *later]


def confidence(count: int, spent: float = 0.0, overall: float = CONFIDENCE) -> float:
    """The confidence of each of `count` looks, so that a race is right in a share `overall`.

    `spent` is the error rate that looks of an earlier, shorter plan have used. These looks have
    SHARE of the rest.
    """
    return 1 - SHARE * (1 - overall - spent) / count
