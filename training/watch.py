"""How a run is shown while it goes on: a progress bar, TensorBoard, a plot. Only the bar is always there."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffcode.training import trainer as loop
from diffcode.training.trainer import Trainer

SMOOTH = 0.95  # of the loss that the bar shows


class Board:
    """Shows every step; the first process of several does, the others are silent."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._console = Console(stderr=True)
        self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)
        self._task = self._bar.add_task("validating", total=1.0, completed=trainer.done)  # type: ignore[arg-type]
        self._writer = _tensorboard(trainer.folder.path)
        self._loss: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()
        plot(self._trainer.folder.path, self._trainer.folder.metrics())

    def show(self, progress: loop.Progress) -> None:
        row = progress.row
        if "loss" in row:
            old = self._loss if self._loss is not None else row["loss"]
            self._loss = SMOOTH * old + (1 - SMOOTH) * row["loss"]
            self._bar.update(
                self._task, completed=self._trainer.done, description=f"step {progress.step}  loss {self._loss:.3f}"
            )
            self._scalars(row, progress.step, "train")
            if "skipped" in row:
                self._console.print(f"step {progress.step} skipped: {row['skipped']}")
        if progress.validation:
            self._scalars(progress.validation, progress.step, "validation")
            found = "  ".join(f"{name} {value:.3f}" for name, value in progress.validation.items() if name != "measure")
            self._console.print(f"step {progress.step}: {found}", soft_wrap=True)
            plot(self._trainer.folder.path, self._trainer.folder.metrics())

    def _scalars(self, row: Any, step: int, group: str) -> None:
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{group}/{name}", value, step)


def _tensorboard(folder: Path) -> Any:
    """A writer into the run's folder, where the package `tensorboard` is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def plot(folder: Path, metrics: list[dict[str, Any]]) -> None:
    """Loss and measure against steps as `loss.svg`, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("svg")
    from matplotlib.figure import Figure

    steps = [(row["step"], row["loss"]) for row in metrics if "loss" in row]
    measured = [(row["step"], row["validation"]["measure"]) for row in metrics if "validation" in row]
    if not steps:
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left = figure.add_subplot(xlabel="step", ylabel="loss")
    left.plot(*zip(*steps, strict=True), color="tab:gray", linewidth=0.5)
    left.plot(*zip(*smoothed(steps), strict=True), color="tab:blue", label="loss")
    if measured:
        right = left.twinx()
        right.set_ylabel("measure on held-out text")
        right.plot(*zip(*measured, strict=True), color="tab:orange", marker=".", label="measure")
    figure.savefig(folder / "loss.svg")


def smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """An exponential moving average along the points."""
    found, value = [], points[0][1]
    for step, now in points:
        value = SMOOTH * value + (1 - SMOOTH) * now
        found.append((step, value))
    return found
