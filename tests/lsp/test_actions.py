"""Code actions over a made-up model: what is offered, and what is made of each."""

import asyncio

import pytest
from lsp_acts import FILLED, TEXT, action_params, after, bodies, edits_of, offers
from lsp_fake import FakeFiller, Loads, applied, ask, helped, span
from lsp_kit import URI, did_open, request

from diffcode.config import RETRIES
from diffcode.errors import ModelUnavailable
from diffcode.lsp.filler import Written
from diffcode.syntax import Code, faults

types = pytest.importorskip("lsprotocol").types
from lsprotocol import converters  # noqa: E402

# ---- what is offered


def test_actions_are_offered_at_once_with_kinds_and_tags():
    async def run():
        async with helped(FakeFiller()) as (_, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            here = await offers(wire, 1, TEXT, at, at)
            assert [(a["title"], a["kind"]) for a in here] == [
                ("Fill ???", "quickfix"),
                ("Fill all 2 holes", "source.fillHoles"),
            ]
            start = TEXT.index("    result = 0")
            selected = await offers(wire, 2, TEXT, start, TEXT.index("    return result"))
            assert [a["title"] for a in selected] == [
                "Fill all 2 holes",
                "Rewrite selection",
                "Vary selection (15%)",
                "Vary selection (30%)",
                "Vary selection (60%)",
            ]
            assert all(a["tags"] == [1] and "data" in a for a in (*here, *selected))
            converter = converters.get_converter()
            for action in (*here, *selected):
                converter.structure(action, types.CodeAction)
            known = (await wire.answer("init"))["result"]["capabilities"]["codeActionProvider"]
            assert known == {
                "codeActionKinds": ["quickfix", "source.fillHoles", "refactor.rewrite"],
                "resolveProvider": True,
            }

    asyncio.run(run())


@pytest.mark.parametrize(
    ("only", "kinds"),
    [
        (["refactor"], {"refactor.rewrite"}),
        (["refactor.rewrite"], {"refactor.rewrite"}),
        (["refactor.rewrite.x"], set()),
        (["quick"], set()),
        (["quickfix", "source"], {"quickfix", "source.fillHoles"}),
        ([""], {"quickfix", "source.fillHoles", "refactor.rewrite"}),
        (None, {"quickfix", "source.fillHoles", "refactor.rewrite"}),
        ([], {"quickfix", "source.fillHoles", "refactor.rewrite"}),
    ],
)
def test_only_the_kinds_that_are_asked_for(only, kinds):
    async def run():
        async with helped(FakeFiller()) as (_, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            return {a["kind"] for a in await offers(wire, 1, TEXT, at, at + 3, only=only)}

    assert asyncio.run(run()) == kinds


def test_nothing_is_offered_where_it_is_switched_off():
    async def run():
        for settings in ({"codeActions": False}, {"enabled": False}):
            async with helped(FakeFiller(), **settings) as (_, wire):
                wire.feed(did_open(TEXT))
                assert await offers(wire, 1, TEXT, 0, len(TEXT)) == []

    asyncio.run(run())


def test_editors_that_cannot_resolve_get_commands():
    simple = {"codeAction": {"codeActionLiteralSupport": {}}}

    async def run():
        for known, literal in (({"textDocument": simple}, True), ({}, False)):
            async with helped(FakeFiller(bodies), known) as (_, wire):
                wire.feed(did_open(TEXT))
                at = TEXT.index("???")
                found = await offers(wire, 1, TEXT, at, at)
                commands = [a["command"] if literal else a for a in found]
                assert [c["command"] for c in commands] == ["diffcode.fill", "diffcode.fill"]
                for n, (command, result) in enumerate(zip(commands, (TEXT.replace("???", "h"), FILLED), strict=True)):
                    wire.sent.clear()
                    wire.feed(request(f"c{n}", "workspace/executeCommand", command))
                    apply = await wire.asked("workspace/applyEdit")
                    assert applied(TEXT, apply["params"]["edit"]["changes"][URI]) == result
                    wire.feed({"id": apply["id"], "result": {"applied": True}})
                    assert (await wire.answer(f"c{n}"))["result"] == {"applied": True}

    asyncio.run(run())


# ---- what is made


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_filling_all_holes_is_one_edit_and_gives_code(encoding, end):
    text = TEXT.replace("circle", "circle π😀").replace("\n", end)

    def answer(task):
        return [new.replace("\n", end) for new in bodies(task)]

    done = after(text, 0, 0, "Fill all", FakeFiller(answer), encoding)
    assert done == FILLED.replace("circle", "circle π😀").replace("\n", end)
    assert faults(Code(done, "python").root) == []


def test_a_hole_that_nothing_fits_into_stays_and_the_others_are_filled():
    def answer(task):
        return ["return (", "h"]

    assert after(TEXT, 0, 0, "Fill all", FakeFiller(answer)) == TEXT.replace("???", "h")


def test_what_leaves_the_work_undone_gets_another_chance():
    """A body of `# TODO` is no body. What was filled is there when it is tried again."""
    text = TEXT.replace("...", "raise NotImplementedError")
    seen: list[str] = []

    def answer(task):
        seen.append(task.text)
        body = "return math.pi * r**2"
        return (["# TODO: implement", "h"], ["raise NotImplementedError()"], [body])[len(seen) - 1]

    filler = FakeFiller(answer)
    assert after(text, 0, 0, "Fill all", filler) == FILLED
    assert ["area(r) * h" in text for text in seen] == [False, True, True]
    assert [task.options.temperature > 0 for task in filler.tasks] == [False, True, False]
    assert [task.options.retries for task in filler.tasks] == [RETRIES, 0, 0], "the later attempts are tries themselves"
    assert {task.language for task in filler.tasks} == {"python"}


def test_a_wish_keeps_its_line_to_itself():
    text = "function f(a) {\n  // TODO: twice\n}\n"
    filler = FakeFiller("return 2 * a;")
    done = after(text, 20, 20, "Fill the body", filler, language="javascript")
    assert done == text.replace("twice", "twice\n  return 2 * a;")
    (task,) = filler.tasks
    assert task.text[: task.holes[0].start].endswith("// TODO: twice\n  ")


def test_at_last_less_will_do():
    """What is broken at its end loses it, where no attempt gives more."""
    at = TEXT.index("...")
    broken = FakeFiller("a = math.pi\n    if a ==")
    assert after(TEXT, at, at, "Fill the body", broken) == TEXT.replace("...", "a = math.pi")
    assert len(broken.tasks) == 3


def test_markers_are_holes_without_a_grammar_too():
    async def run():
        async with helped(FakeFiller("1 + 2")) as (_, wire):
            opened = did_open("let x be ???\n")
            opened["params"]["textDocument"] |= {"languageId": "basic", "uri": "file:///a.bas"}
            wire.feed(opened)
            params = action_params("let x be ???\n", 9, 9) | {"textDocument": {"uri": "file:///a.bas"}}
            (action,) = await ask(wire, 1, "textDocument/codeAction", params)
            edit = (await ask(wire, 2, "codeAction/resolve", action))["edit"]
            assert edit["documentChanges"][0]["edits"][0]["newText"] == "1 + 2"

    asyncio.run(run())


def test_rewriting_takes_another_chance_where_the_first_choice_stands_there_already():
    start, end = TEXT.index("result += area"), TEXT.index("\n    return result")
    answers = iter(["result += area(shape)", "result = result + area(shape)"])
    filler = FakeFiller(lambda _: [next(answers)])
    done = after(TEXT, start, end, "Rewrite", filler)
    assert done == TEXT.replace("result += area(shape)", "result = result + area(shape)")
    assert [task.options.temperature for task in filler.tasks] == [0.0, 0.8]


def test_varying_masks_a_share_and_tries_other_seeds():
    start, end = TEXT.index("def total"), len(TEXT)

    def answer(task):
        if len(filler.tasks) == 1:
            return [task.text[hole.start : hole.end] for hole in task.holes]  # no variation
        if len(filler.tasks) == 2:
            return ["((("] * len(task.holes)  # no code
        return [task.text[h.start : h.end].replace("shape", "form") for h in task.holes]

    filler = FakeFiller(answer)
    done = after(TEXT, start, end, "Vary selection (60%)", filler)
    assert done != TEXT
    assert "form" in done
    assert len({task.holes for task in filler.tasks}) == 3
    assert len({task.options.seed for task in filler.tasks}) == 3
    shares = [sum(h.end - h.start for h in task.holes) / (end - start) for task in filler.tasks]
    assert all(0.2 < share < 0.8 for share in shares)


def test_varying_masks_more_where_the_same_comes_again():
    start, end = TEXT.index("    result = 0"), TEXT.index("    return result")

    def answer(task):
        same = [task.text[h.start : h.end] for h in task.holes]
        return same if len(filler.tasks) < 5 else [old.replace("shape", "form") for old in same]

    filler = FakeFiller(answer)
    assert "form" in after(TEXT, start, end, "Vary selection (30%)", filler)
    masked = [sum(h.end - h.start for h in task.holes) for task in filler.tasks]
    assert min(masked[3:]) > max(masked[:3])


def test_a_repair_must_leave_fewer_errors_and_begins_with_what_is_unlikely():
    text = TEXT.replace("for shape in shapes:", "for shape im shapes:")
    at = text.index("im shapes")

    def answer(task):
        hole = task.holes[0]
        return ["in" if task.text[hole.start : hole.end] == "im" else "((("]

    filler = FakeFiller(answer, least_likely="im")
    assert after(text, at, at, "Repair here", filler) == text.replace(" im ", " in ")
    masked = [task.text[hole.start : hole.end] for task in filler.tasks for hole in task.holes]
    assert masked == ["", "", "im"], "where something may be missing; then what is unlikely"
    assert filler.tasks[0].stop == "\n", "what is missing is on the line"
    assert filler.doubted == ["    for shape im shapes:"]


def test_a_repair_ends_the_error_and_does_not_hide_it():
    """A comment may make an error smaller; a smaller error is what is left where nothing ends it."""
    text = "fn main() {\n    for x in v.iter( {\n        go(x);\n    }\n}\n"
    at = text.index(" {\n        go")

    def answer(task):
        hole = task.holes[0]
        if "iter(" in task.text[hole.start : hole.end]:
            return [task.text[hole.start : hole.end].replace("iter( ", "iter() ")]
        return [" // 1.0" if hole.start == hole.end else "((("]

    done = after(text, at, at, "Repair here", FakeFiller(answer), language="rust")
    assert done == text.replace("iter( ", "iter() ")


def test_a_reported_problem_can_be_repaired_where_the_syntax_is_right():
    text = "total = 1\nprint(totl)\n"
    at = text.index("totl")
    problem = {"range": span(text, at, at + 4), "message": "totl is not defined", "source": "pyright"}

    async def run():
        async with helped(FakeFiller("total")) as (_, wire):
            wire.feed(did_open(text))
            assert await offers(wire, 1, text, at, at) == []
            (action,) = await offers(wire, 2, text, at, at, diagnostics=[problem, {"range": 5}, 7][:1])
            assert (action["title"], action["diagnostics"]) == ("Repair here", [problem])
            edit = (await ask(wire, 3, "codeAction/resolve", action))["edit"]
            return applied(text, edits_of(edit))

    assert asyncio.run(run()) == "total = 1\nprint(total)\n"


def test_when_nothing_fits_that_is_said():
    async def run():
        async with helped(FakeFiller(")))")) as (_, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            action = (await offers(wire, 1, TEXT, at, at))[0]
            wire.feed(request(2, "codeAction/resolve", action))
            error = (await wire.answer(2))["error"]
            assert error["code"] == -32803
            assert "nothing that fits" in error["message"]

    asyncio.run(run())


def test_without_a_model_the_choice_says_so():
    loads = Loads()
    loads.failure = ModelUnavailable("no model here: run diffcode pull")

    async def run():
        async with helped(loads) as (_, wire):
            wire.feed(did_open(TEXT))
            at = TEXT.index("???")
            action = (await offers(wire, 1, TEXT, at, at))[0]
            wire.feed(request(2, "codeAction/resolve", action))
            assert "diffcode pull" in (await wire.answer(2))["error"]["message"]

    asyncio.run(run())


def test_a_cut_short_body_keeps_its_whole_lines():
    long = Written("a = math.pi\n    b = a *", (0.9,), "budget")
    at = TEXT.index("...")
    assert after(TEXT, at, at, "Fill the body", FakeFiller(lambda _: [long])) == TEXT.replace("...", "a = math.pi")
