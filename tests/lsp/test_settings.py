"""Settings: their schema, what is read from editors, live changes."""

import asyncio
import json
import logging
from dataclasses import fields
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsp_demo import Demo, Wrong
from lsp_kit import notice, request, served

from diffcode.lsp.settings import NAMES, Settings, camel, read, schema

PULLS = {"capabilities": {"workspace": {"configuration": True}}}


def test_the_schema_file_is_up_to_date():
    text = files("diffcode.lsp").joinpath("settings.schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == schema()


def test_every_field_is_documented_and_its_default_allowed():
    for field in fields(Settings):
        described = schema()["properties"][camel(field.name)]
        assert described["description"].endswith(".")
        assert read({camel(field.name): described["default"]}).settings == Settings()
    assert read({key: value["default"] for key, value in schema()["properties"].items()}).bad == ()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"diffcode": s}])
def test_values_are_taken(wrap):
    reading = read(wrap({"maxTokens": 12, "debounce": 300, "exclude": ["*.x"], "threshold": 1, "dummy": 1}))
    wanted = Settings(max_tokens=12, debounce=300, exclude=("*.x",), threshold=1)
    assert (reading.settings, reading.unknown, reading.bad) == (wanted, ("dummy",), ())


def test_later_sources_win():
    assert read({"maxTokens": 1, "seed": 5}, {"maxTokens": 2}).settings == Settings(max_tokens=2, seed=5)
    assert read(None, None).settings == Settings()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("maxTokens", 0, "must be 1 or more"),
        ("maxTokens", 1e9, "must be of type integer"),
        ("maxTokens", "12", "must be of type integer"),
        ("maxTokens", True, "must be of type integer"),
        ("maxTokens", None, "must be of type integer"),
        ("debounce", 5001, "must be 5000 or less"),
        ("strength", float("nan"), "must be 0.05 or more"),
        ("completion", "maybe", "must be one of auto, on, off"),
        ("exclude", "x", "must be of type array"),
        ("exclude", [1], "must be a list of strings"),
        ("enabled", 1, "must be of type boolean"),
    ],
)
def test_bad_values_leave_the_default(key, value, said):
    reading = read({key: value, "seed": 3})
    assert reading.settings == Settings(seed=3)
    assert reading.bad == (f"diffcode.{key} {said}",)


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@given(st.dictionaries(st.sampled_from([*NAMES, "x"]), anything) | anything)
def test_reading_never_raises_and_what_it_takes_has_the_fields_type(source):
    settings = read(source).settings
    assert read({camel(f.name): _json(getattr(settings, f.name)) for f in fields(settings)}).settings == settings


def _json(value):
    return list(value) if isinstance(value, tuple) else value


# ---- live


def test_editors_that_can_be_asked_are_asked_and_the_newest_answer_counts():
    async def run():
        async with served([demo := Demo()], PULLS) as (server, wire):
            first = await wire.asked("workspace/configuration")
            assert first["params"] == {"items": [{"section": "diffcode"}]}
            wire.feed({"id": first["id"], "result": [{"maxTokens": 5}]}, request(1, "$/ping"))
            await wire.answer(1)
            assert server.settings == Settings(max_tokens=5)
            wire.sent.clear()
            wire.feed(notice("workspace/didChangeConfiguration", {"settings": {"maxTokens": 9}}))
            older = await wire.asked("workspace/configuration")
            wire.sent.clear()
            wire.feed(notice("workspace/didChangeConfiguration", {"settings": None}))
            newer = await wire.asked("workspace/configuration")
            wire.feed({"id": newer["id"], "result": [{"maxTokens": 7}]})
            wire.feed({"id": older["id"], "result": [{"maxTokens": 6}]}, request(2, "$/ping"))
            await wire.answer(2)
            assert server.settings == Settings(max_tokens=7)
            assert [call for call in demo.calls if call[0] == "settings"] == [("settings", 64, 5), ("settings", 5, 7)]

    asyncio.run(run())


@pytest.mark.parametrize("reply", [{"result": None}, {"result": [None]}, {"result": 5}, {"error": {"code": 1}}])
def test_strange_answers_leave_what_initialize_brought(reply):
    async def run():
        async with served([], {**PULLS, "initializationOptions": {"maxTokens": 3}}) as (server, wire):
            wire.feed({"id": (await wire.asked("workspace/configuration"))["id"], **reply}, request(1, "$/ping"))
            await wire.answer(1)
            assert server.settings == Settings(max_tokens=3)

    asyncio.run(run())


def test_other_editors_send_them_along():
    async def run():
        async with served([Wrong(), Demo()]) as (server, wire):
            settings = {"diffcode": {"maxTokens": 5, "seed": "x", "colour": 1}}
            for _ in range(3):
                wire.feed(notice("workspace/didChangeConfiguration", {"settings": settings}))
            wire.feed(request(1, "$/ping"))
            await wire.answer(1)
            assert server.settings == Settings(max_tokens=5)
            shown = [m["params"]["message"] for m in wire.sent if m.get("method") == "window/showMessage"]
            assert shown == ["diffcode.seed must be of type integer: the default is used"]
            assert not any(m.get("method") == "workspace/configuration" for m in wire.sent)

    asyncio.run(run())


def test_unknown_keys_are_worth_one_line(caplog):
    async def run():
        async with served() as (_, wire):
            for _ in range(3):
                wire.feed(notice("workspace/didChangeConfiguration", {"settings": {"colour": 1, "shape": 2}}))
            wire.feed(request(1, "$/ping"))
            await wire.answer(1)

    logging.getLogger("diffcode").propagate = True
    with caplog.at_level(logging.INFO, "diffcode"):
        asyncio.run(run())
    assert caplog.text.count("colour, shape") == 1


def test_the_editor_is_asked_to_tell_of_changes_where_it_wants_to_be():
    params = {"capabilities": {"workspace": {"didChangeConfiguration": {"dynamicRegistration": True}}}}

    async def run():
        async with served([], params) as (_, wire):
            (one,) = (await wire.asked("client/registerCapability"))["params"]["registrations"]
            assert (one["method"], one["registerOptions"]) == (
                "workspace/didChangeConfiguration",
                {"section": "diffcode"},
            )

    asyncio.run(run())
