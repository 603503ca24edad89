"""Loading of problem files: small made-up ones, and the official ones where they are."""

import gzip
import json
from pathlib import Path

import pytest

from diffcode.errors import UnreadableFile
from diffcode.evals.problems import Problem, load, sample

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "evals"
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


def test_rows_become_problems(tmp_path: Path):
    second = {**ROW, "task_id": "Made/up/1", "more": 1}
    # ensure_ascii off: U+2028 stands in the file as it is and must not end the row.
    lines = [json.dumps(ROW, ensure_ascii=False), "", json.dumps(second, ensure_ascii=False)]
    first, other = load(write(tmp_path / "two.jsonl", *lines))
    assert first == Problem(
        "Made/up/0", ROW["prompt"], ROW["suffix"], ROW["canonical_solution"], ROW["test"], ROW["entry_point"]
    )
    assert other.task_id == "Made/up/1"


def test_gzip_and_plain_give_the_same(tmp_path: Path):
    plain = write(tmp_path / "a.jsonl", json.dumps(ROW))
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load(packed) == load(plain)


def test_program_is_the_code_then_its_test():
    problem = Problem("t", "a = 1\n", "c = 3\n", "", "def check(f): pass\n", "a")
    assert problem.program("b = 2\n") == "a = 1\nb = 2\nc = 3\n\ndef check(f): pass\n\ncheck(a)"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", r"row 2 is not JSON"),
        ("[1, 2]", r"row 2 is not a JSON object"),
        (json.dumps({**ROW, "suffix": None}), r"row 2 has no text for suffix"),
        (json.dumps({"task_id": "x"}), r"row 2 has no text for prompt, suffix, canonical_solution, test, entry_point"),
        (json.dumps(ROW), r"holds Made/up/0 twice"),
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


def test_cut_gzip_is_refused(tmp_path: Path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode())[:-20])
    with pytest.raises(UnreadableFile, match="damaged"):
        load(path)


@pytest.mark.parametrize("name", ["plain.jsonl.gz", "missing.jsonl"])
def test_unreadable_file_is_named(tmp_path: Path, name: str):
    write(tmp_path / "plain.jsonl.gz", json.dumps(ROW))
    with pytest.raises(UnreadableFile, match=name):
        load(tmp_path / name)


def test_sample_is_a_seeded_shuffle_cut_short():
    problems = [Problem(str(i), "", "", "", "", "") for i in range(10)]
    assert sample(problems, 3, None) == tuple(problems[:3])
    assert set(sample(problems, None, 0)) == set(problems)
    # The order of random.Random(0).shuffle, which published numbers rely on.
    assert [problem.task_id for problem in sample(problems, 4, 0)] == ["7", "8", "1", "5"]


@pytest.mark.parametrize(
    ("name", "count"), [("HumanEval-SingleLineInfilling", 1033), ("HumanEval-RandomSpanInfillingLight", 164)]
)
def test_official_file(name: str, count: int):
    path = OFFICIAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    problems = load(path)
    assert len(problems) == count
    assert all(f"def {problem.entry_point}(" in problem.program(problem.solution) for problem in problems)
