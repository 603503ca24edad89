"""Problems, their files, their order: small made-up ones."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.errors import BadOption, UnreadableFile
from diffcode.evals.problems import Problem, Shard, fingerprint, load, select
from diffcode.holes import check_holes

ROW = {
    "task_id": "Made/up/0",
    "prompt": "def twice(n):\n",
    "suffix": "\n# end\u2028 of it\n",
    "canonical_solution": "    return 2 * n",
    "test": "def check(f):\n    assert f(2) == 4\n",
    "entry_point": "twice",
}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def many(count: int) -> list[Problem]:
    return [Problem(str(number), ("", ""), ("",), "", "") for number in range(count)]


def test_rows_become_problems(tmp_path: Path):
    second = {**ROW, "task_id": "Made/up/1", "more": 1}
    # ensure_ascii off: U+2028 stands in the file as it is and must not end the row.
    lines = [json.dumps(ROW, ensure_ascii=False), "", json.dumps(second, ensure_ascii=False)]
    first, other = load(write(tmp_path / "two.jsonl", *lines))
    fixed = (ROW["prompt"], ROW["suffix"])
    assert first == Problem("Made/up/0", fixed, (ROW["canonical_solution"],), ROW["test"], "twice")
    assert other.task_id == "Made/up/1"


def test_gzip_and_plain_give_the_same(tmp_path: Path):
    plain = write(tmp_path / "a.jsonl", json.dumps(ROW))
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load(packed) == load(plain)


def test_row_without_a_suffix_has_nothing_behind_the_hole(tmp_path: Path):
    row = {name: text for name, text in ROW.items() if name != "suffix"}
    assert load(write(tmp_path / "a.jsonl", json.dumps(row)))[0].fixed == (ROW["prompt"], "")


@given(st.lists(st.text(min_size=1), min_size=2, max_size=5), st.data())
def test_holes_are_where_the_completions_go(fixed: list[str], data: st.DataObject):
    words = data.draw(st.lists(st.text(), min_size=len(fixed) - 1, max_size=len(fixed) - 1))
    problem = Problem("t", tuple(fixed), tuple(words), "", "f")
    text, filled = problem.text, problem.filled(words)
    for word, (start, end) in reversed(list(zip(words, problem.holes, strict=True))):
        assert start == end
        text = text[:start] + word + text[start:]
    assert text == filled
    if "\r" not in "".join(fixed):
        check_holes(problem.text, problem.holes)


def test_as_many_completions_as_holes():
    with pytest.raises(ValueError, match="shorter"):
        Problem("t", ("a", "b", "c"), ("", ""), "", "f").filled(["only one"])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", r"row 2 is not JSON"),
        ("[1, 2]", r"row 2 is not a JSON object"),
        (json.dumps({**ROW, "suffix": None}), r"row 2 has no text for suffix"),
        (json.dumps({"task_id": "x"}), r"row 2 has no text for prompt, canonical_solution, test, entry_point"),
        (json.dumps(ROW), r"holds Made/up/0 twice"),
        (json.dumps({**ROW, "prompt": "def twice(n:\n"}), r"row 2 is damaged, its solution defines no 'twice'"),
        (json.dumps({**ROW, "entry_point": "thrice"}), r"row 2 is damaged, its solution defines no 'thrice'"),
        (json.dumps({**ROW, "test": ""}), r"row 2 is damaged, its test defines no check"),
        (json.dumps({**ROW, "test": ROW["test"][:-3]}), r"row 2 is damaged, its test defines no check"),
    ],
)
def test_damaged_row_is_named(tmp_path: Path, line: str, complaint: str):
    with pytest.raises(UnreadableFile, match=complaint):
        load(write(tmp_path / "bad.jsonl", json.dumps(ROW), line))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe"])
def test_file_without_problems_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"bad\.jsonl"):
        load(tmp_path / "bad.jsonl")


@pytest.mark.parametrize("content", [gzip.compress(json.dumps(ROW).encode())[:-20], b"no gzip at all"])
def test_damaged_gzip_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "cut.jsonl.gz").write_bytes(content)
    with pytest.raises(UnreadableFile, match="damaged"):
        load(tmp_path / "cut.jsonl.gz")


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UnreadableFile, match=r"missing\.jsonl cannot be read"):
        load(tmp_path / "missing.jsonl")


def test_fingerprint_is_of_every_character():
    first, second = many(2)
    changed = Problem("0", ("", ""), ("",), " ", "")
    prints = [fingerprint(some) for some in ([first, second], [second, first], [first], [changed, second])]
    assert len(set(prints)) == 4
    assert prints[0] == fingerprint(many(2))


def test_selection_is_a_seeded_shuffle_cut_short():
    problems = many(10)
    assert select(problems, 3, None) == tuple(problems[:3])
    assert set(select(problems, None, 0)) == set(problems)
    # The order of random.Random(0).shuffle, which published numbers rely on.
    assert [problem.task_id for problem in select(problems, 4, 0)] == ["7", "8", "1", "5"]


@given(st.integers(1, 6), st.integers(0, 20))
def test_shards_share_a_selection_out(count: int, limit: int):
    whole = select(many(15), limit, 3)
    parts = [select(many(15), limit, 3, Shard(index, count)) for index in range(1, count + 1)]
    assert sorted(p.task_id for part in parts for p in part) == sorted(p.task_id for p in whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shard_is_written_as_a_fraction():
    assert Shard.parse("2/3") == Shard(2, 3)
    assert str(Shard(2, 3)) == "2/3"


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "1.0/2"])
def test_no_shard(text: str):
    with pytest.raises(BadOption, match="write I/N"):
        Shard.parse(text)
