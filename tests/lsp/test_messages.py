"""What a body says: requests, notifications, answers, and all that is none of these."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcode.lsp.messages import Answer, Code, Invalid, Notification, Request, encode, read

PARSE, INVALID = Code.PARSE_ERROR, Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":{"b":[1]}}', Request(1, "a", {"b": [1]})),
        ('{"id":"1","method":"a"}', Request("1", "a", None)),
        ('{"id":0,"method":"a","params":null}', Request(0, "a", None)),
        ('{"method":"a","params":[1]}', Notification("a", [1])),
        ('{"id":4,"result":null}', Answer(4, None, None)),
        ('{"id":4}', Answer(4, None, None)),
        ('{"id":"x","error":{"code":1}}', Answer("x", None, {"code": 1})),
        ('{"id":null,"error":{"code":1}}', Answer(None, None, {"code": 1})),
        ('{"id":4,"result":false,"error":{"code":-32001}}', Answer(4, False, {"code": -32001})),
    ],
)
def test_messages(body, message):
    assert read(body.encode()) == message


@pytest.mark.parametrize(
    ("body", "id_", "code"),
    [
        ("", None, PARSE),
        ("{", None, PARSE),
        ('{"id":1,"method":"a"', None, PARSE),
        ('{"id":1}{"id":2}', None, PARSE),
        ("[" * 100_000, None, PARSE),
        ('{"a":' * 50_000, None, PARSE),
        ('{"id":' + "9" * 10_000 + ',"method":"a"}', None, PARSE),
        ("[]", None, INVALID),
        ('[{"id":1,"method":"a"}]', None, INVALID),
        ("1", None, INVALID),
        ("null", None, INVALID),
        ('"text"', None, INVALID),
        ("{}", None, INVALID),
        ('{"foo":"bar"}', None, INVALID),
        ('{"id":7,"method":5}', 7, INVALID),
        ('{"id":"7","method":null}', "7", INVALID),
        ('{"id":null,"method":"a"}', None, INVALID),
        ('{"id":1.5,"method":"a"}', 1.5, INVALID),
        ('{"id":true,"method":"a"}', None, INVALID),
        ('{"id":[1],"method":"a"}', None, INVALID),
        ('{"id":NaN,"method":"a"}', None, INVALID),
        ('{"id":{},"method":"a"}', None, INVALID),
    ],
)
def test_what_is_no_message_is_answered_with_the_id_that_it_has(body, id_, code):
    message = read(body.encode())
    assert isinstance(message, Invalid)
    assert (message.id, message.code) == (id_, code)


def test_an_odd_byte_does_not_lose_the_message():
    assert read(b'{"method":"a","params":"x\xffy"}') == Notification("a", "x\ufffdy")
    assert read(b'{"method":"a","params":"\xed\xa0\xbd"}') == Notification("a", "\ud83d")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_encoding_is_read_again(value):
    assert read(encode({"method": "a", "params": value})) == Notification("a", json.loads(json.dumps(value)))


@given(st.binary(max_size=80))
def test_reading_never_raises(body):
    read(body)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", object()])
def test_what_json_has_no_words_for_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        encode({"result": value})


def test_halves_of_pairs_can_be_sent():
    assert json.loads(encode({"a": "x\ud83dy"})) == {"a": "x\ud83dy"}
