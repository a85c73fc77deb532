"""Places: the areas and floors that the words of an action mean."""

from __future__ import annotations

from tumen.assistant.resolution.lookup import Lookup
from tumen.home import Entity, NamedPlace, common_words, fold, split, spoken


def find_place(lookup: Lookup, words: str) -> tuple[NamedPlace | None, tuple[NamedPlace, ...]]:
    """Return the place that words mean, or the several places they may mean.

    `here` is the speaker's room; `a and b` are one place with the areas of both.

    Args:
        lookup: the action.
        words: what was said.

    Raises:
        Unresolved: `here` was said and the speaker's room is not known.
    """
    place = lookup.index.place(words, lookup.lang)
    if place:
        return place, ()
    phrase = lookup.parse(words)
    # `here` and nothing else: `here in the kitchen` is the kitchen
    if phrase.here and not phrase.core and not phrase.places:
        if lookup.speakers_place is None:
            raise lookup.question("where")
        return lookup.speakers_place, ()
    # `kitchen and hall`
    together = _places_together(lookup, words)
    if together:
        return together, ()
    # `in the kitchen please`: one place, and nothing else that could matter
    if len(phrase.places) == 1 and not phrase.core and not phrase.kind:
        return phrase.places[0], ()
    # `bedroom` where the home has a master bedroom
    stops = common_words().stop[lookup.lang]
    distinguishing = [word for word in split(words) if word not in stops]
    options = lookup.index.places_with(distinguishing)
    if len(options) == 1:
        return options[0], ()
    return None, options


def _places_together(lookup: Lookup, words: str) -> NamedPlace | None:
    """Return the one place that several names joined by `and` mean, if each of them is a place."""
    names = split_joined(words)
    places = []
    for name in names:
        place = lookup.index.place(name, lookup.lang)
        # half of what was said would be a guess
        if place is None:
            return None
        places.append(place)
    if len(places) < 2:
        return None
    areas: frozenset[str] = frozenset()
    for place in places:
        areas |= place.areas
    return NamedPlace("+".join(place.id for place in places), areas)


def split_joined(words: str) -> list[str]:
    """Return the names that `and` joins: `kitchen and hallway` are two."""
    plain = fold(words)
    for joint in common_words().joints:
        if joint in plain:
            return [name.strip() for name in plain.split(joint) if name.strip()]
    return [plain]


def is_everywhere(lookup: Lookup, words: str) -> bool:
    """Return whether a place is the whole home; no words mean the whole home too.

    Args:
        lookup: the action.
        words: the place that was said, if any.
    """
    if not words:
        return True
    # a floor or area may be called `House`
    if lookup.index.place(words, lookup.lang):
        return False
    if spoken(words) in common_words().everywhere:
        return True
    phrase = lookup.parse(words)
    return phrase.everywhere and not (phrase.core or phrase.places or phrase.kind)


def place_of_area(lookup: Lookup) -> NamedPlace | None:
    """Return the place of the slot `area`, typos corrected; None for the whole home.

    Raises:
        Unresolved: the home does not have such a place.
    """
    words = lookup.slot("area")
    if is_everywhere(lookup, words):
        return None
    place, _ = find_place(lookup, words)
    if place is None:
        # the home may have it under another spelling
        better = lookup.index.correct(words)
        if better:
            place, _ = find_place(lookup, better)
    if place is None:
        raise lookup.refusal("place", words=words)
    return place


def is_inside(entity: Entity, place: NamedPlace | None) -> bool:
    """Return whether an entity is in a place; no place is the whole home.

    Args:
        entity: the device.
        place: where it should be.
    """
    return place is None or entity.area in place.areas
