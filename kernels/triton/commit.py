"""`reference_commit.commit` on the device: one program a fill decides, cuts at the end of the text and says whether the
fill is over, so that no step waits for the host."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcode.kernels.reference_commit import EDIT_COMMITS, MASKED, Committed, Forwarded
from diffcode.kernels.triton.common import Specimen, checked, fresh

KINDS = ("leftmost", "verified", "threshold", "margin", "entropy_bound", "edit")
LEFTMOST, VERIFIED, THRESHOLD, MARGIN, ENTROPY, EDIT = (tl.constexpr(i) for i in range(len(KINDS)))
NOTHING = tl.constexpr(MASKED)
EDIT_BOUND = tl.constexpr(EDIT_COMMITS)


@triton.jit
def first_true(found_P, BLOCK_P: tl.constexpr, nowhere):
    """Index of the first True, `nowhere` if there is none."""
    at_P = tl.arange(0, BLOCK_P)
    return tl.min(tl.where(found_P, at_P, nowhere), 0)


@triton.jit
def is_end(ends_ptr, token_P, ok_P):
    ok_P = ok_P & (token_P >= 0)
    return ok_P & (tl.load(ends_ptr + token_P, mask=ok_P, other=0).to(tl.int32) != 0)


@triton.jit
def sure_places(
    span, p_ptr, margin_ptr, entropy_ptr, window_ptr, bound, stands,
    KIND: tl.constexpr, W: tl.constexpr, S: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Masked places of the window whose span row is sure; lane p is place p, guessed by row p - 1."""
    at_P = tl.arange(0, BLOCK_P)
    inside_P = (at_P >= 1) & (at_P <= S) & (at_P < W) & stands
    open_P = inside_P & (tl.load(window_ptr + at_P, mask=inside_P, other=0) == NOTHING)
    if KIND == MARGIN:
        sure_P = tl.load(margin_ptr + span + at_P - 1, mask=open_P, other=0).to(tl.float64) > bound
    elif KIND == ENTROPY:
        mine_P = tl.load(entropy_ptr + span + at_P - 1, mask=open_P, other=0).to(tl.float64)
        at_Q = tl.arange(0, BLOCK_P)[None, :]
        inside_Q = (at_Q >= 1) & (at_Q <= S) & (at_Q < W) & stands
        open_Q = inside_Q & (tl.load(window_ptr + at_Q, mask=inside_Q, other=0) == NOTHING)
        other_Q = tl.load(entropy_ptr + span + at_Q - 1, mask=open_Q, other=0).to(tl.float64)
        before_PQ = other_Q < mine_P[:, None]
        before_PQ |= (other_Q == mine_P[:, None]) & (at_Q < at_P[:, None])
        total_P = tl.sum(tl.where(before_PQ & open_Q, other_Q, 0.0), 1)
        sure_P = (mine_P <= bound) & (total_P <= bound)
    else:
        p_P = tl.load(p_ptr + span + at_P - 1, mask=open_P, other=0).to(tl.float64)
        sure_P = p_P > (tl.full([1], EDIT_BOUND, tl.float64) if KIND == EDIT else bound)
    return open_P & sure_P


@triton.jit
def checked_places(
    first, first_p, span, span_ptr, span_p_ptr, bound, stands,
    KIND: tl.constexpr, N: tl.constexpr, S: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """The base's token, and behind it the sure run of span rows as drafts."""
    at_P = tl.arange(0, BLOCK_P)
    room_P = (at_P >= 1) & (at_P <= S) & (at_P <= N) & stands & (KIND == VERIFIED)
    sure_P = room_P & (tl.load(span_p_ptr + span + at_P - 1, mask=room_P, other=0).to(tl.float64) >= bound)
    known = first_true((at_P >= 1) & (sure_P == 0), BLOCK_P, BLOCK_P) - 1
    taken_P = (at_P >= 1) & (at_P <= known)
    place_P = tl.load(span_ptr + span + at_P - 1, mask=taken_P, other=NOTHING)
    p_P = tl.load(span_p_ptr + span + at_P - 1, mask=taken_P, other=0)
    return tl.where(at_P == 0, first, place_P), tl.where(at_P == 0, first_p, p_P), known


@triton.jit
def filled_places(
    first, first_p, span, stands, disputed, drafts, draft_ptr, draft_p_ptr, window_ptr, window_p_ptr,
    span_ptr, span_p_ptr, margin_ptr, entropy_ptr, bound,
    KIND: tl.constexpr, W: tl.constexpr, S: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Lane p stands for draft `disputed` + p, and behind the drafts for the window and what is sure in it."""
    at_P = tl.arange(0, BLOCK_P)
    window_P = disputed + at_P - drafts
    in_window_P, in_drafts_P = (window_P >= 0) & (window_P < W), window_P < 0
    place_P = tl.load(window_ptr + window_P, mask=in_window_P, other=NOTHING)
    p_P = tl.load(window_p_ptr + window_P, mask=in_window_P, other=0)
    place_P = tl.where(in_drafts_P, tl.load(draft_ptr + disputed + at_P, mask=in_drafts_P, other=0), place_P)
    p_P = tl.where(in_drafts_P, tl.load(draft_p_ptr + disputed + at_P, mask=in_drafts_P, other=0), p_P)
    stands = stands & (disputed == drafts)
    sure_P = sure_places(
        span, span_p_ptr, margin_ptr, entropy_ptr, window_ptr, bound, stands, KIND, W, S, BLOCK_P
    )  # fmt: skip
    place_P = tl.where(sure_P, tl.load(span_ptr + span + at_P - 1, mask=sure_P, other=0), place_P)
    p_P = tl.where(sure_P, tl.load(span_p_ptr + span + at_P - 1, mask=sure_P, other=0), p_P)
    by_base_P = (at_P == 0) & ((disputed < drafts) | (place_P == NOTHING))
    place_P = tl.where(by_base_P, first, place_P)
    p_P = tl.where(place_P == NOTHING, 0.0, tl.where(by_base_P, first_p, p_P))
    return place_P, p_P, first_true(place_P == NOTHING, BLOCK_P, BLOCK_P)


@triton.jit
def commit_kernel(
    draft_ptr, draft_p_ptr, drafts_ptr, base_ptr, base_p_ptr, window_ptr, window_p_ptr,
    span_ptr, span_p_ptr, margin_ptr, entropy_ptr, anchor_ptr, bound_ptr, left_ptr, ends_ptr,
    counts_ptr, place_ptr, p_ptr,
    KIND: tl.constexpr, N: tl.constexpr, W: tl.constexpr, A: tl.constexpr, S: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    fill = tl.program_id(0).to(tl.int64)
    at_P = tl.arange(0, BLOCK_P)
    drafts, bound, left = tl.load(drafts_ptr + fill), tl.load(bound_ptr + fill), tl.load(left_ptr + fill)
    ok_N = (at_P < N) & (at_P < drafts)
    draft_N = tl.load(draft_ptr + fill * N + at_P, mask=ok_N, other=NOTHING)
    base_ptr += fill * (N + 1)
    base_p_ptr += fill * (N + 1)
    other_N = ok_N & (draft_N != tl.load(base_ptr + at_P, mask=ok_N, other=NOTHING))
    if KIND == LEFTMOST:
        other_N = ok_N
    if KIND == EDIT:  # the base must be sure of its other token
        other_N = other_N & (tl.load(base_p_ptr + at_P, mask=ok_N, other=0).to(tl.float64) > bound)
    kept = drafts
    if (KIND == LEFTMOST) | (KIND == VERIFIED) | (KIND == EDIT):
        kept = tl.minimum(first_true(other_N, BLOCK_P, BLOCK_P), drafts)
    which = tl.full([], -1, tl.int32)  # the anchor whose rows stand behind the kept drafts
    for a in tl.static_range(A):
        which = tl.where(tl.load(anchor_ptr + fill * A + a) == kept, a, which)
    span, stands = (fill * A + tl.maximum(which, 0)) * S, which >= 0
    first, first_p = tl.load(base_ptr + kept), tl.load(base_p_ptr + kept)
    if (KIND == LEFTMOST) | (KIND == VERIFIED):
        place_P, p_P, known = checked_places(
            first, first_p, span, span_ptr, span_p_ptr, bound, stands, KIND, N, S, BLOCK_P
        )  # fmt: skip
        commit = 1
    else:
        place_P, p_P, run = filled_places(
            first, first_p, span, stands, kept, drafts, draft_ptr + fill * N, draft_p_ptr + fill * N,
            window_ptr + fill * W, window_p_ptr + fill * W, span_ptr, span_p_ptr, margin_ptr, entropy_ptr, bound,
            KIND, W, S, BLOCK_P,
        )  # fmt: skip
        commit, known = run, 0
        if KIND == EDIT:
            commit, known = 1, run - 1
    store_decision(
        fill, draft_N, place_P, p_P, kept, commit, known, left, ends_ptr, counts_ptr, place_ptr, p_ptr, N + W, BLOCK_P
    )


@triton.jit
def store_decision(
    fill,
    draft_N,
    place_P,
    p_P,
    kept,
    commit,
    known,
    left,
    ends_ptr,
    counts_ptr,
    place_ptr,
    p_ptr,
    P,
    BLOCK_P: tl.constexpr,
):
    """Mask what stands behind an end in the window, and count up to the first end or the end of the budget."""
    at_P = tl.arange(0, BLOCK_P)
    end_P = is_end(ends_ptr, place_P, at_P < P)
    dead_P = at_P > first_true(end_P & (at_P >= commit + known), BLOCK_P, BLOCK_P)
    in_drafts = first_true(is_end(ends_ptr, draft_N, at_P < kept), BLOCK_P, 2 * BLOCK_P)
    behind = kept + first_true(end_P & (at_P < commit), BLOCK_P, 2 * BLOCK_P)
    whole, total = tl.minimum(in_drafts, behind) + 1, kept + commit
    tl.store(counts_ptr + fill * 5, kept)
    tl.store(counts_ptr + fill * 5 + 1, commit)
    tl.store(counts_ptr + fill * 5 + 2, known)
    tl.store(counts_ptr + fill * 5 + 3, tl.minimum(tl.minimum(whole, total), left))
    tl.store(counts_ptr + fill * 5 + 4, ((whole <= total) | (left <= total)).to(tl.int64))
    tl.store(place_ptr + fill * P + at_P, tl.where(dead_P, NOTHING, place_P), mask=at_P < P)
    tl.store(p_ptr + fill * P + at_P, tl.where(dead_P, 0.0, p_P), mask=at_P < P)


@torch.library.custom_op("diffcode::commit", mutates_args=())
def commit(
    policy: str,
    draft_BN: Tensor,
    draft_p_BN: Tensor,
    drafts_B: Tensor,
    base_BM: Tensor,
    base_p_BM: Tensor,
    window_BW: Tensor,
    window_p_BW: Tensor,
    span_BAS: Tensor,
    span_p_BAS: Tensor,
    margin_BAS: Tensor,
    entropy_BAS: Tensor,
    anchor_BA: Tensor,
    bound_B: Tensor,
    left_B: Tensor,
    ends_V: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference_commit.commit`: counts int64 [B, 5] in the order of `Committed`, places and probabilities [B, P]."""
    (fills, most), window, (_, anchors, spans) = draft_BN.shape, window_BW.shape[1], span_BAS.shape
    fits = base_BM.shape == (fills, most + 1) and anchor_BA.shape == (fills, anchors) and spans < window
    checked(fits, lambda: f"drafts {tuple(draft_BN.shape)}, base {tuple(base_BM.shape)}, spans {tuple(span_BAS.shape)}")
    whole = (draft_BN, drafts_B, base_BM, window_BW, span_BAS, anchor_BA, left_B)
    parts = (draft_p_BN, base_p_BM, window_p_BW, span_p_BAS, margin_BAS, entropy_BAS)
    lies_well = all(t.is_contiguous() for t in (*whole, *parts, bound_B, ends_V))
    right = all(t.dtype == torch.int64 for t in whole) and all(t.dtype == torch.float32 for t in parts)
    right = right and bound_B.dtype == torch.float64 and ends_V.dtype == torch.bool
    checked(
        lies_well and right, lambda: "tokens and counts are int64, bounds fp64, ends bool, the rest fp32, contiguous"
    )
    counts_B5 = fresh((fills, 5), torch.int64, draft_BN.device)
    place_BP = fresh((fills, most + window), torch.int64, draft_BN.device)
    p_BP = fresh((fills, most + window), torch.float32, draft_BN.device)
    if fills:
        commit_kernel[(fills,)](
            draft_BN, draft_p_BN, drafts_B, base_BM, base_p_BM, window_BW, window_p_BW, span_BAS, span_p_BAS,
            margin_BAS, entropy_BAS, anchor_BA, bound_B, left_B, ends_V, counts_B5, place_BP, p_BP,
            KIND=KINDS.index(policy), N=most, W=window, A=anchors, S=spans,
            BLOCK_P=max(16, triton.next_power_of_2(most + window + 1)), num_warps=1,
        )  # fmt: skip
    return counts_B5, place_BP, p_BP


@commit.register_fake
def _(policy: str, draft_BN: Tensor, draft_p_BN: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    window_BW = rest[3]
    fills, places = draft_BN.shape[0], draft_BN.shape[1] + window_BW.shape[1]
    return draft_BN.new_empty((fills, 5)), draft_BN.new_empty((fills, places)), draft_p_BN.new_empty((fills, places))


def flat(policy: str, seen: Forwarded, bound_B: Tensor, left_B: Tensor, ends_V: Tensor) -> tuple[object, ...]:
    """The op's arguments."""
    draft, base, window, span = seen.draft_BN, seen.base_BM, seen.window_BW, seen.span_BAS
    tokens = (draft.token, draft.probability, seen.drafts_B, base.token, base.probability)
    rows = (window.token, window.probability, span.token, span.probability, span.margin, span.entropy, seen.anchor_BA)
    return (policy, *tokens, *rows, bound_B, left_B, ends_V)


def committed(counts_B5: Tensor, place_BP: Tensor, p_BP: Tensor) -> Committed:
    """What the op returns, named."""
    kept, count, drafts, taken, finished = counts_B5.unbind(1)
    return Committed(kept, count, drafts, place_BP, p_BP, taken, finished.bool())


def specimens() -> list[Specimen]:
    """Every policy, with 8 drafts and 4 span rows."""
    whole = ("draft_ptr", "drafts_ptr", "base_ptr", "window_ptr", "span_ptr", "anchor_ptr", "left_ptr", "counts_ptr")
    parts = ("draft_p_ptr", "base_p_ptr", "window_p_ptr", "span_p_ptr", "margin_ptr", "entropy_ptr", "p_ptr")
    types = dict.fromkeys((*whole, "place_ptr"), "*i64") | dict.fromkeys(parts, "*fp32")
    types |= {"bound_ptr": "*fp64", "ends_ptr": "*i1"}
    sizes, options = {"N": 8, "W": 5, "A": 1, "S": 4, "BLOCK_P": 16}, {"num_warps": 1}
    return [
        Specimen(f"commit {name}", commit_kernel, types, {"KIND": i} | sizes, (), options, product=False, wide=False)
        for i, name in enumerate(KINDS)
    ]
