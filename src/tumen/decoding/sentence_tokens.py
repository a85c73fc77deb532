"""The words of a sentence as tokens: where copied runs may begin and end, which ones are names.

A request may say which words name a thing or a place of the home. A slot that holds names does not
cut them, and a model is nudged to open such a slot and to begin and end its run at their borders:
`PREFERENCE` is added to those logits, so that a model that is sure of other words still writes
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

Tokenize = Callable[[str], Sequence[int]]  # text inside a longer text -> token ids
# (first unit, unit after the last, slots that may hold these words)
Name = tuple[int, int, Collection[str]]
NAMING = frozenset(("name", "area"))  # slots that hold names
# Nats. The gain grew up to here on held-out sentences over known homes (docs/log.md, 2026-12-01).
PREFERENCE = 8.0  # for a border of a name
OPENING = 3.0  # for a slot that a name still waits for


class NamedRun(NamedTuple):
    """A name of the home in the sentence, by indices into its tokens."""

    start: int
    end: int
    slots: frozenset[str]


@dataclass(frozen=True)
class SentenceTokens:
    """The words of a sentence that may be copied, as tokens; see `of`.

    Attributes:
        tokens: of all units in a row.
        starts: indices into `tokens` where a copied run may begin: at a unit.
        ends: indices into `tokens` where it may end: after a unit.
        inside: indices into `tokens` between two units of one name.
        names: those that no slot holds yet.
    """

    tokens: Sequence[int]
    starts: tuple[int, ...]
    ends: frozenset[int]
    inside: frozenset[int]
    names: tuple[NamedRun, ...]

    @classmethod
    def of(
        cls, tokenize: Tokenize, units: Sequence[str], names: Sequence[Name] = ()
    ) -> SentenceTokens:
        """Return the tokens of a sentence.

        Args:
            tokenize: the vocabulary's tokenizer.
            units: of the sentence.
            names: what in it names a thing or a place of the home.
        """
        # Each unit by itself: the answer's tokens must be the same run as the sentence's.
        tokens: list[int] = []
        borders = [0]  # before each unit, and after the last
        for unit in units:
            tokens += tokenize(unit)
            borders.append(len(tokens))
        inside = {borders[place] for start, end, _ in names for place in range(start + 1, end)}
        runs = [NamedRun(borders[start], borders[end], frozenset(of)) for start, end, of in names]
        starts = tuple(borders[:-1])
        return cls(tokens, starts, frozenset(borders[1:]), frozenset(inside), tuple(runs))

    def starts_of(self, slot: str) -> tuple[int, ...]:
        """Return where a run of a slot may begin; where the slot holds names, not inside one."""
        if slot not in NAMING or not self.inside:
            return self.starts
        return tuple(start for start in self.starts if start not in self.inside)

    def may_end(self, slot: str, indices: Iterable[int]) -> bool:
        """Return whether a run of a slot may end at one of the indices."""
        ends = self.ends.intersection(indices)
        return bool(ends - self.inside if slot in NAMING else ends)

    def waits_for(self, slot: str) -> bool:
        """Return whether a name that no slot holds yet may stand in a slot."""
        return any(slot in name.slots for name in self.names)

    def first_tokens(self, slot: str) -> set[int]:
        """Return the first tokens of the names that a slot may hold."""
        return {self.tokens[name.start] for name in self.names if slot in name.slots}

    def ends_name(self, slot: str, indices: Collection[int]) -> bool:
        """Return whether a name that a slot may hold ends at one of the indices."""
        return any(slot in name.slots and name.end in indices for name in self.names)

    def after_run(self, indices: Collection[int]) -> SentenceTokens:
        """Return the same sentence without the names that end at one of the indices.

        A slot holds them now.
        """
        left = tuple(name for name in self.names if name.end not in indices)
        return self if len(left) == len(self.names) else replace(self, names=left)
