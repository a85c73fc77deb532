"""Typos: the words of a home that a misspelt word may be."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process
from rapidfuzz.distance import OSA

SHORTEST = 5
"""Letters from which on a word may have a typo; one slip makes a shorter word another word."""

_LONG = 10  # letters from which on two slips are allowed


def nearest_words(word: str, vocabulary: Iterable[str]) -> list[str]:
    """Return the words with the fewest slips from a word, none beyond the bound.

    A slip is a wrong, missing, additional or swapped letter (optimal string alignment distance).
    Words of 5 to 9 letters may have one, longer ones two. The first letter must be right.

    Args:
        word: a folded word.
        vocabulary: the words it may have meant.
    """
    bound = 1 if len(word) < _LONG else 2
    # the first letter is right, which leaves few words of a home with thousands
    candidates = [known for known in vocabulary if known[0] == word[0]]
    found = process.extract(word, candidates, scorer=OSA.distance, score_cutoff=bound, limit=None)
    if not found:
        return []
    # the nearest come first
    _, fewest, _ = found[0]
    return [known for known, slips, _ in found if slips == fewest]


def by_first_letter(vocabulary: Iterable[str]) -> dict[str, list[str]]:
    """Return words by their first letter, which a misspelt word has right."""
    found: dict[str, list[str]] = {}
    for word in vocabulary:
        found.setdefault(word[0], []).append(word)
    return found


def without_umlaut_letters(word: str) -> str:
    """Return `kuche` for `kueche`: umlauts that were typed as two letters."""
    return word.replace("ae", "a").replace("oe", "o").replace("ue", "u")
