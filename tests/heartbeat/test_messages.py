"""Sealed messages: what comes through unchanged, and what is dropped without a trace."""

from __future__ import annotations

import math
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.errors import EngineError
from tumen.heartbeat import messages
from tumen.heartbeat.messages import Heartbeat, MessageReceiver, MessageSender

SECRET = bytes(range(32))
BEATS = [Heartbeat(3, 2, 41, 7, 0.5, "train", 0.25, 1.5), Heartbeat(4, 2, 42)]


def test_a_message_comes_through() -> None:
    message = MessageReceiver(SECRET).open(
        MessageSender(SECRET, "n17").message(2, BEATS, {"dead": [[3, 137, None]], "größe": 1})
    )
    assert message is not None
    assert (message.sender, message.attempt, message.note) == (
        "n17",
        2,
        {"dead": [[3, 137, None]], "größe": 1},
    )
    assert message.seconds == pytest.approx(time.time(), abs=5)
    first, second = message.heartbeats
    assert first == BEATS[0]
    assert second[:4] == BEATS[1][:4]
    assert second.phase == "start"
    assert math.isnan(second.step_seconds)
    assert math.isnan(second.loss)


@given(st.data())
def test_what_is_changed_or_cut_is_dropped(data: st.DataObject) -> None:
    sealed = MessageSender(SECRET, "n17").message(2, BEATS, {"verb": "run"})
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[at] ^= data.draw(st.integers(1, 255))
    receiver = MessageReceiver(SECRET)
    assert receiver.open(bytes(changed)) is None
    assert receiver.open(sealed[:at]) is None
    assert receiver.open(sealed + b"x") is None
    assert receiver.dropped["forged"] + receiver.dropped["cut"] == 3
    assert receiver.open(sealed), "and none of them keeps the true one out"


@given(st.binary(max_size=200))
def test_noise_is_dropped(noise: bytes) -> None:
    assert MessageReceiver(SECRET).open(noise) is None


def test_another_runs_secret_opens_nothing() -> None:
    receiver = MessageReceiver(bytes(32))
    assert receiver.open(MessageSender(SECRET, "watcher").message(9, note={"verb": "end"})) is None
    assert receiver.dropped == {"forged": 1}


def test_a_message_is_heard_once_and_in_order() -> None:
    sender, receiver = MessageSender(SECRET, "n17"), MessageReceiver(SECRET)
    first, second = sender.message(1), sender.message(1)
    assert receiver.open(second)
    assert receiver.open(second) is None
    assert receiver.open(first) is None, "an older one changes nothing any more"
    assert receiver.dropped == {"replayed": 2}
    assert receiver.open(MessageSender(SECRET, "n18").message(1)), "senders are apart"
    assert receiver.open(MessageSender(SECRET, "n17").message(1)), (
        "one that started anew goes on where it was"
    )


@pytest.mark.parametrize("ahead", [-31.0, 31.0])
def test_a_clock_that_is_off_is_told(ahead: float) -> None:
    receiver = MessageReceiver(SECRET, clock=lambda: time.time() - ahead)
    for _ in range(3):
        assert receiver.open(MessageSender(SECRET, "n17").message(1)) is None
    assert receiver.dropped == {"skewed": 3}
    assert receiver.skewed == {"n17": pytest.approx(ahead, abs=5)}


def test_an_order_is_no_longer_than_a_datagram() -> None:
    with pytest.raises(ValueError, match="does not fit a datagram"):
        MessageSender(SECRET, "n17").message(1, note={"why": "x" * messages.MAX_BYTES})


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(EngineError, match="is not an address; write it as host:port"):
        messages.address_of(text)


def test_addresses() -> None:
    assert messages.address_of(" 10.0.0.7:29500\n") == ("10.0.0.7", 29500)
    assert messages.address_of("[::1]:80") == ("::1", 80)


class TestSecret:
    def test_it_is_its_owners_alone_and_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs" / "cloud" / "secret"
        secret = messages.make_secret(path)
        assert len(secret) == 32
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert messages.make_secret(path) == messages.read_secret(path) == secret
        assert messages.make_secret(tmp_path / "another") != secret

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(
            EngineError,
            match="cannot read the run's secret .*; launch the run again, which makes one",
        ):
            messages.read_secret(tmp_path / "secret")

    def test_cut(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"short")
        with pytest.raises(EngineError, match="a secret has 32 bytes, this file has 5; delete it"):
            messages.make_secret(tmp_path / "secret")
