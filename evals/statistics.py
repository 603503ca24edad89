"""The few statistics of a results table. Randomness is passed in."""

import math
from collections.abc import Sequence

import numpy as np

BLOCK = 500  # resamples


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate that one of k samples passes, from `passed` of `samples` (Chen et al. 2021, equation 1)."""
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {passed} passed in {samples}")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def bootstrap_interval(
    values: Sequence[float], generator: np.random.Generator, *, level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: `values` drawn again with replacement, `resamples` times."""
    pool = np.asarray(values, dtype=np.float64)
    # In blocks: all draws at once take half a gigabyte for the longest benchmark.
    blocks = [min(BLOCK, resamples - done) for done in range(0, resamples, BLOCK)]
    draws = (generator.integers(0, len(pool), (block, len(pool))) for block in blocks)
    means = np.concatenate([pool[draw].mean(axis=1) for draw in draws])
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value that a changed problem is as likely gained as lost (binomial, one half)."""
    changed = gained + lost
    tail = sum(math.comb(changed, count) for count in range(min(gained, lost) + 1))
    # Integers until the end: as a float, 2 to the power of a thousand problems overflows.
    return min(1.0, 2 * tail / (1 << changed))
