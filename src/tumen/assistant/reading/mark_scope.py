"""Mark scope: which commands of a sentence a mark holds for, and which marks are no marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tumen.assistant.modifiers import Clause, Mark
from tumen.assistant.reading.grounding import FREE_TEXT, spans_of
from tumen.language import INTENTS, NUMBERS, Action, units

_SPREADING = ("every", "event", "condition")
"""Marks that hold for every command of a sentence, wherever they stand in it."""


def spread_to(number: int, marked: Sequence[tuple[Clause, Sequence[Mark]]]) -> list[Mark]:
    """Return the marks of other clauses that hold for one.

    `if it rains close the windows and the awning`: the condition is about both. `don't open the
    door or the window`: so is the negation. After `but` nothing of that holds.

    Args:
        number: the clause.
        marked: all clauses with their own marks.
    """
    spread: list[Mark] = []
    for other, (clause, marks) in enumerate(marked):
        if other == number or _is_cut_between(marked, min(other, number), max(other, number)):
            continue
        follows = other == number - 1 and _only_and(marked[number][0])
        for mark in marks:
            first = other < number and _stands_first(clause.said, mark)
            if _holds_for_others(mark, follows, first):
                spread.append(replace(mark, spans=()))
    return spread


def _holds_for_others(mark: Mark, follows: bool, first: bool) -> bool:
    """Whether a mark holds for another clause as well.

    Args:
        mark: a mark of one clause.
        follows: whether the other clause follows it on a bare `and`.
        first: whether the mark stands at the start, before both.
    """
    if mark.kind in _SPREADING:
        return True
    if mark.kind == "negative":
        return follows
    return first and mark.kind in ("moment", "vague")


def _is_cut_between(marked: Sequence[tuple[Clause, Sequence[Mark]]], first: int, last: int) -> bool:
    """Whether a `but` stands between two clauses."""
    return any(clause.after_but for clause, _ in marked[first + 1 : last + 1])


def _only_and(clause: Clause) -> bool:
    """Whether a clause follows on a bare `and`, without a pause."""
    return clause.joined != "," and not clause.in_order


def _stands_first(said: str, mark: Mark) -> bool:
    """Whether a mark stands at the start of its clause."""
    return bool(mark.spans) and not said[: mark.spans[0][0]].strip()


def is_content(said: str, action: Action, mark: Mark) -> bool:
    """Whether the words of a mark are content of the act: `add "don't panic" to my list`.

    Such words stand in a slot that holds any words, after the command. A number after `at` may be
    a value (`the volume at eight`), and a timer's time is its length.
    """
    if not mark.spans:
        return False
    start, end = mark.spans[0][0], mark.spans[-1][1]
    taken = _slots_in_characters(said, action)
    is_timer = "Timer" in action.intent
    later = is_timer and "command" in action.slots
    # `a timer for five minutes`
    if is_timer and not later and mark.kind in ("lasting", "moment"):
        return True
    for slot, first, last in taken:
        inside = 0 < first <= start and end <= last
        # `in five minutes turn the light off` is an act for later, whoever reads it
        if slot in FREE_TEXT and inside and not (slot == "command" and later):
            return True
    return bool(mark.moment and mark.moment.weak) and _may_be_a_value(action, taken, start, end)


def _may_be_a_value(
    action: Action, taken: Sequence[tuple[str, int, int]], start: int, end: int
) -> bool:
    """Whether a number at some characters may be the value that an act needs.

    Args:
        action: what was understood.
        taken: its slots with their characters.
        start: the first character of the number.
        end: the character after it.
    """
    values = NUMBERS & frozenset(INTENTS[action.intent])
    held = [(first, last) for slot, first, last in taken if slot in values]
    if not values:
        return False
    # without any value this number is the value
    return not held or any(first < end and start < last for first, last in held)


def _slots_in_characters(said: str, action: Action) -> list[tuple[str, int, int]]:
    """Return the copied slots of an action with their first character and the one after."""
    pieces = units(said)
    found = []
    for span in spans_of(pieces, action):
        start = len("".join(pieces[: span.start]).strip())
        end = len("".join(pieces[: span.end]).strip())
        found.append((span.slot, start, end))
    return found
