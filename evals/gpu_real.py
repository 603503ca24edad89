"""Whole fills of the default model with its real weights, where they are in the cache: through the loop that every
command uses, with graphs, without, and on torch's ops."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from diffcode.evals.cuts import Line
from diffcode.evals.gpu_parts import TORCH, Bench, Row, reason
from diffcode.infill import Fill, Infiller
from diffcode.kernels import dispatch
from diffcode.kernels.graphs import Graphs
from diffcode.kernels.stepper import Stepper

POLICIES = ("leftmost", "verified", "threshold")


def real_rows(bench: Bench, name: str, load: Callable[[], Infiller], lines: Sequence[Line]) -> Iterator[Row]:
    """Median seconds of a fill by policy and machine; the first machine's fills are what the others' are compared with.

    In bf16 near-ties may fall differently on two machines, so only with and without graphs must texts be equal.
    """
    ours = load()
    with dispatch.torch_alone():
        plain = load()
    model = ours.model
    machines = {TORCH: plain}
    if model.stepper is not None:
        eager = Infiller(replace(model, stepper=Stepper(model.stepper.weights, Graphs(None))))
        machines = {"ours, graph": ours, "ours, no graph": eager} | machines
    for policy in POLICIES:
        said: dict[str, list[str]] = {}
        for who, infiller in machines.items():
            row = Row(name, f"fill of a line: {policy}", who)
            if bench.left() < 0:
                yield replace(row, note="left out: no time")
                continue
            try:
                fills, seconds = _filled(infiller, policy, lines, bench.tokens)
            except Exception as error:
                yield replace(row, note=reason(error))
                continue
            said[who] = [span.text for fill in fills for span in fill.spans]
            first = next(iter(said.values()))
            alike = sum(a == b for a, b in zip(first, said[who], strict=True)) / len(first)
            right = alike == 1 if who == "ours, no graph" and "ours, graph" in said else None
            rate = sum(f.tokens for f in fills) / max(sum(f.forwards for f in fills), 1)
            yield replace(row, seconds=seconds, right=right, note=f"{rate:.2f} tokens a forward, {alike:.0%} as first")


def _filled(infiller: Infiller, policy: str, lines: Sequence[Line], tokens: int) -> tuple[list[Fill], float]:
    fills, seconds = [], []
    for round_ in range(2):  # the first one compiles and captures
        for line in lines:
            began = time.perf_counter()
            fill = infiller.fill(line.text, [(line.at, line.at)], policy=policy, max_tokens=tokens)
            if round_:
                fills.append(fill)
                seconds.append(time.perf_counter() - began)
    return fills, statistics.median(seconds)
