"""`diffcode plan`: what a forward costs on this machine, and the window that the engine will use; or what a GPU's
published rates promise."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffcode.config import ENGINE_DTYPES
from diffcode.errors import BadOption, ModelUnavailable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from diffcode.engine import Model
    from diffcode.kernels.explain import Explained
    from diffcode.kernels.plan import Sizes
    from diffcode.kernels.targets import TargetPlan
    from diffcode.kernels.work import Work
    from diffcode.planning import Plan

TARGET_NAMES = ("a100", "h100", "b200", "mi300x")
TARGET_CONTEXT = 1024  # tokens that the canvas shows at most
# Of a model without an adapter, as if it had one like the default's.
AS_IF = {"kept": 32_768, "rank": 32}

EPILOG = """\b
Columns:
  floor      the least that the machine can do: bytes by its memory rate, or operations
             by its arithmetic rate, whichever takes longer
  reached    floor / measured
Close other programs first: they take a share of the memory's rate.
\b
With --target nothing is measured and no weights are needed: floors come from the
rates that the GPU's maker publishes, in bf16. MODEL is then qwen2.5-coder-0.5b
(the default), -1.5b, -7b, or a folder with config.json.
\b
With --explain, predicted is on a CPU the measured forward, dealt out by the floors;
on a GPU the floor of whole tiles on the processors that have a program. Ops are
measured where the target is the GPU at hand.
"""
TUNE_EPILOG = """\b
Needs a GPU and Triton, no weights: MODEL is qwen2.5-coder-0.5b (the default), -1.5b,
-7b, or a folder with config.json. Tiles of several models are kept side by side.
"""


@click.command(epilog=EPILOG)
@click.option("--model", metavar="NAME_OR_PATH", help="A GGUF file or Hugging Face folder instead of the default.")
@click.option("--adapter", metavar="PATH", help="A span adapter's folder, or none.")
@click.option("--infill", metavar="PATH", help="The adapter that is merged into the weights, or none.")
@click.option("--dtype", type=click.Choice(ENGINE_DTYPES), help="Precision, int8 if not given.")
@click.option("--target", type=click.Choice(TARGET_NAMES), help="Forecast for this GPU instead.")
@click.option("--explain", is_flag=True, help="Show each op of a step too.")
@click.option("--dry-run", is_flag=True, help="Show the plan and keep the old one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    model: str | None,
    adapter: str | None,
    infill: str | None,
    dtype: str | None,
    target: str | None,
    explain: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure this machine with the model, show what bounds it, and choose how many places a forward refines.

    Takes some ten seconds. The choice is kept and used from then on by every command.
    """
    if target is not None:
        _forecast(target, model, adapter, explain, as_json)
        return
    from rich.console import Console

    from diffcode.engine import Model
    from diffcode.kernels.cpu import native
    from diffcode.planning import make_plan, plain_kind, plan_file, save_plan

    loud = Console(stderr=True)
    with loud.status("loading the model") as status:
        loaded = Model.load(model, adapter, dtype=dtype, infill=infill)
        if loaded.engine is None:
            raise ModelUnavailable("a plan is made for the CPU engine, which does not run this model here")
        plan = make_plan(loaded, native.isa(), lambda what: status.update(f"measuring {what}"))
    if not dry_run:
        save_plan(plan, plan_file(loaded))
    ops = explained_here(loaded, plan) if explain else None
    if as_json:
        click.echo(_document(plan, ops))
        return
    console = _console()
    console.print(table(plan))
    if plan.agrees:
        console.print(choices_table(plan))
    if ops is not None:
        console.print(explain_table(ops, plain_kind(plan.span).name))


def _document(plan: "Plan | TargetPlan", ops: "list[Explained] | None") -> str:
    more = {} if ops is None else {"ops": [dataclasses.asdict(op) for op in ops]}
    return json.dumps(dataclasses.asdict(plan) | more, indent=1)


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if Console().is_terminal else 120)


def _forecast(target: str, model: str | None, adapter: str | None, explain: bool, as_json: bool) -> None:
    from diffcode.kernels.targets import BATCHES, TARGETS, plan_for

    sizes, agrees, as_if = target_model(model, adapter)
    plan = plan_for(TARGETS[target], sizes, agrees, TARGET_CONTEXT, BATCHES)
    ops = explained_there(plan, sizes) if explain else None
    if as_json:
        click.echo(_document(plan, ops))
        return
    console = _console()
    tables = [forecast_table(plan), fit_table(plan)]
    if ops is not None:
        tables.append(explain_table(ops, f"one fill, {len(plan.agrees)} drafts and span rows"))
    for part in (*tables, *notes(plan, as_if)):
        console.print(part, highlight=False)


def target_model(name: str | None, adapter: str | None) -> tuple["Sizes", tuple[float, ...], bool]:
    """Sizes of a model by its name or folder, how often the base agrees with its drafts, and whether that is assumed.

    Raises ModelUnavailable and BadOption.
    """
    import torch

    from diffcode.adapter import SpanAdapter
    from diffcode.engine import DEFAULT_MODEL, SPAN, shipped
    from diffcode.kernels.targets import MODELS
    from diffcode.planning import AGREES, adapted

    sizes = MODELS.get(name or DEFAULT_MODEL) or _sizes_of_folder(str(name))
    if adapter == "none":
        return sizes, (), False
    folder = shipped(name, adapter, SPAN)
    if folder is None:
        return dataclasses.replace(sizes, **AS_IF), AGREES, True
    span = SpanAdapter.load(folder, sizes.layers, torch.bfloat16, torch.device("cpu"))
    return adapted(sizes, span), span.agrees or AGREES, False


def _sizes_of_folder(name: str) -> "Sizes":
    from diffcode.kernels.targets import MODELS
    from diffcode.loading import ModelShape
    from diffcode.planning import shape_sizes

    file = Path(name).expanduser() / "config.json"
    try:
        s = ModelShape.from_config(json.loads(file.read_text(encoding="utf8")), file.parent)
    except (OSError, ValueError):
        raise BadOption(f"no sizes of {name!r}: give {', '.join(MODELS)}, or a folder with config.json") from None
    return shape_sizes(s)


def explained_here(model: "Model", plan: "Plan") -> "list[Explained]":
    """The ops of the CPU engine's forward."""
    from diffcode.kernels.explain import on_cpu
    from diffcode.kernels.work import works
    from diffcode.planning import formats_of, plain_kind, sizes_of

    kind = plain_kind(plan.span)
    parts = works(sizes_of(model), kind.tokens, kind.span.places, kind.context, formats=formats_of(model))
    return on_cpu(parts, plan.rates, plan.seconds(kind))


def explained_there(plan: "TargetPlan", sizes: "Sizes") -> "list[Explained]":
    """The ops of a GPU's step; measured, where it is the one at hand."""
    from diffcode.kernels.explain import on_gpu
    from diffcode.kernels.work import works

    widest = len(plan.agrees)
    parts = works(sizes, 1 + widest, widest, plan.context, guesses=1 + widest)
    return on_gpu(parts, plan.target.rates, plan.fits, _measured_ops(plan, sizes, parts))


def _measured_ops(plan: "TargetPlan", sizes: "Sizes", parts: "list[Work]") -> dict[str, float]:
    """Seconds of one run of each op by its name, if this GPU is the target."""
    import torch

    if not torch.cuda.is_available() or not is_target(plan.target.title, torch.cuda.get_device_name()):
        return {}
    from diffcode.kernels.calls import Draw, call
    from diffcode.kernels.timing import CudaClock

    clock, draw = CudaClock(), Draw(torch.bfloat16, torch.device("cuda"))
    return {work.name: clock(call(work, sizes, plan.context, draw).ours) for work in parts}


def is_target(title: str, gpu: str) -> bool:
    """Whether a GPU's name, as its driver tells it, is of a target's family."""
    families = ("A100", "H100", "B200", "MI300X")
    return any(family in title and family in gpu for family in families)


def explain_table(ops: "list[Explained]", of: str) -> "Table":
    """A line an op, and their sum."""
    grid = _grid(of, ("runs", "MB", "G operations", "floor ms", "predicted ms", "measured ms"))
    grid.add_column("bound by")
    for op in ops:
        measured = "" if op.measured is None else f"{op.measured * 1e3:.3f}"
        size, work = f"{op.bytes / 1e6:.1f}", f"{op.operations / 1e9:.2f}"
        times = (f"{op.floor * 1e3:.3f}", f"{op.predicted * 1e3:.3f}", measured)
        grid.add_row(op.name, str(op.times), size, work, *times, op.bound)
    total = [sum(getattr(op, name) for op in ops) for name in ("bytes", "operations", "floor", "predicted")]
    measured = f"{sum(op.measured or 0 for op in ops) * 1e3:.3f}" if all(op.measured for op in ops) else ""
    sums = (
        f"{total[0] / 1e6:.1f}",
        f"{total[1] / 1e9:.2f}",
        f"{total[2] * 1e3:.3f}",
        f"{total[3] * 1e3:.3f}",
        measured,
    )
    grid.add_row("together", "", *sums, "")
    return grid


def forecast_table(plan: "TargetPlan") -> "Table":
    """The roofline at published rates."""
    grid = _grid(
        "fills at once", ("span rows", "rows", "MB", "G operations", "floor ms", "tokens/s", "left-to-right x")
    )
    grid.add_column("bound by")
    for f in plan.forecasts:
        numbers = (f"{f.bytes / 1e6:.0f}", f"{f.operations / 1e9:.1f}", f"{f.floor * 1e3:.3f}")
        rate = (f"{f.tokens_a_second:.0f}", f"{f.against_leftmost:.2f}")
        grid.add_row(str(f.batch), str(f.span_rows), str(f.rows), *numbers, *rate, f.bound)
    return grid


def fit_table(plan: "TargetPlan") -> "Table":
    """Which dimensions waste tiles or processors with one fill."""
    grid = _grid("map, one fill", ("outputs", "inputs", "tile", "programs", "tiles used", "processors busy"))
    for f in plan.fits:
        shares = (f"{f.used:.0%}", f"{f.busy:.0%}")
        grid.add_row(f.name, str(f.outputs), str(f.inputs), str(f.tile), str(f.programs), *shares)
    return grid


def notes(plan: "TargetPlan", as_if: bool) -> list[str]:
    """What the tables do not say."""
    rates, widest = plan.target.rates, len(plan.agrees)

    def limit(number: int | None, of: str) -> str:
        return f"at any number of {of}" if number is None else f"up to {number} {of}"

    agrees = ", ".join(f"{share:.2f}" for share in plan.agrees) or "no adapter"
    return [
        f"{plan.target.title}: {rates.bytes_a_second / 1e12:.2f} TB/s, {rates.operations_a_second / 1e12:.0f} TFLOP/s "
        f"of dense bf16, {plan.target.processors} processors. Published, not measured: {plan.target.source}.",
        f"Behind {plan.context} tokens one fill is bound by memory {limit(plan.span_limit, 'span rows')}, "
        f"forwards with {widest} span rows {limit(plan.batch_limit, 'fills at once')}.",
        f"tokens/s is the most that the rates allow, launches not counted; the base confirms drafts with {agrees}"
        + (" by distance, as if the model had an adapter like the default's." if as_if else " by distance.")
        + " A forward has one token, as many drafts as span rows, and these.",
    ]


def _grid(first: str, numbers: tuple[str, ...]) -> "Table":
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False)
    grid.add_column(first)
    for name in numbers:
        grid.add_column(name, justify="right")
    return grid


def table(plan: "Plan") -> "Table":
    """The roofline."""
    grid = _grid("forward", ("MB", "G operations", "floor ms", "ms", "reached"))
    grid.add_column("bound by")
    for f in plan.forwards:
        size, work, floor, ms = f.bytes / 1e6, f.operations / 1e9, f.floor * 1e3, f.seconds * 1e3
        grid.add_row(f.name, f"{size:.0f}", f"{work:.1f}", f"{floor:.1f}", f"{ms:.1f}", f"{floor / ms:.0%}", f.bound)
    rates = plan.rates
    grid.caption = (
        f"{plan.isa}, {plan.threads} threads: {rates.bytes_a_second / 1e9:.0f} GB/s out of memory, "
        f"{rates.operations_a_second / 1e12:.2f} T operations/s"
    )
    return grid


def choices_table(plan: "Plan") -> "Table":
    """What each number of span rows is expected to bring."""
    from diffcode.kernels.plan import pace

    grid = _grid("places of a window", ("windows", "tokens/forward", "ms/forward", "tokens/s"))
    for choice in plan.choices:
        span = choice.span
        _, tokens = pace(plan.agrees, span)
        shown = (str(span.places), str(span.outcomes)) if span.outcomes else ("no span rows", "")
        mark = " *" if span == plan.span else ""
        rate = choice.tokens_a_second
        grid.add_row(shown[0] + mark, shown[1], f"{tokens:.2f}", f"{1e3 * tokens / rate:.1f}", f"{rate:.0f}")
    agrees = ", ".join(f"{share:.2f}" for share in plan.agrees)
    grid.caption = f"expected, where the base confirms drafts with {agrees} by distance; * is used from now on"
    return grid


@click.command(epilog=TUNE_EPILOG)
@click.option("--model", metavar="NAME_OR_PATH", help="A model's name or Hugging Face folder instead of the default.")
@click.option("--adapter", metavar="PATH", help="A span adapter's folder, or none.")
@click.option("--dry-run", is_flag=True, help="Show the tiles and keep the old ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def tune_command(model: str | None, adapter: str | None, dry_run: bool, as_json: bool) -> None:
    """Try the kernels with other tiles on this GPU, and keep the quickest for each op and shape of a model.

    Takes some minutes. What was found is used from then on by every command on this GPU.
    """
    import torch
    from rich.console import Console

    from diffcode.fused import tiles_folder
    from diffcode.kernels import dispatch, tune
    from diffcode.kernels.calls import Draw
    from diffcode.kernels.timing import CudaClock

    sizes, agrees, _ = target_model(model, adapter)
    if not torch.cuda.is_available():
        raise ModelUnavailable("tiles are tuned on a GPU, and torch finds none here: nothing was changed")
    draw = Draw(torch.bfloat16, torch.device("cuda"))
    if dispatch.machine("lora_linear", torch.empty(0, dtype=draw.dtype, device=draw.device)) == "torch":
        raise ModelUnavailable("Triton does not run here: pip install diffcode[gpu], and unset DIFFCODE_KERNELS")
    asked, gpu = tune.shapes(sizes, len(agrees)), torch.cuda.get_device_name()
    with Console(stderr=True).status("tuning") as status:
        found = tune.tune(asked, sizes, draw, CudaClock(), lambda what: status.update(f"tuning {what}"))
    file = None if dry_run else str(tune.save(tiles_folder(), gpu, found))
    if as_json:
        rows = [dataclasses.asdict(shape) | {"tile": dataclasses.asdict(tile)} for shape, tile in found.items()]
        click.echo(json.dumps({"gpu": gpu, "file": file, "tiles": rows}, indent=1))
        return
    grid = _grid(gpu, ("outputs", "inputs", "rows", "tile", "inputs a turn", "warps", "stages"))
    for shape, tile in found.items():
        numbers = (shape.outputs, shape.inputs, shape.rows, f"{tile.outputs} x {tile.rows}", tile.inputs, tile.warps)
        grid.add_row(shape.op, *map(str, numbers), str(tile.stages))
    _console().print(grid)
