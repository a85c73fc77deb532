"""Whether a node is fit: what it says of itself, and what follows beside the others."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from tumen.cluster.agents.health import (
    CHECK_SECONDS,
    LEAST_DISK_BYTES,
    RECHECK_SECONDS,
    Checkup,
    Health,
    examine,
    unfit,
)

FIT: dict[str, Any] = vars(Health(1 << 40, 1 << 36, True, 0.002, 8, ""))


def nodes(**others: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"n0": FIT, "n1": FIT, "n2": FIT, "n3": FIT} | {
        name: FIT | facts for name, facts in others.items()
    }


def test_this_machine(tmp_path: Path) -> None:
    health = examine(tmp_path)
    assert health.writable
    assert health.disk_bytes > 0
    assert health.memory_bytes > 0
    assert health.multiply_seconds
    assert 0 < health.multiply_seconds < 5
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"
    assert examine(tmp_path, quick=True).multiply_seconds is None


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"writable": False}, "it cannot write the run's folder"),
        ({"disk_bytes": LEAST_DISK_BYTES - 1}, "63 MiB of disk are free"),
        ({"memory_bytes": 100 << 20}, "100 MiB of memory are free"),
        ({"accelerators": 7}, "it has 7 GPUs, the others have 8"),
        ({"multiply_seconds": 0.005}, "it multiplies 2.5 times slower than the others"),
        (
            {"accelerator_fault": "GPU 3: memory errors that could not be corrected"},
            "GPU 3: memory errors that could not be corrected",
        ),
    ],
)
def test_one_that_is_not_fit(facts: dict[str, Any], why: str) -> None:
    assert unfit(nodes(n2=facts)) == {"n2": why}


def test_all_are_fit() -> None:
    assert unfit(nodes()) == {}
    assert unfit(nodes(n1={"multiply_seconds": 0.0029})) == {}
    assert unfit({"n0": {}, "n1": {}}) == {}, "nothing is known"


def test_what_all_complain_of_is_nobodys_fault() -> None:
    assert unfit({name: FIT | {"disk_bytes": 0} for name in ("n0", "n1")}) == {}


def test_two_looks_in_a_row_count_and_one_does_not(tmp_path: Path) -> None:
    checkup = Checkup(tmp_path / "run", Health(1 << 40, 1 << 36, True, 0.002, -1, ""))
    for exists, told, news in (
        (0, True, False),
        (1, True, False),
        (0, True, False),
        (0, False, True),
        (1, False, True),
        (1, True, True),
    ):
        if exists:
            checkup.folder.mkdir(exist_ok=True)
        else:
            shutil.rmtree(checkup.folder, ignore_errors=True)
        checkup.check(accelerators=True)
        assert (checkup.health.writable, checkup.news) == (told, news)
    assert (checkup.health.multiply_seconds, checkup.health.accelerators) == (0.002, -1), (
        "as it was before the run"
    )


def test_when_ranks_ended_it_looks_twice_at_once(tmp_path: Path) -> None:
    checkup = Checkup(tmp_path / "gone", Health(1 << 40, 1 << 36, True, 0.002, -1, ""))
    checkup.start()
    checkup.hurry.set()
    began = time.monotonic()
    while not checkup.news:
        assert time.monotonic() - began < CHECK_SECONDS
        time.sleep(0.01)
    assert time.monotonic() - began >= RECHECK_SECONDS, "two looks, as ever"
    assert not checkup.health.writable


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Health:
    """With a stand-in of nvidia-smi."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return examine(folder)


def test_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = smi(tmp_path, monkeypatch, "printf '0, 0\\n1, 3\\n2, [N/A]\\n'")
    assert health.accelerators == 3
    assert health.accelerator_fault == "GPU 1: memory errors that could not be corrected"


def test_cards_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = smi(
        tmp_path,
        monkeypatch,
        "echo 'Unable to determine the device handle for GPU 0000:3B:00.0' >&2; exit 15",
    )
    assert health.accelerators == 0
    assert (
        health.accelerator_fault
        == "nvidia-smi: Unable to determine the device handle for GPU 0000:3B:00.0"
    )


def test_without_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert examine(tmp_path).accelerators == -1
