"""Ranks that die for real: what test_exact.py starts. Every rank is a process forked from one that has torch loaded.

A death is SIGKILL, sent by a rank to itself at a place drawn by a seed: no handler, no `finally`, no goodbye to the others.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.train.ranks import V2

from tumen.core import artifact
from tumen.core.errors import TumenError
from tumen.core.events import Events
from tumen.data import write_shards
from tumen.recipe import Mesh, Train
from tumen.train import Making, fit, loop
from tumen.train.checkpoints import checkpoint
from tumen.train.checkpoints import replicas as copies
from tumen.train.parallel.trainer import DistributedTrainer
from tumen.train.single_process import SingleProcessTrainer

SHAPE = V2.model_copy(
    update={"num_hidden_layers": 2}
)  # a dense layer and a mixture with shared experts, devices and balance losses
ROWS, TOKENS, STEPS, EPOCH = (
    4,
    16,
    9,
    3,
)  # EPOCH: steps after which every run below is in its second epoch
PATIENCE = 240  # seconds until survivors of a death must have ended by themselves; far below the collectives' half hour

MESHES: dict[str, dict[str, Any]] = {
    "one": {},
    "fsdp": {"dp": 2},
    "ep": {"dp": 2, "ep": 2},
    "tp": {"tp": 2},
    "pp": {"pp": 2, "micro_batch_size": 2},
    "grown fsdp": {"dp": 4},
    "fsdp x ep": {"dp": 4, "ep": 2},
    "ep x tp": {"dp": 2, "ep": 2, "tp": 2},
    "pp x fsdp": {"pp": 2, "dp": 2, "micro_batch_size": 1},
}
PLACES = {  # where a rank dies: what is called there, and whether rank 0 alone comes by
    "before an update": ("step", False),
    "after a step": ("guard", False),
    "before its shard is written": ("write", False),
    "before its shard is hashed": ("hash", False),
    "before the seal": ("seal", True),
    "after the seal": ("sweep", True),
    "before the final artifact": ("final", True),
}
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["pytest", "tests.train.deaths"])


@dataclass(frozen=True)
class Death:
    """Where a run dies: at the first such place once `step` steps are done; one rank, or all of them (-1)."""

    place: str
    step: int
    rank: int = -1


@dataclass(frozen=True)
class Run:
    """One start of a run; the same folder goes on where it was left."""

    mesh: str
    out: Path
    data: Path
    death: Death | None = None
    fault: str = ""  # a function of this file that spoils rank 1 (rank 0 of one)
    change: str = ""  # a function of this file that changes every rank
    nodes: tuple[
        tuple[str, str], ...
    ] = ()  # folder and keeper of each node that keeps copies in memory; ranks are spread evenly
    fields: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)

    @property
    def section(self) -> Train:
        given = {
            "steps": STEPS,
            "batch_size": ROWS,
            "seq_len": TOKENS,
            "compile": False,
            "threads": 1,
            "checkpoint_every": 2,
        }
        return Train.model_validate(given | {"mesh": MESHES[self.mesh]} | self.fields)

    @property
    def world(self) -> int:
        return Mesh.model_validate(MESHES[self.mesh]).ranks

    def file(self, name: str, rank: int) -> Path:
        return self.out.parent / f"{self.out.name}.{name}.{rank}"


def drawn(seed: int, world: int) -> Death:
    """A death in the second epoch or later."""
    rng = random.Random(seed)
    place = list(PLACES)[seed % len(PLACES)]
    rank = 0 if PLACES[place][1] else rng.choice([-1, *range(world)])
    return Death(place, rng.randint(EPOCH + 1, STEPS - 1), rank)


def dataset(folder: Path) -> Path:
    """So few examples that EPOCH steps read all of them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8)):
        examples = [
            (rng.integers(1, 60, 3).tolist(), rng.integers(1, 60, rng.integers(2, 6)).tolist())
            for _ in range(count)
        ]
        write_shards(folder / split, examples, 60)
    return folder


def start(run: Run, **variables: str) -> list[int]:
    """Run all ranks to their end; their exit codes. A rank that outlives PATIENCE is ended, and its code is 1000."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    given = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(run.world),
    } | variables
    ranks = [context.Process(target=work, args=(run, rank, given)) for rank in range(run.world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(PATIENCE)
    codes = [1000 if process.is_alive() else process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes


def work(run: Run, rank: int, variables: dict[str, str]) -> None:
    """One rank: its error is kept in a file, as its log would."""
    os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank))
    if run.nodes:
        each = run.world // len(run.nodes)
        folder, keeper = run.nodes[rank // each]
        os.environ.update(
            LOCAL_RANK=str(rank % each), TUMEN_REPLICA_FOLDER=folder, TUMEN_REPLICA_STORE=keeper
        )
    for name in [name for name, value in variables.items() if not value]:
        del os.environ[name]
    run.file("error", rank).unlink(missing_ok=True)
    watch(run, rank)
    if run.change:
        globals()[run.change]()
    if run.fault and rank == run.world - 1:
        globals()[run.fault](run)
    events = Events(run.out.parent / f"{run.out.name}.events")
    try:
        fit(
            run.section,
            SHAPE.model_copy(update=run.shape),
            run.data,
            run.out,
            making=Making(seed=3, inputs="in", events=events),
        )
    except TumenError as error:
        run.file("error", rank).write_text(f"{type(error).__name__}: {error}")
        os._exit(error.exit_code)


def watch(run: Run, rank: int) -> None:
    """Note the samples of every step, and die where it is asked."""
    done = [0]
    real = loop.guard

    def guard(loss: float, norm: float, step: int, batch: Any) -> None:
        real(loss, norm, step, batch)
        done[0] = step + 1
        with open(run.file("samples", rank), "a") as notes:
            print(json.dumps([step, round(loss, 6), batch.samples.tolist()]), file=notes)

    loop.guard = guard
    if run.death and run.death.rank in (-1, rank):
        mortal(run.death, done, rank)


def mortal(death: Death, done: list[int], rank: int) -> None:
    """Replace what is called at the place of death."""

    def then_die(real: Callable[..., Any], after: bool = False) -> Callable[..., Any]:
        def dying(*args: Any, **kwargs: Any) -> Any:
            due = done[0] >= death.step - (1 if after else 0)
            given = real(*args, **kwargs) if after or not due else None
            if done[0] >= death.step:
                os.kill(os.getpid(), signal.SIGKILL)
            return given

        return dying

    match PLACES[death.place][0]:
        case "step":
            SingleProcessTrainer.step, DistributedTrainer.step = (
                then_die(SingleProcessTrainer.step),
                then_die(DistributedTrainer.step),
            )  # type: ignore[method-assign]
        case "guard":
            loop.guard = then_die(loop.guard, after=True)
        case "write":
            writer = checkpoint.HuggingFaceStorageWriter
            writer.write_data = then_die(writer.write_data)  # type: ignore[method-assign]
        case "hash":
            checkpoint.payload_of = then_die(checkpoint.payload_of)
        case "seal":
            artifact.replace_folder = then_die(artifact.replace_folder)
        case "sweep":
            checkpoint.Checkpoints._sweep = then_die(checkpoint.Checkpoints._sweep)  # type: ignore[method-assign]
        case "final":
            loop.write_final = then_die(loop.write_final)


def copied_often() -> None:
    """A copy in memory after every step."""
    copies.SHARE, copies.WARM_STEPS = 1e9, 1


def told_to_stop() -> None:
    """SIGTERM in the third step, to the last rank alone: that is enough."""
    if os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1):
        for kind in (SingleProcessTrainer, DistributedTrainer):
            before(kind, "learn", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))


# -- faults of the last rank ---------------------------------------------------------------------------------------------------


def full_disk(run: Run) -> None:
    """From the third checkpoint on this rank's shard lies on /dev/full, where the kernel says that there is no room."""
    writer = checkpoint.HuggingFaceStorageWriter
    real, calls = writer.write_data, [0]

    def write(self: Any, plan: Any, planner: Any) -> Any:
        calls[0] += 1
        if calls[0] > 2:
            (
                Path(str(self.path)) / f"shard-{run.world:05d}-model-00001-of-00001.safetensors"
            ).symlink_to("/dev/full")
        return real(self, plan, planner)

    writer.write_data = write  # type: ignore[method-assign]


def broken_learner(run: Run) -> None:
    """Its sixth step raises what nobody expects."""
    for kind in (SingleProcessTrainer, DistributedTrainer):
        spoil(kind, "learn", 6, ValueError("out of cheese"))


def unreadable_shard(run: Run) -> None:
    """It cannot hash what it wrote, the third time."""
    spoil(checkpoint, "payload_of", 3, OSError(5, "Input/output error"))


def spoil(owner: Any, name: str, call: int, error: Exception) -> None:
    """Let a call of a function fail."""

    def fail() -> None:
        raise error

    before(owner, name, call, fail)


def before(owner: Any, name: str, call: int, act: Callable[[], None]) -> None:
    """Do something before a call of a function."""
    real, calls = getattr(owner, name), [0]

    def changed(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            act()
        return real(*args, **kwargs)

    setattr(owner, name, changed)


# -- what a run left -----------------------------------------------------------------------------------------------------------


def samples(run: Run) -> dict[int, list[list[int]]]:
    """Step -> the samples every rank noted for it, in every start of the run."""
    found: dict[int, list[list[int]]] = {}
    for path in sorted(run.out.parent.glob(f"{run.out.name}.samples.*")):
        for step, _, ids in map(json.loads, path.read_text().splitlines()):
            found.setdefault(step, []).append(ids)
    return found


def losses(run: Run) -> dict[int, float]:
    """Step -> loss, as rank 0 noted it last."""
    return {
        step: loss
        for step, loss, _ in map(json.loads, run.file("samples", 0).read_text().splitlines())
    }


def errors(run: Run) -> list[str]:
    """What the ranks said at their end; "" for none."""
    paths = [run.file("error", rank) for rank in range(run.world)]
    return [path.read_text() if path.exists() else "" for path in paths]
