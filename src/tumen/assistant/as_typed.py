"""As typed: copied words as they stand in the sentence that was typed.

A sentence is normalised before a model reads it: lower case, no quotes, other spaces. What is
written to a list or said to people are the words as they were typed, with capitals and marks. They
are found by position: letters and digits are the same in both forms, in the same order.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from tumen.language import units

_Chars = list[tuple[str, int]]
"""Letters and digits of a text with the places where they stand."""


def typed_spans(typed: str, said: str, run: str) -> list[tuple[int, int]]:
    """Return where copied words stand in a sentence as it was typed: (start, end) in characters.

    Args:
        typed: the sentence.
        said: the same, normalised.
        run: words that were copied from it.

    Returns:
        Every place, from left to right.
    """
    letters = _letters(typed)
    copied = _letters(said)
    if [char for char, _ in letters] != [char for char, _ in copied]:
        return []
    found = []
    for start, end in _places(said, run):
        inside = [at for at, (_, place) in enumerate(copied) if start <= place < end]
        if inside:
            first = letters[inside[0]][1]
            last = letters[inside[-1]][1] + 1
            found.append(_with_marks(typed, first, last, run))
    return found


def as_typed(typed: str, said: str, run: str) -> str:
    """Return copied words as they were typed; as they are if they do not stand in the sentence.

    Spaces count as one, and characters that cannot be seen as spaces.
    """
    spans = typed_spans(typed, said, run)
    if not spans:
        return run
    start, end = spans[0]
    seen = [char if char.isprintable() else " " for char in typed[start:end]]
    return " ".join("".join(seen).split())


def _letters(text: str) -> _Chars:
    """Return the letters and digits of a text in their compatible lower form, with their places."""
    found: _Chars = []
    for at, cluster in _clusters(text):
        for char in unicodedata.normalize("NFKC", cluster).lower():
            if char.isalnum():
                found.append((char, at))
    return found


def _clusters(text: str) -> list[tuple[int, str]]:
    """Return each character with the marks that combine with it, and its place."""
    found: list[tuple[int, str]] = []
    for at, char in enumerate(text):
        if found and unicodedata.combining(char):
            found[-1] = (found[-1][0], found[-1][1] + char)
        else:
            found.append((at, char))
    return found


def _places(said: str, run: str) -> list[tuple[int, int]]:
    """Return where words stand in a normalised sentence as whole units: (start, end)."""
    places = []
    at = 0
    for unit in units(said):
        word = unit.strip()
        begin = said.index(word, at)
        at = begin + len(word)
        places.append((begin, at))
    return [
        (places[first][0], places[first + count - 1][1])
        for first, count in _runs([unit.strip() for unit in units(said)], run)
    ]


def _runs(words: Sequence[str], run: str) -> list[tuple[int, int]]:
    """Return (number of the first unit, number of units) of each place of a run."""
    wanted = [unit.strip() for unit in units(run)]
    if not wanted:
        return []
    last = len(words) - len(wanted)
    return [
        (first, len(wanted))
        for first in range(last + 1)
        if list(words[first : first + len(wanted)]) == wanted
    ]


def _with_marks(typed: str, first: int, last: int, run: str) -> tuple[int, int]:
    """Return a span with the marks that its combining characters and its ends (`%`, `$`) have."""
    while last < len(typed) and unicodedata.combining(typed[last]):
        last += 1
    compact = "".join(run.split())
    letters = [at for at, char in enumerate(compact) if char.isalnum()]
    before = compact[: letters[0]]
    after = compact[letters[-1] + 1 :]
    left = typed[:first].rstrip()
    if before and left.endswith(before):
        first = len(left) - len(before)
    right = typed[last:].lstrip()
    if after and right.startswith(after):
        last = len(typed) - len(right) + len(after)
    return first, last
