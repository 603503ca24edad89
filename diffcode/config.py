"""Options as frozen dataclasses, checked when made. No torch here: the command line reads these for its help."""

from dataclasses import dataclass, fields
from typing import Any

from diffcode.errors import BadOption

POLICY_NAMES = ("verified", "threshold", "margin", "entropy_bound", "edit", "leftmost")

# Of the weights. The first four are the CPU engine's; int8 is the default on a CPU where it was built, bfloat16 is the
# default elsewhere.
ENGINE_DTYPES = ("int8", "int5", "int4", "bf16")
DTYPES = (*ENGINE_DTYPES, "bfloat16", "float32")

# Other tries of a fill that breaks the syntax: of 90 held-out pieces 17 were broken, with 4 tries 10, with 8 tries 7.
RETRIES = 8
# Fills of which the one that reads on best is taken: of 110 held-out pieces 0.200 came back exactly, 0.164 with one.
BEST_OF = 9
DEFAULT_SPAN_ROWS = 4  # where there is no plan: the starter adapter was trained with 4

# What each policy's one number is, and its default. Tuned on held-out code, see evals/README.md.
DEFAULT_THRESHOLDS = {
    "verified": 0.3,  # a draft is proposed from this confidence on
    "threshold": 0.95,  # a place is committed above this probability
    "margin": 0.93,  # ... above this distance between the two likeliest tokens
    "entropy_bound": 0.1,  # ... while the entropies committed beside the largest stay under this, in nats
    "edit": 0.5,  # a committed token is replaced when another one is likelier than this
    "leftmost": 0.0,  # not used
}


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """How much of the file the model sees round a hole, in tokens."""

    budget: int = 1024
    # Code is mostly explained by what stands above it; what one side leaves unused the other gets.
    prefix_share: float = 0.75
    jump: int | None = None  # tokens by which the window's ends move; None: a 16th of the budget
    plain_without_suffix: bool = False  # where nothing follows the hole, show the plain text, without control tokens

    def __post_init__(self) -> None:
        _check(self.budget >= 16, f"a context of {self.budget} tokens is too small: take 16 or more")
        _check(self.jump is None or self.jump >= 1, "the window moves by 1 token or more")
        _check(0 <= self.prefix_share <= 1, "the prefix's share of the context lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class DenoiseOptions:
    """One fill's settings; every field but `policy` has the same meaning for all policies."""

    policy: str = "verified"
    threshold: float | None = None  # None: the policy's default
    max_tokens: int = 256  # a hole
    max_steps: int | None = None  # a hole and pass; None: as many as it takes
    temperature: float = 0.0  # 0: greedy
    seed: int = 0
    span_rows: int | None = None  # W of DESIGN 2.1; None: what the plan says for this model and machine
    max_drafts: int = 8  # longest run of drafts in one forward, n-gram matches can be long
    ngrams: int = 1  # 0: no drafts from repeated n-grams
    # Added to the logit of the end where tokens are chosen, in nats: greedily the model writes on too often. Of
    # held-out lines 0.325 came back exactly with 0, 0.350 with 0.7, 0.375 with 1.4 (n = 120), and fills of 2 to 5
    # lines were off by 2.5, 2.1, 1.6 lines. Not where nothing follows the hole.
    end_bias: float = 1.4
    # `verified`: behind how many of a check's likeliest outcomes a window stands; None: what the plan says.
    max_anchors: int | None = None
    # A fill that is not accepted is begun anew that often, each time from a place where the model wavered. 0: it stays.
    retries: int = 0
    # Fills of a hole that are written, each from another place where the model wavered; the one is taken behind which
    # the text reads on best. 1: the first.
    best_of: int = 1

    def __post_init__(self) -> None:
        _check(
            self.policy in POLICY_NAMES, f"there is no policy {self.policy!r}: choose one of {', '.join(POLICY_NAMES)}"
        )
        _check(self.threshold is None or self.threshold >= 0, f"threshold is {self.threshold}: it may not be negative")
        _check(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}: it must be 1 or more")
        _check(self.max_steps is None or self.max_steps >= 1, f"steps is {self.max_steps}: it must be 1 or more")
        _check(self.temperature >= 0, f"temperature is {self.temperature}: it may not be negative")
        _check(self.span_rows is None or self.span_rows >= 1, f"span_rows is {self.span_rows}: it must be 1 or more")
        _check(self.max_drafts >= 0, f"max_drafts is {self.max_drafts}: it may not be negative")
        _check(self.retries >= 0, f"retries is {self.retries}: it may not be negative")
        _check(self.best_of >= 1, f"best_of is {self.best_of}: it must be 1 or more")
        _check(
            self.max_anchors is None or self.max_anchors >= 1,
            f"max_anchors is {self.max_anchors}: it must be 1 or more",
        )

    @classmethod
    def parse(cls, text: str, **more: Any) -> "DenoiseOptions":
        """`verified` or `threshold:threshold=0.8:span_rows=2` to options; `more` fills in what the text leaves out."""
        policy, *settings = text.split(":")
        kinds = {f.name: str(f.type) for f in fields(cls) if f.name != "policy"}
        values: dict[str, Any] = {}
        for name, _, value in (setting.partition("=") for setting in settings):
            _check(name in kinds, f"there is no setting {name!r}: known are {', '.join(kinds)}")
            try:
                values[name] = float(value) if "float" in kinds[name] else int(value)
            except ValueError:
                raise BadOption(f"{name} is {value!r}: write a number") from None
        return cls(policy, **(more | values))

    @property
    def judged(self) -> bool:
        """Whether anything depends on a fill being in order."""
        return self.retries > 0 or self.best_of > 1

    @property
    def bound(self) -> float:
        """The threshold in force."""
        return DEFAULT_THRESHOLDS[self.policy] if self.threshold is None else self.threshold


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise BadOption(message)
