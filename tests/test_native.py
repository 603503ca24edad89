"""The CPU engine behind a session, against the torch session whose every linear map is rounded the same way."""

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from rounded import rounded
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffcode.config import DenoiseOptions
from diffcode.engine import Model
from diffcode.errors import Cancelled
from diffcode.hub import cache_home
from diffcode.infill import Infiller
from diffcode.interrupt import Stop
from diffcode.kernels import reference
from diffcode.kernels.cpu import native
from diffcode.kernels.cpu.engine import EngineAdapter, EngineSession, EngineStep, EngineSuccessor, EngineWeights
from diffcode.kernels.pack import Form, PackedLinear, pack_linear, pick_outputs, unpack_linear
from diffcode.native import FORMS
from diffcode.policies import Guess
from diffcode.rows import Rows

pytestmark = pytest.mark.skipif(native.library() is None, reason="the CPU engine was not built here")
SHAPES = {
    "four heads": {},
    "seven heads a group": {"hidden_size": 224, "num_attention_heads": 14, "head_dim": 16},
    "llama": {"kind": "llama"},
}


def exact(x: Tensor, packed: PackedLinear, bias: Tensor | None = None) -> Tensor:
    """A packed map as the engine computes it: rows in 8 bits by groups or in bf16, weights by what they are."""
    y = rounded(x.float(), packed.group).double() @ unpack_linear(packed).double().T
    return (y if bias is None else y + bias).to(x.dtype)


def rounding(model: Model, base: EngineWeights, packed: EngineAdapter) -> Callable[..., Tensor]:
    """`F.linear` as the engine computes it."""
    known, adapter, ffn = {}, model.adapter, base.shape.ffn
    assert adapter is not None
    assert adapter.kept_N is not None
    assert model.span_head_ND is not None
    for layer, mine in zip(model.backbone.layers, base.layers, strict=True):
        maps, halves = mine.maps, torch.arange(2 * ffn).split(ffn)
        known |= {layer.qkv_ED.data_ptr(): maps["qkv"], layer.out_DE.data_ptr(): maps["out"]}
        gate, up = (pick_outputs(maps["gate_up"], half) for half in halves)
        known |= {layer.gate_FD.data_ptr(): gate, layer.up_FD.data_ptr(): up, layer.down_DF.data_ptr(): maps["down"]}
    known |= {model.span_head_ND.data_ptr(): pick_outputs(base.head, adapter.kept_N)}
    known |= {model.backbone.head_VD.data_ptr(): base.head}
    for layer, mine in zip(adapter.layers, packed.low_rank, strict=True):
        for name, (low, high) in mine.items():
            for weight, half in ((layer[name].down_rD, low), (layer[name].up_Er, high)):
                known |= {weight.data_ptr(): pack_linear(weight, None, Form(half.bits, half.group))}

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        width = weight.shape[1]
        y = exact(x[:, :width], known[weight.data_ptr()], bias)
        if x.shape[1] == width:
            return y
        assert packed.successor is not None
        return y + exact(x[:, width:], packed.successor.head)

    return linear


def following(packed: EngineSuccessor) -> Callable[..., Tensor]:
    """`reference.successor` as the engine computes it: what the map adds stands beside the state, for its own head."""

    def successor(x_RD: Tensor, previous_RD: Tensor, down_HE: Tensor, up_DH: Tensor, eps: float) -> Tensor:
        ones_D = torch.ones(x_RD.shape[1])
        state_RD, token_RD = (reference.rms_norm(x, ones_D, eps) for x in (x_RD, previous_RD))
        inner_RH = exact(state_RD, packed.state) + exact(token_RD, packed.token)
        return torch.cat([x_RD, exact(torch.nn.functional.silu(inner_RH), packed.up)], 1)

    return successor


@pytest.fixture(
    params=[*((shape, "int8") for shape in SHAPES), *(("four heads", dtype) for dtype in ("int5", "int4", "bf16"))]
)
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Model]:
    """(torch with rounded maps, native), the same weights and adapter, a successor map included."""
    shape, dtype = request.param
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("diffcode.rounding.CANVASES", 2)  # a byte is a token here
    changes = dict(SHAPES[shape])
    kind = changes.pop("kind", "qwen2")
    folder = tiny.write_model(tmp_path / "model", kind, **changes)
    settings = tiny.config(kind, **changes)
    shared = kind != "llama"  # else maps that read one input have low-rank maps of their own
    tensors = tiny.adapter_tensors(settings, shared=shared, kept=range(0, tiny.VOCABULARY, 2))
    width = settings["hidden_size"]
    tensors["successor_down"] = torch.randn(32, 2 * width, generator=torch.Generator().manual_seed(5)) / width**0.5
    tensors["successor_up"] = torch.randn(width, 32, generator=torch.Generator().manual_seed(6)) / 32**0.5
    adapter = tiny.write_adapter(tmp_path / "adapter", tensors)
    for file in (*folder.glob("*.safetensors"), *adapter.glob("*.safetensors")):
        save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file)  # what the engine packs
    plain, fast = (Model.load(str(folder), str(adapter), dtype=d) for d in ("float32", dtype))
    assert fast.packed is not None
    assert fast.packed.head.bits == FORMS[dtype].bits
    assert fast.engine is not None
    packed = fast.engine._held[0].adapter  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.nn.functional, "linear", rounding(plain, fast.packed, packed))
    monkeypatch.setattr(reference, "successor", following(packed.successor))
    return plain, fast


def run(model: Model, temperature: float, end_bias: float) -> list[Guess]:
    """All that a session says of STEPS."""
    session = model.session(model.noise(3) if temperature else None, temperature, end_bias=end_bias)
    said: list[Guess] = []
    for step in STEPS:
        base, spans = session.step(*step)
        session.keep(len(step[0]))
        assert [len(guesses) for guesses in spans] == [len(step[2]) * (i in step[3]) for i in range(len(step[1]) + 1)]
        said += [*base, *(g for guesses in spans for g in guesses)]
    return said


def wavering(exact: Callable[..., Tensor], seed: int) -> Callable[..., Tensor]:
    """`exact` of rows that differ in their last bits of fp32, as they do where sums are made in another order."""
    generator = torch.Generator().manual_seed(seed)

    def wavers(x: Tensor, packed: PackedLinear, bias: Tensor | None = None) -> Tensor:
        return exact((x * (1 + 1e-6 * torch.randn(x.shape, generator=generator))).to(x.dtype), packed, bias)

    return wavers


def apart(said: list[Guess], fast: list[Guess], name: str) -> tuple[float, float]:
    """How far a value lies apart where the tokens are the same: the third quartile, and the most."""
    same = ((one, other) for one, other in zip(said, fast, strict=True) if one.token == other.token)
    off = sorted(abs(getattr(one, name) - getattr(other, name)) for one, other in same)
    return off[len(off) * 3 // 4], off[-1]


def check_alike(said: list[Guess], fast: list[Guess], drawn: bool, again: list[list[Guess]]) -> None:
    """Equal but for values that lay between two bytes and were rounded the other way; later layers may enlarge that.

    `again`: what the specification says of rows with other last bits. It is not closer to itself than that either.
    """
    assert [g.origin for g in said] == [g.origin for g in fast]
    others = [one.margin for one, other in zip(said, fast, strict=True) if one.token != other.token]
    assert not (drawn and others)
    assert all(margin < 0.05 for margin in others), "another token where it was no near tie"
    for name in ("probability", "margin", "entropy"):
        quartile, most = apart(said, fast, name)
        floors = [apart(said, other, name) for other in again]
        assert quartile < max(0.02, *(floor for floor, _ in floors)), name
        assert most < max(0.2, *(floor for _, floor in floors)), name


STEPS = (
    (list(range(10, 60)), [], [None] * 3, [0], 0, [None]),
    ([5], [7, 8], [None, 9, None], [0, 2], 1, [None] * 3),
    ([5, 6], [7], [], [], 2, [None, [1, 2, 3]]),
    ([11], [], [None] * 4, [0], 4, [None]),
)


@pytest.mark.parametrize("end_bias", [0.0, 60.0])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_session_says_what_the_specification_says(
    models: tuple[Model, Model], temperature: float, end_bias: float
) -> None:
    plain = models[0]
    said, found = (run(model, temperature, end_bias) for model in models)
    again = []
    for seed in range(6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "exact", wavering(exact, seed))
            again.append(run(plain, temperature, end_bias))
    check_alike(said, found, temperature > 0, again)
    ends = sum(g.token == plain.tokens.fim.end for g in found)
    assert not end_bias or ends >= 6, "every base row whose tokens are not limited"


def test_results_do_not_depend_on_threads_or_on_how_the_context_came(models: tuple[Model, Model]) -> None:
    from diffcode.kernels.cpu.engine import Engine
    from diffcode.native import NativeSession

    """600 rows are more than one pass takes."""
    fast = models[1]
    assert fast.engine is not None
    weights = fast.engine._held[0]
    ids, seen = [i % 200 for i in range(600)], []
    for threads, cuts in ((1, [600]), (2, [600]), (3, [300, 600]), (2, [1, 2, 255, 511, 600])):
        session = NativeSession(Engine(weights, threads), fast.adapter.kept_N, None, 0.0)  # type: ignore[union-attr,arg-type]
        start = 0
        for end in cuts:
            base, spans = session.step(ids[start:end], [], [None] * 3, [0], 0, [None])
            session.keep(end - start)
            start = end
        seen.append((base, spans))
    assert all(found == seen[0] for found in seen)


def test_policies_run_over_it(models: tuple[Model, Model]) -> None:
    infiller = Infiller(models[1])
    options = [DenoiseOptions(policy, max_tokens=12) for policy in ("leftmost", "verified", "threshold", "edit")]
    text = "def f(a):\n    return \n"
    fills = [infiller.fill_with(text, [(len(text) - 1,) * 2], option) for option in options]
    assert fills[0].text == fills[1].text
    assert all(fill.tokens > 0 for fill in fills)


def test_packed_weights_are_written_once(models: tuple[Model, Model], tmp_path: Path) -> None:
    packed = list((tmp_path / "home" / "packed").glob("*.safetensors"))
    assert len(packed) == 1
    before = packed[0].stat().st_mtime_ns
    Model.load(str(tmp_path / "model"), "none", dtype="int8")
    assert packed[0].stat().st_mtime_ns == before


def test_an_adapter_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = Model.load(str(tiny.write_model(tmp_path / "m")), "none", dtype="int8")
    base, spans = model.session().step([1, 2, 3], [4], [], [], 0, [None, None])
    assert (len(base), spans) == (2, ((), ()))
    assert replace(model, engine=None).session().step([1, 2, 3], [4], [], [], 0, [None, None])[0][0].token >= 0


def test_a_token_that_the_model_does_not_have_is_refused(models: tuple[Model, Model]) -> None:
    with pytest.raises(ValueError, match=f"token {tiny.VOCABULARY} is none of the model's {tiny.VOCABULARY}"):
        models[1].session().step([1, tiny.VOCABULARY], [], [], [], 0, [None])


# ---- contexts that come again


def text_of(rng: random.Random, length: int) -> str:
    return "".join(rng.choice("abc d=()\n") for _ in range(length))


def test_typing_reads_only_what_is_new(models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    warm, cold = Infiller(models[1]), Infiller(models[1], memory=0)
    rows: list[int] = []
    step = EngineSession.step
    monkeypatch.setattr(EngineSession, "step", lambda *given: (rows.append(len(given[1].tokens)), step(*given))[1])
    rng, options = random.Random(3), DenoiseOptions(max_tokens=4)
    before, behind = text_of(rng, 200), "\n" + text_of(rng, 80)
    for _ in range(6):
        before += text_of(rng, rng.randrange(1, 5))
        rows.clear()
        fills = [i.fill_with(before + behind, [(len(before),) * 2], options) for i in (warm, cold)]
        # Two infillers' steps lie one behind the other; the first row count of each tells what it read.
        assert fills[0].spans[0].tokens == fills[1].spans[0].tokens
        assert fills[0].spans[0].confidence == fills[1].spans[0].confidence, "not to the bit"
    first_warm, first_cold = rows[0], max(rows)
    assert first_warm < first_cold / 4


@pytest.mark.parametrize("length", [1, 31, 32, 33, 40])
def test_a_copied_context_is_the_same_to_the_bit(models: tuple[Model, Model], length: int) -> None:
    engine = models[1].engine
    assert engine is not None
    whole, fresh = engine.session(), engine.session()
    tokens = [t % tiny.VOCABULARY for t in range(41)]
    whole.step(read(tokens, 0))
    copy = whole.fork(length)
    whole.step(read([5] * 41, 0))  # what it becomes later is nothing to the copy
    fresh.step(read(tokens[:length], 0))
    assert copy.step(read([7], length), hidden=True)[2].equal(fresh.step(read([7], length), hidden=True)[2])  # type: ignore[union-attr,arg-type]


def read(tokens: list[int], context: int) -> EngineStep:
    rows = Rows(len(tokens), 0, 0, ())
    return EngineStep(context, tokens, rows.positions(context), rows.sights(), 0, 0, 0, (), ())


def test_a_step_that_has_begun_can_be_stopped(models: tuple[Model, Model]) -> None:
    stop, infiller = Stop(), Infiller(models[1])
    session = models[1].session(contexts=infiller.contexts, flag=stop.flag)
    session.step(list(range(40)), [], [], [], 0, [None])
    session.keep(40)
    stop.set()
    with pytest.raises(Cancelled, match="nothing was changed"):
        session.step([7], [], [None], [0], 0, [None])
    session.close()
    with pytest.raises(Cancelled):
        infiller.fill("a = ???\n", marker="???", cancelled=stop)
    stop.clear()
    again = models[1].session(contexts=infiller.contexts)
    fresh = models[1].session()
    steps = [s.step([*range(40), 7], [], [None], [0], 0, [None]) for s in (again, fresh)]
    assert steps[0] == steps[1], "a stopped step left something behind"


RESIDENT = """
import re
from diffcode import Infiller
infiller = Infiller.from_pretrained()
filled = infiller.fill("x = 1\\n" * 150 + "y = ???\\n" + "z = 2\\n" * 50, marker="???", max_tokens=16)
print(int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_default_model_takes_under_900_megabytes() -> None:
    """Its own memory and the packed weights' file, which all processes share.

    Pages of torch's libraries and of the base's file come on top (100 to 180 MB seen): as many as the kernel maps round
    each one that is touched, which depends on what its cache holds.
    """
    Model.load()  # what is made but once
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    packed = max(file.stat().st_size for file in (cache_home() / "packed").glob("*-int8-*.safetensors"))
    assert int(done.stdout) + packed / 2**20 < 900
