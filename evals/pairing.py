"""Two runs side by side, problem by problem."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from diffcode.errors import BadOption
from diffcode.evals.results import Folder, Row, Run, complete
from diffcode.evals.summary import Comparison, by_decoder
from diffcode.evals.summary import compare as compare_rows

VERSION = 1


@dataclass(frozen=True, slots=True)
class Pairing:
    """What changed from one run to another."""

    before: str
    after: str
    differences: tuple[str, ...]  # of the settings, in words
    problems: tuple[int, int]  # how many each run has
    comparisons: tuple[Comparison, ...]

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        return {"version": VERSION, **asdict(self)}

    def text(self) -> str:
        lines = [f"{self.before}: {self.problems[0]} problems; {self.after}: {self.problems[1]}"]
        lines += [f"different: {difference}" for difference in self.differences]
        for comparison in self.comparisons:
            lines += ["", comparison.sentence()]
            lines += [f"  gained {task}" for task in comparison.gained]
            lines += [f"  lost   {task}" for task in comparison.lost]
        return "\n".join(lines)


def compare(before: Folder, after: Folder, names: Sequence[str] = (), against: str | None = None) -> Pairing:
    """Decoders of both runs, or those of `after` in `names`, each with itself or with `against` of the first run."""
    runs = before.run(), after.run()
    if runs[0].fingerprint != runs[1].fingerprint:
        raise BadOption(f"{before.path} and {after.path} are about different problems: compare runs of one task")
    old, new = (_judged(folder, run) for folder, run in zip((before, after), runs, strict=True))
    shared = _tasks(old) & _tasks(new)
    if not shared:
        raise BadOption(f"{before.path} and {after.path} have no finished problem in common")
    chosen = names or [name for name in new if against or name in old]
    if not chosen:
        raise BadOption(f"no decoder is in both: {', '.join(old)} and {', '.join(new)}; name one with --against")
    found = []
    for name in chosen:
        mine, theirs = _rows(new, name, after, shared), _rows(old, against or name, before, shared)
        pair = compare_rows(mine, theirs)
        found.append(replace(pair, decoder=f"{after.path}: {name}", baseline=f"{before.path}: {against or name}"))
    differences = tuple(runs[0].settings.differences(runs[1].settings))
    sizes = len(_tasks(old)), len(_tasks(new))
    return Pairing(str(before.path), str(after.path), differences, sizes, tuple(found))


def _judged(folder: Folder, run: Run) -> dict[str, list[Row]]:
    return by_decoder(complete(folder.rows(), run))


def _tasks(groups: dict[str, list[Row]]) -> set[str]:
    return {row.task_id for rows in groups.values() for row in rows}


def _rows(groups: dict[str, list[Row]], name: str, folder: Folder, tasks: set[str]) -> list[Row]:
    if name not in groups:
        raise BadOption(f"{folder.path} has no decoder {name}: it has {', '.join(groups)}")
    return [row for row in groups[name] if row.task_id in tasks]
