"""The state of a watched run, in as few lines for 1,250 nodes as for one."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tumen.cluster.engines import fold_hosts
from tumen.cluster.watcher import Snapshot, status_lines, write_snapshot
from tumen.core.events import Events


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["n17"], "n17"),
        (["n2", "n1", "n3", "n9", "n1"], "n[1-3,9]"),
        (["n08", "n09", "n10", "n1"], "n[1,10],n[08-09]"),
        (["ctl", "n1.lab", "n2.lab"], "ctl,n[1-2].lab"),
        ([f"n{number}" for number in range(1, 1251)], "n[1-1250]"),
        ([f"n{number}" for number in range(0, 1250, 2)], "n[0,2,4,6,8,10] and 619 more"),
        (["a", "b", "c", "d", "e", "f", "g"], "a,b,c,d,e,f and 1 more"),
    ],
)
def test_folded(names: list[str], text: str) -> None:
    random.Random(0).shuffle(names)
    assert fold_hosts(names) == text


def snapshot(**facts: object) -> Snapshot:
    return Snapshot.model_validate(
        {
            "time": time.time(),
            "attempt": 3,
            "nodes": 1250,
            "phases": {"train": 9984, "save": 16},
            **facts,
        }
    )


def test_ten_thousand_ranks(tmp_path: Path) -> None:
    silent = {f"n{number}": 6.0 + number for number in range(1, 1250, 7)}
    write_snapshot(
        tmp_path, snapshot(step=400, step_seconds=1.234, silent=silent, slow={"n203": 1.9})
    )
    assert status_lines(tmp_path) == [
        "10,000 ranks on 1,250 nodes, attempt 3: 9,984 train, 16 save; a step takes 1.23 s",
        "silent: n[1,8,15,22,29,36] and 173 more, for 20:53 min",
        "slow: n203, with 1.9 s a step",
    ]
    assert status_lines(tmp_path, ended=True) == []


def test_faults_and_their_outcome(tmp_path: Path) -> None:
    watched = Events(tmp_path / "watch.jsonl")
    for node in range(1000):
        watched.emit(
            "fault",
            kind="crash" if node % 3 else "node",
            rank=-1,
            node=f"n{node}",
            step=9,
            why="exit code 137",
        )
    assert status_lines(tmp_path)[0] == "faults: 666 crash, 334 node"
    assert status_lines(tmp_path)[1].endswith(
        ": node (node n999, step 9, exit code 137); nothing decided yet"
    )
    watched.emit("decided", action="resubmit", attempt=4, world=8, avoid=["n999"], why="")
    assert status_lines(tmp_path)[1].endswith("; resubmit as attempt 4, no new step yet")
    watched.emit("resumed", attempt=4, step=10, seconds=6.1, detection_seconds=0.1)
    assert status_lines(tmp_path)[1].endswith("; resumed at step 10 after 6.1 s")


def test_a_watcher_that_is_gone_is_reported(tmp_path: Path) -> None:
    write_snapshot(tmp_path, snapshot(time=time.time() - 90))
    assert (
        status_lines(tmp_path)[-1]
        == "no watcher is running: it was last seen 1:30 min ago; `tumen watch RUN` continues"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"time": "soon"}', "\x00\xff"])
def test_a_damaged_snapshot_gives_no_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "snapshot.json").write_text(text, encoding="latin-1")
    assert status_lines(tmp_path) == []
