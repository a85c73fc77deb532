"""Seconds from a fault to the first new step: `tumen watch` beside plain torchrun.

torchrun restarts with --max-restarts and DCP; all in one run.

    python benchmarks/healing.py [--rounds 3] [--ranks 2] [--out benchmarks/results/healing.json]

A run trains on this machine; once it has checkpoints, rank 1 is killed (crash) or stopped (freeze:
SIGSTOP), and the clock runs until the first step that a new attempt has done. Contestants take
turns, each with a fresh run and the same faults; `tumen` is there twice, and what lies between the
two is noise. Everybody saves every ten steps on disk.

torchrun trains a network of about the same size with DistributedDataParallel, saves by
torch.distributed.checkpoint and loads the newest whole one, as its documentation shows. A frozen
rank is found by its process group's timeout alone: here 10 seconds, where torch's own default is
30 minutes. "own store" sets TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, without which restarts on gloo
often meet the addresses of the dead attempt.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import circumstances, ended, headline, noise_of, table, write

from tumen.cluster import local_agents
from tumen.core import lifetime
from tumen.core.events import read

ROOT = Path(__file__).parents[1]
FAULTS = {"crash": signal.SIGKILL, "freeze": signal.SIGSTOP}
VICTIM, SAVE_EVERY, TIMEOUT_SECONDS = 1, 10, 10.0
WHILE_SECONDS = 30.0
STARTED_SECONDS, PATIENCE_SECONDS = 400.0, {"crash": 60.0, "freeze": 120.0}
TIER = "cloud"


@dataclass(frozen=True)
class Outcome:
    """Of one fault: seconds until it was seen (None: not known) and until the first new step
    (None: not within the patience)."""

    seen: float | None
    resumed: float | None
    lost_steps: int | None = None


@contextlib.contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended with all it started."""
    with open(log, "wb") as out:
        child = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=log.parent,
            preexec_fn=lifetime.die_with_parent,
        )
    with ended(child):
        yield child


def until(happened: Any, seconds: float) -> Any:
    """What `happened` returns once it is true, or its last answer."""
    end = time.monotonic() + seconds
    while not (found := happened()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


# -- tumen


def prepared(folder: Path, ranks: int, steps: int = 1_000_000) -> Path:
    """A run whose data is made, and that trains for ever."""
    run = folder / "template"
    mesh = f'family.{TIER}.train.mesh={{"dp" = {ranks}}}'
    changes = [
        f"family.{TIER}.train.steps={steps}",
        f"family.{TIER}.train.checkpoint_every={SAVE_EVERY}",
        mesh,
    ]
    command = [
        sys.executable,
        "-m",
        "tumen",
        "run",
        str(ROOT / "tests" / "tiny.toml"),
        "--run",
        str(run),
        "--until",
        "dataset",
    ]
    subprocess.run(
        [*command, *(word for change in changes for word in ("--set", change))],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return run


def tumen(fault: str, folder: Path, template: Path) -> Outcome:
    """One fault under the watcher."""
    run = folder / "run"
    shutil.copytree(template, run)
    job = run / "jobs" / TIER
    with process([sys.executable, "-m", "tumen", "watch", str(run)], folder / "log"):
        if not until(lambda: step_of(run) >= 2 * SAVE_EVERY + 5, STARTED_SECONDS):
            raise RuntimeError(f"tumen did not train; {folder / 'log'} says why")
        time.sleep(WHILE_SECONDS)
        pid = {rank: pid for crew in local_agents(job) for rank, pid in crew.ranks.items()}[VICTIM]
        since = time.time()
        os.kill(pid, FAULTS[fault])

        def rows(event: str) -> list[dict[str, Any]]:
            return [row for row in read(job / "watch.jsonl", event) if row["time"] >= since]

        until(lambda: rows("resumed"), PATIENCE_SECONDS[fault])
        seen, resumed = rows("fault"), rows("resumed")
    lost = max(0, int(seen[0]["step"]) - int(resumed[0]["step"]) + 1) if seen and resumed else None
    return Outcome(*(row[0]["time"] - since if row else None for row in (seen, resumed)), lost)


def step_of(run: Path) -> int:
    """The newest step of a run."""
    return max(
        (int(row["step"]) for row in read(run / "events.jsonl", "step", tail_bytes=8192)), default=0
    )


# -- torchrun


def torchrun(fault: str, folder: Path, ranks: int, **environment: str) -> Outcome:
    """One fault under torchrun and DCP."""
    many = ["--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "3"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *many,
        __file__,
        "--peer",
        str(folder),
    ]
    with process(command, folder / "log", **environment):

        def steps() -> list[list[str]]:
            """[step, time, pid] of every step rank 0 made."""
            path = folder / "steps"
            return (
                [line.split() for line in path.read_text().splitlines() if line.count(" ") == 2]
                if path.exists()
                else []
            )

        if not until(lambda: len(steps()) >= 2 * SAVE_EVERY + 5, STARTED_SECONDS):
            raise RuntimeError(f"torchrun did not train; {folder / 'log'} says why")
        time.sleep(WHILE_SECONDS)
        old = steps()[-1][2]
        since = time.time()
        os.kill(int((folder / f"pid-{VICTIM}").read_text()), FAULTS[fault])
        new = until(lambda: [step for step in steps() if step[2] != old], PATIENCE_SECONDS[fault])
        before = [step for step in steps() if step[2] == old]
    return Outcome(
        None,
        float(new[0][1]) - since if new else None,
        int(before[-1][0]) - int(new[0][0]) + 1 if new else None,
    )


def peer(folder: Path) -> None:
    """A rank under torchrun: as plain a training as its documentation shows."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT_SECONDS))
    torch.manual_seed(0)
    width, vocab = 64, 700
    blocks = [torch.nn.TransformerEncoderLayer(width, 2, 128, batch_first=True) for _ in range(2)]
    network = torch.nn.Sequential(
        torch.nn.Embedding(vocab, width), *blocks, torch.nn.Linear(width, vocab)
    )
    model = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(model.parameters())
    step, done = 0, sorted(folder.glob("step-*"))
    if done:
        weights, moments = get_state_dict(model, optimizer)
        state = {"weights": weights, "moments": moments}
        dcp.load(state, checkpoint_id=done[-1])
        set_state_dict(
            model, optimizer, model_state_dict=state["weights"], optim_state_dict=state["moments"]
        )
        step = int(done[-1].name.removeprefix("step-"))
    while True:
        tokens = torch.randint(0, vocab, (4, 192))
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if rank == 0:
            with open(folder / "steps", "a") as file:
                file.write(f"{step} {time.time()} {os.getpid()}\n")
        if step % SAVE_EVERY == 0:
            weights, moments = get_state_dict(model, optimizer)
            dcp.save({"weights": weights, "moments": moments}, checkpoint_id=folder / "part")
            if rank == 0:  # whole or not at all
                (folder / "part").rename(folder / f"step-{step:06d}")
            dist.barrier()


# -- the contest


def contest(rounds: int, ranks: int, folder: Path) -> dict[str, dict[str, list[Outcome]]]:
    """Every contestant under every fault, in turns; the order is drawn anew in every round."""
    template = prepared(folder, ranks)
    ways: dict[str, Any] = {
        "tumen": lambda fault, where: tumen(fault, where, template),
        "tumen again": lambda fault, where: tumen(fault, where, template),
        "torchrun + DCP": lambda fault, where: torchrun(fault, where, ranks),
        "torchrun + DCP, own store": lambda fault, where: torchrun(
            fault, where, ranks, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"
        ),
    }
    found: dict[str, dict[str, list[Outcome]]] = {
        name: {fault: [] for fault in FAULTS} for name in ways
    }
    for number in range(rounds):
        order = [(name, fault) for name in ways for fault in FAULTS]
        if number == 0:  # an A/A pair first: what two equals differ by on this machine today
            order.sort(key=lambda one: not one[0].startswith("tumen"))
        else:
            random.Random(number).shuffle(order)
        for name, fault in order:
            where = folder / f"{number}-{fault}-{list(ways).index(name)}"
            where.mkdir()
            outcome = ways[name](fault, where)
            found[name][fault].append(outcome)
            print(
                f"  round {number + 1}, {fault:<6} {name:<26} {outcome}",
                file=sys.stderr,
                flush=True,
            )
            shutil.rmtree(where, ignore_errors=True)
    return found


def median(values: list[float | None]) -> float | None:
    """The median, where None is more than any number; None when it is one of those."""
    middle = sorted((value is None, value or 0.0) for value in values)[len(values) // 2]
    return None if middle[0] else middle[1]


def row_of(name: str, fault: str, outcomes: list[Outcome]) -> list[str]:
    """A line of the table."""
    back = [one for one in outcomes if one.resumed is not None]
    resumed, seen = (
        median([one.resumed for one in outcomes]),
        median([one.seen for one in outcomes]),
    )
    lost = statistics.median(one.lost_steps or 0 for one in back) if back else None
    spread = (
        f"{min(one.resumed or 0 for one in back):.1f} - {max(one.resumed or 0 for one in back):.1f}"
        if back
        else "-"
    )
    times = [f"over {PATIENCE_SECONDS[fault]:.0f}" if resumed is None else f"{resumed:.1f}", spread]
    return [
        name,
        fault,
        f"{len(back)} of {len(outcomes)}",
        "-" if seen is None else f"{seen:.1f}",
        *times,
        "-" if lost is None else f"{lost:g}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        peer(given.peer)
        return
    result: dict[str, Any] = circumstances(["torch"]) | {
        "rounds": given.rounds,
        "ranks": given.ranks,
    }
    with tempfile.TemporaryDirectory(prefix="healing-") as folder:
        found = contest(given.rounds, given.ranks, Path(folder))
    result["seconds"] = {
        name: {fault: [vars(one) for one in ones] for fault, ones in by.items()}
        for name, by in found.items()
    }
    both = [
        [one.resumed for by in found[name].values() for one in by]
        for name in ("tumen", "tumen again")
    ]
    pairs = [(a, b) for a, b in zip(*both, strict=True) if a and b]
    result["noise"] = noise_of(*zip(*pairs, strict=True)) if pairs else None
    print(headline(result))
    if pairs:
        print(f"two equals lie apart by a factor of {result['noise']:.2f}")
    rows = [
        row_of(name, fault, ones)
        for fault in FAULTS
        for name, by in found.items()
        for ones in [by[fault]]
    ]
    print(
        table(
            ["", "fault", "came back", "seen, s", "first new step, s", "from - to", "steps lost"],
            rows,
        )
    )
    write("healing", result, given.out)


if __name__ == "__main__":
    main()
