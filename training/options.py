"""Every choice of the training pipeline, with its reason. No torch here: the command line reads these for its help."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from diffcode.errors import BadOption

STAGES = ("infill", "span")
KINDS = ("lines", "rest_of_line", "nodes", "characters", "words", "empty")  # of spans, each a share below

NO_SUFFIX = 0.2  # see SpanOptions


@dataclass(frozen=True, slots=True)
class SpanOptions:
    """Which piece of a text is taken out, and how much is shown round it. Shares need not add up to one."""

    lines: float = 0.3  # whole lines: what an editor's multi-line suggestion and HumanEval's infilling tasks are
    rest_of_line: float = 0.2  # from the cursor to the end of the line: what a person types most
    nodes: float = 0.25  # syntax nodes: what a rewrite or a repair replaces
    characters: float = 0.25  # anything, words cut in half included: a hole may begin wherever a cursor can stand
    words: float = 0.2  # a few words of a line, mostly one: a name, a literal. Nodes never are that small
    empty: float = 0.03  # nothing is missing: the model must be able to say so at once
    most_lines: int = 8
    most_characters: int = 480  # of a random span, drawn log-uniformly
    most_tokens: int = 160  # a longer middle is drawn anew: it costs much and ends but once
    # Tokens of text round the hole, drawn log-uniformly: short ones cost little and end as often as long ones do, long
    # ones teach to look far.
    window: tuple[int, int] = (48, 384)
    # Nothing behind the hole: a file being written, and the middle goes on to its end. None: 0.2, but 0 for an
    # infilling adapter, which is taken out of the weights again where nothing follows.
    no_suffix: float | None = None
    no_prefix: float = 0.02

    @property
    def open_ended(self) -> float:
        """`no_suffix` in force."""
        return NO_SUFFIX if self.no_suffix is None else self.no_suffix

    def __post_init__(self) -> None:
        _one_or_more(self, "most_lines", "most_characters", "most_tokens")
        if not 1 <= self.window[0] <= self.window[1]:
            raise BadOption(f"spans.window is {self.window}: write LOW,HIGH with 1 or more tokens")
        if not sum(getattr(self, kind) for kind in KINDS) > 0:
            raise BadOption("no kind of span has a share: let one of them be over 0")


@dataclass(frozen=True, slots=True)
class InfillOptions:
    """Stage A: causal training on whole canvases, loss on the middle."""

    # The end comes once a middle, but a weight w over 1 makes the model w times too ready to end: with 4, 30 % of the
    # single-line holes came back empty. Nothing marks where a hole begins, so it takes each line's start for an end.
    end_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class DenoisingOptions:
    """Stage B: span rows behind many starts of one text."""

    window: int = 4  # places of a span: 4 with 32 starts learnt near places twice as fast as 8 with 16
    starts: int = 32  # spans that share the text's one pass of the base
    near_middle: float = 0.5  # share of the starts that lie in the middle; the others anywhere behind the suffix
    all_masked: float = 0.75  # share of draws that are masks only, what a step after a verified run meets
    island_rate: float = 1.0  # of the other draws: each place behind the first is shown at a rate from U(0, this)
    noise: float = 0.02  # share of the shown tokens that are wrong, so that span rows learn to doubt them
    # A place's weight by its distance from the committed run: `verified` reaches place d only over d - 1 others.
    decay: float = 0.8
    dead_weight: float = 0.05  # places behind the end of the text: nothing depends on them
    distill: float = 0.7  # share of the target that is the base's own distribution: dense, and what `verified` checks
    kept: int = 32_768  # vocabulary rows of the span rows' head where no adapter says which: a fifth of the full one
    heads_rate: float = 5.0  # learning rate of the mask vector and the successor map, times that of the LoRA maps

    def __post_init__(self) -> None:
        _one_or_more(self, "window", "starts", "kept")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The loop."""

    stage: str = "infill"
    steps: int = 1000
    minutes: float | None = None  # a budget of training time; the run ends and the rate falls by whichever comes first
    texts: int = 16  # a step: 2 at 4e-4 plateaued, 16 and more at 1e-4 to 2e-4 learn
    rate: float = 2e-4
    warmup: int = 20
    cooldown: float = 0.2  # share of the steps over which the rate falls to 0 (WSD: warm-up, stable, decay)
    rank: int = 32
    weight_decay: float = 0.0  # low-rank maps begin at zero and stay small
    clip: float = 1.0
    average: float = 0.98  # exponential moving average of the adapter, what is validated and saved
    rows: int = 4096  # rows of one forward; a step is cut into as many as it needs
    seed: int = 0
    full: bool = False  # train the base itself, not an adapter beside it
    recompute: bool = False  # activation checkpointing: half the memory, a third more time
    validate_every: int = 50
    validation_texts: int = 96
    save_minutes: float = 4.0
    keep: int = 3  # checkpoints
    spike: float = 4.0  # a gradient norm over this many times its running median is skipped and logged
    spans: SpanOptions = field(default_factory=SpanOptions)
    infill: InfillOptions = field(default_factory=InfillOptions)
    denoising: DenoisingOptions = field(default_factory=DenoisingOptions)

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise BadOption(f"there is no stage {self.stage!r}: choose {' or '.join(STAGES)}")
        _one_or_more(self, "steps", "texts", "rows", "keep", "validate_every", "validation_texts")
        if self.full and self.stage != "infill":
            raise BadOption(
                "--full trains the base's own weights, and stage span leaves them alone: add --stage infill"
            )
        if self.minutes is not None and not self.minutes > 0:
            raise BadOption(f"minutes is {self.minutes}: it must be over 0")
        if not self.rate > 0 or self.rank < 0 or (self.rank == 0 and not self.full):
            raise BadOption("rate must be over 0, and rank too unless the base itself is trained")


def _one_or_more(options: Any, *names: str) -> None:
    for name in names:
        if getattr(options, name) < 1:
            raise BadOption(f"{name} is {getattr(options, name)}: it must be 1 or more")


def with_settings(options: TrainOptions, settings: Iterable[str]) -> TrainOptions:
    """`denoising.window=8`, `rate=1e-4` and the like put into the options. Raises BadOption."""
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise BadOption(f"{setting!r} is no setting: write NAME=VALUE, such as denoising.window=8")
        options = _with(options, name.split("."), value, setting)
    return options


def _with(options: Any, path: list[str], value: str, setting: str) -> Any:
    known = {f.name: getattr(options, f.name) for f in fields(options)}
    if path[0] not in known or is_dataclass(known[path[0]]) != (len(path) > 1):
        raise BadOption(f"there is no setting {setting!r}: known here are {', '.join(known)}")
    old = known[path[0]]
    new = _with(old, path[1:], value, setting) if len(path) > 1 else _value(old, value, setting)
    return replace(options, **{path[0]: new})


def _value(old: Any, text: str, setting: str) -> Any:
    """`text` as a value of the kind that the setting has now."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, tuple):
            low, high = (int(part) for part in text.split(","))
            return low, high
        return type(old)(text) if old is not None else float(text)
    except (KeyError, ValueError):
        raise BadOption(f"{setting!r} is no value that this setting may have: now it is {old}") from None
