"""The specification itself against loops in fp64 that a reader can check by eye."""

import math

import pytest
import torch
from torch import Tensor

from diffcode.kernels.reference import (
    HeadRows,
    gated_low_rank,
    masked_head,
    rms_norm,
    rotate,
    span_attention,
    successor,
)

ROWS = (0, 1, 2, 3, 7, 8, 9, 31)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- rms_norm ---


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_rms_norm_equals_its_formula(rows: int, eps: float) -> None:
    x_RD, weight_D = normal(rows, 13, seed=rows), normal(13, seed=99)
    out_RD = rms_norm(x_RD, weight_D, eps)
    assert out_RD.shape == (rows, 13)
    for x_D, out_D in zip(x_RD.tolist(), out_RD.tolist(), strict=True):
        scale = math.sqrt(sum(v * v for v in x_D) / 13 + eps)
        assert out_D == pytest.approx([v / scale * w for v, w in zip(x_D, weight_D.tolist(), strict=True)], abs=1e-5)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert torch.equal(rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6), torch.zeros(2, 8))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_rms_norm_takes_its_mean_in_fp32(dtype: torch.dtype, tolerance: float) -> None:
    """300 squared is beyond fp16, and a mean of 4096 squares is beyond bf16's eight bits."""
    x_RD = 300 * normal(3, 4096).to(dtype)
    out_RD = rms_norm(x_RD, torch.ones(4096, dtype=dtype), 1e-6)
    exact_RD = x_RD.double() / x_RD.double().square().mean(-1, keepdim=True).sqrt()
    assert out_RD.dtype == dtype
    assert (out_RD.double() - exact_RD).abs().max() < tolerance * exact_RD.abs().max()


# --- rotate ---


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("width", [2, 8, 34])
def test_rotate_turns_pairs_of_numbers(rows: int, width: int) -> None:
    """Number i and number i + K / 2 are one complex number, turned by the angle of its row."""
    x_RHK, half = normal(rows, 3, width, seed=rows).double(), width // 2
    angle_RK = 10 * normal(rows, half, seed=5).double()
    out_RHK = rotate(x_RHK, angle_RK.cos().repeat(1, 2), angle_RK.sin().repeat(1, 2))
    gold = (
        torch.complex(x_RHK[..., :half], x_RHK[..., half:]) * torch.polar(torch.ones_like(angle_RK), angle_RK)[:, None]
    )
    assert out_RHK.shape == x_RHK.shape
    assert torch.allclose(out_RHK, torch.cat((gold.real, gold.imag), dim=-1), atol=1e-12)


def test_rotated_products_depend_on_distance_alone() -> None:
    q_K, k_K, speed_K = normal(16, seed=1).double(), normal(16, seed=2).double(), torch.rand(8).double().repeat(2)

    def product(at: int, other: int) -> float:
        q, k = (
            rotate(v[None, None], (p * speed_K).cos()[None], (p * speed_K).sin()[None])
            for v, p in ((q_K, at), (k_K, other))
        )
        return float((q * k).sum())

    assert product(9, 4) == pytest.approx(product(105, 100), abs=1e-9)
    assert abs(product(9, 4) - product(9, 5)) > 1e-3


# --- span_attention ---


def attention(q_RHK: Tensor, k_GSK: Tensor, v_GSK: Tensor, seen_RS: Tensor | None) -> Tensor:
    """One row and one head at a time, in fp64."""
    rows, heads, width = q_RHK.shape
    groups, keys, _ = k_GSK.shape
    out_RHK = torch.zeros(rows, heads, width, dtype=torch.float64)
    for row in range(rows):
        looks = [s for s in range(keys) if seen_RS is None or seen_RS[row, s]]
        for head in range(heads):
            k_SK, v_SK = (t[head // (heads // groups), looks].double() for t in (k_GSK, v_GSK))
            weights_S = torch.exp(k_SK @ q_RHK[row, head].double() / math.sqrt(width))
            out_RHK[row, head] = weights_S @ v_SK / weights_S.sum()
    return out_RHK.reshape(rows, heads * width)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (14, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "open"])
def test_span_attention_equals_a_loop(rows: int, heads: int, groups: int, masked: bool) -> None:
    keys = 11 + rows
    q_RHK, k_GSK, v_GSK = (
        normal(*s, seed=i) for i, s in enumerate([(rows, heads, 8), (groups, keys, 8), (groups, keys, 8)])
    )
    seen_RS = normal(rows, keys, seed=7) > 0
    seen_RS[:, 0] = True  # a row that sees nothing has no answer
    out_RE = span_attention(q_RHK, k_GSK, v_GSK, seen_RS if masked else None)
    assert out_RE.shape == (rows, heads * 8)
    gold_RE = attention(q_RHK, k_GSK, v_GSK, seen_RS if masked else None)
    assert torch.allclose(out_RE.double(), gold_RE, atol=1e-5)


@pytest.mark.parametrize("keys", [1, 2, 63, 64, 65, 127])
def test_span_attention_over_any_number_of_keys(keys: int) -> None:
    q_RHK, k_GSK, v_GSK = normal(5, 4, 16), normal(2, keys, 16, seed=1), normal(2, keys, 16, seed=2)
    assert torch.allclose(
        span_attention(q_RHK, k_GSK, v_GSK, None).double(), attention(q_RHK, k_GSK, v_GSK, None), atol=1e-5
    )


def test_span_attention_reads_slices_of_a_cache() -> None:
    """As the backbone calls it: keys and values lie in a longer buffer, queries in a fused product."""
    buffer_GCK, fused_RNK = normal(2, 40, 8, seed=1), normal(3, 9, 8, seed=2)
    view, whole = buffer_GCK[:, :17], buffer_GCK[:, :17].clone()
    out_RE = span_attention(fused_RNK[:, :4].contiguous(), view, view, None)
    assert torch.equal(out_RE, span_attention(fused_RNK[:, :4].clone(), whole, whole, None))


def test_what_is_not_seen_has_no_say() -> None:
    q_RHK, k_GSK, v_GSK = normal(3, 4, 8), normal(2, 6, 8, seed=1), normal(2, 6, 8, seed=2)
    seen_RS = torch.tensor([[1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]], dtype=torch.bool)
    before = span_attention(q_RHK, k_GSK, v_GSK, seen_RS)
    for key in (3, 5):
        k_GSK[:, key], v_GSK[:, key] = 1e4, -1e4
    assert torch.equal(span_attention(q_RHK, k_GSK, v_GSK, seen_RS), before)


# --- gated_low_rank ---


@pytest.mark.parametrize("rows", ROWS)
def test_gated_low_rank_is_the_merged_product(rows: int) -> None:
    x_RD, down_rD, up_Er = normal(rows, 16), normal(3, 16, seed=1), normal(5, 3, seed=2)
    assert torch.allclose(gated_low_rank(x_RD, down_rD, up_Er), x_RD @ (up_Er @ down_rD).T, atol=1e-4)


# --- successor ---


@pytest.mark.parametrize("rows", [0, *ROWS[1:]])
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_successor_equals_its_formula(rows: int, eps: float) -> None:
    x_RD, previous_RD = 3 * normal(rows, 12, seed=rows), 0.1 * normal(rows, 12, seed=50)
    down_HE, up_DH = normal(5, 24, seed=51), normal(12, 5, seed=52)
    out_RD = successor(x_RD, previous_RD, down_HE, up_DH, eps)
    assert out_RD.shape == (rows, 12)
    for x_D, previous_D, out_D in zip(x_RD.double(), previous_RD.double(), out_RD.double(), strict=True):
        both = []
        for part_D in (x_D, previous_D):
            scale = math.sqrt(sum(v * v for v in part_D.tolist()) / 12 + eps)
            both += [v / scale for v in part_D.tolist()]
        inner_H = [sum(a * b for a, b in zip(row, both, strict=True)) for row in down_HE.double().tolist()]
        inner = torch.tensor([h / (1 + math.exp(-h)) for h in inner_H]).double()
        assert torch.allclose(out_D, x_D + up_DH.double() @ inner, atol=1e-4)


def test_successor_rows_are_strangers() -> None:
    x_RD, previous_RD = normal(7, 16), normal(7, 16, seed=1)
    down_HE, up_DH = normal(4, 32, seed=2), normal(16, 4, seed=3)
    whole = successor(x_RD, previous_RD, down_HE, up_DH, 1e-6)
    for row in range(7):
        alone = successor(x_RD[row, None], previous_RD[row, None], down_HE, up_DH, 1e-6)
        assert torch.allclose(alone[0], whole[row], atol=1e-5)
    assert torch.equal(successor(x_RD, previous_RD, down_HE, torch.zeros(16, 4), 1e-6), x_RD)


# --- masked_head ---

VOCABULARY = 53


def head_rows(rows: int, barred_RV: Tensor | None = None) -> tuple[HeadRows, Tensor]:
    """What the op says, and the plain softmax of the same rows in fp64."""
    x_RD, head_VD = normal(rows, 16, seed=rows), normal(VOCABULARY, 16, seed=1)
    logits_RV = x_RD.double() @ head_VD.double().T
    if barred_RV is not None:
        logits_RV[barred_RV] = -torch.inf
    return masked_head(x_RD, head_VD, barred_RV=barred_RV), logits_RV.softmax(-1)


def check_rows(found: HeadRows, p_RV: Tensor) -> None:
    assert found.token_R.dtype == torch.int64
    for i, p_V in enumerate(p_RV.tolist()):
        first, second = sorted(p_V, reverse=True)[:2]
        assert found.token_R[i] == p_V.index(first)
        assert float(found.probability_R[i]) == pytest.approx(first, abs=1e-5)
        assert float(found.margin_R[i]) == pytest.approx(first - second, abs=1e-5)
        assert float(found.entropy_R[i]) == pytest.approx(-sum(p * math.log(p) for p in p_V if p), abs=1e-4)


@pytest.mark.parametrize("rows", ROWS)
def test_masked_head_is_a_softmax(rows: int) -> None:
    found, p_RV = head_rows(rows)
    assert {t.shape for t in (found.token_R, found.probability_R, found.margin_R, found.entropy_R)} == {(rows,)}
    check_rows(found, p_RV)


@pytest.mark.parametrize("rows", ROWS)
def test_barred_tokens_have_no_share(rows: int) -> None:
    barred_RV = normal(rows, VOCABULARY, seed=3) > -0.5  # most of them
    found, p_RV = head_rows(rows, barred_RV)
    assert not barred_RV.gather(1, found.token_R[:, None]).any()
    check_rows(found, p_RV)


def test_a_single_free_token_is_certain() -> None:
    barred_RV = torch.ones(3, VOCABULARY, dtype=torch.bool)
    barred_RV[torch.arange(3), torch.tensor([0, 20, VOCABULARY - 1])] = False
    found, _ = head_rows(3, barred_RV)
    assert found.token_R.tolist() == [0, 20, VOCABULARY - 1]
    assert found.probability_R.tolist() == found.margin_R.tolist() == [1, 1, 1]
    assert found.entropy_R.tolist() == [0, 0, 0]


def test_huge_logits_stay_finite() -> None:
    found = masked_head(1e4 * normal(4, 16), normal(VOCABULARY, 16, seed=1))
    for column in (found.probability_R, found.margin_R, found.entropy_R):
        assert column.isfinite().all()
    assert found.probability_R.min() > 0.99


def test_equal_logits_have_the_largest_entropy() -> None:
    found = masked_head(torch.zeros(2, 16), normal(VOCABULARY, 16))
    assert found.entropy_R.tolist() == pytest.approx([math.log(VOCABULARY)] * 2, abs=1e-5)
    assert found.margin_R.tolist() == pytest.approx([0, 0], abs=1e-7)
    assert found.probability_R.tolist() == pytest.approx([1 / VOCABULARY] * 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_come_in_fp32_from_narrow_rows(dtype: torch.dtype) -> None:
    found = masked_head(normal(5, 16).to(dtype), normal(VOCABULARY, 16, seed=1).to(dtype))
    assert {t.dtype for t in (found.probability_R, found.margin_R, found.entropy_R)} == {torch.float32}
    p_RV = (normal(5, 16).to(dtype).double() @ normal(VOCABULARY, 16, seed=1).to(dtype).double().T).softmax(-1)
    assert torch.allclose(found.probability_R.double(), p_RV.max(-1).values, atol=0.02)


def gumbel(rows: int, seed: int) -> Tensor:
    uniform_RV = torch.rand(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -torch.log(-torch.log(uniform_RV))


@pytest.mark.parametrize("nats", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_favoured_token_is_chosen_as_if_its_logit_were_larger(nats: float, drawn: bool) -> None:
    x_RD, head_VD = normal(64, 16), normal(VOCABULARY, 16, seed=1)
    more = {"gumbel_RV": gumbel(64, 4), "temperature": 1.7} if drawn else {}
    plain, found = masked_head(x_RD, head_VD, **more), masked_head(x_RD, head_VD, favour=(5, nats), **more)
    logits_RV = x_RD @ head_VD.T
    logits_RV[:, 5] += nats
    ranked_RV = logits_RV / 1.7 + more["gumbel_RV"] if drawn else logits_RV
    assert torch.equal(found.token_R, ranked_RV.argmax(-1))
    assert torch.equal(found.entropy_R, plain.entropy_R)
    p_R = (x_RD @ head_VD.T).softmax(-1)[range(64), found.token_R]
    torch.testing.assert_close(found.probability_R, p_R)
    assert ((found.token_R == 5) >= (plain.token_R == 5)).all()
    assert nats < 5 or not torch.equal(found.token_R, plain.token_R)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("barred", [False, True])
def test_draws_follow_the_softmax_of_the_temperature(temperature: float, barred: bool) -> None:
    """40,000 draws of one row; every token's count within 4.5 standard deviations (1 run in 1,000 by chance, and the
    seed is fixed)."""
    draws = 40_000
    x_D, head_VD = normal(16, seed=4) / 2, normal(VOCABULARY, 16, seed=1)
    barred_RV = torch.zeros(draws, VOCABULARY, dtype=torch.bool)
    barred_RV[:, ::3] = barred
    found = masked_head(
        x_D.expand(draws, -1), head_VD, barred_RV=barred_RV, gumbel_RV=gumbel(draws, 8), temperature=temperature
    )
    p_V = ((head_VD.double() @ x_D.double()) / temperature).masked_fill(barred_RV[0], -torch.inf).softmax(-1)
    counts_V = found.token_R.bincount(minlength=VOCABULARY).double()
    deviation_V = (draws * p_V * (1 - p_V)).sqrt()
    assert ((counts_V - draws * p_V).abs() <= 4.5 * deviation_V + 1).all()
    assert (counts_V > 0).sum() > 5


def test_a_draw_keeps_the_numbers_of_temperature_one() -> None:
    """Probability is the drawn token's own; margin and entropy are the row's, whatever was drawn."""
    x_RD, head_VD = normal(31, 16, seed=31), normal(VOCABULARY, 16, seed=1)
    p_RV = (x_RD.double() @ head_VD.double().T).softmax(-1)
    greedy = masked_head(x_RD, head_VD)
    drawn = masked_head(x_RD, head_VD, gumbel_RV=gumbel(31, 2), temperature=2.0)
    assert (drawn.token_R != greedy.token_R).any()
    assert torch.allclose(drawn.probability_R.double(), p_RV.gather(1, drawn.token_R[:, None])[:, 0], atol=1e-5)
    assert torch.equal(drawn.margin_R, greedy.margin_R)
    assert torch.equal(drawn.entropy_R, greedy.entropy_R)


def test_the_same_noise_gives_the_same_token_in_any_company() -> None:
    """Seeded sampling must not depend on which rows happen to share a forward."""
    x_RD, head_VD, noise_RV = normal(9, 16), normal(VOCABULARY, 16, seed=1), gumbel(9, 3)
    together = masked_head(x_RD, head_VD, gumbel_RV=noise_RV, temperature=1.5).token_R
    for row in range(9):
        alone = masked_head(x_RD[row, None], head_VD, gumbel_RV=noise_RV[row, None], temperature=1.5).token_R
        assert alone == together[row]


def test_noise_without_temperature_and_temperature_without_noise_are_greedy() -> None:
    x_RD, head_VD = normal(9, 16), normal(VOCABULARY, 16, seed=1)
    greedy = masked_head(x_RD, head_VD).token_R
    assert torch.equal(masked_head(x_RD, head_VD, gumbel_RV=gumbel(9, 3)).token_R, greedy)
    assert torch.equal(masked_head(x_RD, head_VD, temperature=2.0).token_R, greedy)


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_of_equals_the_first_token_is_taken(rows: int):
    head = torch.zeros(5000, 4)
    head[[7, 77, 4000]] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = masked_head(torch.ones(rows, 4), head)
    assert found.token_R.tolist() == [7] * rows
    assert found.margin_R.tolist() == [0.0] * rows
