"""Stage A: a causal adapter on every row, so that the base knows where a hole ends (DESIGN 2.1).

Merged into the weights it is the base from then on. The loss is that of fill-in-the-middle training (Bavarian et al.
2022), on the middle only: what stands round it is given whenever the model is used. Where nothing follows the hole
the base knows all it needs, and the adapter learns to leave it as it is.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffcode.training.decoder import CausalAttention, Decoder, Whole
from diffcode.training.distributed import ALONE, World
from diffcode.training.export import save_adapter, save_model
from diffcode.training.loss import Scored, joined, scored_loss
from diffcode.training.options import InfillOptions
from diffcode.training.sampler import Example


class InfillStage:
    """Rows of one text: its context and its middle without the end; the rows before each middle token are scored.

    `source`, the base's folder, is needed where the base itself is trained: what is saved then is a whole model.
    """

    def __init__(self, decoder: Decoder, options: InfillOptions, source: Path | None = None):
        self.decoder, self.options, self._source = decoder, options, source
        self.whole = Whole(decoder)
        beside_base = any("low_rank" in name for name, _ in decoder.named_parameters())
        self._anchors = options.anchor > 0 and beside_base

    def parameters(self) -> Mapping[str, Tensor]:
        return {name: p for name, p in self.decoder.named_parameters() if p.requires_grad}

    def rate_of(self, name: str) -> float:
        return 1.0

    def rows(self, example: Example) -> int:
        return len(example.context) + len(example.middle) - 1

    def score(self, examples: Sequence[tuple[int, Example]]) -> Scored:
        """Texts without a suffix are anchored, if the options say so; they come last."""
        holes = [example for _, example in examples if not self._anchored(example)]
        anchored = [example for _, example in examples if self._anchored(example)]
        return self._run(holes, anchored)

    def _anchored(self, example: Example) -> bool:
        return example.open_ended and self._anchors

    def _score(self, holes: Sequence[Example], anchored: Sequence[Example]) -> Scored:
        """One pass of the adapter over all texts, and one of the base over the anchored ones: under FSDP every process
        must run equally often, so where there are none one row stands in."""
        parts = [_rows(holes, self.options, False), _rows(anchored, self.options, True)]
        hidden_RD = self._hidden(parts, True).split([len(part.ids) for part in parts])
        scored = [self._loss(parts[0], hidden_RD[0])]
        if self._anchors:
            with torch.no_grad():
                teacher_RD = self._hidden([parts[1] if anchored else NO_ROWS], False)
            scored += [self._loss(parts[1], hidden_RD[1], teacher_RD)] if anchored else []
        return joined(scored)

    def _hidden(self, parts: Sequence["_Rows"], adapted: bool) -> Tensor:
        """Hidden states of the rows of all parts, end to end."""
        device = self.decoder.backbone.device
        ids = torch.tensor([i for part in parts for i in part.ids], device=device)
        positions = torch.tensor([i for part in parts for i in part.positions], device=device)
        attend = CausalAttention([length for part in parts for length in part.lengths])
        hidden_RD: Tensor = self.decoder(self.decoder.embed(ids), positions, attend, adapted)
        return hidden_RD

    def _loss(self, rows: "_Rows", hidden_RD: Tensor, teacher_RD: Tensor | None = None) -> Scored:
        device = hidden_RD.device
        scored_S = torch.tensor(rows.scored, dtype=torch.long, device=device)
        return scored_loss(
            hidden_RD[scored_S],
            self.decoder.head_VD,
            torch.tensor(rows.targets, dtype=torch.long, device=device),
            torch.tensor(rows.weights, device=device),
            None if teacher_RD is None else teacher_RD[scored_S],
            0.0 if teacher_RD is None else 1.0,
        )

    def validate(self, examples: Sequence[tuple[int, Example]], world: World = ALONE) -> dict[str, float]:
        """Everything under teacher forcing. `exact` is then the share of middles that greedy decoding gives."""
        holes = [pair for pair in examples if not self._anchored(pair[1])]
        nll, right = zip(*world.shared(holes, self._judge), strict=True)
        exact = [bool(r.all()) for r in right]
        found = {
            # The objective, turned round: the share of exact middles jumps about too much to choose an adapter by.
            "measure": -self._objective(nll),
            "exact": sum(exact) / len(exact),
            "end": sum(bool(r[-1]) for r in right) / len(right),
            "token": float(torch.cat([r[:-1] for r in right]).float().mean()),
            "nll": float(torch.cat([n[:-1] for n in nll]).mean()),
            "nll_end": float(torch.stack([n[-1] for n in nll]).mean()),
        }
        for kind in sorted({example.kind for _, example in holes}):
            mine = [e for e, (_, example) in zip(exact, holes, strict=True) if example.kind == kind]
            found[f"exact_{kind}"] = sum(mine) / len(mine)
        if anchored := [pair for pair in examples if self._anchored(pair[1])]:
            found["as_base"] = sum(world.shared(anchored, self._faithful)) / len(anchored)
        return found

    def _faithful(self, examples: Sequence[tuple[int, Example]]) -> list[float]:
        """Of each text's last rows, the share where the likeliest token is the base's."""
        return [float(self._run([], [example]).agrees_R.float().mean()) for _, example in examples]

    def _run(self, holes: Sequence[Example], anchored: Sequence[Example]) -> Scored:
        scored: Scored = self.whole(partial(self._score, holes, anchored))
        return scored

    def _objective(self, nll: Sequence[Tensor]) -> float:
        """The weighted mean loss of some middles."""
        loss = sum(float(n[:-1].sum()) + self.options.end_weight * float(n[-1]) for n in nll)
        return loss / sum(len(n) - 1 + self.options.end_weight for n in nll)

    def _judge(self, examples: Sequence[tuple[int, Example]]) -> list[tuple[Tensor, Tensor]]:
        """Of each example's middle tokens: minus log p, and whether it is the likeliest."""
        scored = self._run([example for _, example in examples], [])
        lengths = [len(example.middle) for _, example in examples]
        return list(zip(scored.nll_R.cpu().split(lengths), scored.right_R.cpu().split(lengths), strict=True))

    def save(self, folder: Path, note: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None) -> None:
        tensors, shape = tensors or self.parameters(), self.decoder.backbone.shape
        note = {"stage": "infill", **note}
        if "norm_D" in tensors:
            assert self._source is not None
            save_model(folder, self._source, shape, tensors, note)
        else:
            save_adapter(folder, shape, tensors, {}, note)


class _Rows(NamedTuple):
    """All rows of several texts, end to end, and which of them are scored."""

    ids: list[int]
    positions: list[int]
    lengths: list[int]  # of the texts
    scored: list[int]
    targets: list[int]  # of the scored rows, as are the weights
    weights: list[float]


NO_ROWS = _Rows([0], [0], [1], [], [], [])


def _rows(examples: Sequence[Example], options: InfillOptions, anchored: bool) -> _Rows:
    """Scored are the rows that a token of the middle follows, or (`anchored`) the last ones, whatever follows them."""
    rows = _Rows([], [], [], [], [], [])
    for example in examples:
        text, first = (*example.context, *example.middle), len(example.context)
        weights = [1.0] * (len(example.middle) - 1) + [options.end_weight]
        if anchored:
            first = max(1, len(text) - options.anchor_rows)
            weights = [options.anchor] * (len(text) - first)
        before = len(rows.ids)
        rows.ids.extend(text[:-1])
        rows.positions.extend(range(len(text) - 1))
        rows.lengths.append(len(text) - 1)
        rows.scored.extend(range(before + first - 1, before + len(text) - 1))
        rows.targets.extend(text[first:])
        rows.weights.extend(weights)
    return rows
