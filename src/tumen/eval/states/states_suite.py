"""Suite `states`: play every row of a user's file, count the verdicts, show them as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.eval.states.state_rows import BrokenRow, StateRow, read_state_rows
from tumen.eval.states.turn_player import TurnResult, Understanding, play_row
from tumen.eval.statistics import percentile
from tumen.eval.suites import DialogueSuite

COUNTS = ("wrong_device", "acts", "false_acts", "asked", "crashed")
_TITLES = ("n", "exact %", "turns", "exact %", *(name.replace("_", " ") for name in COUNTS))


@dataclass
class StatesTally:
    """Counts of one group of rows.

    Attributes:
        n: rows.
        exact: rows of which every turn is exact.
        turns: turns of these rows.
        turns_exact: turns that are exact.
        counts: turns by `COUNTS`.
    """

    n: int = 0
    exact: int = 0
    turns: int = 0
    turns_exact: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    def add(self, results: Sequence[TurnResult]) -> None:
        """Count one row."""
        self.n += 1
        self.exact += all(result.exact for result in results)
        self.turns += len(results)
        for result in results:
            self.turns_exact += result.exact
            self.counts["wrong_device"] += result.wrong_device
            self.counts["acts"] += result.acted
            self.counts["false_acts"] += result.false_act
            self.counts["asked"] += result.asked
            self.counts["crashed"] += result.crashed

    def figures(self) -> dict[str, Any]:
        """Return the figures that are printed: `exact` and `turns_exact` are shares."""
        return {
            "n": self.n,
            "exact": _share(self.exact, self.n),
            "turns": self.turns,
            "turns_exact": _share(self.turns_exact, self.turns),
            **self.counts,
        }


def _share(count: int, n: int) -> float:
    return round(count / n, 4) if n else 0.0


def evaluate_states(data: Path, understanding: Understanding, values: Values) -> dict[str, Any]:
    """Play the rows of a file or folder; see `evaluate_rows`.

    Args:
        data: JSON lines, or a folder with `*.jsonl` files.
        understanding: opens what understands the sentences of a row.
        values: the lexicon of the sessions.

    Raises:
        InputError: there is no row.
    """
    return evaluate_rows("states", data, read_state_rows(data), understanding, values)


def evaluate_rows(
    name: str,
    data: Path,
    rows: Iterable[StateRow | BrokenRow],
    understanding: Understanding,
    values: Values,
) -> dict[str, Any]:
    """Play rows; return the object that `tumen eval` prints.

    Args:
        name: of the suite.
        data: where the rows are from.
        rows: each is played in a home of its own.
        understanding: opens what understands the sentences of a row.
        values: the lexicon of the sessions.

    Returns:
        Figures over all rows, the same under `by.lang` and `by.kind`, the number of `broken` rows,
        latencies in milliseconds, and under `faults` each broken row and each turn that is not
        exact, with file and line.

    Raises:
        InputError: there is no row.
    """
    total = StatesTally()
    groups: dict[str, dict[str, StatesTally]] = {"lang": {}, "kind": {}}
    faults: list[dict[str, Any]] = []
    seconds: list[float] = []
    broken = 0
    for row in rows:
        if isinstance(row, BrokenRow):
            broken += 1
            faults.append({"where": row.where, "why": row.why, "broken": True})
            continue
        results = play_row(row, understanding, values)
        for tally in (
            total,
            groups["lang"].setdefault(row.lang or "-", StatesTally()),
            groups["kind"].setdefault(row.kind or "-", StatesTally()),
        ):
            tally.add(results)
        faults += _turn_faults(row, results)
        seconds += [result.seconds for result in results]
    if not total.n and not broken:
        raise InputError(f"{data}: holds no row of the suite {name}")
    by = {
        kind: {group: tally.figures() for group, tally in sorted(tallies.items())}
        for kind, tallies in groups.items()
    }
    return {
        "suite": name,
        **total.figures(),
        "broken": broken,
        "latency_ms_p50": round(1000 * percentile(seconds, 0.5), 2),
        "latency_ms_p95": round(1000 * percentile(seconds, 0.95), 2),
        "by": by,
        "faults": faults,
    }


def _turn_faults(row: StateRow, results: Sequence[TurnResult]) -> Iterator[dict[str, Any]]:
    for number, (turn, result) in enumerate(zip(row.turns, results, strict=True), 1):
        if not result.exact:
            yield {
                "where": row.where,
                "id": row.id,
                "kind": row.kind,
                "turn": number,
                "say": turn.say,
                "why": result.why,
                "reply": result.reply,
                "wrong_device": result.wrong_device,
                "false_act": result.false_act,
                "crashed": result.crashed,
            }


def states_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result of the suite for people: one line for all rows and one for each group."""
    rows = [("all", result)]
    for group in ("lang", "kind"):
        rows += [(f"{group} {name}", figures) for name, figures in result["by"][group].items()]
    width = max(len(name) for name, _ in rows)
    widths = [max(6, len(title)) for title in _TITLES]
    heading = [f"{title:>{size}}" for title, size in zip(_TITLES, widths, strict=True)]
    yield "  ".join([" " * width, *heading])
    for name, figures in rows:
        cells = [f"{cell:>{size}}" for cell, size in zip(_cells(figures), widths, strict=True)]
        yield "  ".join([f"{name:<{width}}", *cells])
    yield (
        f"{result['broken']} broken rows; {result['latency_ms_p50']:.1f} ms median, "
        f"{result['latency_ms_p95']:.1f} ms 95%; --json lists every turn that is not exact"
    )
    for fault in result["faults"]:
        if fault.get("broken") or fault.get("crashed"):
            yield f"{fault['where']}: {fault['why']}"


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [
        str(figures["n"]),
        f"{100 * figures['exact']:.1f}",
        str(figures["turns"]),
        f"{100 * figures['turns_exact']:.1f}",
        *(str(figures[name]) for name in COUNTS),
    ]


SUITE = DialogueSuite(evaluate_states, states_lines)
