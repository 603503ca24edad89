"""What a run's rows come to: one summary a decoder, and each decoder against the baseline."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffcode.evals import machine
from diffcode.evals.decoders import BASELINE, chooses
from diffcode.evals.results import Row, Run, complete
from diffcode.evals.statistics import bootstrap_interval, mcnemar_exact, mean, pass_at_k, percentile

# Only the interval's resampling draws on it; fixed, so that the same rows give the same table.
BOOTSTRAP_SEED = 0
KS = (1, 5, 10, 100)
IDLE = 0.1  # processors that others may keep busy before timings are marked
VERSION = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """One decoder's line of the table. Seconds are of one fill; None: the engine does not tell."""

    decoder: str
    problems: int
    samples: int
    pass_at: dict[str, float]  # by k
    interval: tuple[float, float]  # of pass@1, 95 %, bootstrap over problems
    exact: float
    syntax: float
    tokens_per_forward: float | None
    # Tokens that n-gram drafts brought are not counted, the forwards that checked them are. Not known of a decoder that
    # writes several fills.
    tokens_per_forward_without_ngrams: float | None
    forwards: float | None  # a fill
    seconds_p50: float
    seconds_p95: float
    context_p50: float | None
    context_p95: float | None
    denoise_p50: float | None
    denoise_p95: float | None
    others: float | None  # processors that other programs kept busy meanwhile
    finished: dict[str, float]  # the share of holes that each reason ended

    def endings(self) -> str:
        """Why its fills ended, in words."""
        shares = ", ".join(f"{reason} {share:.2f}" for reason, share in self.finished.items())
        return f"{self.decoder}: holes ended by {shares}"

    @property
    def idle(self) -> bool:
        return self.others is None or self.others <= IDLE


@dataclass(frozen=True, slots=True)
class Comparison:
    """A decoder against another one on the same problems; a problem counts as its first sample does."""

    decoder: str
    baseline: str
    problems: int
    same: int  # equal completions
    gained: tuple[str, ...]  # ids
    lost: tuple[str, ...]
    p_value: float
    difference: float  # of pass@1, all samples
    interval: tuple[float, float]  # of the difference, 95 %, bootstrap over problems

    def sentence(self) -> str:
        low, high = self.interval
        return (
            f"{self.decoder} against {self.baseline}: same completion in {self.same} of {self.problems}, "
            f"{len(self.gained)} problems gained, {len(self.lost)} lost (McNemar exact p = {self.p_value:.3f}), "
            f"pass@1 {self.difference:+.3f} ({low:+.3f} to {high:+.3f})"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All that is said about a run."""

    title: str
    footer: str
    summaries: tuple[Summary, ...]  # the baseline first
    comparisons: tuple[Comparison, ...]  # with the baseline
    problems: int  # that every decoder has filled
    wanted: int

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        return {"version": VERSION, **asdict(self)}

    def notes(self) -> tuple[str, ...]:
        """What is to be said below the table, the machine aside."""
        return (*(c.sentence() for c in self.comparisons), *(s.endings() for s in self.summaries))


def report(rows: Sequence[Row], run: Run) -> Report:
    """The run's complete problems, summed up."""
    counted = complete(rows, run)
    groups = by_decoder(counted)
    summaries = tuple(map(summarise, groups.values()))
    baseline = groups.pop(BASELINE, None)
    comparisons = tuple(compare(group, baseline) for group in groups.values()) if baseline else ()
    problems = len({row.task_id for row in counted})
    return Report(title(run, problems), footer(run, summaries), summaries, comparisons, problems, len(run.problems))


def by_decoder(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each decoder, in order of first appearance but the baseline first; rows in order of id and sample."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.decoder != BASELINE):
        groups.setdefault(row.decoder, []).append(row)
    # In one order, however they were run: the bootstrap draws by place.
    return {name: sorted(group, key=lambda row: (row.task_id, row.sample)) for name, group in groups.items()}


def summarise(rows: Sequence[Row]) -> Summary:
    """One decoder's judged rows, at least one, as a line of the table."""
    counts = _passed(rows)
    samples = len(rows) // len(counts)
    first = [pass_at_k(samples, passed, 1) for passed in counts.values()]
    forwards, ngrams = _total(rows, lambda row: row.forwards), sum(row.ngram_accepted for row in rows)
    tokens = sum(row.tokens for row in rows)
    context = [row.context_seconds for row in rows if row.context_seconds is not None]
    denoise = [row.seconds - row.context_seconds for row in rows if row.context_seconds is not None]
    return Summary(
        decoder=rows[0].decoder,
        problems=len(counts),
        samples=samples,
        pass_at={
            str(k): mean([pass_at_k(samples, passed, k) for passed in counts.values()]) for k in KS if k <= samples
        },
        interval=bootstrap_interval(first, np.random.default_rng(BOOTSTRAP_SEED)),
        exact=mean([float(row.exact) for row in rows]),
        syntax=mean([float(row.syntax) for row in rows]),
        tokens_per_forward=_share(tokens, forwards),
        tokens_per_forward_without_ngrams=_share(tokens - ngrams, forwards) if not chooses(rows[0].decoder) else None,
        forwards=_share(forwards, len(rows)),
        seconds_p50=percentile([row.seconds for row in rows], 50),
        seconds_p95=percentile([row.seconds for row in rows], 95),
        context_p50=percentile(context, 50) if context else None,
        context_p95=percentile(context, 95) if context else None,
        denoise_p50=percentile(denoise, 50) if denoise else None,
        denoise_p95=percentile(denoise, 95) if denoise else None,
        others=others(rows),
        finished=_shares(rows),
    )


def compare(rows: Sequence[Row], baseline: Sequence[Row]) -> Comparison:
    """Two decoders' judged rows of the same problems, as `by_decoder` gives them, paired by problem."""
    mine, theirs = ({row.task_id: row for row in group if row.sample == 0} for group in (rows, baseline))
    gained = tuple(task for task, row in mine.items() if row.passed and not theirs[task].passed)
    lost = tuple(task for task, row in mine.items() if theirs[task].passed and not row.passed)
    rates, other_rates = _rates(rows), _rates(baseline)
    differences = [rates[task] - other_rates[task] for task in rates]
    return Comparison(
        decoder=rows[0].decoder,
        baseline=baseline[0].decoder,
        problems=len(mine),
        same=sum(row.completions == theirs[task].completions for task, row in mine.items()),
        gained=gained,
        lost=lost,
        p_value=mcnemar_exact(len(gained), len(lost)),
        difference=mean(differences),
        interval=bootstrap_interval(differences, np.random.default_rng(BOOTSTRAP_SEED)),
    )


def others(rows: Iterable[Row]) -> float | None:
    """Processors that other programs kept busy during the fills, on average over their time."""
    known = [(row.others, row.seconds) for row in rows if row.others is not None]
    seconds = sum(second for _, second in known)
    return max(0.0, sum(busy * second for busy, second in known) / seconds) if seconds else None


def title(run: Run, problems: int) -> str:
    """What was measured, in one line."""
    settings = run.settings
    parts = [settings.task, f"{problems} of {run.available} problems"]
    parts.append("in order" if settings.shuffle_seed is None else f"shuffle seed {settings.shuffle_seed}")
    parts += [f"shard {settings.shard}"] if settings.shard else []
    parts.append("stop at the newline" if settings.newline_stop else "no newline stop")
    parts += [f"at most {settings.max_tokens} tokens a hole", "no oracle length"]
    if settings.temperature > 0:
        parts.append(f"{settings.samples} samples at temperature {settings.temperature:g}, seed {settings.seed}")
    parts += [f"model {settings.model}"] if settings.model else []
    parts += [f"adapter {settings.adapter}"] if settings.adapter else []
    parts += [f"infilling adapter {settings.infill}"] if settings.infill else []
    commits = dict.fromkeys(sitting["commit"] for sitting in run.sittings)
    dates = dict.fromkeys(sitting["began"][:10] for sitting in run.sittings)
    return ", ".join([*parts, f"commit {' and '.join(commits)}", " and ".join(dates)])


def footer(run: Run, summaries: Sequence[Summary]) -> str:
    """On what it ran, and how idle that was."""
    machines = "\n".join(dict.fromkeys(machine.describe(sitting) for sitting in run.sittings))
    known = [summary.others for summary in summaries if summary.others is not None]
    if not known:
        return f"{machines}\nIt is not known whether the machine was idle."
    if all(summary.idle for summary in summaries):
        return f"{machines}\nThe machine was idle otherwise: others kept {mean(known):.2f} processors busy."
    return f"{machines}\n* The machine was not idle: others kept {mean(known):.2f} processors busy during the fills."


def _shares(rows: Iterable[Row]) -> dict[str, float]:
    counts = Counter(reason for row in rows for reason in row.finished)
    return {reason: count / counts.total() for reason, count in counts.most_common()}


def _passed(rows: Iterable[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.task_id] = counts.get(row.task_id, 0) + bool(row.passed)
    return counts


def _rates(rows: Sequence[Row]) -> dict[str, float]:
    counts = _passed(rows)
    return {task: passed * len(counts) / len(rows) for task, passed in counts.items()}


def _total(rows: Iterable[Row], value: Callable[[Row], int | None]) -> int | None:
    found = [value(row) for row in rows]
    return None if None in found else sum(one for one in found if one is not None)


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None
