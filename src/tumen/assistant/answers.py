"""Answers: which options of a question somebody means."""

from __future__ import annotations

from collections.abc import Sequence

from tumen.assistant.resolution import Question
from tumen.home import common_words, forms, split, spoken

_SHORTEST_PART = 4  # letters of a word that may be part of an option's word: `bath`, `Bathroom`
_FIRST_UNSPACED = "\u2e80"  # from here on characters are words, and one is enough


def options_meant(question: Question, said: str) -> tuple[int, ...]:
    """Return the numbers of the options that an answer means, counted from 0.

    An answer is a number, `both`, or words that fit one option alone.

    Args:
        question: the question with its options.
        said: the answer, normalised.

    Returns:
        the numbers; none if the answer is unclear.
    """
    count = len(question.options)
    if not count:
        return ()
    common = common_words()
    without_meaning = common.stops | common.answer_words
    words = [word for word in split(said) if word not in without_meaning]
    # a small word may be the whole answer: `both`, `one`
    spellings = {" ".join(words) or spoken(said), spoken(said)}
    if spellings & common.all:
        return tuple(range(count))
    # `the third` of two options means neither
    for number, ordinal in enumerate(common.ordinals[:count]):
        if spellings & ordinal:
            return (number,)
    if (" ".join(words) or spoken(said)) in common.last:
        return (count - 1,)
    return _options_with(question, words)


def _options_with(question: Question, words: Sequence[str]) -> tuple[int, ...]:
    """Return the one option whose label has all words; the label that is just these words wins."""
    fits = [number for number, option in enumerate(question.options) if _fits(words, option.label)]
    whole = "".join(words)
    exact = [n for n in fits if "".join(split(question.options[n].label)) == whole]
    # `lamp` is the lamp called so, not the red lamp
    fits = exact or fits
    return (fits[0],) if len(fits) == 1 else ()


def _fits(words: Sequence[str], label: str) -> bool:
    """Whether every word of an answer is in a label, plural and case aside."""
    if not words:
        return False
    pieces = split(label)
    known: set[str] = set()
    for piece in pieces:
        known |= {piece, *forms(piece)}
    whole = "".join(pieces)
    for word in words:
        if known & {word, *forms(word)}:
            continue
        shortest = 1 if word[0] > _FIRST_UNSPACED else _SHORTEST_PART
        # `bath` for the bathroom, 左 for 左边床头灯
        if len(word) < shortest or _without_ending(word) not in whole:
            return False
    return True


def _without_ending(word: str) -> str:
    """Return an answer without what closes it: `左边` for `左边那个`."""
    bare = word
    for ending in common_words().answer_endings:
        bare = bare.removesuffix(ending)
    return bare or word
