"""Clauses: a sentence cut into its commands (`close the garage and turn the hall light off`).

A cut is made only where a command stands on either side; every other `and` joins two things.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tumen.assistant.modifiers.marks import marks_of, without_marks
from tumen.assistant.modifiers.phrases import (
    alternatives,
    inline_table,
    listed,
    pattern_of,
    script_of,
    words_of,
)
from tumen.core.errors import InputError
from tumen.home import common_words
from tumen.language import normalise

MAX_CLAUSES = 4
"""The most commands of one sentence."""

_COMMA = ","
# a comma inside a number is no end of a clause
_PUNCTUATION = re.compile(r"(?<!\d)[,;.!?]+|[,;.!?]+(?!\d)|[，；。！？、]+")


@dataclass(frozen=True)
class Clause:
    """One command of a sentence.

    Attributes:
        said: its words, normalised.
        joined: what joins it to the one before: `and`, `but`, or `,` for a mark of punctuation.
    """

    said: str
    joined: str = ""

    @property
    def after_but(self) -> bool:
        """Whether what the clauses before it say does not hold for it."""
        return self.joined in words_of(script_of(self.said), "but")

    @property
    def in_order(self) -> bool:
        """Whether it is said to come after the one before it (`and then`)."""
        return self.joined in words_of(script_of(self.said), "in_order")


def clauses_of(sentence: str) -> tuple[Clause, ...]:
    """Return the commands of a sentence in their order, at least one.

    Args:
        sentence: as it was said or typed.

    Raises:
        InputError: the sentence is empty or too long, or has more than `MAX_CLAUSES` commands.
    """
    whole = normalise(sentence)
    script = script_of(whole)
    found: list[Clause] = []
    parts = list(_parts(sentence, script))
    for number, (joined, said) in enumerate(parts):
        # the first part has nothing to belong to
        if not found or _are_two_commands(found[-1].said, said, script):
            found.append(Clause(said, joined if found else ""))
        else:
            last = found[-1]
            joint = _joint(parts[number:])
            # without a space where the script has none
            said_together = normalise(f"{last.said} {joint} {said}")
            found[-1] = Clause(said_together, last.joined)
    if len(found) > MAX_CLAUSES:
        raise InputError(
            f"the sentence has {len(found)} commands, {MAX_CLAUSES} is the most; say fewer at once"
        )
    return tuple(found)


def segments_of(sentence: str) -> tuple[tuple[str, str], ...]:
    """Return the parts of a sentence between punctuation and joining words.

    Args:
        sentence: as it was said or typed.

    Returns:
        what joins each part to the one before it, and its words, normalised.
    """
    return tuple(_parts(sentence, script_of(normalise(sentence))))


def marks_in(sentence: str) -> list[dict[str, str]]:
    """Return what a sentence says about its acts, as plain data: `kind` and `words`, and `about`.

    For programs that act on what a model reads: `don't unlock the door` is no act, whatever the
    model makes of it, and `at ten` is none for now.

    Args:
        sentence: as it was said or typed.

    Raises:
        InputError: the sentence is empty or too long.
    """
    try:
        clauses = [clause.said for clause in clauses_of(sentence)]
    except InputError:
        # more commands than are done at once, all of which may have marks
        clauses = [normalise(sentence)]
    found = []
    for said in clauses:
        for mark in marks_of(said):
            plain = {"kind": mark.kind, "words": mark.words}
            found.append(plain | ({"about": mark.about} if mark.about else {}))
    return found


def command_words(said: str) -> list[tuple[int, int]]:
    """Return (start, end) of the words that make a sentence a command and name nothing."""
    script = script_of(said)
    found = []
    for words in ("verbs", "closing_words", "before_verbs", "between", "but"):
        found += [match.span() for match in pattern_of(script, words).finditer(said)]
    return found


def _joint(rest: Sequence[tuple[str, str]]) -> str:
    """Return the word that joins a part to what stands before it.

    Of `the lamp, the fan and the kettle` each comma is an `and`; any other says nothing.

    Args:
        rest: the part and those after it, each with what joins it.
    """
    joints = common_words().joints
    for joined, _ in rest:
        if joined == _COMMA:
            continue
        spaced = any(joined == joint.strip() for joint in joints)
        return joined if spaced or rest[0][0] == joined else ""
    return ""


def _parts(sentence: str, script: str) -> Iterator[tuple[str, str]]:
    """Yield the parts between punctuation and joining words, each with what joins it."""
    for mark, word in inline_table(script, "enumeration").items():
        sentence = sentence.replace(mark, word)
    for number, segment in enumerate(_PUNCTUATION.split(sentence)):
        try:
            said = normalise(segment)
        # nothing between two marks
        except InputError:
            continue
        joined = _COMMA if number else ""
        at = 0
        for match in _joints(said, script):
            before = said[at : match.start()].strip()
            if before:
                yield joined, before
                joined = match[0].strip()
            elif joined in ("", _COMMA):
                joined = match[0].strip()
            at = match.end()
        rest = _exception_first(said[at:].strip(), script)
        if rest:
            yield joined, rest


def _exception_first(said: str, script: str) -> str:
    """Return a part that ends as an exception in the form that begins as one (`吸顶灯除外`)."""
    for ending in words_of(script, "except_after"):
        if said.endswith(ending) and said != ending:
            before, after = listed(script, "except_around")
            return f"{before}{said.removesuffix(ending)}{after}"
    return said


def _joints(said: str, script: str) -> Iterator[re.Match[str]]:
    """Yield the words that may stand between two commands."""
    return _joint_pattern(script).finditer(said)


@cache
def _joint_pattern(script: str) -> re.Pattern[str]:
    """Return the pattern of words that may stand between two commands."""
    return re.compile(alternatives((*words_of(script, "between"), *words_of(script, "but"))))


def _are_two_commands(first: str, second: str, script: str) -> bool:
    """Whether two parts of a sentence can be commands of their own."""
    first = _bare(first, script)
    second = _bare(second, script)
    if _starts_as_command(second, script):
        return _starts_as_command(first, script) or _ends_as_command(first, script)
    # `turn the light and the fan on`: only the end of both would tell
    return _ends_as_command(second, script) and _ends_as_command(first, script)


def _starts_as_command(said: str, script: str) -> bool:
    """Whether words start with a verb."""
    return pattern_of(script, "verbs").match(said) is not None


def _ends_as_command(said: str, script: str) -> bool:
    """Whether words end like `hall light off`; a closing word alone names nothing."""
    ends = _closing(script).search(said)
    return ends is not None and ends.start() > 0


def _bare(said: str, script: str) -> str:
    """Return a part without times, exceptions and negations, and without small words before it."""
    return _without_small_words(without_marks(said, marks_of(said)), script)


def _without_small_words(said: str, script: str) -> str:
    """Return a part without the small words before its verb."""
    before = _small_words(script)
    rest = said
    match = before.match(rest)
    while match and match.end():
        rest = rest[match.end() :]
        match = before.match(rest)
    return rest


@cache
def _small_words(script: str) -> re.Pattern[str]:
    """Return the pattern of one small word before a verb."""
    return re.compile(rf"(?:{alternatives(words_of(script, 'before_verbs'))}) ?")


@cache
def _closing(script: str) -> re.Pattern[str]:
    """Return the pattern of a closing word at the end."""
    return re.compile(rf"(?:{alternatives(words_of(script, 'closing_words'))})$")
