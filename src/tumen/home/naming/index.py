"""The index: every way the things of a home are called, built once for each home.

A phrase is parsed into its places, the kind of device that its last kind word names, and its core
(see phrase.py). The names of the home are parsed the same way, without their own area: `Kitchen
ceiling light` in the kitchen is core {ceiling}, kind light. So `Küchendeckenlampe`, `the ceiling
lamps in the kitchen` and `厨房的吸顶灯` match the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tumen.home.entities import Entity, NamedThing
from tumen.home.naming.common_words import common_words
from tumen.home.naming.compounds import split_compound
from tumen.home.naming.kinds import (
    GENERAL_SENSES,
    SIMILAR_SENSES,
    STRICT_DOMAINS,
    Kind,
    kind_word,
    kind_words,
)
from tumen.home.naming.phrase import NamedPlace, Phrase, PhraseParser, find_form
from tumen.home.naming.typos import SHORTEST, by_first_letter, nearest_words, without_umlaut_letters
from tumen.home.naming.word_forms import counted, forms, split
from tumen.language import is_cjk

SAME = 2
"""Match level: an entity has a name with the same core."""

WITHIN = 1
"""Match level: an entity has a name with these core words and more."""


@dataclass(frozen=True)
class _ParsedName:
    core: frozenset[str]
    kind_word: str
    senses: frozenset[str]


class Index:
    """Names, places and kinds of one home. Entities are numbered in the order they are given.

    Args:
        places: every area and floor with the place it is.
        entities: every entity; their names must not change afterwards.
    """

    def __init__(
        self, places: Sequence[tuple[NamedThing, NamedPlace]], entities: Sequence[Entity]
    ) -> None:
        self.entities = entities
        self.places: dict[str, NamedPlace] = {}
        # a word of a place's name -> the places with it, by id
        self._place_words: dict[str, dict[str, NamedPlace]] = {}
        # a form of a core word -> the core word
        self._canonical: dict[str, str] = {}
        # a whole name, pieces joined -> the entities called so
        self._names: dict[str, list[int]] = {}
        for thing, place in places:
            for name in thing.names:
                self._add_place(split(name), place)
        # sentence and language -> what it names
        self.read_before: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._of_domain: dict[str, list[int]] = {}
        # places must be known before names are parsed
        self._parsed = [self._parse_names(number) for number in range(len(entities))]
        # a core word -> the entities with a name that has it; "" -> with a name without one
        self._core_numbers = self._numbers_by_core_word()
        self._senses = [self._senses_of(number) for number in range(len(entities))]
        for number, entity in enumerate(entities):
            self._of_domain.setdefault(entity.domain, []).append(number)
        self._typo_words = by_first_letter(self._words_for_typos())

    # -- building --------------------------------------------------------------------------------

    def _add_place(self, pieces: tuple[str, ...], place: NamedPlace) -> None:
        """Add one name of a place: as a whole, and by its words."""
        for key in {"".join(pieces), "".join(_without_stops(pieces))}:
            known = self.places.get(key, place)
            # two places of one name are one place with the areas of both
            self.places[key] = NamedPlace(known.id, known.areas | place.areas)
        if len(pieces) < 2:
            return
        words = common_words()
        # `room` is a word of too many names to find any of them
        common = words.stops | words.here | words.everywhere
        for piece in pieces:
            if piece not in common:
                self._place_words.setdefault(piece, {})[place.id] = place

    def _parse_names(self, number: int) -> tuple[_ParsedName, ...]:
        """Parse the names of an entity, and learn their words."""
        entity = self.entities[number]
        found = []
        for name in entity.names:
            self._add_name(number, counted(split(name)))
            phrase = self._parse(name, own_area=entity.area)
            for word in phrase.core:
                self._canonical.setdefault(word, word)
                for form in forms(word):
                    self._canonical.setdefault(form, word)
            senses = _senses_said(phrase.kind, entity)
            found.append(_ParsedName(phrase.core, phrase.kind_word, senses))
        return tuple(found)

    def _numbers_by_core_word(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, names in enumerate(self._parsed):
            words: set[str] = set()
            for name in names:
                words |= name.core or {""}
            for word in words:
                found.setdefault(word, []).append(number)
        return found

    def _add_name(self, number: int, pieces: tuple[str, ...]) -> None:
        """Add a whole name of an entity, with small words and without."""
        keys = {"".join(pieces)}
        # `die` is an article in German and a word in English: names are kept both ways
        for lang in common_words().stop:
            keys.add("".join(_without_stops(pieces, lang)))
        for key in keys - {""}:
            numbers = self._names.setdefault(key, [])
            if number not in numbers:
                numbers.append(number)

    def _senses_of(self, number: int) -> frozenset[str]:
        """Return the senses of an entity: its device class, else those that its names have."""
        # `garage_door` of a sensor is `garage` of a cover
        device_class = self.entities[number].device_class.removesuffix("_door")
        if device_class:
            return frozenset((device_class,))
        senses: set[str] = set()
        for name in self._parsed[number]:
            senses |= name.senses
        return frozenset(senses)

    def _words_for_typos(self) -> list[str]:
        """Return the words that a misspelt word may have meant, in a fixed order."""
        known: set[str] = set(kind_words())
        for table in (self._canonical, self.places, self._place_words, self._names):
            known.update(table)
        # short words are right or unknown; Chinese has no letters to slip
        long_enough = [word for word in known if len(word) >= SHORTEST]
        return sorted(word for word in long_enough if not is_cjk(word[0]))

    # -- names and places ------------------------------------------------------------------------

    def exact(self, words: str, lang: str) -> tuple[list[int], list[int]]:
        """Return the entities called just so, and those called so in another number or case.

        Args:
            words: a whole name.
            lang: language of the speaker; its small words are ignored.
        """
        pieces = counted(split(words))
        keys = {"".join(pieces), "".join(_without_stops(pieces, lang))} - {""}
        plain: set[int] = set()
        inflected: set[int] = set()
        for key in keys:
            plain.update(self._names.get(key, ()))
            # `fairy strings` of the `Fairy string`
            for form in forms(key):
                inflected.update(self._names.get(form, ()))
        return sorted(plain), sorted(inflected - plain)

    def is_name(self, words: str) -> bool:
        """Return whether an entity is called just so, small words included."""
        return "".join(counted(split(words))) in self._names

    def place(self, words: str, lang: str) -> NamedPlace | None:
        """Return the area or floor called just so, plural and case aside.

        Args:
            words: a whole name.
            lang: language of the speaker; its small words are ignored.
        """
        pieces = split(words)
        for key in ("".join(pieces), "".join(_without_stops(pieces, lang))):
            place = find_form(self.places, key)
            if place is not None:
                return place
        return None

    def places_with(self, words: Iterable[str]) -> tuple[NamedPlace, ...]:
        """Return the places whose names contain all of these words.

        `bedroom` finds a master bedroom and a guest bedroom.
        """
        by_word: list[dict[str, NamedPlace]] = []
        for word in words:
            known = [form for form in (word, *forms(word)) if form in self._place_words]
            if not known:
                return ()
            by_word.append(self._place_words[known[0]])
        if not by_word:
            return ()
        first, *others = by_word
        found = []
        for id_, place in first.items():
            # every word must be in a name of the place, in any order
            if all(id_ in other for other in others):
                found.append(place)
        return tuple(found)

    # -- kinds -----------------------------------------------------------------------------------

    def fits(self, number: int, kind: Kind) -> bool:
        """Return whether an entity is of a kind: of its domain, and of its sense if it has any.

        Args:
            number: the entity.
            kind: domains and a sense.
        """
        entity = self.entities[number]
        senses = self._senses[number]
        if entity.domain not in kind.domains:
            return False
        if not kind.sense or kind.sense in senses or kind.sense in GENERAL_SENSES:
            return True
        wanted = SIMILAR_SENSES.get(kind.sense, kind.sense)
        if any(SIMILAR_SENSES.get(sense, sense) == wanted for sense in senses):
            return True
        # a cover without a device class may be a blind; a switch without one is no heater
        return not senses and entity.domain not in STRICT_DOMAINS

    def has_sense(self, number: int, kind: Kind) -> bool:
        """Return whether an entity itself carries the sense of a kind.

        Args:
            number: the entity.
            kind: its sense counts.
        """
        return kind.sense in self._senses[number]

    def called_by_kind(self, number: int, kind_word: str) -> bool:
        """Return whether an entity is called by its place and this kind word alone.

        Such as the `kitchen light` of a kitchen with other lights.

        Args:
            number: the entity.
            kind_word: the word as the tables have it.
        """
        names = self._parsed[number]
        return any(not name.core and name.kind_word == kind_word for name in names)

    def core_words(self, number: int) -> frozenset[str]:
        """Return the words of an entity's names that distinguish it from others of its kind."""
        words: set[str] = set()
        for name in self._parsed[number]:
            words |= name.core
        return frozenset(words)

    def with_core(self, core: frozenset[str]) -> list[int]:
        """Return the entities that `match` may find, without a look at all of a large home.

        Args:
            core: words in the spelling of the home's names.
        """
        found = [self._with_core_word(word) for word in core or {""}]
        return sorted(set.intersection(*found))

    def _with_core_word(self, word: str) -> set[int]:
        numbers = set(self._core_numbers.get(word, ()))
        if word and is_cjk(word[0]):
            for other, having in self._core_numbers.items():
                if word in other:
                    numbers.update(having)
        return numbers

    def of_domains(self, domains: Iterable[str]) -> list[int]:
        """Return the entities of some domains, in their order; all of them if there are none."""
        wanted = set(domains)
        if not wanted:
            return list(range(len(self.entities)))
        return sorted(n for domain in wanted for n in self._of_domain.get(domain, ()))

    def match(self, number: int, core: frozenset[str]) -> int:
        """Return how the names of an entity match core words: `SAME`, `WITHIN`, or 0.

        Args:
            number: the entity.
            core: words in the spelling of the home's names.
        """
        best = 0
        for name in self._parsed[number]:
            # nothing is better than the same words
            if name.core == core:
                return SAME
            # no words are within every name, and mean none of them
            if core and all(_within(word, name.core) for word in core):
                best = WITHIN
        return best

    # -- phrases ---------------------------------------------------------------------------------

    def parse(
        self,
        words: str,
        lang: str,
        take_places: bool = True,
        long_kinds: bool = True,
        take_kinds: bool = True,
    ) -> Phrase:
        """Take a phrase apart.

        Args:
            words: the phrase.
            lang: language of the speaker; its small words are never places.
            take_places: False leaves place words in the core.
            long_kinds: False reads no kind of several words (`garage door`).
            take_kinds: False leaves kind words in the core.
        """
        return self._parse(
            words, lang, take_places=take_places, long_kinds=long_kinds, take_kinds=take_kinds
        )

    def _parse(
        self, words: str, lang: str | None = None, own_area: str | None = None, **taken: bool
    ) -> Phrase:
        """Take a phrase or a name apart; the arguments are those of `PhraseParser`."""
        parser = PhraseParser(self.places, self.canonical, lang, own_area, **taken)
        for piece in counted(split(words)):
            # a known word is never taken apart
            is_whole = is_cjk(piece[0]) or self._known(piece)
            parts = [piece] if is_whole else split_compound(piece, self.places)
            for part in parts:
                parser.feed(part)
        return parser.phrase()

    def _known(self, piece: str) -> bool:
        """Whether a word is a place, a kind or a small word."""
        if piece in self.places or piece in common_words().stops:
            return True
        return kind_word(piece) is not None

    def canonical(self, piece: str) -> str:
        """Return the home's own spelling of a word that differs in plural or case only."""
        for form in (piece, *forms(piece)):
            if form in self._canonical:
                return self._canonical[form]
        return piece

    # -- typos -----------------------------------------------------------------------------------

    def correct(self, words: str) -> str | None:
        """Return the words with typos corrected to the home's own words; None if there are none.

        Short words, numbers and words that the home knows are never changed. Of two equally near
        words neither is taken.
        """
        pieces = []
        changed = False
        for piece in split(words):
            better = self._corrected(piece) if self._may_be_typo(piece) else None
            changed = changed or better is not None
            pieces.append(better or piece)
        return " ".join(pieces) if changed else None

    def _may_be_typo(self, piece: str) -> bool:
        """Whether a word is long enough to be misspelt and unknown to the home."""
        if len(piece) < SHORTEST or not piece.isalpha() or is_cjk(piece[0]):
            return False
        # a word that the home understands is no typo
        if self._known(piece):
            return False
        return not any(self._is_word(form) for form in (piece, *forms(piece)))

    def _is_word(self, word: str) -> bool:
        """Whether a word stands in a name of a device or place."""
        return word in self._canonical or word in self.places or word in self._place_words

    def _corrected(self, piece: str) -> str | None:
        """Return the one word that a misspelt word may have meant; None if it is unclear."""
        plain = without_umlaut_letters(piece)
        if plain != piece and self._has_word(plain):
            return plain
        best = nearest_words(piece, self._typo_words.get(piece[0], ()))
        meanings = {self.canonical(word) for word in best}
        # stems and plurals of one word are one meaning
        return best[0] if len(meanings) == 1 else None

    def _has_word(self, word: str) -> bool:
        """Whether a word is one of the home or a compound of its words."""
        if self._known(word) or word in self._canonical:
            return True
        return len(split_compound(word, self.places)) > 1


def _without_stops(pieces: Sequence[str], lang: str | None = None) -> tuple[str, ...]:
    """Return pieces without small words of a language (or of all), and without a closing 的."""
    words = common_words()
    stops = words.stop[lang] if lang else words.stops
    kept = []
    for piece in pieces:
        if piece in stops:
            continue
        if len(piece) > 1:
            for particle in words.particles:
                piece = piece.removesuffix(particle)
        kept.append(piece)
    return tuple(kept)


def _within(word: str, core: frozenset[str]) -> bool:
    """Whether a word is in a core; a Chinese word may be part of one there."""
    if word in core:
        return True
    return is_cjk(word[0]) and any(word in other for other in core)


def _senses_said(kind: Kind | None, entity: Entity) -> frozenset[str]:
    """Return the sense that a name gives its entity, such as `tv`."""
    if kind is None or not kind.sense or entity.domain not in kind.domains:
        return frozenset()
    return frozenset((kind.sense,))
