"""A Slurm of 1,250 hosts on this machine: a gang of all of them, in few lines. Agents are stand-ins that sleep: memory is for slurmd.

Takes minutes, 5 GB and the lab for itself: `pytest -m many`. How long each verb took is printed (`-s`), and not judged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.lab import slurm as lab

from tumen.cluster.engines import JobSpec
from tumen.cluster.engines.slurm import SlurmEngine

pytestmark = [pytest.mark.many, pytest.mark.lab, pytest.mark.timeout(2400)]
NODES = int(os.environ.get("TUMEN_LAB_NODES", "1250"))
PATIENCE_SECONDS = 900.0


@pytest.fixture(scope="module")
def many() -> Iterator[None]:
    if why := lab.cannot():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.environment().items():
            patch.setenv(name, value)
        lab.up(NODES)
        yield
        lab.down()


def took(what: str, do: Callable[[], object]) -> object:
    start = time.monotonic()
    found = do()
    sys.stderr.write(f"{what}: {time.monotonic() - start:.2f} s\n")
    return found


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def test_a_gang_of_all_nodes_is_few_lines(many: None, tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho up\nexec sleep 3600\n")
    stand_in.chmod(0o755)
    run, slurm = tmp_path / "run", SlurmEngine()
    job = JobSpec(
        "many",
        ("true",),
        run / "jobs" / "cloud",
        nodes=NODES,
        ranks_per_node=8,
        accelerators_per_node=8,
        python=str(stand_in),
    )
    (run / "jobs").mkdir(parents=True)
    (run / "recipe.json").write_text(
        json.dumps({"name": "many", "fleet": {"engine": "slurm"}, **family()})
    )
    took("submit", lambda: slurm.submit(job))
    took("all agents up", lambda: until(lambda: slurm.logs(str(job.folder)).count("up\n") == NODES))
    status = took("tumen status", lambda: tumen("status", run))
    assert str(status).startswith(f"cloud: running, n[1-{NODES}], job ")
    assert len(str(status).splitlines()) == 1
    slurm.drain("n7", "Xid 79")
    said = str(took("tumen nodes", lambda: tumen("nodes", run))).splitlines()
    assert said[0].split() == [f"n[1-6,8-{NODES}]", "8", "cards", "ready"]
    assert said[1].split() == ["n7", "8", "cards", "draining:", "Xid", "79"]
    assert len(said) == 3
    os.kill(int((lab.FOLDER / "run" / "n9.pid").read_text()), 9)
    lab.kill_node("n9")
    took(
        "n9 dies, the job is put back",
        lambda: until(lambda: slurm.status(str(job.folder)).state == "waiting"),
    )
    took("cancel", lambda: slurm.cancel(str(job.folder)))


def family() -> dict[str, object]:
    """What a recipe must have."""
    import tomllib

    tiny = tomllib.loads((Path(__file__).parents[1] / "tiny.toml").read_text())
    return {name: tiny[name] for name in ("data", "tokenizer", "family") if name in tiny}


def tumen(*arguments: object) -> str:
    command = [sys.executable, "-m", "tumen", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    ).stdout
