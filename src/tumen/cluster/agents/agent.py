"""`python -m tumen.cluster.agents.agent ... -- COMMAND`: starts the ranks of one node, says how they are, and does what it is told.

Without a watcher (no file `watcher` in the job's folder) it is what torchrun is without restarts: the first rank that fails ends
all, with its exit code. With one, a dead rank is told and an order awaited. Ranks get torchrun's variables, and TUMEN_AGENT (this
agent), TUMEN_SECRET, TUMEN_ATTEMPT, TUMEN_EPOCH, TUMEN_WORLD, TUMEN_NODE, TUMEN_JOB (the job's folder), TUMEN_REPLICA_FOLDER and
TUMEN_REPLICA_STORE (the node's memory for copies of the state, and the keeper that serves it; keeper.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from tumen.cluster.agents.health import Checkup, examine
from tumen.cluster.agents.replica_store import ReplicaStore, replica_folder
from tumen.cluster.engines.local import die_with_parent
from tumen.cluster.order import AGENT_FILE, FAULTS, RANKS, SECRET_FILE, WATCHER_FILE, Verb
from tumen.core import fencing, lifetime
from tumen.core.artifact import write_text
from tumen.core.errors import EngineError, TumenError
from tumen.heartbeat import messages

REPORT_SECONDS = 1.0
TICK_SECONDS = 0.1
RAN_SECONDS, STARVED_SECONDS = (
    2.5,
    30.0,
)  # a rank that used a processor so lately may say nothing for so long
ASK_SECONDS = 20.0  # a watched agent waits so long for its first order, then starts by itself
GIVE_UP_SECONDS = (
    600.0  # and so long for an order after a rank failed; a killed watcher is back long before
)
DONE_SECONDS = 15.0  # and so long for leave to go after all ranks ended well
STANDBY_SECONDS = (
    5.0  # of training before the next standby is made: the ranks' own start comes first
)


@dataclass(frozen=True)
class AgentOptions:
    """What an agent is told at its start; on the command line --folder, --node, ... and at the end -- COMMAND.

    `master` is where ranks meet when there is no watcher; one node needs none, several without it wait for a watcher. `address` is
    the name under which other nodes reach this one.
    `standby`: the command takes --standby, and then waits on its input for one line of JSON, its environment. `epoch`: which epoch
    of the job this is (core/fencing.py).
    """

    folder: Path
    command: tuple[str, ...]
    node: str = "local"
    nodes: int = 1
    node_rank: int = 0
    ranks_per_node: int = 1
    master: str = ""
    address: str = "127.0.0.1"
    attempt: int = 1
    epoch: str = ""
    standby: bool = False


class Rank:
    """A process of a node: a rank at work, or a standby that has imported everything and waits for its environment."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.number, self.log = -1, Path(os.devnull)
        self.beat: messages.Heartbeat | None = None
        self.heard = self.since = time.monotonic()
        self.stopped = self._moved = 0.0
        self._ran = 0
        self._early = self._rest = (
            b""  # what a standby printed before it became a rank; a line that has no end yet
        )
        parent = os.getpid()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            start_new_session=True,  # so that a kill reaches what it started
            preexec_fn=lambda: lifetime.die_with_parent(parent),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        os.set_blocking(self.output.fileno(), False)

    def become(self, number: int, log: Path, environment: dict[str, str] | None = None) -> None:
        """Be a rank from now on; a standby is told its environment."""
        self.number, self.log, self.since = number, log, time.monotonic()
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        self._print(self._early)
        with contextlib.suppress(OSError):  # it may be dead already, as its exit code will say
            if environment:
                self.input.write(json.dumps(environment).encode() + b"\n")
            self.input.close()

    def strike(self, blow: signal.Signals) -> None:
        """Send a signal: SIGTERM to the rank, SIGKILL to whatever it started too."""
        with contextlib.suppress(ProcessLookupError):
            if blow is signal.SIGKILL:
                os.killpg(self.process.pid, blow)
            elif self.process.poll() is None:
                self.process.send_signal(blow)

    def look(self) -> None:
        """Note since when it is stopped, as by SIGSTOP: in that state, and without having run, at one look after the other."""
        now, fields = time.monotonic(), _stat(self.process.pid)
        ran = int(fields[11]) + int(fields[12]) if fields else 0
        if ran != self._ran:
            self._ran, self._moved, self.stopped = ran, now, 0.0
        elif not fields or fields[0] != "T":
            self.stopped = 0.0
        else:
            self.stopped = self.stopped or now

    def age(self, now: float) -> float:
        """Seconds without a beat. One that runs and says nothing gets too little of its machine: that is not silence yet."""
        age = now - self.heard
        return (
            min(age, REPORT_SECONDS)
            if now - self._moved < RAN_SECONDS and age < STARVED_SECONDS
            else age
        )

    def drain(self) -> bool:
        """Pass on what it printed: raw into its own log, by lines into the job's. Whether more may come."""
        try:
            while chunk := self.output.read(65536):
                if self.number < 0:
                    self._early = (self._early + chunk)[-65536:]
                else:
                    self._print(chunk)
        except (OSError, ValueError):
            return False
        return chunk is None  # b"" is the end

    def bury(self) -> None:
        """After its end: the rest of its output, and its pipes."""
        self.drain()
        if self._rest:
            self._print(b"\n")
        for pipe in (self.input, self.output):
            with contextlib.suppress(OSError):
                pipe.close()

    def _print(self, chunk: bytes) -> None:
        with (
            contextlib.suppress(OSError),
            open(self.log, "ab") as log,
        ):  # a full disk must not stop the training
            log.write(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        with contextlib.suppress(OSError):
            for line in lines:
                os.write(1, b"[rank %d] %s\n" % (self.number, line))


class Agent:
    """The ranks of a node, and what was ordered. `run` is its life; all but the checkup and the keeper happens in one thread."""

    def __init__(self, post: AgentOptions) -> None:
        self.post = post
        self.secret = messages.read_secret(post.folder / SECRET_FILE)
        self.sender, self.receiver = (
            messages.MessageSender(self.secret, post.node),
            messages.MessageReceiver(self.secret),
        )
        self.selector = selectors.DefaultSelector()
        self.ears = socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM
        )  # ranks speak to it, on this machine alone
        self.ears.bind(("127.0.0.1", 0))
        self.mouth: socket.socket | None = (
            None  # to the watcher; made anew when it has another address
        )
        self.watcher = ""
        self.selector.register(self.ears, selectors.EVENT_READ)
        self.ears.setblocking(False)
        self.attempt, self.world, self.first = 0, 0, 0
        self.verb: Verb = "stop"
        self.order: dict[str, Any] = {}
        self.ranks: list[Rank] = []
        self.standbys: list[Rank] = []
        self.dead: dict[int, list[Any]] = {}  # rank -> [rank, exit code, why] in this attempt
        self.code: int | None = None  # of the first rank that failed
        self.leaving = False
        now = time.monotonic()
        self.began = self.heard = self.failed = now
        self.next_look = now
        self.next_report = (
            now + REPORT_SECONDS * random.random()
        )  # the agents of a large run take turns
        self.checkup: Checkup | None = None
        self.keeper: ReplicaStore | None = None
        self.greeting = True  # whether the watcher must be told who this is
        self.news = True

    # -- life ------------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the ranks are done, one failed for good, or the watcher says so; returns the exit code."""
        signal.signal(signal.SIGTERM, self._leave)
        self.checkup = Checkup(self.post.folder, examine(self.post.folder))
        self.checkup.start()
        if self.post.standby:  # ranks that can make copies
            self.keeper = self._kept()
        self._find_watcher()
        if self.watcher or (self.post.nodes > 1 and not self.post.master):
            self._stand_by(self.post.ranks_per_node)
        else:
            self._start_alone()
        done = False
        try:
            while (code := self._over()) is None:
                self._wait()
                self._reap()
                self._look()
            done = self.verb == "end" or (code == 0 and not self.leaving)
            return code
        finally:
            self.ranks += self.standbys
            self._kill()
            if self.keeper:
                self.keeper.close(remove=done)  # else somebody may go on from it

    def _kept(self) -> ReplicaStore | None:
        """A keeper of copies in memory; where there is none, there are checkpoints."""
        try:
            return ReplicaStore(
                replica_folder(self.post.folder, self.post.node), self.secret, self.post.address
            )
        except EngineError as error:
            sys.stderr.write(f"tumen: no copies in memory: {error}\n")
            return None

    def _over(self) -> int | None:
        """The exit code when there is nothing more to do."""
        now = time.monotonic()
        if self.verb == "end":
            return int(self.order.get("code", 0))
        busy = any(rank.number not in self.dead for rank in self.ranks)
        if self.leaving and not busy:
            return self.code or 0
        if self.code and (not self.watcher or now - max(self.heard, self.failed) > GIVE_UP_SECONDS):
            return self.code
        done = bool(self.ranks) and not busy and not self.code
        return 0 if done and (not self.watcher or now - self.heard > DONE_SECONDS) else None

    def _leave(self, *_: object) -> None:
        """SIGTERM: the ranks take a checkpoint and end, and so does this agent."""
        self.leaving = self.news = True
        for rank in self.ranks:
            rank.strike(signal.SIGTERM)

    def _wait(self) -> None:
        """Sleep until something is said, and listen."""
        for key, _ in self.selector.select(TICK_SECONDS):
            if isinstance(key.data, Rank):
                if not key.data.drain():
                    self.selector.unregister(key.fileobj)
            elif key.fileobj is self.ears:
                self._hear_ranks()
            else:
                self._hear_watcher()

    def _look(self) -> None:
        """What is due: a report, a look at the machine, another watcher, standbys."""
        now = time.monotonic()
        if now >= self.next_look:
            self.next_look = now + REPORT_SECONDS
            fencing.reject_stale(self.post.folder, self.post.epoch)
            self._find_watcher()
            for rank in self.ranks:
                rank.look()
            training = [rank for rank in self.ranks if rank.beat and rank.beat.phase == "train"]
            if (
                self.ranks
                and len(training) == len(self.ranks)
                and now - self.ranks[0].since > STANDBY_SECONDS
            ):
                self._stand_by(len(self.ranks))
            if (
                self.watcher
                and not self.attempt
                and now - self.began > ASK_SECONDS
                and now - self.heard > ASK_SECONDS
            ):
                self._start_alone()
        if self.checkup and self.checkup.news:  # the watcher is told who this is, and how well
            self.checkup.news, self.greeting, self.news = False, True, True
        if self.news or now >= self.next_report:
            self.news = False
            while (
                self.next_report <= now
            ):  # news come between: an order reaches all agents at the same moment
                self.next_report += REPORT_SECONDS
            self._report(now)

    # -- ranks -----------------------------------------------------------------------------------------------------------------

    def _start_alone(self) -> None:
        """The first attempt, without an order."""
        each = self.post.ranks_per_node
        first = self.post.node_rank * each
        master = self.post.master or f"127.0.0.1:{_free_port()}"
        order = {
            "verb": "run",
            "attempt": self.post.attempt,
            "world": self.post.nodes * each,
            "master": master,
        }
        self._obey(order | {"ranks": [first, each]})

    def _start(self, order: dict[str, Any]) -> None:
        """The node's ranks of a new attempt, from standbys where the command can stand by."""
        self.first, count = order["ranks"]
        if self.post.standby:
            self._stand_by(count)
        for local in range(count):
            environment = self._environment(order, local, count)
            rank = self.standbys.pop(0) if self.post.standby else self._born(environment)
            number = self.first + local
            log = self.post.folder / RANKS / self.post.node / str(self.attempt) / f"{number}.log"
            rank.become(number, log, environment if self.post.standby else None)
            self.ranks.append(rank)
        pids = {rank.number: rank.process.pid for rank in self.ranks}
        with contextlib.suppress(TumenError):  # for people and drills alone
            said = {"pid": os.getpid(), "attempt": self.attempt, "ranks": pids}
            write_text(self.post.folder / RANKS / self.post.node / AGENT_FILE, json.dumps(said))

    def _born(self, environment: dict[str, str] | None = None) -> Rank:
        """A new process, whose output is read from now on."""
        command = self.post.command if environment else (*self.post.command, "--standby")
        rank = Rank(command, environment)
        self.selector.register(rank.output, selectors.EVENT_READ, rank)
        return rank

    def _environment(self, order: dict[str, Any], local: int, count: int) -> dict[str, str]:
        host, port = messages.address_of(order["master"])
        said = {
            "RANK": self.first + local,
            "LOCAL_RANK": local,
            "WORLD_SIZE": order["world"],
            "LOCAL_WORLD_SIZE": count,
            "GROUP_RANK": self.post.node_rank,
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
            messages.AGENT: f"127.0.0.1:{self.ears.getsockname()[1]}",
            messages.SECRET: self.post.folder / SECRET_FILE,
            messages.ATTEMPT: self.attempt,
            fencing.EPOCH_ENV: self.post.epoch,
            fencing.JOB_ENV: self.post.folder,
            "TUMEN_WORLD": order["world"],
            "TUMEN_NODE": self.post.node,
        }
        if self.keeper:
            said |= {
                "TUMEN_REPLICA_FOLDER": self.keeper.folder,
                "TUMEN_REPLICA_STORE": self.keeper.address,
            }
        return {name: str(value) for name, value in said.items()}

    def _stand_by(self, count: int) -> None:
        """Have so many processes that wait for their environment."""
        for rank in [rank for rank in self.standbys if rank.process.poll() is not None]:
            self.standbys.remove(rank)
            self._forget(rank)
        while self.post.standby and len(self.standbys) < count:
            self.standbys.append(self._born())

    def _reap(self) -> None:
        """Note who died."""
        for rank in self.ranks:
            if rank.number in self.dead or (code := rank.process.poll()) is None:
                continue
            self._forget(rank)
            code = code if code >= 0 else 128 - code
            self.dead[rank.number] = [rank.number, code, self._why(rank)]
            self.news = True
            if code and self.code is None:
                self.code, self.failed = code, time.monotonic()
                self._examine()
                if not self.watcher and rank.process.returncode < 0:
                    name = signal.Signals(-rank.process.returncode).name
                    sys.stderr.write(f"tumen: rank {rank.number} was ended by {name}\n")

    def _examine(self) -> None:
        """Ranks ended: was it this machine? All nodes ask themselves, so that what they share is nobody's."""
        if self.checkup:
            self.checkup.hurry.set()

    def _why(self, rank: Rank) -> dict[str, Any] | None:
        """What a rank wrote down before it ended itself."""
        try:
            said = json.loads(
                (self.post.folder / FAULTS / f"{rank.number}-{self.attempt}.json").read_text(
                    "utf-8"
                )
            )
            return {
                name: str(said[name])[:300] if name != "step" else int(said[name])
                for name in ("kind", "why", "step")
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _forget(self, rank: Rank) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(rank.output)
        rank.bury()

    def _kill(self) -> None:
        """End every rank, stopped ones too, and what they started."""
        for rank in self.ranks:
            rank.strike(signal.SIGKILL)
        for rank in self.ranks:
            rank.process.wait()
            self._forget(rank)
        self.ranks = []

    # -- what is said ----------------------------------------------------------------------------------------------------------

    def _hear_ranks(self) -> None:
        for datagram in _datagrams(self.ears):
            message = self.receiver.open(datagram)
            for beat in message.beats if message else ():
                at = beat.rank - self.first
                if (
                    message
                    and beat.attempt == self.attempt
                    and 0 <= at < len(self.ranks)
                    and message.sender == f"rank-{beat.rank}"
                ):
                    before = self.ranks[at].beat
                    self.news |= (
                        before is None
                        or before.phase != beat.phase
                        or (before.step == 0) != (beat.step == 0)
                    )
                    self.ranks[at].beat, self.ranks[at].heard = beat, time.monotonic()

    def _hear_watcher(self) -> None:
        for datagram in _datagrams(self.mouth) if self.mouth else ():
            message = self.receiver.open(datagram)
            if message is None or message.sender != "watcher":
                continue
            self.heard = time.monotonic()
            self.greeting = bool(message.note.get("greet", False))
            self.news |= self.greeting
            if "verb" in message.note:
                self._obey(message.note)

    def _obey(self, order: dict[str, Any]) -> None:
        """Do what is ordered, once."""
        if self.leaving or order["attempt"] < self.attempt or order == self.order:
            return
        newer, self.order, self.verb = order["attempt"] > self.attempt, order, order["verb"]
        if self.verb == "save-and-stop":
            for rank in self.ranks:
                rank.strike(signal.SIGTERM)
        elif self.verb == "stop":
            self._kill()
            self._examine()
        elif self.verb == "run" and newer:
            self._kill()
            self.attempt, self.world, self.dead, self.code = (
                order["attempt"],
                order["world"],
                {},
                None,
            )
            self._start(order)
        self.news = True

    def _report(self, now: float) -> None:
        """Beats with their age, who died, and who this is where that was asked."""
        if self.mouth is None:
            return
        beats = [
            rank.beat._replace(age_ms=round(1000 * rank.age(now)))
            for rank in self.ranks
            if rank.beat and rank.number not in self.dead
        ]
        note: dict[str, Any] = {}
        if self.dead:
            note["dead"] = list(self.dead.values())
        if stopped := [
            [rank.number, round(now - rank.stopped, 1)] for rank in self.ranks if rank.stopped
        ]:
            note["stopped"] = stopped
        if self.leaving:
            note["leaving"] = True
        if self.verb != "run":
            note["verb"] = self.verb
        if self.greeting:
            note["hello"] = self._hello()
        with contextlib.suppress(OSError):  # nobody is there; the next one may be heard
            self.mouth.send(self.sender.message(self.attempt, beats, note))

    def _hello(self) -> dict[str, Any]:
        running = [rank.number for rank in self.ranks]
        return {
            "pid": os.getpid(),
            "start": self.post.epoch,
            "place": self.post.node_rank,
            "nodes": self.post.nodes,
            "processes": self.post.ranks_per_node,
            "master": f"{self.post.address}:{_free_port()}",
            "ranks": [self.first, len(running)],
            "world": self.world,
            "health": vars(self.checkup.health) if self.checkup else {},
        }

    def _find_watcher(self) -> None:
        """Where the watcher is, as the job's folder says; it may have moved, come or gone."""
        try:
            address = (self.post.folder / WATCHER_FILE).read_text("utf-8").strip()
        except OSError:
            address = "" if time.monotonic() - self.heard > REPORT_SECONDS * 5 else self.watcher
        if address == self.watcher:
            return
        if self.mouth:
            self.selector.unregister(self.mouth)
            self.mouth.close()
            self.mouth = None
        with contextlib.suppress(
            OSError, EngineError
        ):  # a name that is not known now may be known at the next look
            if address:
                mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                mouth.setblocking(False)
                mouth.connect(messages.address_of(address))
                self.selector.register(mouth, selectors.EVENT_READ)
                self.mouth = mouth
            self.watcher, self.greeting = address, True


def _stat(pid: int) -> list[str]:
    """A process as proc(5) has it, from its state on; nothing when there is none, or no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _free_port() -> int:
    """A port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _datagrams(where: socket.socket) -> Iterator[bytes]:
    """What has come; a port that nobody listens to says so on the next call, which is no news."""
    for _ in range(1000):
        try:
            yield where.recv(messages.MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            continue


def parse_options(arguments: Sequence[str]) -> AgentOptions:
    """A post from a command line: an option for each field of `Post`, then -- and the command of a rank."""
    parser = argparse.ArgumentParser(
        prog="python -m tumen.cluster.agents.agent", description="Run the ranks of one node."
    )
    for field in fields(AgentOptions):
        option = "--" + field.name.replace("_", "-")
        if field.type == "bool":
            parser.add_argument(option, action="store_true")
        elif field.name != "command":
            kind = {"Path": Path, "int": int}.get(str(field.type), str)
            parser.add_argument(
                option, type=kind, required=field.default is MISSING, default=field.default
            )
    parser.add_argument("command", nargs="+", help="after --: what each rank runs")
    return AgentOptions(
        **vars(parser.parse_args(arguments))
        | {"command": tuple(parser.parse_args(arguments).command)}
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node's ranks; returns the exit code: 0, or that of the first rank that failed."""
    die_with_parent()
    return manned(parse_options(sys.argv[1:] if arguments is None else arguments))


def manned(post: AgentOptions) -> int:
    """Run an agent to its end; an error is one line."""
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # as torchrun does: ranks share the machine's cores
    try:
        return Agent(post).run()
    except TumenError as error:
        sys.stderr.write(f"tumen: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
