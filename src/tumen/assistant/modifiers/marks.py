"""Marks: the words of a clause that say not, except or later.

Marks are found in the words alone, whatever a model makes of them: a command that says `don't` must
not be done, however sure the model is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from tumen.assistant.modifiers.phrases import alternatives, numbered, pattern_of, script_of
from tumen.assistant.modifiers.times import Moment, moment_of
from tumen.home import common_words, split

_BLANK = "\u2205"  # no letter, so that words beside it still end there
_CUT = "\u2204"  # the same, and nothing reaches over it

WAITING = ("every", "event", "condition", "vague", "lasting")
"""Kinds of marks for later that no clock time stands for."""

NO_COMMAND = ("past", "told")
"""Kinds of what is told or asked for advice: `we painted the kitchen last summer`, `should i`."""


@dataclass(frozen=True)
class Mark:
    """Some words of a clause that change what is to be done.

    Attributes:
        kind: `negative`, `except`, `moment`, or one of `NO_COMMAND` and `WAITING`.
        spans: (start, end) of its characters in the clause.
        words: what was said.
        about: the words that an exception takes out.
        moment: when, for a moment.
    """

    kind: str
    spans: tuple[tuple[int, int], ...]
    words: str
    about: str = ""
    moment: Moment | None = None


def marks_of(said: str, names: Iterable[tuple[int, int]] = ()) -> list[Mark]:
    """Return the marks of a normalised clause.

    Args:
        said: the clause.
        names: (start, end) of what names a thing of the home: `Do not disturb` is a scene.
    """
    script = script_of(said)
    said_openly = _blanked(said, names)
    found: list[Mark] = []
    moment = moment_of(_without(said_openly, script, "not_later"), script)
    if moment:
        found.append(_moment_mark(said, moment))
        # an exception ends where a time begins
        said_openly = _blanked(said_openly, moment.spans, _CUT)
    exceptions = _exceptions(said_openly, said, script)
    found += exceptions
    rest = _blanked(said_openly, [span for mark in exceptions for span in mark.spans])
    found += _negatives(rest, script)
    found += _waiting(rest, script)
    return found


def without_marks(said: str, marks: Iterable[Mark]) -> str:
    """Return a clause without the words of its marks."""
    characters = list(said)
    for mark in marks:
        for start, end in mark.spans:
            characters[start:end] = " " * (end - start)
    return " ".join("".join(characters).split())


def _moment_mark(said: str, moment: Moment) -> Mark:
    """Return the mark of a moment."""
    words = " ".join(said[start:end] for start, end in moment.spans)
    return Mark("moment", moment.spans, words, moment=moment)


def _negatives(said: str, script: str) -> list[Mark]:
    """Return what says that something must not be done."""
    plain = _without(said, script, "not_negative")
    # `not so bright` is a wish
    plain = _complaints(script).sub(_blanks, plain)
    matches = pattern_of(script, "negative").finditer(plain)
    return [Mark("negative", (match.span(),), match[0]) for match in matches]


@cache
def _complaints(script: str) -> re.Pattern[str]:
    """Return the pattern of every complaint in a script."""
    return re.compile(alternatives(numbered(script, "complaints")))


def _waiting(said: str, script: str) -> list[Mark]:
    """Return what says that something is of another time or done only if it must."""
    found = []
    plain = _without(said, script, "not_later")
    # `make sure the door is locked` is a command
    wanted = pattern_of(script, "not_told").search(said)
    for kind in (*NO_COMMAND, *WAITING):
        if kind == "told" and wanted:
            continue
        for match in pattern_of(script, kind).finditer(plain):
            found.append(Mark(kind, (match.span(),), match[0]))
        # `every evening` is no evening any more
        plain = _blanked(plain, [mark.spans[0] for mark in found])
    return found


# -- exceptions ----------------------------------------------------------------------------------


def _exceptions(said: str, plainly: str, script: str) -> list[Mark]:
    """Return what is taken out of what is acted on; at most one.

    Args:
        said: the clause, with the names of things blanked out.
        plainly: the clause as it was said.
        script: the language with a script of its own, or empty.
    """
    match = pattern_of(script, "except").search(said)
    if match is None and _says_all(said):
        match = pattern_of(script, "except_after_all").search(said)
    if match is None:
        return []
    end, after = _end_of_exception(said, match, script)
    about = plainly[match.end() : end].strip()
    if not about:
        return []
    return [Mark("except", ((match.start(), after),), plainly[match.start() : after], about)]


def _says_all(said: str) -> bool:
    """Whether a clause is about all of something."""
    words = common_words()
    return bool({*split(said)} & (words.all | words.everywhere))


def _end_of_exception(said: str, opening: re.Match[str], script: str) -> tuple[int, int]:
    """Return where the words of an exception end, and where what closes them ends.

    Args:
        said: the clause.
        opening: `except`.
        script: the language with a script of its own, or empty.
    """
    cut = said.find(_CUT, opening.end())
    last = len(said) if cut < 0 else cut
    closing = pattern_of(script, "except_end").search(said, opening.end() + 1, last)
    if closing:
        # `除了客厅以外都关掉`: 以外 goes with it, 都 says what is done with the rest
        together = pattern_of(script, "except_closing").match(said, closing.start())
        return closing.start(), together.end() if together else closing.start()
    # `except the hallway turn everything off`: the command begins after it
    if not said[: opening.start()].strip(f" {_BLANK}{_CUT}"):
        verb = pattern_of(script, "verbs").search(said, opening.end() + 1)
        if verb:
            return verb.start(), verb.start()
    return last, last


# -- blanking out --------------------------------------------------------------------------------


def _without(said: str, script: str, phrases: str) -> str:
    """Return a clause with the phrases of a list blanked out."""
    return pattern_of(script, phrases).sub(_blanks, said)


def _blanks(match: re.Match[str]) -> str:
    """Return as many blanks as a match is long."""
    return _BLANK * len(match[0])


def _blanked(said: str, spans: Iterable[tuple[int, int]], blank: str = _BLANK) -> str:
    """Return a clause with some characters blanked out; it keeps its length."""
    characters = list(said)
    for start, end in spans:
        characters[start:end] = blank * (end - start)
    return "".join(characters)
