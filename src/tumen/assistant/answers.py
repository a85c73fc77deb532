"""Answers: which options of a question somebody means."""

from __future__ import annotations

from collections.abc import Sequence

from tumen.assistant.resolution import Candidate, Question
from tumen.home import Home, NamedPlace, common_words, forms, split, spoken
from tumen.language import LANGUAGES

_SHORTEST_PART = 4  # letters of a word that may be part of an option's word: `bath`, `Bathroom`
_FIRST_UNSPACED = "\u2e80"  # from here on characters are words, and one is enough


def options_meant(question: Question, said: str, home: Home) -> tuple[int, ...]:
    """Return the numbers of the options that an answer means, counted from 0.

    An answer is a number, `both`, a place, or words that fit one option alone; several of them may
    be joined by `and`.

    Args:
        question: the question with its options.
        said: the answer, normalised.
        home: what the options are called, in every language, and where they are.

    Returns:
        the numbers; none if the answer is unclear.
    """
    whole = _meant(question, said, home)
    if whole:
        return whole
    parts = [said]
    for joint in common_words().joints:
        parts = [one for part in parts for one in part.split(joint)]
    found = [_meant(question, part, home) for part in parts if part.strip()]
    # half of an answer would be a guess
    if len(found) < 2 or not all(found):
        return ()
    return tuple(sorted({number for numbers in found for number in numbers}))


def declines(said: str) -> bool:
    """Return whether an answer, normalised, drops the question."""
    common = common_words()
    words = " ".join(word for word in split(said) if word not in common.answer_words)
    return bool({spoken(said), words} & common.nevermind)


def undoes(said: str) -> bool:
    """Return whether a normalised sentence takes the last change back."""
    common = common_words()
    words = " ".join(word for word in split(said) if word not in common.answer_words)
    return bool({spoken(said), words} & common.undo)


def _meant(question: Question, said: str, home: Home) -> tuple[int, ...]:
    """Return the numbers of the options that an answer without `and` means."""
    count = len(question.options)
    if not count:
        return ()
    common = common_words()
    # `no, the left one`: an answer that drops nothing
    without_meaning = common.stops | common.answer_words | common.nevermind
    words = [word for word in split(said) if word not in without_meaning]
    # a small word may be the whole answer: `both`, `one`
    spellings = {" ".join(words) or spoken(said), spoken(said)}
    if spellings & (common.all | common.all_answers):
        return tuple(range(count))
    # `the third` of two options means neither
    for number, ordinal in enumerate(common.ordinals[:count]):
        if spellings & ordinal:
            return (number,)
    if (" ".join(words) or spoken(said)) in common.last:
        return (count - 1,)
    return _options_with(question, words, home) or _options_in(question, said, home)


def _options_with(question: Question, words: Sequence[str], home: Home) -> tuple[int, ...]:
    """Return the one option whose name has all words; the name that is just these words wins."""
    names = [_names_of(option, home) for option in question.options]
    fits = [n for n, called in enumerate(names) if any(_fits(words, name) for name in called)]
    whole = "".join(words)
    exact = [n for n in fits if any("".join(split(name)) == whole for name in names[n])]
    # `lamp` is the lamp called so, not the red lamp
    fits = exact or fits
    return (fits[0],) if len(fits) == 1 else ()


def _names_of(option: Candidate, home: Home) -> tuple[str, ...]:
    """Return what an option is called: its label, and the names of the thing in every language."""
    names = [option.label]
    if len(option.targets) == 1 and option.targets[0] in home.entities:
        names += home.entities[option.targets[0]].names
    return tuple(dict.fromkeys(names))


def _options_in(question: Question, said: str, home: Home) -> tuple[int, ...]:
    """Return the one option that is in the place of an answer (`the one in the bathroom`)."""
    common = common_words()
    words = " ".join(word for word in said.split() if word not in common.answer_words)
    for spelling in (said, words, _without_ending(words)):
        place = _place(spelling, question.lang, home) if spelling else None
        if place is None:
            continue
        inside = [
            number
            for number, option in enumerate(question.options)
            if any(
                home.entities[id_].area in place.areas
                for id_ in option.targets
                if id_ in home.entities
            )
        ]
        return (inside[0],) if len(inside) == 1 else ()
    return ()


def _place(words: str, lang: str, home: Home) -> NamedPlace | None:
    """Return the place that words name, in whatever language they are."""
    for tongue in (lang, *LANGUAGES):
        place = home.index.place(words, tongue)
        if place is not None:
            return place
    return None


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
    for ending in sorted(common_words().answer_endings, key=len, reverse=True):
        bare = bare.removesuffix(ending)
    return bare or word
