"""What `make gpu` measures: ops, steps and fills of a model with random weights, each part a stream of rows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from diffcode.evals.gpu_rivals import rivals, run_of
from diffcode.kernels import dispatch, reference_commit
from diffcode.kernels.ahead import Ahead, Ask
from diffcode.kernels.calls import Call, Draw, Run, call
from diffcode.kernels.graphs import Graphs, graphs_for
from diffcode.kernels.plan import BF16, Rates, Sizes, forward_cost
from diffcode.kernels.reference import Map
from diffcode.kernels.reference_commit import Committed, Forwarded, Guesses, Placed
from diffcode.kernels.step import Asked, LayerMaps, SpanWeights, StepWeights, Table, forward, layout_for, table_of
from diffcode.kernels.stepper import Stepper
from diffcode.kernels.timing import Clock
from diffcode.kernels.work import Work, works

LEFT_OUT = "left out:"  # so begins the note of a row whose absence is no failure
TORCH = "torch"  # the machine of the rows that others are compared with
CHAIN, WINDOW = 12, 4  # rows of a step: 16, filled up, as `step.layout_for` does it
POLICY = "verified"


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. A part that failed or was left out has its reason in `note`, and no seconds."""

    model: str
    what: str
    who: str
    seconds: float | None = None
    floor: float | None = None  # at the measured rates
    bound: str = ""
    right: bool | None = None  # None: not compared
    off: float | None = None  # from fp32, at most
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts are measured with."""

    device: torch.device
    dtype: torch.dtype
    clock: Clock  # of one op
    rates: Rates
    compiled: Callable[[Run], Run]
    context: int
    tokens: int  # of a fill
    steps: int  # repeats of a whole step
    deadline: float  # by time.monotonic

    def left(self) -> float:
        return self.deadline - time.monotonic()


# ---- ops


def works_of(bench: Bench, sizes: Sizes) -> list[Work]:
    """The ops of a step."""
    return works(sizes, CHAIN, WINDOW, bench.context, guesses=CHAIN)


def op_rows(bench: Bench, model: str, sizes: Sizes, work: Work) -> Iterator[Row]:
    """An op: right, and how quick by our kernels, by torch, and by others."""
    made = call(work, sizes, bench.context, Draw(bench.dtype, bench.device))
    yield _timed(bench, model, work, "ours", made.ours, made)
    yield _timed(bench, model, work, TORCH, made.torch)
    yield _timed(bench, model, work, "torch.compile", partial(bench.compiled, made.torch), lazy=True)
    for rival in rivals(work.op):
        one = made if rival.same else None
        yield _timed(bench, model, work, rival.name, partial(run_of, rival, made), one, lazy=True)


def _timed(
    bench: Bench, model: str, work: Work, who: str, run: Callable[[], object], made: Call | None = None,
    lazy: bool = False,
) -> Row:  # fmt: skip
    """`lazy`: `run` must be called to get what is to be timed. `made`: the numbers to compare with."""
    row = Row(model, f"{work.name}, {work.rows} rows", who)
    row = replace(row, floor=work.cost.floor(bench.rates), bound=work.cost.bound(bench.rates))
    try:
        with torch.inference_mode():
            ready: Callable[[], Tensor] = run() if lazy else run  # type: ignore[assignment]
            if made is not None:
                off, over = made.off(ready)
                row = replace(row, off=off, right=over <= 0)
            return replace(row, seconds=bench.clock(ready))
    except Exception as error:  # other libraries' and compilers': the next row may still be had
        return replace(row, note=reason(error))


def reason(error: Exception) -> str:
    """Its kind and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:160]


def commit_row(bench: Bench, fills: int = 64) -> Row:
    """`commit` decides as its specification, bit for bit, by every policy; timed with the default one."""
    policies = ("leftmost", "verified", "threshold", "margin", "entropy_bound", "edit")
    row = Row("any", f"commit, {fills} fills", "ours")
    try:
        arguments = _forwarded(fills, bench.device)
        right = all(_same(dispatch.commit(p, *arguments), reference_commit.commit(p, *arguments)) for p in policies)
        return replace(row, right=right, seconds=bench.clock(lambda: dispatch.commit(POLICY, *arguments)))
    except Exception as error:
        return replace(row, note=reason(error))


def _same(one: Committed, two: Committed) -> bool:
    names = ("kept_B", "commit_B", "drafts_B", "place_BP", "probability_BP", "taken_B", "finished_B")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


def _forwarded(fills: int, device: torch.device) -> tuple[Forwarded, Tensor, Tensor, Tensor]:
    """Of 4 drafts at most and 4 span rows, over 6 tokens, so that base and drafts often agree."""
    random, drafts = torch.Generator().manual_seed(0), 4

    def token(*shape: int) -> Tensor:
        return torch.randint(6, shape, generator=random).to(device)

    def number(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random).to(device)

    base, count = token(fills, drafts + 1), torch.randint(drafts + 1, (fills,), generator=random).to(device)
    draft = torch.where(number(fills, drafts) < 0.8, base[:, :drafts], token(fills, drafts))
    draft = draft.masked_fill(torch.arange(drafts, device=device) >= count[:, None], -1)
    window = token(fills, WINDOW + 1)
    window = window.masked_fill(number(fills, WINDOW + 1) < 0.6, -1)
    span = Guesses(token(fills, 1, WINDOW), *(number(fills, 1, WINDOW) for _ in range(3)))
    seen = Forwarded(
        Placed(draft, number(fills, drafts)), count, Placed(base, number(fills, drafts + 1)),
        Placed(window, number(fills, WINDOW + 1)), span, count[:, None].contiguous(),
    )  # fmt: skip
    bound = torch.full((fills,), 0.5, dtype=torch.float64, device=device)
    ends = torch.arange(6, device=device) == 5
    return seen, bound, torch.randint(1, 9, (fills,), generator=random).to(device), ends


# ---- whole steps


def random_weights(sizes: Sizes, bench: Bench) -> StepWeights:
    """A model of these sizes, its head tied as the default's, with a span adapter."""
    s, draw = sizes, Draw(bench.dtype, bench.device)
    mixed, qkv = s.heads * s.head_width, (s.heads + 2 * s.kv_heads) * s.head_width
    layers = [
        LayerMaps(
            draw.norm(s.width), draw.map(qkv, s.width, s.rank, biased=True), draw.map(s.width, mixed, s.rank),
            draw.norm(s.width), draw.map(2 * s.ffn, s.width, s.rank), draw.map(s.width, s.ffn, s.rank),
        )
        for _ in range(s.layers)
    ]  # fmt: skip
    embedding = draw(s.vocabulary, s.width, spread=0.3)
    exponent = torch.arange(0, s.head_width, 2, device=bench.device).float() / s.head_width
    kept = torch.arange(s.kept, dtype=torch.int32, device=bench.device)
    span = SpanWeights(draw(s.width, spread=0.3), Map(embedding[: s.kept]), kept, None)
    return StepWeights(
        layers, draw.norm(s.width), embedding, 1e6**-exponent, Map(embedding), s.kv_heads, s.head_width, span
    )


def asked_for(chain: int, window: int, length: int) -> Asked:
    """A step of `chain` rows, the last of which is asked, or the last 4 and drafts, with one window behind them."""
    drafts = min(chain - 1, 3) if window else 0
    tokens = [7 + i * 31 % 200 for i in range(chain)] + [-1] * window
    sights = [(i + 1, 0, 0) for i in range(chain)] + [(chain, chain, chain + window)] * window
    positions = range(length, length + chain + window)
    return Asked(tokens, positions, sights, (drafts,) if window else (), window, drafts + 1)


def step_rows(bench: Bench, model: str, sizes: Sizes, weights: StepWeights) -> Iterator[Row]:
    """One token, a step with drafts and span rows, and a whole context: with graphs, without, and on torch's ops."""
    context = bench.context
    for what, chain, window, read in (
        ("step: one token", 1, 0, context),
        ("step: 4 tokens, 4 span rows", 4, WINDOW, context),
        (f"step: a context of {context}", context, 0, 0),
    ):
        cost = forward_cost(sizes, chain, window, read, guesses=min(chain, 4) if window else 1, formats=BF16)
        plain = Row(model, what, "", floor=cost.floor(bench.rates), bound=cost.bound(bench.rates))
        asked = asked_for(chain, window, read)
        graphs = {"ours, graph": graphs_for(bench.device), "ours, no graph": Graphs[Tensor](None)}
        said = {}
        for who, kind in list(graphs.items())[: 2 if read else 1]:
            row, said[who] = _stepped(bench, replace(plain, who=who if read else "ours"), weights, asked, read, kind)
            yield row
        with dispatch.torch_alone():
            row, wanted = _stepped(bench, replace(plain, who=TORCH), weights, asked, read, Graphs(None))
            yield row
            if read:
                yield _stepped(
                    bench, replace(plain, who=f"{TORCH}, graph"), weights, asked, read, graphs_for(bench.device)
                )[0]
        yield from _agreement(plain, said, wanted)


def _stepped(
    bench: Bench, row: Row, weights: StepWeights, asked: Asked, read: int, graphs: "Graphs[Tensor]"
) -> tuple[Row, list[int]]:
    """As the host sees it: from the asked rows to the numbers in its hands."""
    try:
        stepper = Stepper(weights, graphs, places=2 * (read + len(asked.tokens)) + 512)
        canvas = stepper.canvas()
        canvas.length = read
        times, tokens, warm = [], [], min(3, bench.steps)  # compiled, captured
        for _ in range(warm + bench.steps):
            began = time.perf_counter()
            base, spans = canvas.step(asked)
            times.append(time.perf_counter() - began)
            tokens = [number[0] for number in (*base, *spans)]
        return replace(row, seconds=sorted(times[warm:])[bench.steps // 2]), tokens
    except Exception as error:
        return replace(row, note=reason(error)), []


def _agreement(row: Row, said: dict[str, list[int]], wanted: list[int]) -> Iterator[Row]:
    """Graph or not: the same bits. Triton or torch: the same tokens, but for near-ties."""
    found = list(said.values())
    if not all(found) or not wanted:
        return
    alike = sum(a == b for a, b in zip(found[0], wanted, strict=True)) / len(wanted)
    note = f"{alike:.0%} of {len(wanted)} tokens as torch's"
    yield replace(row, who="agreement", right=all(f == found[0] for f in found), note=note, floor=None, bound="")


def compiled_step_rows(bench: Bench, model: str, sizes: Sizes) -> Iterator[Row]:
    """torch's ops of a step, through torch's compiler."""
    cost = forward_cost(sizes, 4, WINDOW, bench.context, guesses=4, formats=BF16)
    row = Row(model, "step: 4 tokens, 4 span rows", "torch.compile, graph", floor=cost.floor(bench.rates))
    weights = random_weights(sizes, bench)
    stepper = Stepper(weights, Graphs(None), places=2 * bench.context + 512)
    asked = asked_for(4, WINDOW, bench.context)
    layout = layout_for(asked, bench.context)
    table = Table.of(torch.tensor(table_of(asked, layout, 16, bench.context), device=bench.device), layout)
    try:
        with dispatch.torch_alone(), torch.inference_mode():
            caches = stepper.arena.caches
            ready = bench.compiled(lambda: forward(weights, caches, table, layout).numbers())
            yield replace(row, seconds=bench.clock(ready), bound=cost.bound(bench.rates))
    except Exception as error:
        yield replace(row, note=reason(error))


# ---- whole fills


def fill_rows(bench: Bench, model: str, sizes: Sizes, weights: StepWeights) -> Iterator[Row]:
    """A context and as many tokens as asked for, decided on the device; the host looks after every 8 steps, or 1.

    The weights are random, so drafts are hardly ever confirmed: tokens a step say nothing, seconds a step do.
    """
    for what, policy, fills, graphs, look in (
        ("left to right", "leftmost", 1, graphs_for(bench.device), 8),
        ("left to right, no graph", "leftmost", 1, Graphs[None](None), 8),
        ("verified", POLICY, 1, graphs_for(bench.device), 8),
        ("verified, a look a step", POLICY, 1, graphs_for(bench.device), 1),
        ("verified, 8 fills at once", POLICY, 8, graphs_for(bench.device), 8),
    ):
        row = Row(model, f"fill of {bench.tokens} tokens: {what}", "ours")
        if bench.left() < 20:
            yield replace(row, note=f"{LEFT_OUT} no time")
            continue
        try:
            yield _filled(bench, row, Stepper(weights, graphs), policy, fills, look)
        except Exception as error:
            yield replace(row, note=reason(error))


def _filled(bench: Bench, row: Row, stepper: Stepper, policy: str, fills: int, look: int) -> Row:
    window = 0 if policy == "leftmost" else WINDOW
    ahead = Ahead(stepper, Ask(policy, 0.3, bench.tokens, window, ()), fills, bench.context)
    contexts = [[(7 + f + i * 31) % 200 for i in range(bench.context)] for f in range(fills)]
    for _ in range(2):  # the first one compiles and captures
        began = time.perf_counter()
        ahead.begin(contexts)
        first = time.perf_counter() - began
        while not ahead.run(min(look, bench.tokens)):
            pass
        seconds = time.perf_counter() - began
    steps = int(ahead.state.steps_B.max())
    note = f"{steps} steps of {(seconds - first) / max(steps - 1, 1) * 1e3:.3f} ms, context {first * 1e3:.1f} ms"
    ahead.close()
    return replace(row, seconds=seconds, note=note)
