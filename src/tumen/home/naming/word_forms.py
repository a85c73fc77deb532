"""Word forms: the pieces of a phrase, and words without their plural and case endings."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from tumen.home.naming.common_words import common_words
from tumen.home.naming.spelling import fold
from tumen.language import CJK, is_cjk

_PIECES = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+")
_DIGIT_BEFORE_CJK = re.compile(rf"(?<!\d)([1-9])\s*(?=[{CJK}])")
_SHORTEST_STEM = 3  # letters; shorter stems are other words


@lru_cache(maxsize=8192)
def split(text: str) -> tuple[str, ...]:
    """Return the pieces a name is compared by.

    A piece is a word, a number, or a whole run of Chinese characters. `2 号灯` is `二号灯`.
    """
    plain = fold(text)
    for pattern, word in _ordinal_patterns():
        plain = pattern.sub(word, plain)
    digits = common_words().digits
    # a digit would split the name into two pieces
    plain = _DIGIT_BEFORE_CJK.sub(lambda found: digits[found[1]], plain)
    return tuple(_PIECES.findall(plain))


@cache
def _ordinal_patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns for ordinals in digits, and the words they are read as: `1 st` is `first`."""
    patterns = []
    for written, word in common_words().ordinal_digits.items():
        digit = written[0]
        ending = written[1:]
        # speech recognition may put a space between them
        pattern = re.compile(rf"\b{digit} ?{ending}\b")
        patterns.append((pattern, word))
    return tuple(patterns)


def counted(pieces: tuple[str, ...]) -> tuple[str, ...]:
    """Return the pieces of a name with number words as digits: `lamp two` is `lamp 2`.

    The first piece stays: it names the thing (`one more lamp`).
    """
    numbers = common_words().numbers
    rest = [numbers.get(piece, piece) for piece in pieces[1:]]
    return (*pieces[:1], *rest)


@lru_cache(maxsize=16384)
def forms(word: str) -> tuple[str, ...]:
    """Return a folded word without its possible plural or case endings, shortest stem first.

    A stem keeps at least three letters. Chinese words have no endings.
    """
    if not word or is_cjk(word[-1]):
        return ()
    stems = []
    for ending in common_words().endings:
        stem = word.removesuffix(ending)
        # `den` is not `d` with an ending
        if stem != word and len(stem) >= _SHORTEST_STEM:
            stems.append(stem)
    if stems:
        return tuple(stems)
    # plurals of abbreviations: `tvs`, `acs`
    if word.endswith("s") and len(word) == _SHORTEST_STEM:
        return (word[:-1],)
    return ()


def spoken(text: str) -> str:
    """Return a sentence as folded pieces, to compare it with the sets of `common_words`."""
    return " ".join(split(text))
