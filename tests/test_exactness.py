"""`verified` against left-to-right greedy decoding with the real weights, on real places in real code.

The CPU engine and fp32: every token equal (fp32 on 50 places: each takes 3 s with AVX-512, and several
times as long without).
bf16: where a forward of several rows rounds differently from a forward of one, near-ties may fall the other way; every
difference must be shown to be such a tie. With AVX-512 there is none: rows are independent. With AMX a few rows are
so among themselves, and many are summed up in another order. Without either torch's bf16 is too slow to try.
"""

import math

import pytest
import torch

from diffcode.backbone import KVCache
from diffcode.canvas import make_block
from diffcode.config import ENGINE_DTYPES, DenoiseOptions, WindowOptions
from diffcode.evals.cuts import library_lines
from diffcode.holes import Hole
from diffcode.infill import Infiller
from diffcode.kernels.cpu import native

needs_avx512 = pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="seen with AVX-512 only")
WINDOW = WindowOptions(budget=96)  # short: what is tested does not depend on it, the time does
LEFTMOST = DenoiseOptions("leftmost", max_tokens=10)
VERIFIED = DenoiseOptions("verified", max_tokens=10)
# A bf16 logit between 16 and 32 is a multiple of 1/8; twenty-four layers of bf16 rounding before it add their own.
TIE = 0.5


def pairs(infiller: Infiller, places: int):
    """(line, left-to-right tokens, verified tokens) of each place; half of the cursors stand inside the line."""
    for i, line in enumerate(library_lines(places, seed=7)):
        inside = len(line.solution) * (i % 2) // 2
        text = line.text[: line.at] + line.solution[:inside] + "\n" * (i % 2) + line.text[line.at :]
        hole = (line.at + inside, line.at + inside)
        tokens = [infiller.fill_with(text, [hole], o, stop="\n").spans[0].tokens for o in (LEFTMOST, VERIFIED)]
        yield text, hole, *tokens


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("dtype", "places"), [("float32", 50), ("int8", 100), ("int5", 25), ("bf16", 25)])
def test_every_token_is_left_to_rights(dtype: str, places: int):
    if dtype in ENGINE_DTYPES and native.library() is None:
        pytest.skip("the CPU engine was not built here")
    found = list(pairs(Infiller.from_pretrained(dtype=dtype, window=WINDOW), places))
    assert len(found) == places
    assert [left for _, _, left, _ in found] == [verified for _, _, _, verified in found]


@pytest.mark.slow
@needs_avx512
def test_bf16_differs_in_near_ties_only(record_property):
    infiller = Infiller.from_pretrained(dtype="bfloat16", window=WINDOW)
    ties = []
    for text, hole, left, verified in pairs(infiller, 50):
        if left != verified:
            ties.append(gap(infiller, text, hole, left, verified))
    record_property("ties", ties)
    print(f"bf16: {len(ties)} of 50 places differ, at logit gaps of {[round(t, 3) for t in ties]}")
    assert all(tie <= TIE for tie in ties)
    assert len(ties) <= 5


def gap(
    infiller: Infiller, text: str, hole: tuple[int, int], left: tuple[int, ...], verified: tuple[int, ...]
) -> float:
    """How far apart the two tokens' logits are where the two fills part, by a forward over the common run."""
    same = next(i for i, (a, b) in enumerate(zip(left, verified, strict=False)) if a != b)
    model = infiller.model
    block = make_block(text, [Hole(*hole)], [""], 0, model.tokens, WINDOW)
    run = [*block.context, *left[:same]]
    base, _ = model.session().step(run, (), (), (), 0, [[left[same], verified[same]]])
    odds = base[0].probability / (1 - base[0].probability)  # only the two were allowed
    return abs(math.log(odds))


@pytest.mark.slow
@needs_avx512
@pytest.mark.parametrize("start", [100, 250, 440])
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(start: int):
    """bf16, bitwise: twelve tokens one by one, all at once, and together with the text before them."""
    backbone = Infiller.from_pretrained().model.backbone
    ids = [(i * 7919) % 20_000 for i in range(start + 12)]

    def run(first: int, last: int, cache: KVCache) -> torch.Tensor:
        rows = last - first
        hidden = backbone.forward(
            backbone.embed(ids[first:last]), torch.arange(first, last), cache, torch.ones(rows, rows).bool().tril()
        )
        cache.length += rows
        return hidden

    caches = [backbone.new_cache(512) for _ in range(3)]
    run(0, start, caches[0])
    run(0, start, caches[1])
    one_by_one = torch.cat([run(i, i + 1, caches[0]) for i in range(start, start + 12)])
    assert torch.equal(run(start, start + 12, caches[1]), one_by_one)
    if not torch.cpu.get_capabilities().get("amx_bf16"):  # torch takes it for many rows
        assert torch.equal(run(0, start + 12, caches[2])[start:], one_by_one)
