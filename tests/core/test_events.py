"""Events: append-only lines that outlive kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tumen.core import events
from tumen.core.errors import DiskError
from tumen.core.events import Events


def names(path: Path) -> list[str]:
    return [row["event"] for row in events.read(path)]


def test_in_memory() -> None:
    kept = Events(None)
    kept.emit("a", n=1)
    assert [(row["event"], row["n"], row["pid"]) for row in kept.seen] == [("a", 1, os.getpid())]


def test_lines_in_order_with_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.jsonl"
    writer = Events(path)
    for number in range(3):
        writer.emit("step", number=number, text="打开 ä")
    writer.emit("other")
    assert [row["number"] for row in events.read(path, "step")] == [0, 1, 2]
    assert next(events.read(path))["text"] == "打开 ä"
    assert len(names(path)) == 4


def test_no_file_no_events(tmp_path: Path) -> None:
    assert list(events.read(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "cut", [b'{"time": 1, "ev', b"\xff\xfe", b"[1, 2]\n", b'{"time": 1, "text": "\xe6\x89', b"3\n"]
)
def test_a_cut_line_costs_that_line_alone(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "e"
    Events(path).emit("before")
    with open(path, "ab") as lines:
        lines.write(cut)
    Events(path).emit("after")
    assert names(path) == ["before", "after"]


def test_the_end_alone(tmp_path: Path) -> None:
    writer = Events(tmp_path / "e")
    for number in range(100):
        writer.emit("step", number=number)
    found = [row["number"] for row in events.read(tmp_path / "e", tail_bytes=500)]
    assert found[-1] == 99
    assert found == list(range(found[0], 100))
    assert len(found) < 20


def test_several_processes_share_a_file(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tumen.core.events import Events\n"
        f"for _ in range(200): Events(Path({str(tmp_path / 'e')!r})).emit('step', text='x' * 300)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert names(tmp_path / "e") == ["step"] * 400


def test_full_disk(small_disk: Path) -> None:
    path = small_disk / "e"
    writer = Events(path)
    (small_disk / "filler").write_bytes(b"x" * ((1 << 20) - 8192))
    with pytest.raises(DiskError, match="the disk is full"):
        for _ in range(1000):
            writer.emit("step", text="x" * 100)
    whole = len(names(path))
    assert whole > 0
    (small_disk / "filler").unlink()
    Events(path).emit("after")
    assert names(path) == ["step"] * whole + ["after"]


class TestTail:
    def test_gives_each_event_once(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        tail = events.Tail(path)
        assert tail.new() == []
        writer = Events(path)
        writer.emit("a")
        writer.emit("b")
        assert [row["event"] for row in tail.new()] == ["a", "b"]
        writer.emit("c")
        assert [row["event"] for row in tail.new()] == ["c"]
        assert tail.new() == []

    def test_waits_for_the_end_of_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        tail = events.Tail(path)
        path.write_text('{"event": "a"}\n{"event": ')
        assert [row["event"] for row in tail.new()] == ["a"]
        with open(path, "a") as file:
            file.write('"b"}\n{"cut\n[1]\n{"event": "c"}\n')
        assert [row["event"] for row in tail.new()] == ["b", "c"], "what a kill cut is passed over"

    def test_a_shorter_file_is_another_one(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        path.write_text('{"event": "a"}\n{"event": "b"}\n')
        tail = events.Tail(path)
        tail.new()
        path.write_text('{"event": "c"}\n')
        assert [row["event"] for row in tail.new()] == ["c"]
