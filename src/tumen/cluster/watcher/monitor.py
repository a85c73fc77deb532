"""See every fault, name it, decide: `Watch` is a pure state machine. The loop with sockets around it is watcher.py.

    ranks --beats--> agent --reports--> watcher --order, as the reply--> agent

It gathers the agents, orders an attempt, and looks at it until it is over or a fault is found; then it gathers again. While it
saves, ranks are asked for a last checkpoint because somebody wants another number of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tumen.cluster.agents.health import unfit
from tumen.cluster.engines.engine import JobStatus, Node
from tumen.cluster.order import Order
from tumen.cluster.watcher.rank_table import MISSED_SECONDS, USUAL_STEPS, RankTable
from tumen.core import fencing
from tumen.core.errors import DiskError, TrainError
from tumen.heartbeat import Message

Kind = Literal[
    "crash",
    "agent",
    "freeze",
    "collective",
    "slow",
    "nan",
    "spike",
    "disk",
    "checkpoint",
    "node",
    "engine",
    "skew",
]
Action = Literal["restart", "resubmit", "drain", "wait", "give_up", "resize"]
Row = dict[str, Any]

AGENT_SECONDS = 5.0  # without a report
AGENTS_SECONDS = 1.5  # when several agents fall silent together, or the ranks of others miss a peer: no lost packet does that
SEVERAL, REPORT_SECONDS = (
    3,
    1.0,
)  # after the first few, those that fell silent with them are known a report later
STOPPED_SECONDS = 2.0  # a debugger that takes a look stops a process for less
ALL_SECONDS = 30.0  # when most are silent, it is rather the watcher's own network
SETTLE_SECONDS = 0.3  # from the first death until the cause is named: what follows from it is told in the same moment
FOLLOW_SECONDS = 6.0  # and that long while every death says that another rank ended first
ENGINE_SECONDS = 30.0  # and so long an engine may take to say what it knows of them
COMEBACK_SECONDS = 20.0  # an agent that died is back by then, if anybody starts it again
GATHER_SECONDS = 600.0  # the agents of a job that runs have all reported by then
AILING_SECONDS = (
    30.0  # of one node that is not fit: by then the others complain too of what they share
)
SAVE_SECONDS = 600.0
WAIT_SECONDS, MOST_WAITS = (
    5.0,
    8,
)  # for room on the disk: 5 s, 10 s, ... about twenty minutes in all
MOST_TIMES = 3  # the same fault at the same step
MEET = "do not meet"  # what a rank says that could not begin because of another
ABORTED = (
    134  # exit code of a rank that its collectives' library ended (SIGABRT): because of another too
)


@dataclass(frozen=True)
class RankLayout:
    """What runs where at first: `each` ranks on every node."""

    nodes: int
    each: int

    @property
    def world(self) -> int:
        """All ranks."""
        return self.nodes * self.each


@dataclass
class Seat:
    """What is known of an agent. `attempt` 0: it has no ranks. `dead`: [rank, exit code, why] of its attempt."""

    name: str
    heard: float
    attempt: int = 0
    verb: str = "run"
    pid: int = 0
    start: tuple[int, ...] = ()
    place: int = 0
    master: str = ""
    ranks: tuple[int, int] = (0, 0)
    world: int = 0
    health: Mapping[str, Any] = field(default_factory=dict)
    dead: list[list[Any]] = field(default_factory=list)
    stopped: list[list[Any]] = field(default_factory=list)  # [rank, seconds]
    leaving: bool = False
    lost: bool = False  # it started anew and has no ranks any more


@dataclass(frozen=True)
class Fault:
    """A fault that was found. `sign`: when its first sign was there."""

    kind: Kind
    why: str
    step: int
    sign: float
    rank: int | None = None
    nodes: tuple[str, ...] = ()

    def row(self, now: float) -> Row:
        """As it is written down."""
        said = {
            "kind": self.kind,
            "rank": self.rank,
            "node": self.nodes[0] if self.nodes else None,
            "step": self.step,
        }
        return {
            "event": "fault",
            **said,
            "why": self.why,
            "silent_seconds": round(max(0.0, now - self.sign), 2),
        }


class RunMonitor:
    """What the watcher knows of a run and what follows from it. No clock, no socket, no file: `now` is in seconds.

    `order` is what agents should do now. Rows that `tell` and `look` return are written to watch.jsonl by the caller before the
    order is sent; `resume` takes them back. A row `decided` with resubmit or drain is for the caller to do.

    Args:
        elsewhere: whether the engine can start the job on other nodes.
    """

    def __init__(self, layout: RankLayout, elsewhere: bool = False) -> None:
        self.layout, self.elsewhere, self.world = layout, elsewhere, layout.world
        self.order = Order(0, "stop")
        self.seats: dict[str, Seat] = {}
        self.signs = RankTable(0.0, self.world)
        self.state: Literal["gather", "run", "save", "wait", "over"] = "gather"
        self.since = -1.0  # of the state
        self.until = 0.0  # of a wait
        self.hush = 0.0  # since when several agents are silent together
        self.open: tuple[float, float] | None = (
            None  # a fault that training has not gone on from: first sign, found
        )
        self.times: Counter[tuple[str, int]] = Counter()
        self.slow: Counter[str] = Counter()  # how often a node was slow
        self.adopts = True  # whether ranks that run already are taken over as they are
        self.start: tuple[int, ...] = ()  # of the job, which its engine may start again
        self.missing = False  # whether the gathering waits for an agent that died
        self.avoid: list[str] = []
        self.examined = False  # an agent said anew how its node is
        self.ailing = 0.0  # since when one is not fit
        self.moves = ""  # why the job starts elsewhere once it has saved
        self.unready: dict[str, str] = {}  # nodes the engine would not use, and why
        self.engine_silent = self.engine_heard = 0.0
        self.skewed: set[str] = set()
        self.code = 0

    # -- what comes in ---------------------------------------------------------------------------------------------------------

    def hear(self, now: float, reports: Iterable[Message]) -> None:
        """Take reports of agents."""
        bodies = []
        for report in reports:
            seat = self.seats.get(report.sender)
            if seat is None:
                self.since = (
                    now if self.state == "gather" and not self.seats else self.since
                )  # a job may wait long in its queue
                seat = self.seats[report.sender] = Seat(report.sender, now)
            if 0 < self.order.attempt == seat.attempt > report.attempt:
                seat.lost, seat.master = True, ""
            seat.heard, seat.attempt = now, report.attempt
            seat.verb, seat.dead = report.note.get("verb", "run"), report.note.get("dead", [])
            seat.stopped = report.note.get("stopped", [])
            if report.note:
                self._note(seat, report.note)
            if report.body and report.attempt == self.order.attempt:
                bodies.append(report.body)
        if bodies:
            self.signs.hear(now, b"".join(bodies))

    def _note(self, seat: Seat, note: Mapping[str, Any]) -> None:
        seat.leaving = bool(note.get("leaving", False))
        if hello := note.get("hello"):
            seat.lost |= seat.pid not in (0, hello["pid"]) and self.state == "run"
            seat.pid, seat.place, seat.master, seat.health = (
                hello["pid"],
                hello["place"],
                hello["master"],
                hello["health"],
            )
            seat.start, self.examined = fencing.parse_epoch(hello.get("start", "")), True
            seat.ranks, seat.world = (hello["ranks"][0], hello["ranks"][1]), hello["world"]

    def reply(self, node: str) -> Row:
        """What an agent is told when it reports: an order it has not obeyed, a wish to know who it is, nothing new."""
        seat, said = self.seats[node], {}
        if not self.adopts and (seat.attempt, seat.verb) != (self.order.attempt, self.order.verb):
            said = self.order.part(node)
        return said | ({} if seat.pid and seat.master and not seat.lost else {"greet": True})

    def tell(
        self,
        now: float,
        status: JobStatus | None = None,
        nodes: Sequence[Node] | None = None,
        ranks: int | None = None,
        skewed: Mapping[str, float] | None = None,
        damaged: str = "",
    ) -> list[Row]:
        """Take what the engine says of the job and its nodes, how many ranks somebody wishes, by how many seconds clocks are
        off, and what training says of a damaged checkpoint. Returns rows.
        """
        rows: list[Row] = []
        if self.state == "over":
            return rows
        if nodes is not None:
            self.unready = {node.name: node.reason for node in nodes if not node.ready}
        for node, ahead in (skewed or {}).items():
            if node not in self.skewed:
                self.skewed.add(node)
                off = f"its clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
                why = f"{off}; what it says is not heard until that is mended"
                rows.append(Fault("skew", why, self.signs.steps, now, nodes=(node,)).row(now))
        if damaged:
            rows.append(Fault("checkpoint", damaged, self.signs.steps, now).row(now))
            rows.append(
                self._decided(
                    "restart", "training took the checkpoint before it", self.order.attempt
                )
            )
        if ranks is not None and self.state == "run" and ranks != self.world:
            rows += self._resize(now, ranks)
        return rows + (self._status(now, status) if status else [])

    def _status(self, now: float, status: JobStatus) -> list[Row]:
        """What the engine says of the job."""
        self.engine_heard = now
        if status.state == "silent":
            if self.engine_silent:
                return []
            self.engine_silent = now
            fault = Fault("engine", status.reason, self.signs.steps, now)
            return [
                fault.row(now),
                self._decided(
                    "wait", "the job may be well; nothing is launched again", self.order.attempt
                ),
            ]
        rows = []
        if self.engine_silent:
            rows.append(self._resumed(now, self.engine_silent, self.engine_silent))
            self.engine_silent = 0.0
        if status.state == "waiting" and self.seats:
            rows += self._queued(now, f"the job was put back into the queue ({status.reason})")
        if status.ended:
            rows += self._ended(now, status)
        return rows

    def _queued(self, now: float, why: str) -> list[Row]:
        """The engine starts the job again: somebody asked it to, or a node died and it was first to see it."""
        gone = tuple(name for name in self.seats if name in self.unready)
        why = "; ".join(self.unready[name] for name in gone) or why
        sign = min(seat.heard for seat in self.seats.values())
        fault = Fault("node" if gone else "engine", why, self.signs.steps, sign, nodes=gone)
        self.open = self.open or (sign, now)
        self.seats = {name: seat for name, seat in self.seats.items() if seat.start > self.start}
        self._gather(now)
        return [fault.row(now), self._decided("wait", "the engine starts it again")]

    def _ended(self, now: float, status: JobStatus) -> list[Row]:
        """The job is over for the engine."""
        if (
            self.state == "gather"
            and self.missing
            and self.elsewhere
            and status.state in ("failed", "lost")
        ):
            return self._elsewhere(
                now,
                f"the job {status.state}: {status.reason}"
                if status.reason
                else f"the job {status.state}",
            )
        if (
            self.elsewhere
            and status.state in ("failed", "lost")
            and self.order.verb != "end"
            and self.order.attempt
        ):
            fault = Fault(
                "node",
                status.reason or f"the engine says that the job {status.state}",
                self.signs.steps,
                now,
            )
            return self._decide(now, fault, lost=True)
        self.code = status.exit_code or 0 if status.state in ("done", "failed") else 1
        self.state = "over"
        return []

    def resume(self, rows: Iterable[Mapping[str, Any]], usual: float = 0.0) -> None:
        """Go on from the rows of watch.jsonl: attempts, what failed how often, whom to avoid, and a fault that is not over.

        Args:
            usual: seconds of a step that the watcher before called usual, if it knew; see `Signs.usual_seconds`.
        """
        attempt, found = 0, None
        for row in rows:
            attempt = max(attempt, int(row.get("attempt") or 0))
            if row["event"] == "watch" and row["state"] == "ended":
                self.times, self.avoid, self.world, found = Counter(), [], self.layout.world, None
            elif row["event"] == "fault":
                self.times[row["kind"], row["step"]] += 1
                self.slow.update([row["node"]] if row["kind"] == "slow" else ())
                found = (row["time"] - row["silent_seconds"], row["time"])
            elif row["event"] == "decided":
                self.avoid, self.world = list(row["avoid"]), row["world"] or self.world
            elif row["event"] == "resumed":
                found = None
        self.open = found
        self.order = replace(self.order, attempt=attempt)
        self.signs = RankTable(0.0, self.world, [usual] * USUAL_STEPS if usual else [])

    # -- what follows ----------------------------------------------------------------------------------------------------------

    def look(self, now: float) -> list[Row]:
        """Let time pass: find what is dead, silent, slow or stuck, and decide. Returns rows."""
        if self.since < 0:
            self.since = now
        if self.state in ("run", "save") and any(
            seat.start > self.start for seat in self.seats.values()
        ):
            return self._queued(now, "the engine started the job again")
        if self.state == "gather":
            return self._gathered(now)
        if self.state == "run":
            return self._judge(now)
        if self.state == "save":
            return self._saved(now)
        if self.state == "wait" and now >= self.until:
            self._gather(now)
        return []

    def asks(self, now: float) -> bool:
        """Whether it wants to know what the engine says of the nodes."""
        if not self.elsewhere or self.state != "run":
            return False
        return any(
            seat.leaving or now - seat.heard > AGENTS_SECONDS for seat in self.seats.values()
        )

    def _judge(self, now: float) -> list[Row]:
        """A running attempt: over, faulty, or well."""
        dead = [
            death
            for seat in self.seats.values()
            if seat.attempt == self.order.attempt
            for death in seat.dead
        ]
        for rank, _, _ in dead:
            self.signs.heard[rank] = float("inf")  # it owes no beat any more
        well = len(dead) >= self.world and not any(code for _, code, _ in dead)
        told = [
            seat.leaving for seat in self.seats.values() if seat.name in self.order.ranks
        ]  # not those of a job before
        if any(told) and (all(told) or not well):
            return []  # somebody told the agents to stop: what ends now ends as it should, and the engine says what then
        if well:
            return self._end(0)
        fault = self._cause(now, [death for death in dead if death[1]])
        if fault:
            return self._decide(now, fault)
        if self.open and self.signs.stepped and self.state == "run":
            row = self._resumed(now, *self.open)
            self.open = None
            return [row]
        return self._ailing(now) if self.elsewhere and self.examined else []

    def _ailing(self, now: float) -> list[Row]:
        """Nodes that are no longer fit, while their ranks still train: a last checkpoint, then the job without them."""
        bad = unfit(
            {
                seat.name: seat.health
                for seat in self.seats.values()
                if seat.name in self.order.ranks
            }
        )
        self.ailing = (self.ailing or now) if bad else 0.0
        self.examined = bool(bad)
        if not bad or now - self.ailing < AILING_SECONDS:
            return []
        rows = self._left_out(now, bad)
        self.order = replace(self.order, verb="save-and-stop")
        self.state, self.since, self.open, self.moves = (
            "save",
            now,
            (now, now),
            f"without {', '.join(bad)}",
        )
        return rows

    def _cause(self, now: float, dead: list[list[Any]]) -> Fault | None:
        """What broke first, as far as it can be said now."""
        if dead and not self.until:
            self.until = now
        waited, step = now - self.until if dead else 0.0, self.signs.steps
        named = [(death, kind) for death in dead if (kind := _named(death))]
        first = [death for death in dead if not _follows(death)]
        if named and waited >= SETTLE_SECONDS:
            (rank, _, why), kind = named[0]
            said = why or {"why": "the disk refuses", "step": step}
            return Fault(kind, said["why"], said["step"], self.until, rank, self.nodes_of(rank))
        if fault := self._lost(now, bool(dead)):
            return fault
        if first and waited >= SETTLE_SECONDS:
            first.sort(
                key=lambda death: death[1] < 128
            )  # a rank that was killed, before one that gave up
        elif not dead or waited < FOLLOW_SECONDS:
            return None if dead else self._living(now)
        rank, code, why = (first or dead)[0]
        said = (
            why["why"]
            if why
            else f"it ended with exit code {code}"
            + (f", signal {code - 128}" if code > 128 else "")
        )
        return Fault("crash", said, step, self.until, rank, self.nodes_of(rank))

    def _lost(self, now: float, followed: bool) -> Fault | None:
        """Agents that started anew, or are silent."""
        used = [seat for seat in self.seats.values() if self.order.ranks.get(seat.name, (0, 0))[1]]
        if lost := [seat for seat in used if seat.lost]:
            return Fault(
                "agent",
                "it ended, and its ranks with it",
                self.signs.steps,
                lost[0].heard,
                nodes=(lost[0].name,),
            )
        quiet = [seat for seat in used if now - seat.heard > AGENTS_SECONDS]
        together = len(quiet) >= SEVERAL or (followed and quiet)
        self.hush = (self.hush or now) if together else 0.0
        if len(quiet) > max(1, len(used) / 2):
            quiet = [seat for seat in quiet if now - seat.heard > ALL_SECONDS]
        elif not (together and now - self.hush >= REPORT_SECONDS) and not any(
            seat.name in self.unready for seat in quiet
        ):
            quiet = [seat for seat in quiet if now - seat.heard > AGENT_SECONDS]
        if not quiet or self._must_ask(now, used):
            return None
        gone = [seat.name for seat in quiet if seat.name in self.unready]
        names = tuple(gone or (seat.name for seat in quiet))
        why = self.unready[gone[0]] if gone else f"no report for {now - quiet[0].heard:.1f} s"
        why = why if len(names) == 1 else f"{len(names)} nodes at once: {why}"
        # One that ends is back at once, where an engine of many machines runs it: what stays silent is a machine or its network.
        kind: Kind = "node" if gone or len(names) >= SEVERAL or self.elsewhere else "agent"
        return Fault(kind, why, self.signs.steps, min(seat.heard for seat in quiet), nodes=names)

    def _must_ask(self, now: float, used: Sequence[Seat]) -> bool:
        """Whether all agents are gone and the engine, which may have taken the job away itself, was not heard since."""
        last = max(seat.heard for seat in used)
        return (
            self.elsewhere
            and now - last > AGENTS_SECONDS
            and self.engine_heard <= last
            and now - last < ENGINE_SECONDS
        )

    def _living(self, now: float) -> Fault | None:
        """All processes live: one that is silent, one that is slow, or nothing that goes on."""
        signs, step = self.signs, self.signs.steps
        here = [seat for seat in self.seats.values() if seat.attempt == self.order.attempt]
        if stopped := [one for seat in here for one in seat.stopped if one[1] >= STOPPED_SECONDS]:
            rank, seconds = max(stopped, key=lambda one: one[1])
            return Fault(
                "freeze", "its process is stopped", step, now - seconds, rank, self.nodes_of(rank)
            )
        rank = signs.silent(now)
        rank = signs.stuck(now) if rank is None else rank
        if rank is not None and any(
            now - seat.heard > AGENTS_SECONDS
            for seat in self.seats.values()
            if seat.name in self.nodes_of(rank)
        ):
            return None  # nobody speaks for it: its agent or node is the question
        if rank is not None and (rank < 0 or now - signs.heard[rank] < MISSED_SECONDS):
            why = f"every rank lives and no step was done for {now - signs.moved:.1f} s"
            return Fault(
                "collective",
                why,
                step,
                signs.moved,
                None if rank < 0 else rank,
                self.nodes_of(rank),
            )
        if rank is not None:
            why = f"its process lives and says nothing for {now - signs.heard[rank]:.1f} s"
            return Fault("freeze", why, step, float(signs.heard[rank]), rank, self.nodes_of(rank))
        if (rank := signs.slow()) is not None:
            why = f"a step takes {signs.recent[-1]:.2g} s instead of {signs.step_seconds():.2g} s, and all others wait for it"
            return Fault("slow", why, step, now, rank, self.nodes_of(rank))
        return None

    def _decide(self, now: float, fault: Fault, lost: bool = False) -> list[Row]:
        """Write a fault down and what is done about it."""
        self.times[fault.kind, fault.step] += 1
        times = self.times[fault.kind, fault.step]
        self.open = (min(fault.sign, self.open[0]) if self.open else fault.sign, now)
        rows, most = [fault.row(now)], MOST_WAITS if fault.kind == "disk" else MOST_TIMES
        if times >= most:
            why = f"{fault.kind} {times} times at step {fault.step}: {fault.why}"
            code = next(
                (death[1] for seat in self.seats.values() for death in seat.dead if death[1]), 1
            )
            return [*rows, self._decided("give_up", why, self.order.attempt), *self._end(code)]
        if fault.kind == "disk":
            pause = WAIT_SECONDS * 2 ** (times - 1)
            rows.append(
                self._decided("wait", f"{pause:.0f} s for room on the disk, then it goes on")
            )
            self._stop(now)
            self.state, self.until = "wait", now + pause
            return rows
        self.slow.update(fault.nodes if fault.kind == "slow" else ())
        again = any(self.slow[node] > 1 for node in fault.nodes)
        if self.elsewhere and (lost or fault.kind == "node" or (fault.kind == "slow" and again)):
            self.avoid += [node for node in fault.nodes if node not in self.avoid]
            return rows + self._elsewhere(now, fault.why)
        if fault.kind in ("agent", "node"):
            self.missing = True
            self.seats = {
                name: seat
                for name, seat in self.seats.items()
                if seat.lost or name not in fault.nodes
            }
        rows.append(self._decided("restart", f"{fault.kind}: from the newest state that is whole"))
        self._stop(now)
        return rows + self._gathered(now)

    def _elsewhere(self, now: float, why: str) -> list[Row]:
        """Let the engine start the job again, without the nodes to avoid."""
        row = self._decided("resubmit", why)
        self.order = replace(self.order, verb="stop")
        self.seats, self.missing = {}, False
        self._gather(now)
        return [row]

    def _resize(self, now: float, ranks: int) -> list[Row]:
        """Another number of ranks: a last checkpoint, then a new attempt."""
        row = self._decided("resize", f"from {self.world} to {ranks} ranks, as was wished") | {
            "world": ranks
        }
        self.order = replace(self.order, verb="save-and-stop")
        self.world = ranks
        self.state, self.since, self.open = "save", now, (now, now)
        return [row]

    def _saved(self, now: float) -> list[Row]:
        """Whether all ranks took their last checkpoint and ended."""
        dead = [
            death
            for seat in self.seats.values()
            if seat.attempt == self.order.attempt
            for death in seat.dead
        ]
        if (
            len(dead) >= self.order.world
            or now - self.since > SAVE_SECONDS
            or any(code for _, code, _ in dead)
        ):
            if self.moves:
                return self._elsewhere(now, self.moves)
            self._stop(now)
            return self._gathered(now)
        return []

    # -- attempts --------------------------------------------------------------------------------------------------------------

    def _stop(self, now: float) -> None:
        """No ranks, until there is a new attempt."""
        self.order = replace(self.order, verb="stop")
        self._gather(now)

    def _gather(self, now: float) -> None:
        self.state, self.since, self.until, self.moves = "gather", now, 0.0, ""

    def _gathered(self, now: float) -> list[Row]:
        """Begin an attempt as soon as every agent is there; take over one that runs."""
        here = [
            seat
            for seat in self.seats.values()
            if now - seat.heard < AGENT_SECONDS and not seat.leaving
        ]
        newest = max((seat.start for seat in here), default=())
        here = sorted((seat for seat in here if seat.start == newest), key=lambda seat: seat.place)
        if len(here) < self.layout.nodes:
            return self._incomplete(now, here)
        if not all(seat.pid and seat.master for seat in here):
            return []
        running = {(seat.attempt, seat.world) for seat in here}
        if (
            self.adopts
            and len(running) == 1
            and here[0].attempt >= max(1, self.order.attempt)
            and here[0].verb == "run"
        ):
            self._adopt(now, here)
            return []
        if bad := unfit({seat.name: seat.health for seat in here}) if self.elsewhere else {}:
            return self._left_out(now, bad) + self._elsewhere(now, f"without {', '.join(bad)}")
        self._begin(now, here)
        return []

    def _incomplete(self, now: float, here: list[Seat]) -> list[Row]:
        """Agents are missing: they come, or the job must go elsewhere."""
        patience = COMEBACK_SECONDS if self.missing else GATHER_SECONDS
        if now - self.since < patience or not (self.missing or self.seats):
            return []
        gone = [seat.name for seat in self.seats.values() if seat not in here]
        self.avoid += [node for node in gone if node not in self.avoid]
        why = f"{len(here)} of {self.layout.nodes} agents are there after {now - self.since:.0f} s"
        if self.elsewhere:
            return self._elsewhere(now, why)
        return [self._decided("give_up", why, self.order.attempt), *self._end(1)]

    def _left_out(self, now: float, bad: dict[str, str]) -> list[Row]:
        """Leave out nodes that are not fit, from the next start of the job on."""
        rows = []
        for node, why in bad.items():
            rows.append(Fault("node", why, self.signs.steps, now, nodes=(node,)).row(now))
            self.avoid += [node] if node not in self.avoid else []
            rows.append(self._decided("drain", why))
        return rows

    def _begin(self, now: float, here: list[Seat]) -> None:
        """Order a new attempt."""
        attempt = 1 + max(self.order.attempt, *(seat.attempt for seat in here))
        used = next(count for count in range(len(here), 0, -1) if self.world % count == 0)
        each = self.world // used
        ranks = {seat.name: (each * i, each) for i, seat in enumerate(here[:used])}
        self.order = Order(attempt, "run", self.world, here[0].master, ranks)
        here[0].master = ""  # a port for one attempt; it tells another when it is asked
        self._run(now)

    def _adopt(self, now: float, here: list[Seat]) -> None:
        """Take over an attempt that runs."""
        self.world = here[0].world
        ranks = {seat.name: seat.ranks for seat in here}
        self.order = Order(here[0].attempt, "run", self.world, "", ranks)
        self._run(now)

    def _run(self, now: float) -> None:
        self.state, self.since, self.until = "run", now, 0.0
        self.start = max((seat.start for seat in self.seats.values()), default=())
        self.adopts = self.missing = False
        for seat in self.seats.values():
            seat.lost = False
        usual = (
            [*self.signs.usual, *self.signs.recent] if self.signs.world == self.world else []
        )  # more ranks, other steps
        self.signs = RankTable(now, self.world, usual)

    def _end(self, code: int) -> list[Row]:
        self.order, self.code, self.state, self.adopts = (
            replace(self.order, verb="end", code=code),
            code,
            "over",
            False,
        )
        return []

    # -- rows ------------------------------------------------------------------------------------------------------------------

    def _decided(self, action: Action, why: str, attempt: int | None = None) -> Row:
        said = {
            "attempt": self.order.attempt + 1 if attempt is None else attempt,
            "world": self.world,
            "avoid": list(self.avoid),
        }
        return {"event": "decided", "action": action, **said, "why": why}

    def _resumed(self, now: float, sign: float, found: float) -> Row:
        said = {"attempt": self.order.attempt, "step": self.signs.steps}
        return {
            "event": "resumed",
            **said,
            "seconds": round(now - sign, 2),
            "detection_seconds": round(found - sign, 2),
        }

    def nodes_of(self, rank: int) -> tuple[str, ...]:
        """The node of a rank; none when it is not placed."""
        return tuple(
            node
            for node, (first, count) in self.order.ranks.items()
            if first <= rank < first + count
        )


def _named(death: list[Any]) -> Kind | None:
    """What a rank said of its own end, where that has a name."""
    _, code, why = death
    if code == DiskError.exit_code:
        return "disk"
    return why["kind"] if why and code < 128 and why["kind"] in ("nan", "spike", "disk") else None


def _follows(death: list[Any]) -> bool:
    """Whether a rank ended because another had: then it gives no reason."""
    _, code, why = death
    return (
        code == ABORTED
        or (code == TrainError.exit_code and why is None)
        or bool(why and MEET in why["why"])
    )


def format_row(row: Mapping[str, Any]) -> str:
    """A row of watch.jsonl as a line for people."""
    if row["event"] == "fault":
        rank = "" if row["rank"] is None else f", rank {row['rank']}"
        node = "" if row["node"] is None else f", node {row['node']}"
        return f"fault: {row['kind']}{rank}{node}, step {row['step']}: {row['why']}"
    if row["event"] == "decided":
        avoid = f", without {', '.join(row['avoid'])}" if row["avoid"] else ""
        return f"decided: {row['action']}, attempt {row['attempt']}, {row['world']} ranks{avoid}: {row['why']}"
    if row["event"] == "resumed":
        seen = f"{row['seconds']:.1f} s after the fault, which was seen after {row['detection_seconds']:.1f} s"
        return f"resumed: attempt {row['attempt']}, step {row['step']}, {seen}"
    return f"watch: {row['state']}, attempt {row['attempt']}"
