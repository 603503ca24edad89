"""The loop: steps, validation, checkpoints, and a clean end whenever it is asked for."""

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffcode.training.average import Average
from diffcode.training.distributed import ALONE, World
from diffcode.training.loss import Scored
from diffcode.training.options import TrainOptions
from diffcode.training.run_folder import RunFolder
from diffcode.training.sampler import Example, Sampler
from diffcode.training.schedule import rate_at
from diffcode.training.sharding import collected, like, local
from diffcode.training.stage import Stage

REMEMBERED = 64  # gradient norms and seconds of steps that say what is usual
FEWEST = 16  # norms; before that many every one is
FIRST_STEPS = 3  # likewise of seconds, which vary less, and the first pause may come early
PAUSED = 5.0  # a step that takes so many times the usual was held up (SIGSTOP, another program): it counts as usual

Numbered = tuple[int, Example]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a watcher is told after every step."""

    step: int
    row: Mapping[str, Any]
    validation: Mapping[str, float] | None


class Trainer:
    """One run of one stage, alone or as one of several processes, which then all take the same steps."""

    def __init__(
        self,
        stage: Stage,
        training: Sampler,
        validation: Sampler,
        options: TrainOptions,
        folder: RunFolder,
        stop: Callable[[], bool] = lambda: False,
        world: World = ALONE,
    ):
        self.stage, self.options, self.folder, self.stop, self.world = stage, options, folder, stop, world
        self.probe: Callable[[Path], Mapping[str, float]] | None = None  # more measures of an adapter's folder
        self._training = training
        self._held_out = [(i, validation.example(i)) for i in range(options.validation_texts)]
        self._parameters = stage.parameters()
        self._average = Average(self._parameters, options.average)
        groups = [{"params": [p], "factor": stage.rate_of(n)} for n, p in self._parameters.items()]
        self._optimizer = torch.optim.AdamW(
            groups, lr=options.rate, betas=(0.9, 0.98), weight_decay=options.weight_decay
        )
        self._norms: list[float] = []
        self._paces: list[float] = []  # seconds of this sitting's last steps
        self.step = 0
        self.best = -math.inf
        self._seconds = 0.0

    def resume(self) -> bool:
        """Go on from the newest checkpoint; False where there is none."""
        state = self.folder.load(self._blank)
        if state is None:
            self.folder.rewind(-1)  # a run that was killed before its first checkpoint begins anew
            return False
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(like(parameter, state["parameters"][name]))
        self._average.shadow = {n: like(p, state["average"][n]) for n, p in self._parameters.items()}
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self._parameters.values()):
            mine = moments.get(number, {})  # none before the first step
            mine |= {name: like(parameter, value) for name, value in mine.items() if value.ndim}
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self._norms, self._seconds = state["norms"], state["seconds"]
        self.folder.rewind(self.step or -1)  # what is measured before the first step will be measured again
        return True

    def run(self) -> Iterator[Progress]:
        """Train to the end or until `stop` says so; yields after every step."""
        saved = time.monotonic()
        if self.step == 0:
            yield Progress(0, {}, self._validate())
        while self.done < 1 and not self.world.most(self.stop()):
            row = self._step()
            due = self.step % self.options.validate_every == 0 or self.done >= 1
            yield Progress(self.step, row, self._validate() if due else None)
            if self.world.most(time.monotonic() - saved) > 60 * self.options.save_minutes:
                self.save()
                saved = time.monotonic()
        self.save()

    @property
    def done(self) -> float:
        """The share of the run that is behind it, by steps or by time, whichever says more."""
        by_time = self._seconds / (60 * self.options.minutes) if self.options.minutes else 0.0
        return max(self.step / self.options.steps, by_time)

    def save(self) -> None:
        """Write a checkpoint."""
        whole = self._optimizer.state or self.world.size == 1
        self.folder.save(self._state() if whole else self._blank(), self.step)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best,
            "norms": self._norms,
            "seconds": self._seconds,
            "parameters": {n: p.detach() for n, p in self._parameters.items()},
            "average": self._average.shadow,
            "optimizer": self._optimizer.state_dict(),
        }

    def _blank(self) -> dict[str, Any]:
        """A state to be filled. The optimiser makes its moments in a first step; this one changes nothing."""
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0
        for parameter in self._parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        for moments in self._optimizer.state.values():
            moments["step"].zero_()
        return self._state()

    def summary(self) -> dict[str, Any]:
        """Where the run stands."""
        measured = [row for row in self.folder.metrics() if "validation" in row]
        return {
            "step": self.step,
            "done": min(self.done, 1.0),
            "minutes": self._seconds / 60,
            "best": self.best,
            "adapter": str(self.folder.path / "best"),
            "first": measured[0]["validation"] if measured else {},
            "last": measured[-1]["validation"] if measured else {},
        }

    def _step(self) -> dict[str, Any]:
        began = time.monotonic()
        first, texts = self.step * self.options.texts, self.options.texts
        mine = range(first + self.world.rank, first + texts, self.world.size)
        scored = self._backward([(i, self._training.example(i)) for i in mine])
        weight = self.world.sum(sum(s.weight for s in scored))
        total = self.world.sum(sum(float(s.loss.detach()) for s in scored))
        loss = total / weight if weight else math.nan
        norm = self._clip(weight)
        skipped = self._skip(loss, norm)
        rate = self.options.rate * rate_at(self.step, self.done, self.options.warmup, self.options.cooldown)
        if not skipped:
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            self._optimizer.step()
            self._average.update(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seconds = self.world.most(time.monotonic() - began)
        self._seconds += self._counted(seconds)
        row: dict[str, Any] = {
            "step": self.step,
            "loss": loss,
            "rate": rate,
            "norm": norm,
            "seconds": seconds,
            "weight": weight,
        }
        if skipped:
            row["skipped"] = skipped
        self.folder.log(row)
        return row

    def _counted(self, seconds: float) -> float:
        """What of a step's time is training time, which the schedule goes by."""
        usual, self._paces = _usual(self._paces, seconds, FIRST_STEPS)
        return usual if seconds > PAUSED * usual else seconds

    def _backward(self, examples: Sequence[Numbered]) -> list[Scored]:
        """Gradients of the summed loss, a few texts at a time."""
        parts = list(batches(examples, self.stage.rows, self.options.rows))
        needed = round(self.world.most(len(parts)))  # all go forward equally often: they need each other's pieces
        found = []
        for part in parts:
            scored = self.stage.score(part)
            scored.loss.backward()
            found.append(scored)
        for _ in range(len(parts), needed):
            (0.0 * self.stage.score(parts[-1]).loss).backward()
        return found

    def _clip(self, weight: float) -> float:
        """Turn the sum's gradient into the mean's, bound its norm, and return what it was."""
        gradients = [local(p.grad) for p in self._parameters.values() if p.grad is not None]
        for gradient in gradients:
            gradient.div_(weight)
        norm: Tensor = torch.nn.utils.get_total_norm(gradients)
        if self.world.size > 1:
            norm = torch.tensor(math.sqrt(self.world.sum(float(norm) ** 2)))
        for gradient in gradients:
            gradient.mul_((self.options.clip / (norm + 1e-6)).clamp(max=1.0))
        return float(norm)

    def _skip(self, loss: float, norm: float) -> str | None:
        """Why this step must not be taken, if so."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not a number"
        usual, self._norms = _usual(self._norms, norm, FEWEST)
        return f"gradient norm {norm:.3g}, usual {usual:.3g}" if norm > self.options.spike * usual else None

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Measure the average, keep its adapter, and a copy of it if it is the best so far."""
        with self._average.in_place():
            found = self.stage.validate(self._held_out, self.world)
            tensors = collected(self._parameters, self.world)
            if self.world.leads:
                self._write("adapter", found, tensors)
                if found["measure"] > self.best:
                    self._write("best", found, tensors)
        self.best = max(self.best, found["measure"])
        if self.probe is not None and self.world.leads:
            found |= self.probe(self.folder.path / "adapter")
        self.folder.log({"step": self.step, "validation": found, "seconds": self._seconds})
        return found

    def _write(self, name: str, found: Mapping[str, float], tensors: Mapping[str, Tensor]) -> None:
        staged = self.folder.path / f".{name}.part"
        if staged.exists():
            shutil.rmtree(staged)
        note = {"step": self.step, "seconds": round(self._seconds), "validation": dict(found)}
        self.stage.save(staged, note, tensors)
        self.folder.replace_folder(staged, name)


def batches(examples: Sequence[Numbered], rows: Callable[[Example], int], most: int) -> Iterator[Sequence[Numbered]]:
    """Cut a step's examples where they would take more than `most` rows at once."""
    part: list[Numbered] = []
    taken = 0
    for item in examples:
        size = rows(item[1])
        if part and taken + size > most:
            yield part
            part, taken = [], 0
        part.append(item)
        taken += size
    if part:
        yield part


def _usual(known: Sequence[float], new: float, fewest: int) -> tuple[float, list[float]]:
    """(the usual among the known values, infinite while they are few; what to remember, the new one with them)."""
    usual = statistics.median(known) if len(known) >= fewest else math.inf
    return usual, [*known[1 - REMEMBERED :], new]
