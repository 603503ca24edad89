"""Carry a plan out: denoise its holes and keep what passes. Runs in the model's thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffcode.canvas import normalise
from diffcode.config import RETRIES, DenoiseOptions
from diffcode.errors import DiffcodeError
from diffcode.holes import Hole, apply_edits
from diffcode.interrupt import Stop
from diffcode.lsp.filler import Filler, OnStep, Task, Written
from diffcode.lsp.gates import GateOptions, worth_showing
from diffcode.lsp.places import Place
from diffcode.lsp.plans import Attempt, Plan
from diffcode.lsp.showing import PLACEHOLDER, SPECIAL
from diffcode.lsp.spot import COMMENT
from diffcode.lsp.stubs import find_stubs
from diffcode.syntax import Code, damage, faults

FILLS = ("fill", "fillAll")


class NothingFound(DiffcodeError):
    """The model had nothing to say that would pass."""


@dataclass(frozen=True, slots=True)
class Change:
    """Characters of `hole` give way to `text`. Not `sure`: something else of the same name may be meant."""

    hole: Hole
    text: str
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Subject:
    """What a plan is about."""

    text: str
    code: Code | None
    options: DenoiseOptions
    gates: GateOptions


def carry_out(
    plan: Plan, subject: Subject, filler: Filler | None, stop: Stop, on_step: OnStep | None = None
) -> tuple[Change, ...]:
    """The changes of the first attempt that passes, in order; holes to be filled keep what each attempt brings.
    `filler` is not needed where every text is known.

    Raises NothingFound, Cancelled.
    """
    best: tuple[Change, ...] = ()
    for attempt in plan.attempts:
        known = {change.hole: change.text for change in best}
        together = _tried(plan, attempt, known if plan.kind in FILLS else {}, subject, filler, stop, on_step)
        alone = tuple(change for change in together if _passes(plan, subject, (change,)))
        found = next((changes for changes in (together, alone) if changes and _passes(plan, subject, changes)), ())
        if found and _good_enough(plan, attempt, subject, found):
            return found
        best = found if plan.kind in FILLS and found else best or found
    if not best:
        raise NothingFound(f"{plan.title}: the model has found nothing that fits")
    return best


def _good_enough(plan: Plan, attempt: Attempt, subject: Subject, best: Sequence[Change]) -> bool:
    """Whether no other attempt needs to be made: every hole is filled; an error is gone, or no longer half as large."""
    if plan.mends and subject.code is not None:
        before, after = damage(faults(subject.code.root)), damage(faults(_changed(subject.code, best).root))
        return after[0] < before[0] or 2 * after[1] < before[1]
    return plan.kind not in FILLS or len(best) == len(attempt.places)


def needs_model(plan: Plan) -> bool:
    return any(place.text is None for attempt in plan.attempts for place in attempt.places)


def _tried(
    plan: Plan, attempt: Attempt, known: Mapping[Hole, str], subject: Subject, filler: Filler | None, stop: Stop,
    on_step: OnStep | None,
) -> tuple[Change, ...]:  # fmt: skip
    written: Sequence[Written] = ()
    given = sorted(attempt.places, key=lambda place: (place.hole.start, place.hole.end))
    places = [replace(place, text=known.get(place.hole, place.text)) for place in given]
    text, holes = _shown(subject.text, places)
    if holes and filler is not None:
        chosen = replace(subject.options, max_tokens=plan.max_tokens, seed=subject.options.seed + attempt.seed)
        if attempt is plan.attempts[0] and not plan.mends:  # where all is broken, the grammar says too little
            chosen = replace(chosen, retries=RETRIES)
        if attempt.temperature is not None:
            chosen = replace(chosen, temperature=max(chosen.temperature, attempt.temperature))
        numbers = [n for n, place in enumerate(p for p in given if p.text is None) if place.hole not in known]
        told = on_step and (lambda frame: on_step(replace(frame, hole=numbers[frame.hole])))
        flat = plan.one_line or (plan.kind == "repair" and all(hole.start == hole.end for hole in holes))
        language = subject.code.language if subject.code is not None else None
        written = filler.fill(Task(text, holes, chosen, "\n" if flat else None, language=language), stop, told)
    fills = iter(written)
    changes: list[Change] = []
    for place in places:
        new = place.text if place.text is not None else _fitting(plan, attempt, place, subject, next(fills, None))
        if new is not None and new != subject.text[place.hole.start : place.hole.end]:
            changes.append(Change(place.hole, new, place.sure))
    return tuple(changes)


def _shown(text: str, places: Sequence[Place]) -> tuple[str, tuple[Hole, ...]]:
    """The text as the model is to see it, with what is known of each place put in; and the holes in it. In order."""
    holes: list[Hole] = []
    news: list[str] = []
    shift = 0
    for place in places:
        old = text[place.hole.start : place.hole.end]
        news.append(place.text if place.text is not None else place.before + old + place.behind)
        if place.text is None:
            start = place.hole.start + shift + len(place.before)
            holes.append(Hole(start, start + len(old)))
        shift += len(news[-1]) - len(old)
    return apply_edits(text, [place.hole for place in places], news), tuple(holes)


def _fitting(plan: Plan, attempt: Attempt, place: Place, subject: Subject, written: Written | None) -> str | None:
    """What goes into a place of the model's; None if it does not pass by itself."""
    if written is None or SPECIAL.search(written.text) or (written.finished == "budget" and plan.one_line):
        return None
    new = written.text
    if written.finished == "budget":  # of lines that it did not end, those that it did
        new = new[: new.rindex("\n")] if "\n" in new else ""
    if plan.kind in FILLS:  # one hole does not break another: each stands for itself
        language, new = subject.code.language if subject.code else None, place.before + new
        verdict = worth_showing(
            subject.text, place.hole, new, "invoked", language, (), subject.gates, code=subject.code, cut=attempt.cut
        )
        return verdict.text if verdict.ok and not _leaves_it(subject, place.hole, verdict.text) else None
    if plan.kind == "repair":  # a comment where something is missing only hides what it is
        return None if place.hole.start == place.hole.end and COMMENT.match(new) else new
    return place.before + new + place.behind if new.strip() else None


def _leaves_it(subject: Subject, hole: Hole, new: str) -> bool:
    """Whether a hole would be filled with a hole: another TODO, another `not implemented`."""
    if all(PLACEHOLDER.match(line.strip()) for line in normalise(new).split("\n") if line.strip()):
        return True
    if subject.code is None:
        return False
    code = subject.code.edited(hole.start, hole.end, new)
    return any(stub.start < hole.start + len(new) and hole.start < stub.end for stub in find_stubs(code))


def _passes(plan: Plan, subject: Subject, changes: Sequence[Change]) -> bool:
    """Whether all changes together make the code no worse, and better if that was what they were for."""
    if subject.code is None:
        return True
    code = _changed(subject.code, changes)
    before, after = damage(faults(subject.code.root)), damage(faults(code.root))
    if plan.mends:
        return after < before
    grown = max(0, len(code.bytes) - len(subject.code.bytes))  # an error may have a longer name in it
    return after[0] <= before[0] and after[1] <= before[1] + grown


def _changed(code: Code, changes: Sequence[Change]) -> Code:
    for change in reversed(changes):
        code = code.edited(change.hole.start, change.hole.end, change.text)
    return code


def preview(text: str, width: int = 80) -> str:
    """What a progress message shows of a text that is being refined: its last line that has anything on it."""
    lines = [line.strip() for line in normalise(text).split("\n") if line.strip()]
    last = lines[-1] if lines else ""
    return last if len(last) <= width else f"…{last[1 - width :]}"
