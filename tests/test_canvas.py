"""From text and holes to what the model reads: nothing outside a hole changes, and the context fits its budget."""

import inspect
import json
import time
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffcode.canvas import HEAL_BYTES, JUMPS, Block, Reach, line_end_of, make_block, normalise
from diffcode.config import WindowOptions
from diffcode.errors import BadHoles, NothingToFill
from diffcode.holes import Hole, apply_edits, check_holes, find_marker
from diffcode.tokens import Tokens

ATOMS = (
    *("\r\n", "\n", "\r", "\n\n", "\t", " ", "    ", "\f", "\0", "\u2028"),
    *("\ufeff", "e\u0301", "é", "日本", "👩‍👩‍👧", "𝕏", "-" * 40, " " * 40),
    *("def f(x):", "self.value", " = ", "<|fim_middle|>", "<|endoftext|>", "???"),
)
snippets = st.lists(st.one_of(st.sampled_from(ATOMS), st.text(max_size=4)), max_size=8).map("".join)
budgets = st.integers(16, 200)
shares = st.sampled_from((0.0, 0.2, 0.5, 0.75, 1.0))


def block_of(
    text: str, tokens: Tokens, *, window: WindowOptions | None = None, fills: Sequence[str] = (), index: int = 0
) -> Block:
    """The block of hole `index` of a text whose holes are written `<?` to `?>`."""
    holes = []
    while "<?" in text:
        start, end = text.index("<?"), text.index("?>") - 2
        text = text.replace("<?", "", 1).replace("?>", "", 1)
        holes.append(Hole(start, end))
    return make_block(text, holes, fills or [""] * len(holes), index, tokens, window or WindowOptions())


def sides(block: Block, tokens: Tokens) -> tuple[list[int], list[int]]:
    """Suffix ids and prefix ids; the control ids must frame them in SPM order, each once."""
    fim, context = tokens.fim, list(block.context)
    assert context[:2] == [fim.prefix, fim.suffix]
    middle = context.index(fim.middle)
    suffix, prefix = context[2:middle], context[middle + 1 :]
    assert not [i for i in suffix + prefix if tokens.is_end(i)]
    return suffix, prefix


def shown(block: Block, tokens: Tokens) -> tuple[str, str]:
    """What the model sees before the hole, re-opened end included, and behind it."""
    suffix, prefix = sides(block, tokens)
    return (tokens.decode_bytes(prefix) + block.heal).decode(), tokens.decode(suffix)


# ---- edits


@given(parts=st.lists(st.tuples(snippets, snippets, snippets), max_size=6), last=snippets)
@example(parts=[("", "a", "\r"), ("", "", "\n"), ("\r\n", "b", "")], last="\ufeff")
def test_only_the_holes_change(parts: list[tuple[str, str, str]], last: str):
    """Text is made of kept parts and holes, so what must come out is known without computing an offset twice."""
    text, holes = "", []
    for kept, gone, _ in parts:
        holes.append(Hole(len(text + kept), len(text + kept + gone)))
        text += kept + gone
    wanted = "".join(kept + fill for kept, _, fill in parts) + last
    assert apply_edits(text + last, holes, [fill for _, _, fill in parts]) == wanted


def test_every_hole_needs_its_fill():
    with pytest.raises(ValueError, match="zip"):
        apply_edits("ab", [Hole(0, 1)], ["x", "y"])


# ---- holes


def clash(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Two holes want the same character or the same place."""
    shared = set(range(*a)) & set(range(*b))
    inside = any(x[0] == x[1] and y[0] < x[0] < y[1] for x, y in ((a, b), (b, a)))
    return bool(shared) or inside or a == b


@given(
    text=st.text(alphabet="a\r\n", max_size=8),
    holes=st.lists(st.tuples(st.integers(-2, 9), st.integers(-2, 9)), min_size=1, max_size=4),
)
@settings(max_examples=1000)
@example(text="abcd", holes=[(2, 4), (0, 2), (2, 2), (4, 4)])
def test_holes_are_taken_if_and_only_if_each_stands_for_itself(text: str, holes: list[tuple[int, int]]):
    wanted = (
        all(0 <= start <= end <= len(text) for start, end in holes)
        and not any(text[at - 1 : at + 1] == "\r\n" for hole in holes for at in hole if at > 0)
        and not any(clash(a, b) for a, b in combinations(holes, 2))
    )
    if wanted:
        assert [(h.start, h.end) for h in check_holes(text, holes)] == sorted(holes)
    else:
        with pytest.raises(BadHoles):
            check_holes(text, holes)


@pytest.mark.parametrize(
    ("text", "holes", "message"),
    [
        ("abc", [(0, 4)], "hole 0:4 lies outside the text: offsets go from 0 to 3"),
        ("abc", [(-1, 2)], "hole -1:2 lies outside"),
        ("a\r\nb", [(2, 2)], r"hole 2:2 cuts a \\r\\n in two"),
        ("abcd", [(2, 4), (0, 3)], "holes 0:3 and 2:4 overlap"),
        ("abcd", [(1, 3), (2, 2)], "holes 1:3 and 2:2 overlap"),
    ],
)
def test_what_is_wrong_with_holes_is_said(text: str, holes: list[tuple[int, int]], message: str):
    with pytest.raises(BadHoles, match=f"^{message}"):
        check_holes(text, holes)


def test_no_hole_is_nothing_to_fill():
    with pytest.raises(NothingToFill, match="there is no hole"):
        check_holes("abc", [])


@pytest.mark.parametrize(
    ("text", "marker", "starts"),
    [("a ??? b ???", "???", [2, 8]), ("???????", "???", [0, 3]), ("😀???\r\n", "???", [1]), ("x", "x", [0])],
)
def test_markers_are_found_left_to_right(text: str, marker: str, starts: list[int]):
    assert find_marker(text, marker) == tuple(Hole(at, at + len(marker)) for at in starts)


@pytest.mark.parametrize(("text", "marker"), [("a ?? b", "???"), ("", "???"), ("abc", ""), ("todo", "TODO")])
def test_a_marker_that_is_not_there_is_nothing_to_fill(text: str, marker: str):
    with pytest.raises(NothingToFill, match=marker.replace("?", r"\?") or r"\?\?\?"):
        find_marker(text, marker)


@pytest.mark.parametrize(
    ("end", "texts"),
    [
        ("\n", ("", "a", "a\nb", "a\r\nb\nc\n")),
        ("\r\n", ("a\r\nb\r\nc\n", "a\r\r\n\r\n", "a\u2028b\fc\r\n")),
        ("\r", ("a\rb\rc\r\n", "\r")),
    ],
)
def test_the_line_end_is_the_one_used_most(end: str, texts: tuple[str, ...]):
    assert [line_end_of(text) for text in texts] == [end] * len(texts)


@given(lines=st.lists(st.text(alphabet="ab \u2028\f", max_size=4), max_size=9), data=st.data())
def test_normalising_changes_line_ends_only(lines: list[str], data: st.DataObject):
    ends = data.draw(st.lists(st.sampled_from(("\n", "\r\n", "\r")), min_size=len(lines), max_size=len(lines)))
    ends = ["\n" if end == "\r" and not after else end for end, after in zip(ends, [*lines[1:], "x"], strict=False)]
    text = "".join(line + end for line, end in zip(lines, ends, strict=False))
    assert normalise(text) == "".join(line + "\n" for line in lines)


# ---- the canvas


@given(
    before=st.lists(snippets, max_size=12),
    after=st.lists(snippets, max_size=12),
    times=st.integers(1, 30),
    budget=budgets,
    share=shares,
)
@settings(max_examples=250)
def test_the_context_is_a_true_cutting_of_the_text(
    tokens: Tokens, before: list[str], after: list[str], times: int, budget: int, share: float
):
    left, right = "".join(before * times), "".join(after * times)
    if left.endswith("\r") and right.startswith("\n"):
        left += "x"
    right = right if left else right.lstrip("\ufeff")  # a byte-order mark is the first of all
    block = make_block(left + right, [Hole(len(left), len(left))], [""], 0, tokens, WindowOptions(budget, share))
    assert len(block.context) <= budget
    suffix, prefix = sides(block, tokens)
    whole_before, whole_after = normalise(left.removeprefix("\ufeff")), normalise(right)
    assert whole_before.encode().endswith(tokens.decode_bytes(prefix) + block.heal)
    assert whole_after.encode().startswith(tokens.decode_bytes(suffix))
    assert whole_after.startswith(block.suffix)
    assert len(block.heal) <= HEAL_BYTES or block.heal in {tokens.bytes_of(i) for i in tokens.compatible(block.heal)}


@given(lines=st.lists(snippets, min_size=1, max_size=12), times=st.integers(1, 30), budget=budgets, share=shares)
@settings(max_examples=250)
def test_the_context_is_cut_between_lines_where_a_line_fits(
    tokens: Tokens, lines: list[str], times: int, budget: int, share: float
):
    text = normalise("".join(lines * times)).replace("\ufeff", "")
    at = len(text) // 2
    block = make_block(text, [Hole(at, at)], [""], 0, tokens, WindowOptions(budget, share))
    suffix, prefix = sides(block, tokens)
    seen_before = tokens.decode_bytes(prefix) + block.heal
    rest = text[:at].encode().removesuffix(seen_before)
    if rest and not rest.endswith(b"\n"):  # cut inside a line: then no line starts within what was kept
        assert not [i for i in prefix[:-1] if tokens.bytes_of(i).endswith(b"\n")]
    seen_after = tokens.decode_bytes(suffix)
    if seen_after != block.suffix.encode() and not seen_after.endswith(b"\n"):
        assert b"\n" not in seen_after


@given(budget=budgets, share=shares, above=st.integers(0, 300), below=st.integers(0, 300))
@settings(max_examples=150)
def test_what_one_side_leaves_unused_the_other_gets(tokens: Tokens, budget: int, share: float, above: int, below: int):
    """All lines have the same number of tokens, so what fits is known by arithmetic."""
    line = "a = b\n"
    size = len(tokens.encode(line))
    at = len(line) * above
    block = make_block(line * (above + below), [Hole(at, at)], [""], 0, tokens, WindowOptions(budget, share))
    suffix, prefix = sides(block, tokens)
    room, lost = budget - 3, budget // JUMPS + size  # what a jump and the cut at a line's end may cost
    all_above, all_below = above * size, below * size
    assert len(prefix) + len(suffix) <= room
    assert len(suffix) >= min(all_below, room - min(int(room * share), all_above + lost)) - size
    assert len(prefix) >= min(all_above, room - len(suffix)) - lost
    assert len(suffix) == all_below or len(prefix) == all_above or len(prefix) + len(suffix) > room - 2 * lost


def test_all_of_a_short_text_is_seen(tokens: Tokens):
    block = block_of("\ufeffimport os\r\n\r\n<??>\r\nprint(os.sep)\r", tokens)
    assert shown(block, tokens) == ("import os\n\n", "\nprint(os.sep)\n")
    assert block.suffix == "\nprint(os.sep)\n"


def test_the_prefix_starts_with_a_whole_line_though_its_tokens_are_long(tokens: Tokens):
    block = block_of(("-" * 80 + "\n") * 200 + "x = <??>\n", tokens, window=WindowOptions(100))
    assert shown(block, tokens)[0].startswith("-" * 80 + "\n")


def test_an_empty_text_is_control_ids_only(tokens: Tokens):
    fim = tokens.fim
    assert block_of("<??>", tokens) == Block(
        (fim.prefix, fim.suffix, fim.middle), b"", "", "", Reach(False, False, True)
    )


def test_plain_text_is_shown_on_request_where_nothing_follows(tokens: Tokens):
    window = WindowOptions(plain_without_suffix=True)
    assert tokens.decode(block_of("x = 1\ny =<??> \n\n", tokens, window=window).context) == "x = 1\ny"
    assert not any(tokens.is_end(i) for i in block_of("x\n<??>", tokens, window=window).context)
    for text in ("x = 1\ny = <??>\nz", "<??>", "x<??>"):  # the last leaves nothing before its re-opened end
        assert block_of(text, tokens, window=window) == block_of(text, tokens)


def test_control_ids_stand_once_though_the_text_spells_them(tokens: Tokens):
    text = "a = '<|fim_prefix|><|fim_suffix|>'\n<? b ?>\nc = '<|fim_middle|><|endoftext|>'\n"
    block, fim = block_of(text, tokens), tokens.fim
    assert [i for i in block.context if tokens.is_end(i)] == [fim.prefix, fim.suffix, fim.middle]
    assert "<? b ?>".join(shown(block, tokens)) == text


def test_other_holes_show_their_fills(tokens: Tokens):
    text = "a = <?1?>\nb = <?22?>\r\nc = <??>\n"
    fills = ["left\r\n", "mine", "right"]
    views = [shown(block_of(text, tokens, fills=fills, index=n), tokens) for n in range(3)]
    assert views == [
        ("a = ", "\nb = mine\nc = right\n"),
        ("a = left\n\nb = ", "\nc = right\n"),
        ("a = left\n\nb = mine\nc = ", "\n"),
    ]


def test_touching_holes_show_their_fills(tokens: Tokens):
    text = "f(<?a?><?b?><??>)\n"
    views = [shown(block_of(text, tokens, fills=["1", "2", "3"], index=n), tokens) for n in range(3)]
    assert views == [("f(", "23)\n"), ("f(1", "3)\n"), ("f(12", ")\n")]


# ---- token healing


@pytest.mark.parametrize(
    ("heal", "prefixes"),
    [
        (b".val", ("x = self.val", "x = 1\nself.val")),
        (b" o", ("import o", "\ufeffimport o")),
        (b"    ", ("def f():\n    ", "def f():\r\n    ")),
        (b" r", ("def f():\n    r",)),
        (b"\t\t", ("if x:\n\t\t",)),
        (b"(", ("foo(", "x = foo(")),
        (b" ", ("foo(a, ",)),
        (b"2", ("x = 12",)),
        (b"'", ("don'",)),
        (" 日本".encode(), ("naïve = 日本",)),
        (b"x", ("x", "\ufeffx", "\r\nx")),
        (b"", ("x\n", "x\r\n", "x\r", "x\n\n\n", "", "\ufeff", "\ufeff\n", "    \n")),
        (b" " * HEAL_BYTES, ("x = 1" + " " * HEAL_BYTES,)),
    ],
)
def test_the_last_piece_is_reopened(tokens: Tokens, heal: bytes, prefixes: tuple[str, ...]):
    for prefix in prefixes:
        block = block_of(f"{prefix}<??>x\n", tokens)
        assert block.heal == heal
        kept = tokens.decode_bytes(sides(block, tokens)[1])
        assert kept + heal == normalise(prefix).removeprefix("\ufeff").encode()


@pytest.mark.parametrize("run", ["-" * 3000, " " * 3000, "é" * 700, "ab" * 900, "=-" * 800, "日" * 500])
def test_of_a_long_last_piece_one_token_is_reopened(tokens: Tokens, run: str):
    block = block_of(f"# {run}<??>\n", tokens)
    _, prefix = sides(block, tokens)
    assert tokens.bytes_of(tokens.encode(f"# {run}")[-1]) == block.heal
    assert f"# {run}".encode().endswith(tokens.decode_bytes(prefix) + block.heal)


def test_healing_lets_the_tokens_be_those_of_the_unbroken_text(tokens: Tokens):
    """Wherever code is cut, the kept prefix ids begin what the tokenizer makes of the whole."""
    code = inspect.getsource(json.decoder)
    missed = 0
    for at in range(1, 5000, 7):
        if code[at - 1] == "\n":
            continue
        start = code.rfind("\n\n", 0, max(at - 200, 0)) + 2
        text = code[start : at + 200]
        block = make_block(text, [Hole(at - start, at - start)], [""], 0, tokens, WindowOptions())
        _, prefix = sides(block, tokens)
        natural = tokens.encode(text)
        assert natural[: len(prefix)] == prefix, text[: at - start][-40:]
        assert tokens.decode_bytes(natural[len(prefix) :]).startswith(block.heal)
        plain = tokens.encode(text[: at - start])
        missed += natural[: len(plain)] != plain
    assert missed > 100  # without healing it would not be so


# ---- size


@pytest.mark.parametrize(
    "line", ["x = 1\n", "value = compute(a, b)\r\n", "x", "-", " ", "\r", "日", "\u2028", "\ufeff", "👍\n\n"]
)
def test_five_megabytes_are_quick(tokens: Tokens, line: str):
    text = line * (5_000_000 // len(line))
    at = len(line) * (len(text) // len(line) // 2)
    holes = [Hole(0, 0), Hole(at, at), Hole(len(text), len(text))]
    began = time.perf_counter()
    blocks = [make_block(text, holes, ["", "", ""], n, tokens, WindowOptions()) for n in range(3)]
    assert time.perf_counter() - began < 1.5, "three blocks, half a second each"
    assert max(len(block.context) for block in blocks) <= WindowOptions().budget


# ---- found wanting; each of these is to be repaired in diffcode/canvas.py and then loses its mark


def test_no_byte_order_mark_is_shown(tokens: Tokens):
    assert shown(block_of("<??>\ufeffimport os\n", tokens), tokens) == ("", "import os\n")


def test_the_suffix_ends_with_a_whole_line_though_its_tokens_are_long(tokens: Tokens):
    block = block_of("x = <??>\n" + ("-" * 80 + "\n") * 200, tokens, window=WindowOptions(100))
    assert shown(block, tokens)[1].endswith("\n")
