"""Frames: what is sent is received, and anything that is not a frame is rejected before it is used."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tumen.decoding import frames


@pytest.mark.parametrize(
    "tree",
    [{}, {"text": "打开\n\x00\ud800"}, {"n": [1.5, None, -(10**12)]}, {"long": "a" * 200_000}],
)
def test_what_is_sent_is_received(tree: dict[str, Any]) -> None:
    line = io.BytesIO()
    for _ in range(2):
        frames.send(line.write, tree)
    line.seek(0)
    assert [frames.receive(line.read), frames.receive(line.read)] == [tree, tree]
    with pytest.raises(ConnectionError):
        frames.receive(line.read)


def framed(body: bytes, size: int | None = None) -> bytes:
    return (len(body) if size is None else size).to_bytes(4, "big") + body


@pytest.mark.parametrize("raw", [b"", b"\x00\x00", framed(b"{}")[:-1], framed(b"{}", 1 << 20)])
def test_a_frame_cut_short_is_the_end_of_the_connection(raw: bytes) -> None:
    with pytest.raises(ConnectionError, match="the other end closed the connection"):
        frames.receive(io.BytesIO(raw).read)


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"\xff", b"{", b'{"a":', b"[" * 100_000])
def test_a_frame_without_an_object_is_rejected(body: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(body)} bytes that is not a JSON object"):
        frames.receive(io.BytesIO(framed(body)).read)


def test_an_absurd_length_is_rejected_before_anything_is_read() -> None:
    line = io.BytesIO(framed(b"{}", (1 << 32) - 1))
    with pytest.raises(ValueError, match="the limit is"):
        frames.receive(line.read)
    assert line.tell() == 4


def test_a_log_probability_of_minus_infinity_is_sent() -> None:
    line = io.BytesIO()
    frames.send(line.write, {"logprobs": [["x", float("-inf")]]})
    assert json.loads(line.getvalue()[4:])["logprobs"][0][1] == float("-inf")
