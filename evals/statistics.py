"""The few statistics of a results table. Randomness is passed in."""

import math
from collections.abc import Sequence

import numpy as np


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))


def bootstrap_interval(
    values: Sequence[float], generator: np.random.Generator, *, level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: `values` drawn again with replacement, `resamples` times."""
    pool = np.asarray(values, dtype=np.float64)
    means = [pool[generator.integers(0, len(pool), len(pool))].mean() for _ in range(resamples)]
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value that a changed problem is as likely gained as lost (binomial, one half)."""
    changed = gained + lost
    tail = sum(math.comb(changed, count) for count in range(min(gained, lost) + 1))
    # Integers until the end: as a float, 2 to the power of a thousand problems overflows.
    return min(1.0, 2 * tail / (1 << changed))
