"""The specification of `commit`, in plain torch: the policies of `diffcode.policies` on tensors, B fills at once.

So a step needs no look of the host: what becomes of a forward stays on the device. Text rules (stop strings, a
re-opened prefix, n-gram drafts) remain the host's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -1  # a place without a token
EDIT_COMMITS = 0.9  # as in diffcode.policies


@dataclass(frozen=True, slots=True)
class Placed:
    """Tokens at some places and how sure their rows were of them."""

    token: Tensor  # int64, MASKED where there is none
    probability: Tensor  # fp32


@dataclass(frozen=True, slots=True)
class Guesses(Placed):
    """What span rows say."""

    margin: Tensor  # fp32
    entropy: Tensor  # fp32


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What one forward said of B fills: N drafts at most, W window places, A anchors with S < W span rows each.

    The row at window place w guesses place w + 1, as in `diffcode.policies.View`.
    """

    draft_BN: Placed
    drafts_B: Tensor  # int64, how many of the N there are
    base_BM: Placed  # M = N + 1: [i] is what the base puts behind i drafts
    window_BW: Placed
    span_BAS: Guesses
    anchor_BA: Tensor  # int64: behind how many drafts an anchor's rows stand, MASKED for an anchor that is not used


@dataclass(frozen=True, slots=True)
class Committed:
    """What becomes of it. The places P = N + W stand behind the kept drafts: committed ones, drafts, the window."""

    kept_B: Tensor  # int64: drafts that are committed now
    commit_B: Tensor  # int64: places committed behind them, at least one
    drafts_B: Tensor  # int64: places behind those that the next forward checks; after `edit` they may be over N
    place_BP: Tensor  # int64 token or MASKED
    probability_BP: Tensor  # fp32, 0 where masked
    taken_B: Tensor  # int64: kept drafts and committed places up to the end of the text or of the budget
    finished_B: Tensor  # bool: one of the two was reached


def columns(guesses: Placed) -> tuple[Tensor, ...]:
    """The tensors, in order."""
    both = (guesses.token, guesses.probability)
    return (*both, guesses.margin, guesses.entropy) if isinstance(guesses, Guesses) else both


def commit(policy: str, seen: Forwarded, bound_B: Tensor, left_B: Tensor, ends_V: Tensor) -> Committed:
    """The decision of a policy of `diffcode.policies`, without n-grams.

    `bound_B` fp64, the policy's number; `left_B` tokens that a fill may still take; `ends_V` True for tokens that end
    a text. Places of the window behind the first end are masked again.
    """
    if policy in ("leftmost", "verified"):
        kept_B, place_BP, p_BP, commit_B, drafts_B = _checked(policy, seen, bound_B)
    else:
        kept_B, place_BP, p_BP = _filled(policy, seen, bound_B)
        run_B = _first(place_BP == MASKED)
        commit_B, drafts_B = (torch.ones_like(run_B), run_B - 1) if policy == "edit" else (run_B, 0 * run_B)
    at_P = torch.arange(place_BP.shape[1], device=place_BP.device)
    end_BP = (place_BP != MASKED) & ends_V[place_BP.clamp_min(0)]
    dead_BP = at_P > _first(end_BP & (at_P >= (commit_B + drafts_B)[:, None]))[:, None]
    place_BP, p_BP = place_BP.masked_fill(dead_BP, MASKED), p_BP.masked_fill(dead_BP, 0)
    draft_BN = seen.draft_BN.token
    at_N = torch.arange(draft_BN.shape[1], device=place_BP.device)
    in_drafts_B = _first(ends_V[draft_BN.clamp_min(0)] & (at_N < kept_B[:, None]))
    behind_B = kept_B + _first(end_BP & (at_P < commit_B[:, None]))
    total_B = kept_B + commit_B
    whole_B = torch.where(in_drafts_B < kept_B, in_drafts_B, behind_B) + 1  # tokens up to the first end
    taken_B = torch.minimum(torch.minimum(whole_B, total_B), left_B)
    finished_B = (whole_B <= total_B) | (left_B <= total_B)
    return Committed(kept_B, commit_B, drafts_B, place_BP, p_BP, taken_B, finished_B)


def _first(found_BP: Tensor) -> Tensor:
    """Index of the first True along the last axis, its length where there is none, int64 [B]."""
    at_P = torch.arange(found_BP.shape[1] + 1, device=found_BP.device)
    return torch.where(F.pad(found_BP, (0, 1), value=True), at_P, len(at_P)).amin(1)


def _standing(seen: Forwarded, behind_B: Tensor) -> tuple[Guesses, Tensor]:
    """The guesses of the span rows behind so many drafts, [B, S], and whether there are any."""
    hit_BA = seen.anchor_BA == behind_B[:, None]
    rows_B, which_B = torch.arange(len(behind_B), device=behind_B.device), hit_BA.int().argmax(1)
    return Guesses(*(column[rows_B, which_B] for column in columns(seen.span_BAS))), hit_BA.any(1)


def _checked(policy: str, seen: Forwarded, bound_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The base decides. `verified` keeps what it agrees with, and drafts the sure run of the span rows behind that."""
    draft_BN, base = seen.draft_BN.token, seen.base_BM
    most, window = draft_BN.shape[1], seen.window_BW.token.shape[1]
    at_N = torch.arange(most, device=draft_BN.device)
    agrees_BN = (draft_BN == base.token[:, :most]) & (at_N < seen.drafts_B[:, None])
    kept_B = _first(~agrees_BN) if policy == "verified" else torch.zeros_like(seen.drafts_B)
    place_BP = torch.full((len(kept_B), most + window), MASKED, device=draft_BN.device)
    p_BP = torch.zeros(place_BP.shape, device=draft_BN.device)
    place_BP[:, 0] = base.token.gather(1, kept_B[:, None])[:, 0]
    p_BP[:, 0] = base.probability.gather(1, kept_B[:, None])[:, 0]
    commit_B, drafts_B = torch.ones_like(kept_B), torch.zeros_like(kept_B)
    if policy == "verified":
        span, stands_B = _standing(seen, kept_B)
        room = min(most, span.token.shape[1])
        sure_BS = (span.probability[:, :room].double() >= bound_B[:, None]) & stands_B[:, None]
        drafts_B = _first(~sure_BS)
        drafted_BS = torch.arange(room, device=draft_BN.device) < drafts_B[:, None]
        place_BP[:, 1 : 1 + room] = torch.where(drafted_BS, span.token[:, :room], MASKED)
        p_BP[:, 1 : 1 + room] = torch.where(drafted_BS, span.probability[:, :room], 0)
    return kept_B, place_BP, p_BP, commit_B, drafts_B


def _filled(policy: str, seen: Forwarded, bound_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Kept drafts and all places behind them: the left-most place, known ones, masked ones whose row is sure."""
    base, window, drafts_B = seen.base_BM, seen.window_BW, seen.drafts_B
    span, stands_B = _standing(seen, drafts_B)
    last = [t.gather(1, drafts_B[:, None]) for t in (base.token, base.probability)]
    room = min(span.token.shape[1], window.token.shape[1] - 1)
    open_BS = (window.token[:, 1 : 1 + room] == MASKED) & stands_B[:, None]
    sure_BS = _sure(policy, Guesses(*(column[:, :room] for column in columns(span))), open_BS, bound_B)
    found: list[Tensor] = []
    for known, first, guess in zip(columns(window), last, columns(span)[:2], strict=True):
        places = known.clone()
        places[:, :1] = torch.where(window.token[:, :1] == MASKED, first, known[:, :1])
        places[:, 1 : 1 + room] = torch.where(sure_BS & open_BS, guess[:, :room], known[:, 1 : 1 + room])
        found.append(F.pad(places, (0, seen.draft_BN.token.shape[1]), value=0 if found else MASKED))
    place_BP, p_BP = found
    p_BP = p_BP.masked_fill(place_BP == MASKED, 0)
    return _replaced(seen, bound_B, place_BP, p_BP) if policy == "edit" else (drafts_B, place_BP, p_BP)


def _sure(policy: str, span: Guesses, open_BS: Tensor, bound_B: Tensor) -> Tensor:
    """The rules of `threshold`, `edit`, `margin`; and of `entropy_bound`, over the open places alone."""
    if policy == "margin":
        return span.margin.double() > bound_B[:, None]
    if policy != "entropy_bound":
        return span.probability.double() > (EDIT_COMMITS if policy == "edit" else bound_B[:, None])
    entropy_BS = span.entropy.double()
    at_S = torch.arange(entropy_BS.shape[1], device=entropy_BS.device)
    mine_BST, other_BST = entropy_BS[:, :, None], entropy_BS[:, None, :]
    before_BST = (other_BST < mine_BST) | ((other_BST == mine_BST) & (at_S < at_S[:, None]))
    total_BS = torch.where(before_BST & open_BS[:, None], other_BST, 0.0).sum(2)
    return (entropy_BS <= bound_B[:, None]) & (total_BS <= bound_B[:, None])


def _replaced(seen: Forwarded, bound_B: Tensor, place_BP: Tensor, p_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`edit` where the base, sure of itself, holds another token than a draft: its token, then what stood behind."""
    draft, base, window, drafts_B = seen.draft_BN, seen.base_BM, seen.window_BW, seen.drafts_B
    most = draft.token.shape[1]
    other_BN = (base.token[:, :most] != draft.token) & (base.probability[:, :most].double() > bound_B[:, None])
    disputed_B = _first(other_BN & (torch.arange(most, device=drafts_B.device) < drafts_B[:, None]))
    is_B1 = (disputed_B < most)[:, None]
    rest_BP = torch.arange(place_BP.shape[1], device=drafts_B.device) + disputed_B[:, None]  # place p was this draft
    in_window_BP = (rest_BP - drafts_B[:, None]).clamp_min(0)
    found = []
    for old, mine, first, known in zip((place_BP, p_BP), columns(draft), columns(base), columns(window), strict=True):
        nothing = MASKED if known.dtype == torch.int64 else 0
        behind_BP = F.pad(known, (0, 1), value=nothing).gather(1, in_window_BP.clamp_max(known.shape[1]))
        drafted_BP = F.pad(mine, (0, 1)).gather(1, rest_BP.clamp_max(most))
        new_BP = torch.where(rest_BP < drafts_B[:, None], drafted_BP, behind_BP)
        new_BP[:, :1] = first.gather(1, disputed_B[:, None])
        found.append(torch.where(is_B1, new_BP, old))
    p_new_BP = found[1].masked_fill(found[0] == MASKED, 0)
    return torch.where(is_B1[:, 0], disputed_B, drafts_B), found[0], p_new_BP
