"""Rows of watch.jsonl, and how they are shown."""

from __future__ import annotations

from tumen.cluster.watcher.monitor.rows import (
    Fault,
    OpenFault,
    decided_row,
    fault_row,
    format_row,
    resumed_row,
    watch_row,
)


def test_a_fault() -> None:
    row = fault_row(Fault("crash", "exit code 137", 40, 97.4, 3, ("n1", "n2")), 100.0)
    assert row == {
        "event": "fault",
        "kind": "crash",
        "rank": 3,
        "node": "n1",
        "step": 40,
        "why": "exit code 137",
        "silent_seconds": 2.6,
    }
    assert format_row(row) == "fault: crash, rank 3, node n1, step 40: exit code 137"


def test_a_fault_of_no_rank_or_node_whose_sign_is_now() -> None:
    row = fault_row(Fault("engine", "no answer", 0, 100.5), 100.0)
    assert (row["rank"], row["node"], row["silent_seconds"]) == (None, None, 0.0)
    assert format_row(row) == "fault: engine, step 0: no answer"
    assert format_row({**row, "rank": 0}) == "fault: engine, rank 0, step 0: no answer"


def test_a_decision() -> None:
    row = decided_row("resubmit", "no report", 3, 8, ("n1", "n2"))
    assert row["avoid"] == ["n1", "n2"]
    assert format_row(row) == "decided: resubmit, attempt 3, 8 ranks, without n1, n2: no report"
    row = decided_row("wait", "full", 3, 8, ())
    assert format_row(row) == "decided: wait, attempt 3, 8 ranks: full"


def test_a_recovery() -> None:
    row = resumed_row(3, 41, OpenFault(97.416, 100.0), 104.0)
    assert (row["seconds"], row["detection_seconds"]) == (6.58, 2.58)
    shown = "resumed: attempt 3, step 41, 6.6 s after the fault (detected after 2.6 s)"
    assert format_row(row) == shown


def test_a_watcher() -> None:
    assert format_row(watch_row("ended", 3)) == "watch: ended, attempt 3"
