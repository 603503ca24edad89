"""A run's folder: what is kept, what is noticed, and how shards become one run."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fake_evaluation import SITTING, row, run_of

from diffcode.errors import BadOption, UnreadableFile, UnwritableFile
from diffcode.evals.results import Folder, Row, Run, complete, merged, resumed


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run")


def kept(folder: Folder, run: Run, rows: list[Row]) -> Folder:
    folder.prepare()
    folder.save_run(run)
    folder.save_rows(rows)
    return folder


def test_run_and_rows_survive(folder: Folder):
    run = run_of(["a", "b"], decoders=("leftmost",), temperature=0.5)
    rows = [row("a", "leftmost", True, completions=("x\u2028", "ä\ny")), row("b", "leftmost", None, forwards=None)]
    kept(folder, run, rows)
    assert folder.run() == run
    assert folder.rows() == tuple(rows)


def test_row_is_on_disk_at_once(folder: Folder):
    folder.prepare()
    for number in range(3):
        folder.append(row(str(number), "leftmost", None))
        assert [row.task_id for row in folder.rows()] == [str(n) for n in range(number + 1)]


def test_judged_row_knows_its_verdict():
    wrong = row("a", "leftmost", False)
    assert (wrong.passed, wrong.verdict) == (False, "AssertionError")
    assert wrong.judged("passed").passed


def test_half_a_line_does_not_count(folder: Folder):
    run = run_of(["a", "b"])
    kept(folder, run, [row("a", "leftmost", None)])
    with (folder.path / "results.jsonl").open("ab") as file:
        file.write('{"task_id": "b", "completions": ["ä'.encode()[:-1])
    _, rows = resumed(folder, run)
    assert [row.task_id for row in rows] == ["a"]
    assert (folder.path / "results.jsonl").read_text().count("\n") == 1  # and is gone


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "row 2 is damaged"),
        ("[]", "row 2 is no row"),
        ('{"task_id": "a"}', "row 2 is no row"),
        *(
            (json.dumps({**asdict(row("b", "leftmost", True)), name: value}), rf"row 2 is damaged \({name}\)")
            for name, value in [
                ("task_id", 1), ("completions", "x"), ("finished", [1]), ("exact", 1), ("tokens", "10"),
                ("tokens", True), ("forwards", 1.5), ("seconds", None), ("others", "0"), ("passed", "yes"),
            ]
        ),
    ],
)  # fmt: skip
def test_damaged_row_is_named(folder: Folder, line: str, complaint: str):
    kept(folder, run_of(["a"]), [row("a", "leftmost", None)])
    with (folder.path / "results.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UnreadableFile, match=complaint):
        folder.rows()


def test_row_that_is_there_twice_is_refused(folder: Folder):
    kept(folder, run_of(["a"]), [row("a", "leftmost", None)] * 2)
    with pytest.raises(UnreadableFile, match="twice"):
        folder.rows()


def test_folder_with_a_run_is_not_begun_again(folder: Folder):
    kept(folder, run_of(["a"]), [])
    with pytest.raises(BadOption, match="already holds a run: add --resume"):
        folder.prepare()


def test_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFile, match="cannot be written"):
        Folder(tmp_path / "file" / "run").prepare()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2}', '{"version": 1, "settings": {}}'])
def test_damaged_run_is_named(folder: Folder, text: str):
    folder.prepare()
    (folder.path / "run.json").write_text(text)
    with pytest.raises(UnreadableFile, match=r"run\.json is"):
        folder.run()


@pytest.mark.parametrize(
    ("name", "value"), [("problems", 5), ("problems", [5]), ("sittings", [1]), ("sittings", [{"commit": 1}])]
)
def test_run_of_another_kind_is_named(folder: Folder, name: str, value: object):
    kept(folder, run_of(["a"]), [])
    path = folder.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UnreadableFile, match=f"of another kind: {name}"):
        folder.run()


def test_settings_of_another_kind_are_named(folder: Folder):
    kept(folder, run_of(["a"]), [])
    path = folder.path / "run.json"
    path.write_text(path.read_text().replace('"samples": 1', '"samples": "1"'))
    with pytest.raises(UnreadableFile, match="of another kind: samples"):
        folder.run()


def test_no_run(tmp_path: Path):
    with pytest.raises(UnreadableFile, match="holds no run"):
        Folder(tmp_path).run()


def test_resumed_run_has_its_rows_and_its_sittings(folder: Folder):
    run = run_of(["a", "b"])
    kept(folder, run, [row("a", "leftmost", None)])
    found, rows = resumed(folder, replace(run, sittings=()))
    assert found == run
    assert rows == (row("a", "leftmost", None),)
    assert found.continued({**SITTING, "commit": "def456"}).sittings[1]["commit"] == "def456"


def test_resumed_run_must_be_the_same(folder: Folder):
    run = run_of(["a", "b"])
    kept(folder, run, [])
    other = replace(run, settings=replace(run.settings, max_tokens=8, decoders=("edit",)))
    with pytest.raises(
        BadOption, match=r"begun with decoders \('leftmost', 'verified'\), not .*, max_tokens 256, not 8"
    ):
        resumed(folder, other)
    for changed in (replace(run, fingerprint="else"), replace(run, problems=("b", "a"))):
        with pytest.raises(BadOption, match="the data has changed"):
            resumed(folder, changed)
    # The file that the problems are read from may lie elsewhere now.
    assert resumed(folder, replace(run, settings=replace(run.settings, data="elsewhere")))[0] == run


def test_resumed_rows_must_be_the_runs(folder: Folder):
    run = run_of(["a"])
    kept(folder, run, [row("z", "leftmost", None)])
    with pytest.raises(UnreadableFile, match="of another run"):
        resumed(folder, run)


def test_only_problems_that_every_decoder_has_finished_count():
    run = run_of(["a", "b", "c"], samples=2)
    names = [("leftmost", 0), ("leftmost", 1), ("verified", 0), ("verified", 1)]
    a = [row("a", name, True, sample=sample) for name, sample in names]
    b = [row("b", name, True, sample=sample) for name, sample in names[:3]]
    c = [row("c", name, True if sample else None, sample=sample) for name, sample in names]
    assert complete([*a, *b, *c], run) == tuple(a)


# ---- shards


def shards(tmp_path: Path, count: int) -> tuple[Run, list[tuple[Folder, Run, tuple[Row, ...]]]]:
    """A whole run of five problems, and the same in parts."""
    ids = ("a", "b", "c", "d", "e")
    whole = run_of(ids, limit=5)
    parts = []
    for index in range(1, count + 1):
        mine = ids[index - 1 :: count]
        run = replace(whole, problems=mine, settings=replace(whole.settings, shard=f"{index}/{count}"))
        rows = tuple(row(task, name, True) for task in mine for name in ("verified", "leftmost"))
        parts.append((Folder(tmp_path / f"part{index}"), run, rows))
    return whole, parts


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_make_the_whole_run(tmp_path: Path, count: int):
    whole, parts = shards(tmp_path, count)
    run, rows = merged(parts[::-1])
    assert run == replace(whole, sittings=(SITTING,) * count)
    assert [row.key for row in rows] == whole.keys


def test_merged_run_is_read_again(tmp_path: Path):
    _, parts = shards(tmp_path, 2)
    run, rows = merged(parts)
    folder = kept(Folder(tmp_path / "whole"), run, list(rows))
    assert (folder.run(), folder.rows()) == (run, rows)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["settings"]["shard"] is None


def test_missing_shards_are_named(tmp_path: Path):
    _, parts = shards(tmp_path, 5)
    with pytest.raises(BadOption, match="missing: 2/5, 5/5"):
        merged([parts[0], parts[2], parts[3]])


def test_shards_that_do_not_fit_are_refused(tmp_path: Path):
    _, (first, second) = shards(tmp_path, 2)
    folder, run, rows = second
    _, (_, other_run, other_rows), _ = shards(tmp_path, 3)[1]
    for wrong, complaint in (
        (first, "each shard once"),
        ((folder, other_run, other_rows), "each shard once"),
        ((folder, replace(run, fingerprint="else"), rows), "data differ"),
        ((folder, replace(run, settings=replace(run.settings, seed=7)), rows), "do not fit: seed 0, not 7"),
        ((folder, replace(run, settings=replace(run.settings, shard=None)), rows), "is no shard"),
        ((folder, run, rows[:-1]), "is not finished"),
        ((folder, run, (*rows[:-1], replace(rows[-1], passed=None))), "is not finished"),
    ):
        with pytest.raises(BadOption, match=complaint):
            merged([first, wrong])
