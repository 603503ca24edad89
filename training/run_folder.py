"""The folder of a run: options, metrics, checkpoints, the adapter, a plot. Nothing in it is ever half written."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffcode.errors import BadOption, UnwritableFile
from diffcode.training import checkpoint
from diffcode.training.distributed import ALONE, World
from diffcode.training.options import TrainOptions

# What may differ when a run goes on: how long, how often it looks and saves, how it is cut to fit the memory.
FREE = (
    "steps",
    "minutes",
    "cooldown",
    "rows",
    "validate_every",
    "validation_texts",
    "save_minutes",
    "keep",
    "recompute",
)


class RunFolder:
    """Checkpoints appear by a rename; `metrics.jsonl` grows by a line a step.

    Of several processes all must call `save` and `load`; what else is to be written only the leading one writes.
    """

    def __init__(self, path: Path, keep: int, world: World = ALONE):
        self.path, self._keep, self._world = path, keep, world
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnwritableFile(f"{path} cannot be made ({error}): give another --out") from error

    def begin(self, options: TrainOptions, data: Mapping[str, Any]) -> None:
        """Write down what the run is; refuse to go on with another."""
        plan = {"options": asdict(options), "data": dict(data)}
        file = self.path / "run.json"
        if file.exists() and self.checkpoints():
            old = json.loads(file.read_text(encoding="utf8"))
            other = "denoising" if options.stage == "infill" else "infill"  # the other stage's settings
            wrong = [
                name
                for name, value in json.loads(json.dumps(plan["options"])).items()
                if name not in (*FREE, other) and old["options"].get(name) != value
            ]
            if wrong or old["data"] != json.loads(json.dumps(plan["data"])):
                what = ", ".join(wrong) or "the data"
                raise BadOption(f"{self.path} holds a run with another setting of {what}: give another --out")
        if self._world.leads:
            _replace(file, json.dumps(plan, indent=1))

    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        kinds = (checkpoint.FILE, checkpoint.FOLDER)
        return sorted(path for path in self.path.glob("checkpoint-*") if path.suffix in kinds)

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Write a checkpoint and drop the oldest ones."""
        checkpoint.save(state, self.path / f"checkpoint-{step:08d}", self._world)
        if self._world.leads:
            for old in self.checkpoints()[: -self._keep]:
                checkpoint.drop(old)

    def load(self, blank: Callable[[], Mapping[str, Any]] = dict) -> dict[str, Any] | None:
        """The newest checkpoint, None for a fresh run; `blank` makes the state that one of several processes fills."""
        found = self.checkpoints()
        return checkpoint.load(found[-1], blank, self._world) if found else None

    def log(self, row: Mapping[str, Any]) -> None:
        if not self._world.leads:
            return
        with (self.path / "metrics.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the metrics of steps behind a checkpoint: they are run again."""
        if not self._world.leads:
            return
        kept = [row for row in self.metrics() if row["step"] <= step]
        _replace(self.path / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """All rows; a line that a killed run left half written is none."""
        file = self.path / "metrics.jsonl"
        found = []
        for line in file.read_text(encoding="utf8").split("\n") if file.exists() else ():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def replace_folder(self, staged: Path, name: str) -> None:
        """Put a finished folder at its place."""
        place = self.path / name
        if place.exists():
            shutil.rmtree(place)
        staged.rename(place)


def _replace(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf8")
    os.replace(part, file)
