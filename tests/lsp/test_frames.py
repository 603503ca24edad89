"""Framing: whatever way the bytes arrive, whatever stands between the frames."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsp_kit import framed

from diffcode.lsp import frames
from diffcode.lsp.frames import Frames, frame

bodies = st.lists(st.binary(max_size=40), max_size=6)
# bytes that announce no frame
junk = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"x", b"{}", b"Content-", b"Length", b": ", b"\x00\xff", b"7"]), max_size=8
)


@given(bodies, st.randoms(use_true_random=False))
def test_bodies_come_out_however_the_bytes_are_cut(wanted: list[bytes], chance: random.Random):
    data = b"".join(map(frame, wanted))
    reader, found = Frames(), []
    while data:
        size = chance.choice([1, 2, 7, 50])
        found += reader.feed(data[:size])
        data = data[size:]
    assert found == wanted
    assert reader.skipped == 0


@given(st.lists(st.tuples(junk, st.binary(max_size=30)), max_size=5))
def test_junk_between_frames_is_skipped(pairs):
    reader, found = Frames(), []
    for noise, body in pairs:
        noise = b"".join(noise).replace(b"Content-Length: 7", b"")
        found += reader.feed(noise + frame(body))
    assert found == [body for _, body in pairs]


@pytest.mark.parametrize(
    "header",
    [
        b"content-length: 2\r\n\r\n",
        b"CONTENT-LENGTH:2\r\n\r\n",
        b"Content-Length : 2 \r\n\r\n",
        b"Content-Length: 2\n\n",
        b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc; charset=utf8\r\ncontent-length: 2\r\n\r\n",
        b"X-Other: 1\r\nContent-Length: 9\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_headers_as_peers_write_them(header):
    reader = Frames()
    assert reader.feed(header + b"{}" + frame(b"next")) == [b"{}", b"next"]
    assert reader.skipped == 0


@pytest.mark.parametrize("length", [b"", b"abc", b"-1", b"1.5", b"0x10", b"1e3"])
def test_lengths_that_are_none_announce_nothing(length):
    reader = Frames()
    assert reader.feed(b"Content-Length: " + length + b"\r\n\r\n" + frame(b"next")) == [b"next"]


def test_a_body_longer_than_announced_costs_itself_only():
    reader = Frames()
    assert reader.feed(b'Content-Length: 5\r\n\r\n{"id":1}' + frame(b"next")) == [b'{"id"', b"next"]
    assert reader.skipped == 3


def test_a_message_beyond_all_measure_ends_it():
    reader = Frames()
    data = frame(b"before") + b"Content-Length: %d\r\n\r\n" % (frames.MAX_BODY + 1) + frame(b"after")
    assert reader.feed(data) == [b"before"]
    assert reader.refused == frames.MAX_BODY + 1
    assert reader.feed(frame(b"more")) == []


def test_noise_without_end_is_not_kept():
    reader = Frames()
    for _ in range(100):
        assert reader.feed(b"\x00" * 10_000) == []
    assert len(reader._buffer) <= frames.MAX_LINE
    assert reader.skipped >= 1_000_000 - frames.MAX_LINE
    assert reader.feed(b"Content-Length: 2\r\n\r\n{}") == [b"{}"]


def test_ours_is_what_the_protocol_wants():
    assert frame(b"{}") == framed(b"{}") == b"Content-Length: 2\r\n\r\n{}"
