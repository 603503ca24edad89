"""Several steps between two looks of the host: `commit` decides on the device what becomes of a step, and the next
step's table is written there too. B fills at once, each with a canvas of its own in the arena.

For fills without what is the host's: stop strings, a re-opened prefix, n-gram drafts, warm starts, doubts about an end
at the first place. The tokens are those of `diffcode.denoise` with the same policy. One step of it is what a graph
holds; K steps are K replays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcode.kernels import dispatch
from diffcode.kernels.arena import JUNK, Stretch
from diffcode.kernels.reference import HeadRows
from diffcode.kernels.reference_commit import MASKED, Committed, Forwarded, Guesses, Placed
from diffcode.kernels.step import FEWEST_PLACES, Asked, Favour, Layout, Said, Table, forward
from diffcode.kernels.stepper import Stepper


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of all fills. The chain of a step has one place more than a window has rows: no policy drafts
    more places than rows guessed, and none commits more than those and the base's own."""

    policy: str
    bound: float
    max_tokens: int
    window: int  # span rows S behind one number of drafts; 0 without an adapter
    ends: Sequence[int]  # tokens that end a text
    anchors: int = 1  # A: windows of a fill, as DenoiseOptions.max_anchors
    base_favour: Favour = None
    span_favour: Favour = None

    @property
    def chain(self) -> int:
        return self.window + 1


@dataclass(frozen=True, slots=True)
class State:
    """All fills between two steps; int64 but for the probabilities. C = S + 1 places of chain and of window."""

    start_B: Tensor  # where the canvas lies
    length_B: Tensor  # places read for good
    fresh_B: Tensor  # tokens of the chain that join the context
    drafts_B: Tensor  # tokens behind them that may
    chain_BC: Tensor
    chain_p_BC: Tensor
    window_BC: Tensor
    window_p_BC: Tensor
    left_B: Tensor  # tokens that may still come
    finished_B: Tensor  # bool
    steps_B: Tensor
    out_BT: Tensor  # committed tokens; the last column takes what nobody wants
    out_p_BT: Tensor
    taken_B: Tensor

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


class Ahead:
    """Runs `fills` fills of one model at a time, with contexts of up to `places` tokens, in buffers that stay: kept for
    the next fills, it finds its graph again."""

    def __init__(self, stepper: Stepper, ask: Ask, fills: int = 1, places: int = 1024):
        self._stepper, self._ask, self._key = stepper, ask, object()
        self._anchors = (ask.anchors if ask.policy == "verified" else 1) if ask.window else 0
        self._rows = ask.chain + self._anchors * ask.window
        longest = places + ask.max_tokens + self._rows
        self._layout = Layout(
            fills * ask.chain, fills * self._anchors, ask.window, fills * ask.chain,
            max(FEWEST_PLACES, 1 << (longest - 1).bit_length()), ask.base_favour, ask.span_favour,
        )  # fmt: skip
        vocabulary = len(stepper.weights.head.weight_ED)
        self._ends_V = torch.zeros(vocabulary, dtype=torch.bool, device=stepper.device)
        self._ends_V[list(ask.ends)] = True
        self._stretches: list[Stretch] = []
        self.state = State(*(torch.cat([t] * fills) for t in self._fresh_state(0, 0).tensors()))

    def begin(self, contexts: Sequence[Sequence[int]]) -> None:
        """The first step of every fill."""
        self.close()
        with self._stepper.running():
            begun = [self._begin(context).tensors() for context in contexts]
            for old, new in zip(self.state.tensors(), zip(*begun, strict=True), strict=True):
                old.copy_(torch.cat(new))

    def run(self, steps: int) -> bool:
        """So many steps of every fill that is not over; True when all are. The host looks once, at the end."""
        with self._stepper.running():
            for _ in range(steps):
                self._stepper.graphs.run(self._key, self._step)
            return bool(self.state.finished_B.all())

    def tokens(self) -> list[list[int]]:
        """What was committed, a list a fill."""
        return [row[:taken] for row, taken in zip(self.state.out_BT.tolist(), self.state.taken_B.tolist(), strict=True)]

    def close(self) -> None:
        """The canvases' places are for others."""
        for stretch in self._stretches:
            self._stepper.arena.give(stretch)
        self._stretches = []

    def _begin(self, context: Sequence[int]) -> State:
        """The first step: it reads the whole context and decides the first token."""
        ask, read = self._ask, len(context)
        stretch = self._stepper.arena.take(read + ask.max_tokens + self._rows)
        self._stretches.append(stretch)
        anchors = (0,) if ask.window else ()
        asked = Asked(
            tokens=[*context, *[MASKED] * ask.window],
            positions=range(read + ask.window),
            sights=[(i + 1, 0, 0) for i in range(read)] + [(read, read, read + ask.window)] * ask.window,
            anchors=anchors, window=ask.window, base_rows=1,
            base_favour=ask.base_favour, span_favour=ask.span_favour,
        )  # fmt: skip
        said, layout = self._stepper.said(asked, stretch.start, 0)
        state = self._fresh_state(stretch.start, read)
        last_R = torch.full((1, ask.chain), layout.headed - 1, device=self._stepper.device)
        anchor_BA = torch.zeros((1, 1), dtype=torch.int64, device=self._stepper.device)
        return advanced(state, self._decided(state, said, last_R, anchor_BA))

    def _fresh_state(self, start: int, read: int) -> State:
        ask, device = self._ask, self._stepper.device

        def number(value: int) -> Tensor:
            return torch.full((1,), value, dtype=torch.int64, device=device)

        def places(count: int) -> tuple[Tensor, Tensor]:
            tokens = torch.full((1, count), MASKED, dtype=torch.int64, device=device)
            return tokens, torch.zeros((1, count), device=device)

        return State(
            number(start), number(0), number(read), number(0), *places(ask.chain), *places(ask.chain),
            number(ask.max_tokens), number(0).bool(), number(0), *places(ask.max_tokens + 1), number(0),
        )  # fmt: skip

    def _step(self) -> None:
        state, layout, stepper = self.state, self._layout, self._stepper
        anchor_BA = state.drafts_B[:, None][:, : self._anchors]
        if self._ask.policy == "verified":
            anchor_BA = anchors_of(state.drafts_B, self._drafts(state).probability, self._anchors)
        table, base_BM = table_of(state, anchor_BA, self._ask.window)
        said = forward(stepper.weights, stepper.arena.caches, table, layout)
        new = advanced(state, self._decided(state, said, base_BM, anchor_BA))
        for old, tensor in zip(state.tensors(), new.tensors(), strict=True):
            old.copy_(tensor)

    def _decided(self, state: State, said: Said, base_BM: Tensor, anchor_BA: Tensor) -> Committed:
        """`base_BM`: the headed row that says what the base puts behind each number of drafts."""
        ask, fills, draft = self._ask, len(state.start_B), self._drafts(state)
        base = Placed(said.base.token_R[base_BM], said.base.probability_R[base_BM])
        if not anchor_BA.shape[1]:  # `commit` wants one anchor, though nobody stands there
            anchor_BA = state.drafts_B[:, None]
        shape = (fills, anchor_BA.shape[1], ask.window)
        window = Placed(state.window_BC, state.window_p_BC)
        seen = Forwarded(draft, state.drafts_B, base, window, _guesses(said.span, shape), anchor_BA)
        bound_B = torch.full((fills,), ask.bound, dtype=torch.float64, device=base_BM.device)
        return dispatch.commit(ask.policy, seen, bound_B, state.left_B, self._ends_V)

    def _drafts(self, state: State) -> Placed:
        """The chain's places behind those that join the context, [B, N]."""
        at_N = torch.arange(self._ask.window, device=state.drafts_B.device)
        behind_BN = (state.fresh_B[:, None] + at_N).clamp_max(self._ask.chain - 1)
        none_BN = at_N >= state.drafts_B[:, None]
        return Placed(
            state.chain_BC.gather(1, behind_BN).masked_fill(none_BN, MASKED),
            state.chain_p_BC.gather(1, behind_BN).masked_fill(none_BN, 0),
        )


def _guesses(span: HeadRows, shape: tuple[int, int, int]) -> Guesses:
    columns = (span.token_R, span.probability_R, span.margin_R, span.entropy_R)
    return Guesses(*(column.view(shape).contiguous() for column in columns))


def anchors_of(drafts_B: Tensor, chance_BN: Tensor, anchors: int) -> Tensor:
    """Behind how many drafts windows stand, [B, A]: `diffcode.drafts.likeliest_outcomes`; MASKED where there are fewer.

    `chance_BN`: that a draft is right where all before it were.
    """
    is_BN = torch.arange(chance_BN.shape[1], device=drafts_B.device) < drafts_B[:, None]
    chance_BN = chance_BN.double().where(is_BN, 0)
    run_BM = F.pad(chance_BN.cumprod(1), (1, 0), value=1.0)  # all drafts before were right
    outcome_BM = run_BM * (1 - F.pad(chance_BN, (0, 1)))
    order_BM = torch.sort(outcome_BM, dim=1, descending=True, stable=True).indices
    order_BM = order_BM.masked_fill(order_BM > drafts_B[:, None], MASKED)
    return F.pad(order_BM, (0, anchors - order_BM.shape[1]), value=MASKED).contiguous()


def table_of(state: State, anchor_BA: Tensor, window: int) -> tuple[Table, Tensor]:
    """The rows of the next step, and `base_BM`. The rows of fills that are over see nothing and write to JUNK."""
    (fills, chain), device = state.chain_BC.shape, state.chain_BC.device
    count_B1, fresh_B1 = (state.fresh_B + state.drafts_B)[:, None], state.fresh_B[:, None]
    begin_B1, runs_B1 = (state.start_B + state.length_B)[:, None], ~state.finished_B[:, None]
    at_BC = torch.arange(chain, device=device) - (chain - count_B1)
    ok_BC = (at_BC >= 0) & runs_B1
    token_BC = state.chain_BC.gather(1, at_BC.clamp_min(0)).where(ok_BC, 0)
    zero_BC = torch.zeros_like(token_BC)
    sight_BC4 = torch.stack([state.start_B[:, None] + zero_BC, begin_B1 + at_BC + 1, zero_BC, zero_BC], 2)
    # Windows: S rows for each anchor, behind the chain's places.
    ok_BA, at_S = (anchor_BA != MASKED) & runs_B1, torch.arange(window, device=device)
    ok_BAS = ok_BA[..., None].expand(-1, -1, window)
    behind_BA = begin_B1 + fresh_B1 + anchor_BA
    first_BA = begin_B1 + count_B1 + torch.arange(anchor_BA.shape[1], device=device) * window
    token_BAS = state.window_BC[:, None, :window].expand(-1, anchor_BA.shape[1], -1).where(ok_BAS, 0)
    position_BAS = (behind_BA - state.start_B[:, None])[..., None] + at_S
    sight_BA4 = torch.stack([state.start_B[:, None] + 0 * behind_BA, behind_BA, first_BA, first_BA + window], 2)
    sight_BAS4 = sight_BA4[:, :, None].expand(-1, -1, window, -1)

    def both(chain_part: Tensor, ok_chain: Tensor, part: Tensor, ok_part: Tensor, idle: int) -> Tensor:
        chain_part, part = chain_part.where(ok_chain, idle), part.where(ok_part, idle)
        return torch.cat([chain_part.flatten(0, 1), part.flatten(0, 2)])

    at_B1 = torch.arange(fills, device=device)[:, None] * chain
    return Table(
        both(token_BC, ok_BC, token_BAS, ok_BAS, 0),
        both(state.length_B[:, None] + at_BC, ok_BC, position_BAS, ok_BAS, 0),
        both(begin_B1 + at_BC, ok_BC, first_BA[..., None] + at_S, ok_BAS, JUNK),
        both(sight_BC4, ok_BC[..., None], sight_BAS4, ok_BAS[..., None], 0).int(),
        (at_B1 + (chain - 1 - state.drafts_B[:, None] + anchor_BA).clamp_min(0)).flatten(),
    ), at_B1 + (chain - 1 - state.drafts_B[:, None] + torch.arange(chain, device=device)).clamp_max(chain - 1)


def advanced(state: State, what: Committed) -> State:
    """What the fills are after a decision; those that are over stay as they are."""
    chain = state.chain_BC.shape[1]
    at_C, last = torch.arange(chain, device=state.chain_BC.device), what.place_BP.shape[1]
    known_B1 = (what.commit_B + what.drafts_B)[:, None]
    window_BC = known_B1 + at_C
    out_BT, out_p_BT = written(state, what)
    new = State(
        state.start_B,
        state.length_B + state.fresh_B + what.kept_B,
        what.commit_B,
        what.drafts_B,
        what.place_BP[:, :chain].masked_fill(at_C >= known_B1, MASKED),
        what.probability_BP[:, :chain].masked_fill(at_C >= known_B1, 0),
        what.place_BP.gather(1, window_BC.clamp_max(last - 1)).masked_fill(window_BC >= last, MASKED),
        what.probability_BP.gather(1, window_BC.clamp_max(last - 1)).masked_fill(window_BC >= last, 0),
        state.left_B - what.taken_B,
        what.finished_B,
        state.steps_B + 1,
        out_BT,
        out_p_BT,
        state.taken_B + what.taken_B,
    )
    over_B, kept = state.finished_B, []
    for old, fresh in zip(state.tensors(), new.tensors(), strict=True):
        kept.append(torch.where(over_B if old.ndim == 1 else over_B[:, None], old, fresh))
    return State(*kept)


def written(state: State, what: Committed) -> tuple[Tensor, Tensor]:
    """The outputs with the tokens that were taken now: kept drafts, then what was committed behind them."""
    drafts, junk = state.chain_BC.shape[1] - 1, state.out_BT.shape[1] - 1
    at_I = torch.arange(drafts + what.place_BP.shape[1], device=state.out_BT.device)
    kept_B1 = what.kept_B[:, None]
    from_draft_BI = (state.fresh_B[:, None] + at_I).clamp_max(drafts)
    from_place_BI = (at_I - kept_B1).clamp(0, what.place_BP.shape[1] - 1)
    to_BI = torch.where(at_I < what.taken_B[:, None], state.taken_B[:, None] + at_I, junk).clamp_max(junk)
    found = []
    for out, chain, place in (
        (state.out_BT, state.chain_BC, what.place_BP),
        (state.out_p_BT, state.chain_p_BC, what.probability_BP),
    ):
        token_BI = torch.where(at_I < kept_B1, chain.gather(1, from_draft_BI), place.gather(1, from_place_BI))
        found.append(out.scatter(1, to_BI, token_BI))
    return found[0], found[1]
