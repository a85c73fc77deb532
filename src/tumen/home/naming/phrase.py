"""Phrases: places, kinds and distinguishing words of a name or of a command.

`the ceiling lamps in the kitchen` has the place kitchen, the kind light (its word `lamp`, in the
plural) and the core {ceiling}. The names of a home are parsed the same way, to compare both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tumen.home.naming.common_words import CommonWords, common_words
from tumen.home.naming.kinds import Kind, kind_word
from tumen.home.naming.word_forms import forms
from tumen.language import is_cjk

_WORDS = 4  # the most spaced words that a place or kind is written in
_CHARACTERS = 8  # the same in Chinese characters


@dataclass(frozen=True)
class NamedPlace:
    """A place that was named: the id of its area or floor, and the ids of the areas in it."""

    id: str
    areas: frozenset[str]


@dataclass(frozen=True)
class Phrase:
    """A phrase taken apart.

    Attributes:
        core: the words that distinguish devices, in the spelling of the home's names.
        kind: the kind that the last kind word names.
        kind_word: that word as the tables have it.
        places: the places in the phrase.
        here: whether it says `here`.
        everywhere: whether it says `everywhere`.
        all: whether it says `all`.
        plural: whether the kind word was said in another form than the table's.
    """

    core: frozenset[str]
    kind: Kind | None = None
    kind_word: str = ""
    places: tuple[NamedPlace, ...] = ()
    here: bool = False
    everywhere: bool = False
    all: bool = False
    plural: bool = False


@dataclass(frozen=True)
class _KindFound:
    kind: Kind
    word: str  # as the table has it
    pieces: tuple[str, ...]  # as it was said

    @property
    def plural(self) -> bool:
        """Whether it was said in another form than the table's."""
        return "".join(self.pieces) != self.word


class PhraseParser:
    """Reads pieces from left to right; the longest known word wins, the rest is core.

    Known words are small words, places and kinds.

    Args:
        places: place name, pieces joined -> the place.
        canonical: returns the spelling in which a core word is compared.
        lang: language of the speaker; None when a name of the home is read.
        own_area: area of the entity whose name is read; only this place is taken out of the name.
        take_places: False leaves place words in the core.
        long_kinds: False reads no kind of several words, so that its first word may be a place.
        take_kinds: False leaves kind words in the core.
    """

    def __init__(
        self,
        places: Mapping[str, NamedPlace],
        canonical: Callable[[str], str],
        lang: str | None = None,
        own_area: str | None = None,
        *,
        take_places: bool = True,
        long_kinds: bool = True,
        take_kinds: bool = True,
    ) -> None:
        self._known_places = places
        self._canonical = canonical
        self._lang = lang
        self._own_area = own_area
        self._take_places = take_places
        self._long_kinds = long_kinds
        self._take_kinds = take_kinds
        self._words: CommonWords = common_words()
        # a place may have several words, so a run of spaced words waits until it ends
        self._waiting: list[str] = []
        self._core: list[str] = []
        self._places: list[NamedPlace] = []
        self._kinds: list[_KindFound] = []
        self._flags: set[str] = set()

    def feed(self, piece: str) -> None:
        """Read one piece: a spaced word, or a run of Chinese characters."""
        if is_cjk(piece[0]):
            self._flush()
            self._scan_characters(piece)
        else:
            self._waiting.append(piece)

    def phrase(self) -> Phrase:
        """Return what was read."""
        self._flush()
        # the last kind word is the head; earlier ones distinguish devices (`TV light`)
        head = self._kinds[-1] if self._kinds else None
        for other in self._kinds[:-1]:
            self._core += other.pieces
        # names may be in another language than the speaker's, so all small words go
        core = [piece for piece in self._core if piece not in self._words.stops]
        return Phrase(
            core=frozenset(self._canonical(piece) for piece in core),
            kind=head.kind if head else None,
            kind_word=head.word if head else "",
            places=tuple(self._places),
            here="here" in self._flags,
            everywhere="everywhere" in self._flags,
            all="all" in self._flags,
            plural=head.plural if head else False,
        )

    # -- reading runs ----------------------------------------------------------------------------

    def _flush(self) -> None:
        """Read the spaced words that waited."""
        pieces = tuple(self._waiting)
        self._waiting = []
        at = 0
        while at < len(pieces):
            width = self._longest(pieces[at:], _WORDS, joined=False)
            if width == 0:
                self._core.append(pieces[at])
                width = 1
            at += width

    def _scan_characters(self, run: str) -> None:
        """Read a run of Chinese characters; what is left between known words is one core word."""
        characters = tuple(run)
        rest = ""
        at = 0
        while at < len(characters):
            width = self._longest(characters[at:], _CHARACTERS, joined=True)
            if width == 0:
                rest += characters[at]
                width = 1
            elif rest:
                self._core.append(rest)
                rest = ""
            at += width
        if rest:
            self._core.append(rest)

    def _longest(self, pieces: tuple[str, ...], most: int, joined: bool) -> int:
        """Take the longest known word at the start of the pieces; return its length, 0 if none."""
        for width in range(min(most, len(pieces)), 0, -1):
            if self._take(pieces[:width], joined):
                return width
        return 0

    def _take(self, pieces: tuple[str, ...], joined: bool) -> bool:
        """Take the pieces as one small word, place, kind or flag; return whether they are one."""
        word = "".join(pieces)
        said = word if joined else " ".join(pieces)
        # `here` may be a small word as well (`in`): its meaning as a place comes first
        if self._lang and said in self._words.stop[self._lang] and said not in self._words.here:
            return True
        if self._take_places and self._take_place(word):
            return True
        if self._take_kind(pieces, word, joined):
            return True
        # small words of a run of characters would become part of a core word
        if joined and word in self._words.stops:
            return True
        # the name of an entity holds neither `here` nor `all`
        return self._lang is not None and self._take_flag(said)

    def _take_place(self, word: str) -> bool:
        """Take a word as a place; return whether it is one."""
        place = find_form(self._known_places, word)
        if place is None:
            return False
        if self._own_area is not None and self._own_area not in place.areas:
            return False
        # the name of an entity without an area keeps its place words
        if self._lang is None and self._own_area is None:
            return False
        self._places.append(place)
        return True

    def _take_kind(self, pieces: tuple[str, ...], word: str, joined: bool) -> bool:
        """Take pieces as a kind; return whether they are one."""
        found = kind_word(word) if self._take_kinds else None
        if found is None:
            return False
        if len(pieces) > 1 and not joined and not self._long_kinds:
            return False
        kind, known_word = found
        self._kinds.append(_KindFound(kind, known_word, (word,) if joined else pieces))
        return True

    def _take_flag(self, said: str) -> bool:
        """Take words for `here`, `everywhere` or `all`; return whether they are such."""
        # one Chinese character is part of too many words to mean `all` or `home` alone
        if is_cjk(said[0]) and len(said) == 1:
            return False
        if self._take_places and said in self._words.here:
            self._flags.add("here")
        elif self._take_places and said in self._words.everywhere:
            self._flags.add("everywhere")
        elif said in self._words.all:
            self._flags.add("all")
        else:
            return False
        return True


def find_form(places: Mapping[str, NamedPlace], word: str) -> NamedPlace | None:
    """Return the place of a name, or of the name without its ending.

    Args:
        places: name, pieces joined -> place.
        word: a folded word.
    """
    for form in (word, *forms(word)):
        if form in places:
            return places[form]
    return None
