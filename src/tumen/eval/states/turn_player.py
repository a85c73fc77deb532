"""Play a row: its home, its clock, its turns through the assistant, and a verdict on each turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tumen.assistant import Interpretation, Session, Turn
from tumen.assistant.values import Values
from tumen.eval.states.expectation import changed_things, expectation_fault, without_momentary
from tumen.eval.states.happened import Happened, HomePicture
from tumen.eval.states.state_rows import StateRow, StateTurn
from tumen.home import Home

START = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)
"""Time of every home before its first turn: a Monday, six in the evening."""

Understand = Callable[[str], Interpretation]
Understanding = Callable[[Home, str], Understand]
"""Returns what understands the sentences of a row, from its home and its language."""


class SuiteClock:
    """A clock that only the suite moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the current time."""
        return self.now

    def wind(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class TurnResult:
    """The verdict on one turn.

    Attributes:
        exact: the outcome is one of those expected.
        wrong_device: something changed that no right outcome allows.
        acted: something changed.
        false_act: something changed although nothing should.
        asked: a question came back.
        crashed: it ended in an error instead of an answer.
        why: why it is not exact, one line.
        reply: what was answered.
        seconds: of the answer.
    """

    exact: bool
    wrong_device: bool = False
    acted: bool = False
    false_act: bool = False
    asked: bool = False
    crashed: bool = False
    why: str = ""
    reply: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Played:
    """What the assistant made of a turn.

    Attributes:
        happened: the changes.
        turns: of the assistant: commands of timers that ran out, then what was said.
        crash: one line if it raised.
        seconds: of the answer.
    """

    happened: Happened
    turns: tuple[Turn, ...]
    crash: str
    seconds: float

    @property
    def asked(self) -> bool:
        """Whether a question came back."""
        return any(part.question is not None for part in self._parts)

    @property
    def declined(self) -> bool:
        """Whether something was declined."""
        return any(part.refusal is not None or bool(part.error) for part in self._parts)

    @property
    def error(self) -> str:
        """The error that was answered or raised; empty if there was none."""
        return self.crash or next((part.error for part in self._parts if part.error), "")

    @property
    def reply(self) -> str:
        """Everything that was answered."""
        return " ".join(turn.reply for turn in self.turns)

    @property
    def _parts(self) -> list[Turn]:
        # a sentence with several commands has a turn for each
        return [part for turn in self.turns for part in (turn.parts or (turn,))]


def play_row(row: StateRow, understanding: Understanding, values: Values) -> list[TurnResult]:
    """Play the turns of a row in a home of its own, and judge each of them.

    Args:
        row: a row.
        understanding: opens what understands its sentences.
        values: the lexicon of the session.
    """
    clock = SuiteClock()
    tree = {**row.home, "timer": [*row.home.get("timer", ()), *_timer_blocks(row)]}
    home = Home.of(tree, clock)
    session = Session(home, understanding(home, row.lang), values)
    return [_judged(turn, _play(turn, session, home, clock)) for turn in row.turns]


def _timer_blocks(row: StateRow) -> list[dict[str, Any]]:
    """Return the timers of a row as a home file has them."""
    blocks = []
    for number, timer in enumerate(row.timers, 1):
        left = timer.get("left_seconds", timer["seconds"])
        block = {
            "id": timer.get("id", f"timer.{number}"),
            "name": timer.get("name") or "",
            "area": timer.get("area"),
            "seconds": timer["seconds"],
            "command": timer.get("command") or "",
        }
        if timer.get("paused"):
            block["left_seconds"] = left
        else:
            block["ends"] = START.timestamp() + left
        blocks.append(block)
    return blocks


def _play(turn: StateTurn, session: Session, home: Home, clock: SuiteClock) -> _Played:
    first = HomePicture.of(home)
    clock.wind(turn.wait_seconds)
    turns: list[Turn] = []
    crash = ""
    start = time.perf_counter()
    # whatever the assistant raises is its fault, and the rest of the suite goes on
    try:
        turns += session.due()
        if turn.say is not None:
            start = time.perf_counter()
            turns.append(session.say(turn.say))
    except Exception as error:
        crash = f"{type(error).__name__}: {error}".splitlines()[0]
    seconds = time.perf_counter() - start
    happened = Happened.between(first, HomePicture.of(home), clock.now.timestamp())
    return _Played(happened, tuple(turns), crash, seconds)


def _judged(turn: StateTurn, played: _Played) -> TurnResult:
    changed = changed_things(played.happened, turn.ignore)
    lasting = without_momentary(changed)
    expected = turn.expect
    wrong_device = false_act = False
    if expected is not None:
        allowed = {id_ for one in expected for id_ in one.allowed}
        wrong_device = bool(lasting - allowed)
        false_act = bool(lasting) and all(one.is_nothing for one in expected)
    why = _fault(turn, played, bool(lasting))
    return TurnResult(
        exact=not why,
        wrong_device=wrong_device,
        acted=bool(changed),
        false_act=false_act,
        asked=played.asked,
        crashed=bool(played.error),
        why=why,
        reply=played.reply,
        seconds=played.seconds,
    )


def _fault(turn: StateTurn, played: _Played, acted: bool) -> str:
    """Return why a turn is not right; an empty text if it is."""
    if played.crash:
        return played.crash
    if turn.or_answer and not acted and _answers(turn.or_answer, played):
        return ""
    # an error is an answer only where the row wants the sentence declined
    if played.error and turn.answer != "refuse":
        return played.error
    if turn.answer and not _answers(turn.answer, played):
        return "asked nothing" if turn.answer == "ask" else "declined nothing"
    if turn.reply is not None and not turn.reply.search(played.reply):
        return f"the reply {played.reply!r} has no {turn.reply.pattern!r}"
    return _home_fault(turn, played)


def _home_fault(turn: StateTurn, played: _Played) -> str:
    """Return why the home is not as any right outcome has it."""
    if turn.expect is None:
        return ""
    faults = [expectation_fault(one, played.happened, turn.ignore) for one in turn.expect]
    return "" if "" in faults else faults[0]


def _answers(answer: str, played: _Played) -> bool:
    return played.asked if answer == "ask" else played.declined
