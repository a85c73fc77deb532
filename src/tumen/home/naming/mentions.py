"""Mentions: where a sentence names the things and places of a home, whatever a model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tumen.home.naming.common_words import common_words
from tumen.home.naming.index import Index
from tumen.home.naming.kinds import kind_word
from tumen.home.naming.phrase import NamedPlace
from tumen.home.naming.word_forms import split
from tumen.language import is_cjk, units

# How long a name may be: spaced words, and Chinese characters.
_MOST_WORDS = 6
_MOST_CHARACTERS = 12
_MOST_REMEMBERED = 256
"""Sentences whose mentions an index keeps."""


@dataclass(frozen=True)
class Mention:
    """Words of a sentence that name something of the home.

    Attributes:
        start: the number of its first unit (tumen.language.units).
        end: the number of the unit after its last.
        words: the words, as they were said.
        entities: numbers of the entities that are called so.
        place: the place that is called so.
    """

    start: int
    end: int
    words: str
    entities: tuple[int, ...] = ()
    place: NamedPlace | None = None

    def overlaps(self, start: int, end: int) -> bool:
        """Return whether it shares a unit with a run of units."""
        return self.start < end and start < self.end


def mentions_of(index: Index, said: str, lang: str) -> list[Mention]:
    """Return what a normalised sentence names, from left to right; the longest name wins.

    Plural, case and articles aside, a name must be said exactly. A compound (`Küchenlampe`) names
    its place. A kind of device (`light`) is no name.

    Args:
        index: the names of the home.
        said: the sentence.
        lang: the language of the speaker.
    """
    known = index.read_before.get((said, lang))
    if known is None:
        # a sentence is asked about many times while it is read
        if len(index.read_before) >= _MOST_REMEMBERED:
            index.read_before.clear()
        known = index.read_before[said, lang] = _mentions(index, units(said), lang)
    return list(known)


def _mentions(index: Index, pieces: Sequence[str], lang: str) -> tuple[Mention, ...]:
    """Return what the units of a sentence name."""
    found: list[Mention] = []
    at = 0
    while at < len(pieces):
        mention = _longest_at(index, pieces, at, lang)
        if mention is None:
            at += 1
        else:
            found.append(mention)
            at = mention.end
    return tuple(found)


def _longest_at(index: Index, pieces: Sequence[str], start: int, lang: str) -> Mention | None:
    """Return the longest name that starts at a unit."""
    stops = common_words().stop[lang]
    begins = pieces[start].strip() in stops
    for end in _ends(pieces, start):
        words = "".join(pieces[start:end]).strip()
        # a name neither begins nor ends with an article, unless it is written so
        ends = end - start > 1 and pieces[end - 1].strip() in stops
        if (begins or ends) and not index.is_name(words):
            continue
        # the first reading that fits: an entity before a place
        for reading in _READINGS:
            mention = reading(index, words, lang, start, end)
            if mention:
                return mention
    return None


def _ends(pieces: Sequence[str], start: int) -> Iterator[int]:
    """Yield where a name may end, the farthest first."""
    most = _MOST_CHARACTERS if is_cjk(pieces[start].strip()[0]) else _MOST_WORDS
    yield from range(min(len(pieces), start + most), start, -1)


def _entity(index: Index, words: str, lang: str, start: int, end: int) -> Mention | None:
    """Return words as the name of entities."""
    # a lamp that is called `Light` is not meant by every `light`
    if kind_word("".join(split(words))):
        return None
    # `im Bad das Licht` is no `Badlicht`
    pieces = split(words)
    if any(piece in common_words().stop[lang] for piece in pieces[1:-1]) and not index.is_name(
        words
    ):
        return None
    plain, inflected = index.exact(words, lang)
    # another number or case counts only where no name is exactly so
    numbers = tuple(plain or inflected)
    if not numbers:
        return None
    return Mention(start, end, words, numbers, index.place(words, lang))


def _place(index: Index, words: str, lang: str, start: int, end: int) -> Mention | None:
    """Return words as a place."""
    place = index.place(words, lang)
    if place is None:
        return None
    return Mention(start, end, words, (), place)


def _compound(index: Index, words: str, lang: str, start: int, end: int) -> Mention | None:
    """Return one word that begins with a place: `küchenlampe`."""
    is_one_word = end - start == 1 and len(split(words)) == 1
    # only languages with spaces write compounds as one word
    if not is_one_word or is_cjk(words[0]):
        return None
    phrase = index.parse(words, lang)
    if phrase.kind is None or not phrase.places:
        return None
    return Mention(start, end, words, (), phrase.places[0])


_Reading = Callable[[Index, str, str, int, int], Mention | None]
_READINGS: tuple[_Reading, ...] = (_entity, _place, _compound)
