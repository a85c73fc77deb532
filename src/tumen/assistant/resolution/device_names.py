"""Device names: devices by what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tumen.assistant.resolution.groups import choose, find_group
from tumen.assistant.resolution.lookup import Lookup
from tumen.assistant.resolution.places import is_inside, split_joined
from tumen.assistant.resolution.results import Candidate
from tumen.home import Entity, Kind, NamedPlace, Phrase


def find_named(lookup: Lookup, phrases: Sequence[str], place: NamedPlace | None) -> list[str]:
    """Return the devices that phrases name; empty if there are none.

    The first of these that finds anything wins: a name said exactly; a place and a kind; a name
    said in another number or case; words that distinguish devices; two names joined by `and`; a
    part of a place's name and a kind.

    Args:
        lookup: the action.
        phrases: several ways to put the words together, the best first.
        place: where the devices must be.

    Raises:
        Unresolved: one is meant and several fit.
    """
    inflected: list[int] = []
    for phrase in phrases:
        exact, other_forms = lookup.index.exact(phrase, lookup.lang)
        found = _fitting(lookup, exact, place)
        if found:
            return choose(lookup, found, by_name=True)
        inflected += other_forms
    readings = [reading for phrase in phrases for reading in _readings(lookup, phrase)]
    for reading in readings:
        if not reading.core:
            found = _by_place_and_kind(lookup, reading, place)
            if found:
                return found
    found = _fitting(lookup, inflected, place)
    if found:
        return choose(lookup, found, by_name=True)
    for reading in readings:
        if reading.core:
            found = _by_core(lookup, reading, place)
            if found:
                several = reading.plural or reading.all
                return choose(lookup, found, by_name=True, all_said=several)
    # the last phrase is the name alone
    name = phrases[-1]
    return _joined_names(lookup, name, place) or _in_part_of_place(lookup, name, place)


def _readings(lookup: Lookup, phrase: str) -> list[Phrase]:
    """Return a phrase without its places, with short kinds, with its places, with its kinds."""
    index = lookup.index
    readings = (
        index.parse(phrase, lookup.lang),
        index.parse(phrase, lookup.lang, long_kinds=False),
        index.parse(phrase, lookup.lang, take_places=False),
        # `the strip behind the TV` is the TV light strip
        index.parse(phrase, lookup.lang, take_kinds=False),
    )
    # most phrases read the same in all these ways
    return list(dict.fromkeys(readings))


def _fitting(lookup: Lookup, numbers: Iterable[int], place: NamedPlace | None) -> list[str]:
    """Return those the action may touch, in the place, and of the kind if any of them is.

    Args:
        lookup: the action.
        numbers: entities by their number in the index.
        place: where they must be.
    """
    entities = lookup.index.entities
    fits = []
    for number in numbers:
        if _may_be_called(lookup, entities[number], place):
            fits.append(number)
    if lookup.kind is not None:
        fits = _of_kind(lookup, fits, lookup.kind) or fits
    return [entities[number].id for number in fits]


def _may_be_called(lookup: Lookup, entity: Entity, place: NamedPlace | None) -> bool:
    """Whether an entity may be called by its full name in a place."""
    if not lookup.may_touch(entity):
        return False
    # an entity without an area may be called from anywhere
    return not entity.area or is_inside(entity, place)


def _of_kind(lookup: Lookup, numbers: Iterable[int], kind: Kind) -> list[int]:
    """Return the entities that are of a kind."""
    return [number for number in numbers if lookup.index.fits(number, kind)]


def _narrowed(lookup: Lookup, reading: Phrase, place: NamedPlace | None) -> NamedPlace | None:
    """Return what the place of the slot and the places in the words have in common.

    It has no areas where they exclude each other.
    """
    places = [place] if place else []
    places += reading.places
    if reading.here and not reading.places and lookup.speakers_place:
        places.append(lookup.speakers_place)
    if not places:
        return None
    areas = places[0].areas
    for each in places[1:]:
        areas &= each.areas
    return NamedPlace(places[-1].id, areas)


# -- a place and a kind --------------------------------------------------------------------------


def _by_place_and_kind(lookup: Lookup, reading: Phrase, place: NamedPlace | None) -> list[str]:
    """Return what words mean that are a place, a kind or both, and nothing else.

    Raises:
        Unresolved: one is meant and several fit.
    """
    if not (reading.kind or reading.places or reading.here):
        return []
    if reading.all or reading.everywhere:
        lookup.rewrite(scope="all")
    narrowed = _narrowed(lookup, reading, place)
    found = find_group(lookup, reading.kind or lookup.kind, narrowed)
    if found and narrowed:
        lookup.place = narrowed.id
    if reading.plural or reading.all or reading.here or lookup.all_meant:
        return found
    return _called_by_kind(lookup, found, reading, narrowed) or found


def _called_by_kind(
    lookup: Lookup, ids: Sequence[str], reading: Phrase, place: NamedPlace | None
) -> list[str]:
    """Return the one device of a room that is called by room and kind alone, if there is one.

    `the light in the kitchen` is the `Kitchen light`, not the kitchen's spots beside it.
    """
    if not reading.kind_word or place is None or len(place.areas) != 1:
        return []
    if len(ids) < 2:
        return []
    called = []
    for number, entity in enumerate(lookup.index.entities):
        if entity.id in ids and lookup.index.called_by_kind(number, reading.kind_word):
            called.append(entity.id)
    return called if len(called) == 1 else []


# -- words that distinguish devices --------------------------------------------------------------


def _by_core(lookup: Lookup, reading: Phrase, place: NamedPlace | None) -> list[str]:
    """Return devices whose names have the core words; those with just these words win."""
    index = lookup.index
    narrowed = _narrowed(lookup, reading, place)
    by_level: dict[int, list[int]] = {}
    for number in index.with_core(reading.core):
        entity = index.entities[number]
        level = index.match(number, reading.core)
        if level and lookup.may_touch(entity) and is_inside(entity, narrowed):
            by_level.setdefault(level, []).append(number)
    # a name of just these words does not hide a longer one of the right kind
    for level in sorted(by_level, reverse=True):
        found = by_level[level]
        for kind in (reading.kind, lookup.kind):
            if kind:
                found = _of_kind(lookup, found, kind)
        if found:
            best = _with_sense(lookup, found, reading.kind)
            return [index.entities[number].id for number in best]
    return []


def _with_sense(lookup: Lookup, numbers: list[int], kind: Kind | None) -> list[int]:
    """Return the entities that carry the sense of a kind themselves; all of them if none does."""
    if kind is None or not kind.sense:
        return numbers
    literal = [number for number in numbers if lookup.index.has_sense(number, kind)]
    return literal or numbers


def _joined_names(lookup: Lookup, phrase: str, place: NamedPlace | None) -> list[str]:
    """Return the devices of `the fan and the lamp`, if each of them is found."""
    names = split_joined(phrase)
    if len(names) < 2:
        return []
    ids: list[str] = []
    for found in [find_named(lookup, [name], place) for name in names]:
        if not found:
            return []
        ids += found
    return ids


def _in_part_of_place(lookup: Lookup, phrase: str, place: NamedPlace | None) -> list[str]:
    """Return the devices of `bedroom light` where the home has a master bedroom.

    Raises:
        Unresolved: several places have the word in their names and such devices.
    """
    reading = lookup.parse(phrase)
    if place or not reading.core or not reading.kind:
        return []
    options = []
    for part in lookup.index.places_with(reading.core):
        ids = find_group(lookup, reading.kind, part)
        if ids:
            options.append(Candidate(lookup.title(part.id), tuple(ids)))
    return lookup.only_option(options)
