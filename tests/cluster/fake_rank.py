"""A rank without a network to train: it beats, keeps step with the others by files, and does what a test told it to.

    python fake_rank.py FOLDER STEPS STEP_SECONDS [--standby]

`FOLDER/state` is the checkpoint, a step number. `FOLDER/do-RANK` holds a word that is done once: nan, disk, hang, exit.
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


class Beating:
    def __init__(self) -> None:
        self.rank, self.attempt = int(os.environ["RANK"]), int(os.environ["TUMEN_ATTEMPT"])
        self.sender = messages.MessageSender(
            messages.read_secret(Path(os.environ["TUMEN_SECRET"])), f"rank-{self.rank}"
        )
        self.where = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.where.connect(messages.address_of(os.environ["TUMEN_AGENT"]))
        self.step, self.seconds, self.phase = 0, 0.0, "load"
        threading.Thread(target=self.always, daemon=True).start()

    def always(self) -> None:
        while True:
            self.say()
            time.sleep(0.5)

    def say(self) -> None:
        beat = messages.Heartbeat(
            self.rank, self.attempt, os.getpid(), self.step, self.seconds, self.phase, 0.1, 2.0
        )
        self.where.send(self.sender.message(self.attempt, [beat]))


def main() -> None:
    lifetime.die_with_parent()
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    seconds = float(sys.argv[3])
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    if "--standby" in sys.argv:
        os.environ.update(json.loads(sys.stdin.readline()))
    own, world = Beating(), int(os.environ["WORLD_SIZE"])
    own.step = int((folder / "state").read_text()) if (folder / "state").exists() else 0
    own.phase = "train"
    own.say()
    say(f"started {own.attempt} {own.step}")
    meeting = folder / f"meet-{own.attempt}"
    meeting.mkdir(exist_ok=True)
    while own.step < steps:
        begun = time.monotonic()
        do(folder / f"do-{own.rank}", own)
        time.sleep(seconds)
        notes = [meeting / f"{own.step}-{rank}" for rank in range(world)]
        write_text(notes[own.rank], "stop" if stop else "go")
        while not all(note.exists() for note in notes):
            time.sleep(0.005)  # the collective; it hangs where another is gone
        stops = any(note.read_text() == "stop" for note in notes)
        own.step, own.seconds = own.step + 1, time.monotonic() - begun
        if own.step == 1:
            own.say()
        if (stops or own.step % 5 == 0) and own.rank == 0:
            write_text(folder / "state", str(own.step))
        if stops:
            say(f"stopped {own.step}")
            return
    own.phase = "end"
    own.say()
    say("done")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def do(word: Path, own: Beating) -> None:
    if not word.exists():
        return
    said = word.read_text()
    word.unlink()
    if said == "hang":
        while True:
            time.sleep(1)
    if said == "exit":
        sys.exit(3)
    if said in ("nan", "disk"):
        path = Path(os.environ["TUMEN_JOB"]) / "faults" / f"{own.rank}-{own.attempt}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps(
                {
                    "kind": said,
                    "why": f"step {own.step}: {said}",
                    "step": own.step,
                    "rank": own.rank,
                }
            )
        )
        sys.exit(7)


if __name__ == "__main__":
    main()
