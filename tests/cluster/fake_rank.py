"""A rank without a network to train: it sends heartbeats, keeps step with the others by files, and can be told to fail.

    python fake_rank.py FOLDER STEPS STEP_SECONDS [--standby]

`FOLDER/state` is the checkpoint, a step number. `FOLDER/do-RANK` holds a word that is carried out
once: nan, disk, hang, exit.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from tumen.core import lifetime
from tumen.core.artifact import write_text
from tumen.heartbeat import messages

HEARTBEAT_SECONDS = 0.5
SAVE_EVERY = 5  # steps


class FakeHeart:
    """Sends heartbeats in a thread."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.attempt = int(os.environ["TUMEN_ATTEMPT"])
        secret = messages.read_secret(Path(os.environ["TUMEN_SECRET"]))
        self.sender = messages.MessageSender(secret, f"rank-{self.rank}")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(messages.address_of(os.environ["TUMEN_AGENT"]))
        self.step = 0
        self.step_seconds = 0.0
        self.phase = "load"
        threading.Thread(target=self._repeat, daemon=True).start()

    def _repeat(self) -> None:
        while True:
            self.send()
            time.sleep(HEARTBEAT_SECONDS)

    def send(self) -> None:
        heartbeat = messages.Heartbeat(
            self.rank,
            self.attempt,
            os.getpid(),
            step=self.step,
            step_seconds=self.step_seconds,
            phase=self.phase,
            waiting=0.1,
            loss=2.0,
        )
        self.socket.send(self.sender.message(self.attempt, [heartbeat]))


def main() -> None:
    lifetime.die_with_parent()
    folder = Path(sys.argv[1])
    steps = int(sys.argv[2])
    step_seconds = float(sys.argv[3])
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(1))
    if "--standby" in sys.argv:
        os.environ.update(json.loads(sys.stdin.readline()))
    own = FakeHeart()
    world = int(os.environ["WORLD_SIZE"])
    state = folder / "state"
    own.step = int(state.read_text()) if state.exists() else 0
    own.phase = "train"
    own.send()
    report(f"started {own.attempt} {own.step}")
    meeting = folder / f"meet-{own.attempt}"
    meeting.mkdir(exist_ok=True)
    while own.step < steps:
        begun = time.monotonic()
        obey(folder / f"do-{own.rank}", own)
        time.sleep(step_seconds)
        stops = meet(meeting, own, world, bool(terminated))
        own.step += 1
        own.step_seconds = time.monotonic() - begun
        if own.step == 1:
            own.send()
        if own.rank == 0 and (stops or own.step % SAVE_EVERY == 0):
            write_text(state, str(own.step))
        if stops:
            report(f"stopped {own.step}")
            return
    own.phase = "end"
    own.send()
    report("done")


def meet(meeting: Path, own: FakeHeart, world: int, terminated: bool) -> bool:
    """Wait for all ranks, as a collective does; it hangs where one is gone. Returns whether one stops."""
    notes = [meeting / f"{own.step}-{rank}" for rank in range(world)]
    write_text(notes[own.rank], "stop" if terminated else "go")
    while not all(note.exists() for note in notes):
        time.sleep(0.005)
    return any(note.read_text() == "stop" for note in notes)


def report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def obey(word: Path, own: FakeHeart) -> None:
    """Carry out what a test wrote, once."""
    if not word.exists():
        return
    order = word.read_text()
    word.unlink()
    if order == "hang":
        while True:
            time.sleep(1)
    if order == "exit":
        sys.exit(3)
    if order in ("nan", "disk"):
        path = Path(os.environ["TUMEN_JOB"]) / "faults" / f"{own.rank}-{own.attempt}.json"
        path.parent.mkdir(exist_ok=True)
        why = f"step {own.step}: {order}"
        reason = {"kind": order, "why": why, "step": own.step, "rank": own.rank}
        path.write_text(json.dumps(reason))
        sys.exit(7)


if __name__ == "__main__":
    main()
