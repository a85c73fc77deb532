"""The index: every way the things of a home are called, built once per home.

A phrase is read into `Parts`: the places in it, the kind of device its last kind word names, and the rest, its
`core`. The names
of the home are read the same way, without their own area: `Kitchen ceiling light` in the kitchen is core {ceiling},
kind light. So `Küchendeckenlampe`, `the ceiling lamps in the kitchen` and `厨房的吸顶灯` meet the names they belong
to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rapidfuzz.distance import OSA

from tumen.home.kinds import GENERAL, NEAR, STRICT, Kind, compound_tails, kind_word, kind_words
from tumen.home.words import ALL, ALL_STOPS, EVERYWHERE, HERE, STOP, counted, forms, split
from tumen.language import is_cjk

_WINDOW = 4  # the most spaced words one place or kind word is written in
_CJK_WINDOW = 8  # the same in Chinese characters


class Named(Protocol):
    """Anything of a home that has an id and names."""

    @property
    def id(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...


class Located(Named, Protocol):
    """An entity as far as words are concerned."""

    @property
    def area(self) -> str | None: ...
    @property
    def domain(self) -> str: ...
    @property
    def device_class(self) -> str: ...


@dataclass(frozen=True)
class Spot:
    """A place that was named: the id of its area or floor, and the areas it means."""

    id: str
    areas: frozenset[str]


@dataclass(frozen=True)
class Parts:
    """A phrase taken apart. `word` is the kind word as the tables have it, `plural` whether it stood in another form.

    `here`, `everywhere` and `all` say which of these words were in it.
    """

    core: frozenset[str]
    kind: Kind | None = None
    word: str = ""
    spots: tuple[Spot, ...] = ()
    here: bool = False
    everywhere: bool = False
    all: bool = False
    plural: bool = False


@dataclass(frozen=True)
class _Name:
    core: frozenset[str]
    word: str
    senses: frozenset[str]


class Index:
    """Names, places and kinds of one home.

    Args:
        spots: every area and floor with its names.
        entities: every entity with its names; the names of an entity do not change while the home lives.
    """

    def __init__(
        self, spots: Sequence[tuple[Named, frozenset[str]]], entities: Sequence[Located]
    ) -> None:
        self.entities = entities
        self.spots: dict[str, Spot] = {}
        self._wide: dict[str, dict[str, Spot]] = {}
        self._canon: dict[str, str] = {}
        self._exact: dict[str, list[int]] = {}
        for place, areas in spots:
            self._add_spot(place, Spot(place.id, areas))
        self._names = [self._read_names(number, entity) for number, entity in enumerate(entities)]
        self._senses = [self._senses_of(number) for number in range(len(entities))]
        known = {*self._canon, *self.spots, *self._wide, *self._exact, *kind_words()}
        self._vocabulary = sorted(word for word in known if len(word) >= 5 and not is_cjk(word[0]))

    def _add_spot(self, place: Named, spot: Spot) -> None:
        for name in place.names:
            pieces = split(name)
            for key in {"".join(pieces), "".join(_without_stops(pieces))}:
                known = self.spots.get(key)
                self.spots[key] = (
                    Spot(known.id, known.areas | spot.areas) if known and known != spot else spot
                )
            for piece in pieces if len(pieces) > 1 else ():
                if piece not in ALL_STOPS and piece not in HERE and piece not in EVERYWHERE:
                    self._wide.setdefault(piece, {})[spot.id] = spot

    def _read_names(self, number: int, entity: Located) -> tuple[_Name, ...]:
        found = []
        for name in entity.names:
            pieces = counted(split(name))
            for key in {
                "".join(pieces),
                *("".join(_without_stops(pieces, lang)) for lang in STOP),
            } - {""}:
                known = self._exact.setdefault(key, [])
                if number not in known:
                    known.append(number)
            parts = self.parse(name, own=entity.area)
            for piece in parts.core:
                self._canon.setdefault(piece, piece)
                for form in forms(piece):
                    self._canon.setdefault(form, piece)
            found.append(_Name(parts.core, parts.word, _sense(parts.kind, entity)))
        return tuple(found)

    def _senses_of(self, number: int) -> frozenset[str]:
        own = self.entities[number].device_class.removesuffix("_door")
        words = frozenset[str]().union(*(name.senses for name in self._names[number]))
        return frozenset((own,)) if own else words

    def exact(self, words: str, lang: str) -> tuple[list[int], list[int]]:
        """Entities called just these words, and those called so in another number or case."""
        pieces = counted(split(words))
        keys = {"".join(pieces), "".join(_without_stops(pieces, lang))} - {""}
        plain = {number for key in keys for number in self._exact.get(key, ())}
        bent = {
            number for key in keys for form in forms(key) for number in self._exact.get(form, ())
        }
        return sorted(plain), sorted(bent - plain)

    def spot(self, words: str, lang: str) -> Spot | None:
        """The area or floor called just these words, plural and case aside."""
        pieces = split(words)
        for key in ("".join(pieces), "".join(_without_stops(pieces, lang))):
            for form in (key, *forms(key)):
                if form in self.spots:
                    return self.spots[form]
        return None

    def wide_spots(self, words: Iterable[str]) -> tuple[Spot, ...]:
        """Places whose names contain all these words: `bedroom` where there are a master and a guest bedroom."""
        options: list[dict[str, Spot]] = []
        for word in words:
            hit = next(
                (self._wide[form] for form in (word, *forms(word)) if form in self._wide), None
            )
            if hit is None:
                return ()
            options.append(hit)
        if not options:
            return ()
        return tuple(
            spot for key, spot in options[0].items() if all(key in option for option in options[1:])
        )

    def fits(self, number: int, kind: Kind) -> bool:
        """Whether an entity is of a kind: of its domain, and its sense unless the entity leaves that open."""
        entity, senses = self.entities[number], self._senses[number]
        if entity.domain not in kind.domains:
            return False
        if not kind.sense or kind.sense in senses or kind.sense in GENERAL:
            return True
        near = NEAR.get(kind.sense, kind.sense)
        if any(NEAR.get(sense, sense) == near for sense in senses):
            return True
        return not senses and entity.domain not in STRICT

    def says(self, number: int, kind: Kind) -> bool:
        """Whether an entity itself carries the sense of a kind."""
        return kind.sense in self._senses[number]

    def plainly(self, number: int, word: str) -> bool:
        """Whether an entity is called by its place and this kind word and no more: the `kitchen light` of a kitchen."""
        return any(not name.core and name.word == word for name in self._names[number])

    def match(self, number: int, core: frozenset[str]) -> int:
        """How an entity's names meet a core: 2 the same words, 1 the name has more, 0 not at all."""
        best = 0
        for name in self._names[number]:
            if name.core == core:
                return 2
            if core and all(_within(word, name.core) for word in core):
                best = 1
        return best

    def parse(
        self,
        words: str,
        lang: str | None = None,
        own: str | None = None,
        places: bool = True,
        wide: bool = True,
    ) -> Parts:
        """Take a phrase apart.

        Args:
            words: the phrase.
            lang: of the speaker; its small words are never places. None when a name of the home is read.
            own: the area of the entity whose name is read; only this place is taken out of the name.
            places: False leaves place words in the core.
            wide: False reads no kind of two words (`garage door`), so that its first may be a place.
        """
        reader = _Reader(self, lang, own, places, wide)
        for piece in self._pieces(counted(split(words))):
            reader.feed(piece)
        return reader.parts()

    def _pieces(self, pieces: tuple[str, ...]) -> tuple[str, ...]:
        out: list[str] = []
        for piece in pieces:
            out += [piece] if is_cjk(piece[0]) or self._known(piece) else self._compound(piece)
        return tuple(out)

    def _known(self, piece: str) -> bool:
        return piece in self.spots or kind_word(piece) is not None or piece in ALL_STOPS

    def _compound(self, piece: str) -> list[str]:
        """`kuchendeckenlampen` -> `kuche`, `decken`, `lampen`; a word that is no German compound stays whole."""
        for cut in range(3, len(piece) - 2):
            head, tail = piece[:cut], piece[cut:]
            if tail in compound_tails() and (
                len(compound_tails()[tail]) >= 4 or head in self.spots
            ):
                return [*self._place_head(head), tail]
        return [piece]

    def _place_head(self, head: str) -> list[str]:
        for cut in range(len(head), 2, -1):
            place = next(
                (form for form in (head[:cut], *forms(head[:cut])) if form in self.spots), None
            )
            if place and (cut == len(head) or len(head) - cut >= 3):
                return [head[:cut], head[cut:]] if cut < len(head) else [head]
        return [head]

    def canon(self, piece: str) -> str:
        """The spelling a word is compared in: that of the home's own names when plural or case alone differ."""
        for form in (piece, *forms(piece)):
            if form in self._canon:
                return self._canon[form]
        return piece

    def correct(self, words: str, lang: str) -> str | None:
        """The words with small typos mended against the home's own words; None when there is nothing to mend.

        Words of 5 to 9 letters may have one slip, longer ones two; the first letter is right; shorter words, numbers
        and words the home knows are left alone; of two equally near words none is taken.
        """
        out, mended = [], False
        for piece in split(words):
            better = self._nearest(piece) if self._mendable(piece) else None
            mended = mended or better is not None
            out.append(better or piece)
        return " ".join(out) if mended else None

    def _mendable(self, piece: str) -> bool:
        if len(piece) < 5 or not piece.isalpha() or is_cjk(piece[0]) or self._known(piece):
            return False
        known = (self._canon, self.spots, self._wide)
        return not any(form in table for form in (piece, *forms(piece)) for table in known)

    def _nearest(self, piece: str) -> str | None:
        plain = piece.replace("ae", "a").replace("oe", "o").replace("ue", "u")  # Kueche
        if plain != piece and (
            self._known(plain) or plain in self._canon or len(self._compound(plain)) > 1
        ):
            return plain
        bound = 1 if len(piece) < 10 else 2
        best: list[str] = []
        for word in self._vocabulary:
            if word[0] != piece[0] or abs(len(word) - len(piece)) > bound:
                continue
            distance = OSA.distance(word, piece, score_cutoff=bound)
            if distance <= bound:
                if best and distance < bound:
                    best, bound = [], distance
                best.append(word)
                bound = min(bound, distance)
        targets = {self.canon(word) for word in best}
        return best[0] if len(targets) == 1 else None


def _without_stops(pieces: Sequence[str], lang: str | None = None) -> tuple[str, ...]:
    """Pieces without small words; of Chinese runs, without a closing 的."""
    stops = STOP[lang] if lang else ALL_STOPS
    return tuple(
        piece.removesuffix("的") if len(piece) > 1 else piece
        for piece in pieces
        if piece not in stops
    )


def _within(word: str, core: frozenset[str]) -> bool:
    return word in core or (is_cjk(word[0]) and any(word in other for other in core))


def _sense(kind: Kind | None, entity: Located) -> frozenset[str]:
    """The sense a name gives its entity, such as `tv`."""
    said = kind is not None and kind.sense and entity.domain in kind.domains
    return frozenset((kind.sense,)) if kind and said else frozenset()


class _Reader:
    """Reads pieces from left to right; at each the longest place, kind or small word wins, the rest is core."""

    def __init__(
        self, index: Index, lang: str | None, own: str | None, places: bool, wide: bool
    ) -> None:
        self.index, self.lang, self.own, self.places, self.wide = index, lang, own, places, wide
        self.pending: list[str] = []
        self.core: list[str] = []
        self.spots: list[Spot] = []
        self.kinds: list[tuple[Kind, str, list[str]]] = []
        self.flags: set[str] = set()

    def feed(self, piece: str) -> None:
        """Take one piece; a run of spaced words is kept back until it ends, because a place may have several words."""
        if is_cjk(piece[0]):
            self._flush()
            self._scan(list(piece), _CJK_WINDOW, rest_joined=True)
        else:
            self.pending.append(piece)

    def parts(self) -> Parts:
        """What was read. The last kind word is the head of the phrase; earlier ones (`TV light`) belong to its core."""
        self._flush()
        kind, word, plural = None, "", False
        if self.kinds:
            kind, word, last = self.kinds.pop()
            plural = "".join(last) != word
            self.core += [piece for *_, pieces in self.kinds for piece in pieces]
        core = [piece for piece in self.core if piece not in ALL_STOPS]
        names = frozenset(self.index.canon(piece) for piece in core)
        marks = {flag: flag in self.flags for flag in ("here", "everywhere", "all")}
        return Parts(names, kind, word, tuple(self.spots), plural=plural, **marks)

    def _flush(self) -> None:
        pieces, self.pending = self.pending, []
        self._scan(pieces, _WINDOW, rest_joined=False)

    def _scan(self, pieces: list[str], window: int, rest_joined: bool) -> None:
        at, rest = 0, ""
        while at < len(pieces):
            width = next(
                (
                    w
                    for w in range(min(window, len(pieces) - at), 0, -1)
                    if self._take(pieces[at : at + w], rest_joined)
                ),
                0,
            )
            if width:
                self.core += [rest] if rest else []
                rest = ""
            elif rest_joined:
                rest += pieces[at]
            else:
                self.core.append(pieces[at])
            at += width or 1
        self.core += [rest] if rest else []

    def _take(self, pieces: list[str], joined: bool) -> bool:
        """Try to read the pieces as one place, kind or small word."""
        word, spoken = "".join(pieces), ("" if joined else " ").join(pieces)
        if self.lang and spoken in STOP[self.lang] and spoken not in HERE:
            return True
        if self.places and self._take_place(word):
            return True
        kind = kind_word(word)
        if kind and (self.wide or len(pieces) == 1 or joined):
            self.kinds.append((*kind, [word] if joined else pieces))
            return True
        if joined and word in STOP["zh"]:
            return True
        return self.lang is not None and self._take_flag(spoken)

    def _take_place(self, word: str) -> bool:
        spot = next(
            (self.index.spots[form] for form in (word, *forms(word)) if form in self.index.spots),
            None,
        )
        if (
            spot is None
            or (self.own is not None and self.own not in spot.areas)
            or (self.lang is None and self.own is None)
        ):
            return False
        self.spots.append(spot)
        return True

    def _take_flag(self, spoken: str) -> bool:
        for flag, words in (("here", HERE), ("everywhere", EVERYWHERE), ("all", ALL)):
            if (
                spoken in words
                and (self.places or flag == "all")
                and not (is_cjk(spoken[0]) and len(spoken) == 1)
            ):
                self.flags.add(flag)
                return True
        return False
