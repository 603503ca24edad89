"""Stage A: a causal adapter on every row, so that the base knows where a hole ends (DESIGN 2.1).

Merged into the weights it is the base from then on. The loss is that of fill-in-the-middle training (Bavarian et al.
2022), on the middle only: what stands round it is given whenever the model is used.
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
from diffcode.training.loss import Scored, scored_loss
from diffcode.training.options import InfillOptions
from diffcode.training.sampler import Example


class InfillStage:
    """Rows of one text: its context and its middle without the end; the rows before each middle token are scored.

    `source`, the base's folder, is needed where the base itself is trained: what is saved then is a whole model.
    """

    def __init__(self, decoder: Decoder, options: InfillOptions, source: Path | None = None):
        self.decoder, self.options, self._source = decoder, options, source
        self.whole = Whole(decoder)

    def parameters(self) -> Mapping[str, Tensor]:
        return {name: p for name, p in self.decoder.named_parameters() if p.requires_grad}

    def rate_of(self, name: str) -> float:
        return 1.0

    def rows(self, example: Example) -> int:
        return len(example.context) + len(example.middle) - 1

    def score(self, examples: Sequence[tuple[int, Example]]) -> Scored:
        scored: Scored = self.whole(partial(self._score, [example for _, example in examples]))
        return scored

    def _score(self, examples: Sequence[Example]) -> Scored:
        rows, device = _rows(examples, self.options), self.decoder.backbone.device
        ids, positions = (torch.tensor(column, device=device) for column in (rows.ids, rows.positions))
        hidden_RD = self.decoder(self.decoder.embed(ids), positions, CausalAttention(rows.lengths), True)
        return scored_loss(
            hidden_RD[torch.tensor(rows.scored, dtype=torch.long, device=device)],
            self.decoder.head_VD,
            torch.tensor(rows.targets, dtype=torch.long, device=device),
            torch.tensor(rows.weights, device=device),
        )

    def validate(self, examples: Sequence[tuple[int, Example]], world: World = ALONE) -> dict[str, float]:
        """Everything under teacher forcing. `exact` is then the share of middles that greedy decoding gives."""
        nll, right = zip(*world.shared(examples, self._judge), strict=True)
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
        for kind in sorted({example.kind for _, example in examples}):
            mine = [e for e, (_, example) in zip(exact, examples, strict=True) if example.kind == kind]
            found[f"exact_{kind}"] = sum(mine) / len(mine)
        return found

    def _objective(self, nll: Sequence[Tensor]) -> float:
        """The weighted mean loss of some middles."""
        loss = sum(float(n[:-1].sum()) + self.options.end_weight * float(n[-1]) for n in nll)
        return loss / sum(len(n) - 1 + self.options.end_weight for n in nll)

    def _judge(self, examples: Sequence[tuple[int, Example]]) -> list[tuple[Tensor, Tensor]]:
        """Of each example's middle tokens: minus log p, and whether it is the likeliest."""
        scored = self.score(examples)
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
    """All rows of several texts, end to end, and which of them are scored: those that a token of a middle follows."""

    ids: list[int]
    positions: list[int]
    lengths: list[int]  # of the texts
    scored: list[int]
    targets: list[int]  # of the scored rows, as are the weights
    weights: list[float]


def _rows(examples: Sequence[Example], options: InfillOptions) -> _Rows:
    rows = _Rows([], [], [], [], [], [])
    for example in examples:
        text, first = (*example.context, *example.middle), len(example.context)
        before = len(rows.ids)
        rows.ids.extend(text[:-1])
        rows.positions.extend(range(len(text) - 1))
        rows.lengths.append(len(text) - 1)
        rows.scored.extend(range(before + first - 1, before + len(text) - 1))
        rows.targets.extend(text[first:])
        rows.weights.extend([1.0] * (len(example.middle) - 1) + [options.end_weight])
    return rows
