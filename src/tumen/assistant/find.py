"""Find: the devices that the evidence of an action means. The order of the evidence is told in `resolve`.

Every step either returns entity ids, returns none (the next step is tried), or leaves with a question or refusal as
`Stop`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tumen.assistant.intents import (
    ACTIVE,
    ACTS_ON,
    BY_STATE,
    CLASSES,
    ONE_MEANT,
    OPENINGS,
    SWITCHABLE,
)
from tumen.assistant.values import Value
from tumen.assistant.verdict import Option, Question, Refusal, Resolved
from tumen.home import Home, Kind, NamedPlace, Phrase, common_words, fold, kind_of, split, spoken
from tumen.language import Action

LIGHT = Kind(frozenset(("light",)))


class Stop(Exception):
    """A question or a refusal on its way to `resolve`."""

    def __init__(self, result: Question | Refusal) -> None:
        super().__init__(result)
        self.result = result


@dataclass
class Search:
    """One action looked up in one home.

    Args:
        action, home: what is looked up, and where.
        here: the area of the speaker, if known.
        last: what "it" means.
        values: the values read so far, slot -> number or text.
    """

    action: Action
    home: Home
    here: str | None = None
    last: tuple[str, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)
    place: str | None = None
    any_domain: bool = False

    def slot(self, name: str) -> str:
        """The words of a slot, empty if it is not there."""
        return self.action.slots.get(name, "").strip()

    @property
    def lang(self) -> str:
        """The speaker's language."""
        return self.action.lang

    @property
    def intent(self) -> str:
        """What is wanted."""
        return self.action.intent

    @property
    def asks(self) -> bool:
        """Whether it is a question about states, which means the whole home unless a place is named."""
        return self.intent == "HassGetState"

    def done(self, targets: Iterable[str] = ()) -> Resolved:
        """The result with these targets."""
        return Resolved(
            self.intent, self.lang, tuple(sorted(set(targets))), self.values, self.place
        )

    def refuse(self, reason: str, **about: Value) -> Stop:
        """A refusal to raise."""
        return Stop(Refusal(self.intent, self.lang, reason, about, self.values))

    def ask(self, options: Sequence[Option] = (), reason: str = "which") -> Stop:
        """A question to raise."""
        return Stop(Question(self.intent, self.lang, tuple(options), self.values, reason))

    def which(self, ids: Sequence[str]) -> Stop:
        """The question which of these is meant; names that are the same are told apart by their area."""
        titles = [self.home.title(id_, self.lang) for id_ in ids]
        options = []
        for id_, title in zip(ids, titles, strict=True):
            area = self.home.entities[id_].area if id_ in self.home.entities else None
            told = (
                f"{title} ({self.home.title(area, self.lang)})"
                if area and titles.count(title) > 1
                else title
            )
            options.append(Option(told, (id_,)))
        return self.ask(options)

    @property
    def kind(self) -> Kind | None:
        """The kind that the closed slots `domain` and `device_class` name."""
        domain, sense = self.slot("domain"), self.slot("device_class")
        if sense and (self.asks or not domain):
            return kind_of(CLASSES.get(sense, f"cover:{sense}"))
        return Kind(frozenset((domain,)), sense) if domain else None

    @property
    def allowed(self) -> frozenset[str]:
        """The domains this action may touch; empty means any."""
        if self.any_domain:
            return frozenset()
        if not self.asks:
            return frozenset(ACTS_ON.get(self.intent, ()))
        if self.slot("zone") or self.slot("ask") == "where":
            return frozenset(("person",))
        return frozenset(BY_STATE.get(self.slot("state"), ()))

    @property
    def everyone(self) -> bool:
        """Whether all of several candidates are meant."""
        return self.slot("scope") == "all" or (
            self.asks and self.slot("ask") in ("any", "all", "which", "how_many")
        )


def find(search: Search) -> list[str]:
    """The ids of the devices an action means; never none.

    Raises:
        Stop: with a question or a refusal.
    """
    if spoken(search.slot("name")) in common_words().all | common_words().everywhere:
        _rewrite(search, name="", scope="all")
    held = _it(search)
    if held:
        return held
    for name, area in _readings(search):
        found = _look(search, name, area)
        if found:
            return found
    if search.asks and search.slot("name") and search.allowed and not search.slot("zone"):
        search.any_domain = True  # "is the front door open" of a lock: its state is the answer
        return find(search)
    raise _absent(search)


def spot_of(search: Search, words: str) -> tuple[NamedPlace | None, tuple[NamedPlace, ...]]:
    """A place by its words: the one it is, or the several it may be. `here` is the speaker's room; `a and b` are one
    place.

    Raises:
        Stop: `here` is said and nobody knows where that is.
    """
    index, lang = search.home.index, search.lang
    found = index.place(words, lang)
    if found:
        return found, ()
    parts = index.parse(words, lang)
    if parts.here and not parts.core and not parts.places:
        if search.here is None:
            raise search.ask(reason="where")
        return NamedPlace(search.here, frozenset((search.here,))), ()
    pieces = [index.place(piece, lang) for piece in _joined(words)]
    spots = [spot for spot in pieces if spot]
    if len(spots) == len(pieces) > 1:
        return NamedPlace(
            "+".join(spot.id for spot in spots), frozenset().union(*(spot.areas for spot in spots))
        ), ()
    if len(parts.places) == 1 and not parts.core and not parts.kind:
        return parts.places[0], ()
    wide = index.places_with(word for word in split(words) if word not in common_words().stop[lang])
    return (wide[0], ()) if len(wide) == 1 else (None, wide)


def everywhere(search: Search, words: str) -> bool:
    """Whether a place is the whole home, or none was named."""
    if not words or search.home.index.place(words, search.lang):
        return not words
    parts = search.home.index.parse(words, search.lang)
    return spoken(words) in common_words().everywhere or (
        parts.everywhere and not (parts.core or parts.places or parts.kind)
    )


def place_of(search: Search) -> NamedPlace | None:
    """The place of the slot `area`; None for the whole home.

    Raises:
        Stop: there is no such place.
    """
    words = search.slot("area")
    if everywhere(search, words):
        return None
    spot = spot_of(search, words)[0]
    if spot is None:
        better = search.home.index.correct(words, search.lang)
        spot = spot_of(search, better)[0] if better else None
    if spot is None:
        raise search.refuse("place", words=words)
    return spot


def _joined(words: str) -> list[str]:
    """`kitchen and hallway` -> both."""
    plain = fold(words)
    joint = next((joint for joint in common_words().joints if joint in plain), None)
    return [piece.strip() for piece in plain.split(joint) if piece.strip()] if joint else [plain]


def _rewrite(search: Search, **slots: str) -> None:
    search.action = replace(search.action, slots={**search.action.slots, **slots})


def _it(search: Search) -> list[str]:
    """What "it" stands for: the last targets this action may touch."""
    if spoken(search.slot("name")) not in common_words().it:
        return []
    return [id_ for id_ in search.last if id_ in search.home.entities and _touchable(search, id_)]


def _touchable(search: Search, id_: str) -> bool:
    return not search.allowed or search.home.entities[id_].domain in search.allowed


def _readings(search: Search) -> Iterator[tuple[str, str]]:
    """Name and area words as they were said, then with their typos mended."""
    name, area = search.slot("name"), search.slot("area")
    yield name, area
    better = [search.home.index.correct(words, search.lang) for words in (name, area)]
    if any(better):
        yield better[0] or name, better[1] or area


def _look(search: Search, name: str, area: str) -> list[str]:
    """One reading of the evidence."""
    if not area or everywhere(search, area):
        if area:
            _rewrite(search, scope="all")
        return _named(search, [name], None) if name else _group(search, search.kind, None)
    spot, several = spot_of(search, area)
    if spot:
        search.place = spot.id
        return (
            _named(search, [f"{area} {name}", name], spot)
            if name
            else _group(search, search.kind, spot)
        )
    phrases = [f"{area} {name}", f"{name} {area}"] if name else [area]
    return _named(search, phrases, None) or _in_one_of(search, name, several)


def _in_one_of(search: Search, name: str, spots: Sequence[NamedPlace]) -> list[str]:
    """The place has several meanings: the one where the device is, or the question which."""
    options = []
    for spot in spots:
        ids = _named(search, [name], spot) if name else _group(search, search.kind, spot)
        if ids:
            options.append(Option(search.home.title(spot.id, search.lang), tuple(ids)))
    if len(options) > 1:
        raise search.ask(options)
    return list(options[0].targets) if options else []


# -- by name ---------------------------------------------------------------------------------------------------------


def _named(search: Search, phrases: Sequence[str], spot: NamedPlace | None) -> list[str]:
    """Devices by what they are called: exactly, as a place and a kind, or by the words that tell them apart."""
    index, lang = search.home.index, search.lang
    bent: list[int] = []
    for phrase in phrases:
        plain, other = index.exact(phrase, lang)
        found = _fitting(search, plain, spot)
        if found:
            return _pick(search, found, by_name=True)
        bent += other
    readings = [parts for phrase in phrases for parts in _ways_to_read(search, phrase)]
    for parts in readings:
        if not parts.core:
            found = _by_kind(search, parts, spot)
            if found:
                return found
    found = _fitting(search, bent, spot)
    if found:
        return _pick(search, found, by_name=True)
    for parts in readings:
        found = _by_core(search, parts, spot) if parts.core else []
        if found:
            return _pick(search, found, by_name=True, every=parts.plural or parts.all)
    return _both(search, phrases, spot) or _by_wide_place(search, phrases[-1], spot)


def _ways_to_read(search: Search, phrase: str) -> list[Phrase]:
    """A phrase with its places taken out, with shorter kind words, and with its places left in."""
    index, lang = search.home.index, search.lang
    ways = (
        index.parse(phrase, lang),
        index.parse(phrase, lang, long_kinds=False),
        index.parse(phrase, lang, take_places=False),
    )
    return list(dict.fromkeys(ways))


def _fitting(search: Search, numbers: Iterable[int], spot: NamedPlace | None) -> list[str]:
    """Those this action may touch, in the place if one was named, of the kind if any is."""
    entities = search.home.index.entities
    fits = [
        n
        for n in numbers
        if _touchable(search, entities[n].id) and _inside(entities[n].area, spot, strict=False)
    ]
    kind = search.kind
    of_kind = [n for n in fits if kind and search.home.index.fits(n, kind)]
    return [entities[n].id for n in of_kind or fits]


def _inside(area: str | None, spot: NamedPlace | None, strict: bool = True) -> bool:
    """Whether an entity is in a place. One that says no area is nowhere, but its full name may be used anywhere."""
    return spot is None or (area in spot.areas if area else not strict)


def _narrowed(search: Search, parts: Phrase, spot: NamedPlace | None) -> NamedPlace | None:
    """The place of the slot and those inside the words, together; without areas where they exclude each other."""
    spots = [*([spot] if spot else []), *parts.places]
    if parts.here and not parts.places and search.here:
        spots.append(NamedPlace(search.here, frozenset((search.here,))))
    if not spots:
        return None
    areas = frozenset.intersection(*(s.areas for s in spots))
    return NamedPlace(spots[-1].id, areas)


def _by_kind(search: Search, parts: Phrase, spot: NamedPlace | None) -> list[str]:
    """The words were a place, a kind or both, and nothing else."""
    if not (parts.kind or parts.places or parts.here):
        return []
    if parts.all or parts.everywhere:
        _rewrite(search, scope="all")
    place = _narrowed(search, parts, spot)
    found = _group(search, parts.kind or search.kind, place)
    if found and place:
        search.place = place.id
    named = (
        []
        if parts.plural or parts.all or parts.here or search.everyone
        else _plainly_named(search, found, parts, place)
    )
    return named or found


def _plainly_named(
    search: Search, ids: Sequence[str], parts: Phrase, place: NamedPlace | None
) -> list[str]:
    """The one of a room called by room and kind alone, in whatever order: `the light in the kitchen`."""
    if not parts.kind_word or place is None or len(place.areas) != 1 or len(ids) < 2:
        return []
    index = search.home.index
    named = [
        e.id
        for n, e in enumerate(index.entities)
        if e.id in ids and index.called_by_kind(n, parts.kind_word)
    ]
    return named if len(named) == 1 else []


def _by_core(search: Search, parts: Phrase, spot: NamedPlace | None) -> list[str]:
    """Devices whose names hold the telling words; those with just these words come first."""
    index, place = search.home.index, _narrowed(search, parts, spot)
    kinds = [kind for kind in (parts.kind, search.kind) if kind]
    best: dict[int, list[int]] = {}
    for number, entity in enumerate(index.entities):
        level = index.match(number, parts.core)
        if (
            level
            and _touchable(search, entity.id)
            and _inside(entity.area, place)
            and all(index.fits(number, k) for k in kinds)
        ):
            best.setdefault(level, []).append(number)
    found = best[max(best)] if best else []
    literal = [
        n for n in found if parts.kind and parts.kind.sense and index.has_sense(n, parts.kind)
    ]
    return [index.entities[n].id for n in literal or found]


def _both(search: Search, phrases: Sequence[str], spot: NamedPlace | None) -> list[str]:
    """`the fan and the lamp`: both, if each is found."""
    pieces = _joined(phrases[-1])
    if len(pieces) < 2:
        return []
    found = [_named(search, [piece], spot) for piece in pieces]
    return [id_ for ids in found for id_ in ids] if all(found) else []


def _by_wide_place(search: Search, phrase: str, spot: NamedPlace | None) -> list[str]:
    """`bedroom light` where the home has a master bedroom: a part of a place's name, and a kind."""
    parts = search.home.index.parse(phrase, search.lang)
    if spot or not parts.core or not parts.kind:
        return []
    spots = search.home.index.places_with(parts.core)
    options = [
        Option(search.home.title(s.id, search.lang), tuple(_group(search, parts.kind, s)))
        for s in spots
    ]
    options = [option for option in options if option.targets]
    if len(options) > 1:
        raise search.ask(options)
    return list(options[0].targets) if options else []


# -- by kind and place -----------------------------------------------------------------------------------------------


def _group(search: Search, kind: Kind | None, spot: NamedPlace | None) -> list[str]:
    """Devices of a kind in a place; without a place the speaker's room, else the only one, else a question."""
    if kind is None and search.intent in ("HassTurnOn", "HassTurnOff"):
        return _unkind(search, spot)
    pool = _pool(search, kind, spot)
    if spot or search.everyone or (search.asks and len(pool) > 1):
        return _pick(search, pool)
    here = (
        _pool(search, kind, NamedPlace(search.here, frozenset((search.here,))))
        if search.here
        else []
    )
    if here:
        return _pick(search, here)
    if search.here is None and all(search.home.entities[id_].domain == "light" for id_ in pool):
        lit = [id_ for id_ in pool if search.home.state(id_).get("state") == "on"]
        return lit if lit and search.intent == "HassLightSet" else pool
    return _one(search, pool) if pool else []


def _unkind(search: Search, spot: NamedPlace | None) -> list[str]:
    """On or off with no kind: everything that is switched if all is meant, else the lights of the place."""
    every = search.slot("scope") == "all"
    if spot is None and not every:
        raise search.ask(reason="what")
    switched = _pool(search, Kind(frozenset(SWITCHABLE)), spot)
    lights = _pool(search, LIGHT, spot)
    return switched if every else lights or (_one(search, switched) if switched else [])


def _pool(search: Search, kind: Kind | None, spot: NamedPlace | None) -> list[str]:
    """The devices of a kind in a place that the action may touch; those that carry its sense themselves if any do."""
    index, allowed = search.home.index, search.allowed
    if kind is None and search.asks:
        kind = _kind_of_state(search)
    pool = [
        number
        for number, entity in enumerate(index.entities)
        if (not allowed or entity.domain in allowed)
        and _inside(entity.area, spot)
        and (kind is None or index.fits(number, kind))
        and (kind is not None or not search.asks or _opens(entity.domain, entity.device_class))
    ]
    literal = [number for number in pool if kind and kind.sense and index.has_sense(number, kind)]
    return [index.entities[number].id for number in literal or pool]


def _kind_of_state(search: Search) -> Kind | None:
    """What "is anything on" is about."""
    return Kind(frozenset(SWITCHABLE)) if search.slot("state") in ("on", "off") else None


def _opens(domain: str, device_class: str) -> bool:
    return domain != "binary_sensor" or device_class in OPENINGS


def _pick(search: Search, ids: list[str], by_name: bool = False, every: bool = False) -> list[str]:
    """All of them where several are meant, else the one."""
    if len(ids) < 2 or search.everyone or every:
        return ids
    if by_name or search.intent in ONE_MEANT:
        return _one(search, ids)
    return ids


def _one(search: Search, ids: list[str]) -> list[str]:
    """The one in the speaker's room, or the one whose state makes it the one; else the question which."""
    ids = [
        id_ for id_ in ids if search.here and search.home.entities[id_].area == search.here
    ] or ids
    for state in ACTIVE.get(search.intent, ()):
        active = [id_ for id_ in ids if search.home.state(id_).get("state") == state]
        if active:
            ids = active
            break
    if len(ids) > 1:
        raise search.which(ids)
    return ids


# -- nothing found ---------------------------------------------------------------------------------------------------


def _absent(search: Search) -> Stop:
    """Why nothing was found: the device cannot do it, there is no such place, or no such device (there)."""
    other = _elsewhere(search)
    if other:
        return search.refuse("cannot", entity=other)
    name, area = search.slot("name"), search.slot("area")
    about: dict[str, Value] = {}
    spot = None if everywhere(search, area) else spot_of(search, area)[0]
    if area and spot is None and not everywhere(search, area):
        return search.refuse("place", words=area)
    if spot:
        about["place"] = spot.id
    if name:
        return search.refuse("absent", words=name, **about)
    kind = search.kind or Kind(frozenset(ACTS_ON.get(search.intent, ())[:1]))
    about["kind"] = kind.sense or next(iter(sorted(kind.domains)), "")
    return search.refuse("absent", **about)


def _elsewhere(search: Search) -> str | None:
    """A device that is called so but that this intent cannot act on."""
    if not search.slot("name"):
        return None
    free = Search(
        replace(
            search.action, intent="HassGetState", slots=_only(search.action.slots, "name", "area")
        ),
        search.home,
        search.here,
    )
    try:
        for name, area in _readings(free):
            spot = spot_of(free, area)[0] if area else None
            found = _named(free, [name], spot) if spot or not area else []
            found = [id_ for id_ in found if not _touchable(search, id_)]
            if found:
                return found[0]
    except Stop:
        return None
    return None


def _only(slots: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: slots[name] for name in names if name in slots}


__all__ = ["Search", "Stop", "everywhere", "find", "place_of", "spot_of"]
