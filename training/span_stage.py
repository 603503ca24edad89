"""Stage B: the span adapter on the frozen, merged base (DESIGN 2.1 and 7).

One causal pass of the base over a text, without gradients, serves all of its spans: its keys and values are their
context, its final states are the teacher.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffcode.adapter import SpanAdapter
from diffcode.config import DEFAULT_THRESHOLDS
from diffcode.drafts import likeliest_outcomes
from diffcode.errors import UnreadableFile
from diffcode.kernels import reference as ops
from diffcode.training.decoder import CausalAttention, Decoder, SpanAttention, Whole
from diffcode.training.distributed import ALONE, World
from diffcode.training.export import save_adapter
from diffcode.training.loss import Scored, scored_loss
from diffcode.training.masks import MASKED, Span, draw_spans, make_span
from diffcode.training.options import DenoisingOptions
from diffcode.training.sampler import Example

SUCCESSOR = 512  # width of the successor map: 1.4 M weights


@dataclass(frozen=True, slots=True)
class Text:
    """An example with its spans."""

    ids: tuple[int, ...]
    middle: int  # where the middle begins
    spans: Sequence[Span]


class SpanHead(nn.Module):
    """What a span adapter has besides its low-rank maps."""

    def __init__(self, width: int, generator: torch.Generator):
        super().__init__()
        self.mask_D = nn.Parameter(torch.zeros(width))
        self.down_HE = nn.Parameter(torch.randn(SUCCESSOR, 2 * width, generator=generator) / (2 * width) ** 0.5)
        self.up_DH = nn.Parameter(torch.zeros(width, SUCCESSOR))  # zero: training begins at rows that stand alone

    def begin_from(self, adapter: SpanAdapter) -> None:
        """Take over what an adapter has of these."""
        self.mask_D = nn.Parameter(adapter.mask_D.float().clone())
        if adapter.successor is not None:
            self.down_HE = nn.Parameter(adapter.successor.down_rD.float().clone())
            self.up_DH = nn.Parameter(adapter.successor.up_Er.float().clone())


class SpanStage:
    """Rows of one text: its ids once by the base, then all places of its spans."""

    def __init__(self, decoder: Decoder, head: SpanHead, kept_N: Tensor, fim_middle: int, options: DenoisingOptions):
        self.decoder, self.head, self.options = decoder, head, options
        self.whole = Whole(decoder, head)
        self.kept_N = kept_N
        self._fim_middle = fim_middle
        self._head_ND = decoder.head_VD.detach()[kept_N].contiguous()
        self._number_of = torch.full((len(decoder.head_VD) + 1,), -1, dtype=torch.long, device=kept_N.device)
        self._number_of[kept_N] = torch.arange(len(kept_N), device=kept_N.device)  # the last one, for -1, stays -1

    def parameters(self) -> Mapping[str, Tensor]:
        mine = {name: p for name, p in self.decoder.named_parameters() if p.requires_grad}
        return mine | {f"head.{name}": p for name, p in self.head.named_parameters()}

    def rate_of(self, name: str) -> float:
        return self.options.heads_rate if name.startswith("head.") else 1.0

    def rows(self, example: Example) -> int:
        return len(example.context) + len(example.middle) + self.options.window * self.options.starts

    def score(self, examples: Sequence[tuple[int, Example]]) -> Scored:
        texts = [self._text(example, random.Random(f"spans:{number}")) for number, example in examples]
        return self._score(texts)

    def _text(self, example: Example, rng: random.Random) -> Text:
        ids, middle = (*example.context, *example.middle), len(example.context)
        first = example.context.index(self._fim_middle) + 1
        return Text(ids, middle, draw_spans(ids, first, middle, ids[-1], self.options, rng))

    def _score(self, texts: Sequence[Text]) -> Scored:
        scored: Scored = self.whole(partial(self._forward, texts))
        return scored

    def _forward(self, texts: Sequence[Text]) -> Scored:
        device = self.decoder.backbone.device
        lengths = [len(text.ids) for text in texts]
        base = CausalAttention(lengths, keep=True)
        with torch.no_grad():
            ids_T = torch.tensor([token for text in texts for token in text.ids], device=device)
            positions_T = torch.cat([torch.arange(n, device=device) for n in lengths])
            teacher_TD = self.decoder(self.decoder.embed(ids_T), positions_T, base, adapted=False)
        hidden_RD = self._span_rows(texts, base)
        flat = _flat(texts, device)
        scored_S = (flat.target_R >= 0).nonzero()[:, 0]
        eps = self.decoder.backbone.shape.norm_eps
        previous_SD = self.decoder.embed(flat.previous_R[scored_S])
        down_HE, up_DH = (w.to(previous_SD.dtype) for w in (self.head.down_HE, self.head.up_DH))
        x_SD = ops.successor(hidden_RD[scored_S], previous_SD, down_HE, up_DH, eps)
        return scored_loss(
            x_SD,
            self._head_ND,
            self._number_of[flat.target_R[scored_S]],
            flat.weight_R[scored_S],
            teacher_TD[flat.teacher_R[scored_S]],
            self.options.distill,
        )

    def _span_rows(self, texts: Sequence[Text], base: CausalAttention) -> Tensor:
        device = self.decoder.backbone.device
        shown = [token for text in texts for span in text.spans for token in span.shown]
        shown_R = torch.tensor(shown, dtype=torch.long, device=device)  # there may be none: a short text has no place
        starts = [torch.tensor([s.start for s in text.spans], dtype=torch.long, device=device) for text in texts]
        places = torch.arange(self.options.window, device=device)
        positions_R = torch.cat([(start[:, None] + places).flatten() for start in starts])
        x_RD = self.decoder.embed(shown_R.clamp_min(0))
        x_RD = torch.where(shown_R[:, None] == MASKED, self.head.mask_D.to(x_RD.dtype), x_RD)
        attend = SpanAttention(base.lengths, base.kept, starts, self.options.window)
        hidden_RD: Tensor = self.decoder(x_RD, positions_R, attend)
        return hidden_RD

    def validate(self, examples: Sequence[tuple[int, Example]], world: World = ALONE) -> dict[str, float]:
        """Spans of masks behind every place of every middle, and what `verified` would make of them."""
        plain = replace(self.options, noise=0.0)
        rng = random.Random(0)
        texts = []
        for _, example in examples:
            ids, middle = (*example.context, *example.middle), len(example.context)
            spans = [make_span(ids, s, ids[-1], frozenset(), plain, rng) for s in range(middle, len(ids) - 1)]
            if spans:
                texts.append(Text(ids, middle, spans))
        if not texts:
            raise UnreadableFile("every held-out middle is empty: take more of them, --set validation_texts=96")
        judged = _Judged(*map(torch.cat, zip(*world.shared(texts, self._judge), strict=True)))
        middles = [len(text.spans) for text in texts]
        found = {"measure": tokens_a_forward(judged.agrees_SW, judged.chance_SW, middles)}
        found["tokens_a_forward"] = found["measure"]
        for w in range(self.options.window):
            here = judged.alive_SW[:, w]
            found[f"agrees_{w + 1}"] = float(judged.agrees_SW[here, w].float().mean())
            found[f"right_{w + 1}"] = float(judged.right_SW[here, w].float().mean())
            known = here & judged.known_SW[:, w]
            found[f"nll_{w + 1}"] = float(judged.nll_SW[known, w].mean())
        return found

    def _judge(self, texts: Sequence[Text]) -> list["_Judged"]:
        window, found = self.options.window, []
        for first in range(0, len(texts), 16):
            part = texts[first : first + 16]
            scored = self._score(part)
            columns = (scored.agrees_R, scored.right_R, scored.nll_R, scored.top_R)
            counts = [len(text.spans) for text in part]
            split = [column_R.view(-1, window).cpu().split(counts) for column_R in columns]
            for text, agrees, right, nll, chance in zip(part, *split, strict=True):
                alive = [[s.start + w + 1 < len(text.ids) for w in range(window)] for s in text.spans]
                known = self._number_of[torch.tensor([s.targets for s in text.spans])].cpu() >= 0
                found.append(_Judged(agrees, right, nll, chance, torch.tensor(alive), known))
        return found

    def save(self, folder: Path, note: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None) -> None:
        tensors = tensors or self.parameters()
        more = {
            "mask_embedding": tensors["head.mask_D"].to(torch.bfloat16),
            "successor_down": tensors["head.down_HE"].to(torch.bfloat16),
            "successor_up": tensors["head.up_DH"].to(torch.bfloat16),
            "kept_tokens": self.kept_N.to(torch.int32),
        }
        save_adapter(folder, self.decoder.backbone.shape, tensors, more, {"stage": "span", **note})


class _Judged(NamedTuple):
    """What the rows of a text's S spans came to, by place."""

    agrees_SW: Tensor
    right_SW: Tensor
    nll_SW: Tensor
    chance_SW: Tensor
    alive_SW: Tensor  # the place is not behind the end of the text
    known_SW: Tensor  # its token is among the kept ones


@dataclass(frozen=True, slots=True)
class _Flat:
    """Every span row of several texts, R in all."""

    target_R: Tensor
    previous_R: Tensor
    weight_R: Tensor
    teacher_R: Tensor  # the base row that says what stands behind the same place


def _flat(texts: Sequence[Text], device: torch.device) -> _Flat:
    targets: list[int] = []
    previous: list[int] = []
    weights: list[float] = []
    teachers: list[int] = []
    first = 0
    for text in texts:
        for span in text.spans:
            targets += span.targets
            previous += span.previous
            weights += span.weights
            # Behind the end the base has no row; its last one stands in, such places weigh next to nothing.
            teachers += [first + min(span.start + w, len(text.ids) - 2) for w in range(len(span.shown))]
        first += len(text.ids)
    numbers = (torch.tensor(column, dtype=torch.long, device=device) for column in (targets, previous, teachers))
    target_R, previous_R, teacher_R = numbers
    return _Flat(target_R, previous_R, torch.tensor(weights, device=device), teacher_R)


def tokens_a_forward(agrees_SW: Tensor, chance_SW: Tensor, middles: Sequence[int]) -> float:
    """Tokens a forward of `verified` on these middles, n-grams aside, with span rows for one outcome of the check.

    `agrees_SW[s, w]`: the row w places behind start s drafts what the base would say there; `chance_SW`: its
    confidence. A middle of n + 1 tokens has n starts. Drafts behind a refused one are lost, and so is a forward where
    no span rows stood behind what was kept.
    """
    forwards = tokens = first = 0
    sure_SW = chance_SW >= DEFAULT_THRESHOLDS["verified"]
    proposed_S = sure_SW.long().cumprod(1).sum(1)
    kept_S = torch.minimum(agrees_SW.long().cumprod(1).sum(1), proposed_S)
    for n in middles:
        here = slice(first, first + n)
        proposed, kept, chances = proposed_S[here].tolist(), kept_S[here].tolist(), chance_SW[here].tolist()
        decided, start = 0, -1  # places decided, and the start that drafts come from; -1: there are none
        while decided <= n:
            forwards += 1
            drafts = min(proposed[start], n - start) if start >= 0 else 0
            agreed = min(kept[start], drafts) if drafts else 0
            (stands,) = likeliest_outcomes(chances[start][:drafts] if drafts else (), 1)
            decided += agreed + 1
            start = decided - 1 if agreed == stands and decided <= n else -1
        tokens += n + 1
        first += n
    return tokens / forwards
