"""`diffcode train --adapt` on a small repository and a tiny model, and the probe's own problems."""

import json
import subprocess
from pathlib import Path

import pytest
import tiny

from diffcode import cli
from diffcode.evals import sandbox
from diffcode.training.probe import PROBLEMS, problems

SMALL = ("spans.window=24,96", "spans.most_tokens=40", "validation_texts=4", "denoising.starts=4", "denoising.kept=200")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Thirty files that differ, in git, with one that git ignores."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for n in range(30):
        lines = [f"def step_{n}_{i}(value):\n    total = value + {n * i}\n    return total * {i}\n\n" for i in range(8)]
        (folder / f"part{n}.py").write_text(f'"""Part {n}."""\n\n\n' + "\n".join(lines))
    (folder / "ignored.py").write_text("secret_of_mine = 1\n" * 50)
    (folder / ".gitignore").write_text("ignored.py\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def test_a_personal_adapter(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = tiny.write_model(tmp_path / "model")
    given = ["train", "--adapt", str(repository), "--model", str(model), "--minutes", "0.03", "--texts", "2"]
    given += [word for setting in SMALL for word in ("--set", setting)]
    given += ["--rank", "4", "--dtype", "float32", "--device", "cpu"]
    # The tiny model has no span adapter to be compared with: first one is made, then it is what "before" means.
    assert cli.run([*given, "--out", str(tmp_path / "first"), "--fresh", "--stage", "infill", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert set(outcome["before"]) == set(outcome["after"]) == {"exact", "tokens_a_forward", "milliseconds"}
    assert outcome["lines"] > 0
    assert Path(outcome["adapter"]) == tmp_path / "first" / "infill" / "best"
    assert outcome["option"] == "--infill"  # it is no span adapter: fill --adapter would refuse it
    card = json.loads((tmp_path / "first" / "data" / "card.json").read_text())
    assert 1 <= card["validation_documents"] <= 4
    assert card["documents"] <= 30
    assert "secret_of_mine" not in (tmp_path / "first" / "data" / "card.json").read_text()
    assert not (tmp_path / "home" / "personal").exists()
    assert cli.run([*given, "--stage", "span"]) == 0
    said = capsys.readouterr()
    assert "held-out lines of the repository" in said.out
    assert "diffcode fill FILE --adapter" in said.out
    assert len(list((tmp_path / "home" / "personal").glob("mine-*/span/best"))) == 1


def test_what_is_learnt_is_the_repository_as_it_stands_at_the_first_checkpoint(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diffcode.training.adapt.LINES", 1)
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = tiny.write_model(tmp_path / "model")
    given = ["train", "--adapt", str(repository), "--model", str(model), "--out", str(tmp_path / "out"), "--fresh"]
    given += ["--stage", "infill", "--rank", "4", "--dtype", "float32", "--device", "cpu", "--texts", "2"]
    given += [word for setting in SMALL for word in ("--set", setting)]

    def files() -> int:
        return int(json.loads((tmp_path / "out" / "data" / "card.json").read_text())["documents"])

    with monkeypatch.context() as broken:
        broken.setattr("diffcode.training.command.make", lambda given: pytest.fail("killed while the model was loaded"))
        with pytest.raises(pytest.fail.Exception):
            cli.run(given)
    before = files()
    (repository / "new.py").write_text("\n\n".join(f"def fresh_{n}(one):\n    return one ** {n}" for n in range(20)))
    assert cli.run([*given, "--steps", "2"]) == 0
    said = capsys.readouterr().err
    assert f"{before + 1} files of {repository}, 3 of them held out" in said
    assert files() == before + 1
    (repository / "new.py").unlink()
    assert cli.run([*given, "--steps", "2", "--json"]) == 0
    again = capsys.readouterr()
    assert f"is finished: remove {tmp_path / 'out'} to learn what has changed since" in again.err
    assert files() == before + 1
    checkpoints = [path.name for path in (tmp_path / "out" / "infill").glob("checkpoint-*")]
    assert checkpoints == ["checkpoint-00000002.pt"], "steps that were asked for are kept to"


def test_adapt_makes_its_own_data(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--adapt", str(repository), "--data", "x"]) == 2
    assert "leave --data out" in capsys.readouterr().err


def test_the_probes_problems_hold_for_their_own_solutions() -> None:
    try:
        isolation = sandbox.best_isolation()
    except sandbox.SandboxUnavailable as error:
        pytest.skip(str(error))
    marked = [block.strip().rpartition("\n# ")[0] for block in PROBLEMS.strip().split("\n\n\n")]
    programs, empty = [], []
    for block, (text, at, test, name) in zip(marked, problems(), strict=True):
        solution = block.partition("⟦")[2].partition("⟧")[0]
        check = f"def check(candidate):\n    {test}\n"
        programs.append(sandbox.Program(text[:at] + solution + text[at:], check, name))
        empty.append(sandbox.Program(text, check, name))
    assert set(sandbox.check_all(programs, isolation=isolation)) == {sandbox.PASSED}
    assert sandbox.PASSED not in list(sandbox.check_all(empty, isolation=isolation))


def test_a_run_may_be_probed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFCODE_HOME", str(tmp_path / "home"))
    model = tiny.write_model(tmp_path / "model")
    data = tmp_path / "data"
    assert cli.run(["data", "build", str(repository), "--out", str(data), "--model", str(model), "--workers", "1"]) == 0
    given = ["train", "--data", str(data), "--model", str(model), "--steps", "2", "--texts", "2", "--probe", "--fresh"]
    given += [word for setting in SMALL for word in ("--set", setting)]
    for stage in ("infill", "span"):
        out = tmp_path / stage
        assert cli.run([*given, "--stage", stage, "--out", str(out), "--dtype", "float32", "--device", "cpu"]) == 0
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        measured = [row["validation"] for row in rows if "validation" in row]
        assert all(0 <= m["probe_passed"] <= 1 for m in measured)
        assert all(m["probe_tokens_a_forward"] >= 1 for m in measured)
