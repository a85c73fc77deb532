"""SLU-F1: entities compared by word and character distance.

Bastianelli et al. 2020 (SLURP), section 5; scripts/evaluation of github.com/pswietojanski/slurp at
8eb1654.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Entity = tuple[str, str]  # (type, filler)
Distance = Callable[[str, str], float]


@dataclass
class _Confusion:
    """Sums over both distances; a near filler counts in parts."""

    hits: float = 0.0
    false_positives: float = 0.0
    false_negatives: float = 0.0

    def f1(self) -> float:
        precision = _share(self.hits, self.false_positives)
        recall = _share(self.hits, self.false_negatives)
        if not precision + recall:
            return 0.0
        return 2 * precision * recall / (precision + recall)


def _share(hits: float, misses: float) -> float:
    if hits + misses:
        return hits / (hits + misses)
    return 0.0


def slu_f1(pairs: Iterable[tuple[Sequence[Entity], Sequence[Entity]]]) -> float:
    """Return SLU-F1 of (gold, predicted) entities: word-F1 and char-F1 added up, micro average.

    An entity of the right type is a hit; its distance to the nearest gold filler counts as false
    positive and as false negative: the word error rate in one matrix, the normalized Levenshtein
    distance in the other.
    """
    counts = _Confusion()
    pairs = list(pairs)
    for distance in (_word_distance, _char_distance):
        for gold, predicted in pairs:
            _count(gold, predicted, distance, counts)
    return counts.f1()


def _count(
    gold: Sequence[Entity], predicted: Sequence[Entity], distance: Distance, counts: _Confusion
) -> None:
    left = list(gold)
    for kind, filler in predicted:
        of_kind = [entity for entity in left if entity[0] == kind]
        if not of_kind:
            counts.false_positives += 1
            continue
        distances = [distance(entity[1], filler) for entity in of_kind]
        nearest = distances.index(min(distances))
        counts.hits += 1
        counts.false_positives += distances[nearest]
        counts.false_negatives += distances[nearest]
        left.remove(of_kind[nearest])
    counts.false_negatives += len(left)


def _word_distance(truth: str, given: str) -> float:
    words = truth.split()
    return levenshtein(words, given.split()) / max(1, len(words))


def _char_distance(truth: str, given: str) -> float:
    return levenshtein(truth, given) / max(1, len(truth), len(given))


def levenshtein(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and substitutions that turn one into the other."""
    row = list(range(len(other) + 1))  # distances of an empty `one`
    for i, left in enumerate(one, start=1):
        diagonal = row[0]
        row[0] = i
        for j, right in enumerate(other, start=1):
            substituted = diagonal + (left != right)
            diagonal = row[j]
            row[j] = min(row[j] + 1, row[j - 1] + 1, substituted)
    return row[-1]
