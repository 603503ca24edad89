"""The results table: a summary a policy, and each policy against the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffcode.evals.rows import Row
from diffcode.evals.statistics import bootstrap_interval, mcnemar_exact, mean, percentile

HEADERS = (
    "policy",
    "n",
    "pass@1",
    "95 % interval",
    "exact",
    "tokens / forward",
    "less n-gram tokens",
    "forwards / fill",
    "s / fill p50",
    "p95",
    "context ms p50",
    "denoise ms p50",
)
BASELINE = "leftmost"
# Only the interval's resampling draws on it; fixed, so that the same rows give the same table.
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Summary:
    """One policy's line of the table."""

    policy: str
    fills: int
    pass_rate: float
    interval: tuple[float, float]
    exact_rate: float
    tokens_per_forward: float
    # Tokens that n-gram drafts brought are not counted, the forwards that checked them are.
    tokens_per_forward_without_ngrams: float
    forwards_per_fill: float
    seconds_p50: float
    seconds_p95: float
    context_p50: float
    denoise_p50: float

    def cells(self) -> tuple[str, ...]:
        low, high = self.interval
        return (
            self.policy,
            str(self.fills),
            f"{self.pass_rate:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{self.exact_rate:.3f}",
            f"{self.tokens_per_forward:.2f}",
            f"{self.tokens_per_forward_without_ngrams:.2f}",
            f"{self.forwards_per_fill:.1f}",
            f"{self.seconds_p50:.3f}",
            f"{self.seconds_p95:.3f}",
            f"{1000 * self.context_p50:.0f}",
            f"{1000 * self.denoise_p50:.0f}",
        )


@dataclass(frozen=True)
class Comparison:
    """A policy against the baseline on the same problems."""

    policy: str
    baseline: str
    fills: int
    same: int
    gained: int
    lost: int
    p_value: float

    def sentence(self) -> str:
        return (
            f"{self.policy} against {self.baseline}: same completion in {self.same} of {self.fills}, "
            f"{self.gained} problems gained, {self.lost} lost (McNemar exact p = {self.p_value:.3f})"
        )


def summarise(rows: Sequence[Row]) -> Summary:
    """One policy's judged rows, at least one, as a line of the table."""
    passed = [float(bool(row.passed)) for row in rows]
    seconds = [row.seconds for row in rows]
    tokens, forwards = sum(row.tokens for row in rows), sum(row.forwards for row in rows)
    return Summary(
        policy=rows[0].policy,
        fills=len(rows),
        pass_rate=mean(passed),
        interval=bootstrap_interval(passed, np.random.default_rng(BOOTSTRAP_SEED)),
        exact_rate=mean([float(row.exact) for row in rows]),
        tokens_per_forward=_ratio(tokens, forwards),
        tokens_per_forward_without_ngrams=_ratio(tokens - sum(row.ngram_accepted for row in rows), forwards),
        forwards_per_fill=forwards / len(rows),
        seconds_p50=percentile(seconds, 50),
        seconds_p95=percentile(seconds, 95),
        context_p50=percentile([row.context_seconds for row in rows], 50),
        denoise_p50=percentile([row.seconds - row.context_seconds for row in rows], 50),
    )


def compare(rows: Sequence[Row], baseline: Sequence[Row]) -> Comparison:
    """Two policies' judged rows, paired by problem."""
    other = {row.task_id: row for row in baseline}
    pairs = [(row, other[row.task_id]) for row in rows]
    gained = sum(bool(row.passed) and not base.passed for row, base in pairs)
    lost = sum(bool(base.passed) and not row.passed for row, base in pairs)
    same = sum(row.completion == base.completion for row, base in pairs)
    name, against = rows[0].policy, baseline[0].policy
    return Comparison(name, against, len(pairs), same, gained, lost, mcnemar_exact(gained, lost))


def report(rows: Sequence[Row]) -> tuple[tuple[Summary, ...], tuple[Comparison, ...]]:
    """Summaries in order of name's first appearance, baseline first, and the comparisons with it.

    The rows are those of `rows.complete`, judged: every policy has every problem.
    """
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.policy != BASELINE):
        groups.setdefault(row.policy, []).append(row)
    summaries = tuple(map(summarise, groups.values()))
    baseline = groups.pop(BASELINE, None)
    return summaries, tuple(compare(group, baseline) for group in groups.values()) if baseline else ()


def markdown(rows: Sequence[Row]) -> str:
    """The table and the comparisons below it, as markdown."""
    summaries, comparisons = report(rows)
    lines = [HEADERS, ("---", *["---:"] * (len(HEADERS) - 1)), *(summary.cells() for summary in summaries)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([table, "", *(f"* {comparison.sentence()}" for comparison in comparisons)]).rstrip("\n")


def _ratio(numerator: int, denominator: int) -> float:
    # A fill cut short before its first forward has neither.
    return numerator / denominator if denominator else 0.0
