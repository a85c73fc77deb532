"""Partition: a sentence of several commands, cut so that every part is read by its words.

Of the ways to cut a sentence between its commas and joining words, the one with the most parts
that are commands by themselves is taken: `the kettle and the lamp off` is one, `kettle on, lamp
off` two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tumen.assistant.interpretation import Interpretation
from tumen.assistant.resolution import Resolution
from tumen.language import Action


@dataclass(frozen=True)
class SpokenPart:
    """One act or question of a sentence.

    Attributes:
        said: the words it was read from.
        found: what the model made of them.
        action: the same with the names of the home.
        resolution: what that means in the home.
    """

    said: str
    found: Interpretation
    action: Action
    resolution: Resolution


def by_words(said: str, read: tuple[Action, Resolution]) -> SpokenPart:
    """Return an act that was read from the words alone."""
    action, resolution = read
    return SpokenPart(
        said, Interpretation(action, "words", "every word is known", 1.0), action, resolution
    )


Part = TypeVar("Part")
Segment = tuple[str, str]
"""What joins a part of a sentence to the one before it, and its words."""

JOINT = "&"
"""Stands for a comma between two things."""

_COMMA = ","


def best_partition(
    segments: Sequence[Segment], read: Callable[[str, Sequence[Part]], list[Part]], most: int
) -> list[Part]:
    """Return the parts of a sentence; none if some of its words are not read.

    Args:
        segments: the sentence, cut wherever it may be cut.
        read: returns the parts of some words after other parts; none if it cannot read them.
        most: the most commands of a sentence.
    """
    found: list[tuple[tuple[int, int], list[Part]]] = []

    def cut(start: int, groups: int, commas: int, parts: list[Part]) -> None:
        if start == len(segments):
            found.append(((groups, commas), parts))
            return
        if groups == most:
            return
        at_comma = start > 0 and segments[start][0] == _COMMA
        for end in range(start + 1, len(segments) + 1):
            more = read(_joined(segments[start:end]), parts)
            if more:
                cut(end, groups + 1, commas + at_comma, parts + more)

    cut(0, 0, 0, [])
    if not found:
        return []
    _, parts = max(found, key=lambda each: each[0])
    return parts


def _joined(segments: Sequence[Segment]) -> str:
    """Return segments as one clause; the word before the first one is left out."""
    words = [segments[0][1]]
    for joined, said in segments[1:]:
        words += [JOINT if joined == _COMMA else joined, said]
    return " ".join(words)
