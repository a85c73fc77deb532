"""Days of failures at 10,000 accelerators, played event by event.

Does the goodput report of a run say what its plan had said?

    python benchmarks/failure_day.py [--days 60] [--accelerators 10000]
        [--out benchmarks/results/failure_day.json]

Simulated: no process is started. Faults come at Llama 3's rate and in its mixture of causes (arXiv
2407.21783, table 5: 419 unexpected in 54 days on 16,384 cards), each is seen after what its kind
takes by the watcher's rules, ranks start again from the newest copy or save there is, and what
happened is written as the rows a run and its watcher write. The goodput report reads those rows
alone; the plan knows means alone. Each line is one way to heal, with the seconds it assumes.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import circumstances, headline, table, write

from tumen.cluster import GoodputReport, goodput_of_events
from tumen.plan import reliability
from tumen.recipe import Planning

DAY = 86400.0
LLAMA3_A_DAY = 419 / 54 / 16_384  # unexpected interruptions of a card and day
CAUSES = {  # what the watcher sees of it: causes and counts of the same table
    "crash": 148
    + 72
    + 54
    + 19
    + 17
    + 2
    + 2,  # GPUs, their memories and processors; software; dependencies; memory: ranks die
    "node": 32
    + 3
    + 3
    + 2
    + 2
    + 2,  # maintenance, disks, power, chassis, boards, CPUs: the host is gone
    "collective": 35
    + 7
    + 7,  # switches, cables, network cards, watchdog timeouts: all alive, no step
    "freeze": 6 + 6,  # heat, wrong results: one rank does not answer
}
PARAMETERS, STEP_SECONDS, NODE = 236e9, 3.4, 8  # recipes/fleet-10k.toml as `tumen plan` plans it


@dataclass(frozen=True)
class Healing:
    """One way to heal: seconds until a fault of each kind is seen, until work goes on, and of a
    copy in memory (None: none)."""

    name: str
    seen_seconds: dict[str, float]
    restart_seconds: float
    copy_seconds: float | None = None

    def planning(self, cards: int) -> Planning:
        """What the plan is told of it: means, no kinds."""
        mean = sum(self.seen_seconds[kind] * count for kind, count in CAUSES.items()) / sum(
            CAUSES.values()
        )
        return Planning(
            failures=LLAMA3_A_DAY * NODE * 1000,
            software_failures=0,
            detect_seconds=mean,
            restart_seconds=self.restart_seconds,
            replica_seconds=self.copy_seconds,
            stragglers=0,
        )


SILENT = max(3 * STEP_SECONDS, 5.0)  # the watcher's patience
WATCHED = {"crash": 1.0, "node": SILENT, "collective": SILENT, "freeze": SILENT}
ON_CALL = dict.fromkeys(CAUSES, 120.0)
WAYS = (
    Healing("the plan's defaults, disk alone", ON_CALL, 480),
    Healing("watched, disk alone", WATCHED, 60),
    Healing("watched, copies in memory", WATCHED, 60, 0.5),
    Healing("watched, copies, slow restart", WATCHED, 180, 0.5),
)


class Run:
    """A run that is played: its clock, its steps, the newest step on disk and in memory, and the
    rows it writes."""

    def __init__(self, way: Healing, cards: int, days: float, seed: int) -> None:
        self.way, self.cards, self.end, self.draw = way, cards, days * DAY, random.Random(seed)
        self.plan = reliability(cards, NODE, PARAMETERS, way.planning(cards))
        self.now, self.step, self.saved, self.copied = 0.0, 0, 0, 0
        self.attempt, self.fault = 1, self._next()

    def _next(self) -> float:
        return self.now + self.draw.expovariate(LLAMA3_A_DAY * self.cards / DAY)

    def rows(self) -> Iterator[dict[str, Any]]:
        """What the run and its watcher write."""
        yield self._watch("watch", state="started", attempt=0)
        yield from self._start()
        save, every = (
            self.plan.save_seconds,
            max(1, round(self.plan.save_every_seconds / STEP_SECONDS)),
        )
        copy, copies = (
            self.way.copy_seconds,
            max(1, round(self.plan.replica_every_seconds / STEP_SECONDS)),
        )
        while self.now < self.end:
            yield from self._work(STEP_SECONDS, "step")
            if copy and self.step % copies == 0:
                yield from self._work(copy, "copy")
            if self.step % every == 0:
                yield from self._work(save, "checkpoint")

    def _work(self, seconds: float, what: str) -> Iterator[dict[str, Any]]:
        """A step, a copy or a save, or the fault that comes before its end."""
        if self.now + seconds > self.fault:
            self.now = self.fault
            yield from self._heal()
            return
        self.now += seconds
        if what == "step":
            self.step += 1
            yield self._ran("step", step=self.step, step_seconds=STEP_SECONDS)
        else:
            self.copied = self.step
            self.saved = self.step if what == "checkpoint" else self.saved
            yield self._ran("checkpoint", step=self.step, seconds=seconds)

    def _heal(self) -> Iterator[dict[str, Any]]:
        kind = self.draw.choices(list(CAUSES), list(CAUSES.values()))[0]
        silent = self.way.seen_seconds[kind] * self.draw.uniform(0.5, 1.5)
        self.now, self.attempt = self.now + silent, self.attempt + 1
        yield self._watch("fault", kind=kind, step=self.step, silent_seconds=silent)
        yield self._watch("decided", action="restart", attempt=self.attempt, world=self.cards)
        self.fault = self._next()
        lost = not self.way.copy_seconds or self.draw.random() < Planning().replicas_lost
        self.step = self.saved if lost else self.copied
        yield from self._start()

    def _start(self) -> Iterator[dict[str, Any]]:
        seconds = self.way.restart_seconds * self.draw.uniform(0.7, 1.3)
        if self.now + seconds > self.fault:  # it fails again while it starts
            self.now = self.fault
            yield from self._heal()
            return
        self.now += seconds
        yield self._ran("train", step=self.step)

    def _ran(self, event: str, **facts: Any) -> dict[str, Any]:
        return {"time": self.now, "by": "run", "event": event, **facts}

    def _watch(self, event: str, **facts: Any) -> dict[str, Any]:
        return {"time": self.now, "by": "watch", "event": event, **facts}


def played(way: Healing, cards: int, days: int, seed: int = 0) -> tuple[list[GoodputReport], float]:
    """The goodput report of each of some days, and the goodput the plan expects."""
    runs = [Run(way, cards, 1, seed + day) for day in range(days)]
    return [goodput_of_events(run.rows(), cards) for run in runs], runs[0].plan.goodput


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--accelerators", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = circumstances(["numpy"]) | {
        "simulated": True,
        "days": given.days,
        "cards": given.accelerators,
        "ways": {},
    }
    for way in WAYS:
        books, expected = played(way, given.accelerators, given.days)
        total = sum(sum(book.accelerator_seconds.values()) for book in books)
        shares = {
            part: sum(book.accelerator_seconds[part] for book in books) / total
            for part in books[0].accelerator_seconds
        }
        days = [book.goodput for book in books]
        result["ways"][way.name] = {
            "restart_seconds": way.restart_seconds,
            "faults_a_day": sum(sum(book.faults.values()) for book in books) / len(books),
            "planned": expected,
            "goodput": shares["productive"],
            "worst_day": min(days),
            "median_day": statistics.median(days),
            "shares": shares,
        }
    print(headline(result))
    head = [
        "way",
        "restart",
        "faults a day",
        "plan",
        "goodput",
        "apart",
        "worst day",
        *list(shares)[1:],
    ]
    rows = []
    for name, one in result["ways"].items():
        apart = 100 * (one["goodput"] - one["planned"])
        cells = [
            f"{one['planned']:.2%}",
            f"{one['goodput']:.2%}",
            f"{apart:+.2f}",
            f"{one['worst_day']:.2%}",
        ]
        others = [f"{share:.2%}" for share in list(one["shares"].values())[1:]]
        rows.append(
            [name, f"{one['restart_seconds']:g} s", f"{one['faults_a_day']:.1f}", *cells, *others]
        )
    print(table(head, rows))
    write("failure_day", result, given.out)


if __name__ == "__main__":
    main()
