"""Find: the devices that the words of an action mean. `resolve` documents the order of evidence.

Every step returns entity ids, or nothing (the next step is tried), or raises `Unresolved` with a
question or refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tumen.assistant.intents import ACTS_ON
from tumen.assistant.resolution.device_names import find_named
from tumen.assistant.resolution.groups import find_group
from tumen.assistant.resolution.lookup import Lookup
from tumen.assistant.resolution.places import find_place, is_everywhere
from tumen.assistant.resolution.results import Candidate, Unresolved
from tumen.assistant.values import Value
from tumen.home import NamedPlace, common_words, spoken
from tumen.language import Action


def find(lookup: Lookup) -> list[str]:
    """Return the ids of the devices that an action means, at least one.

    Raises:
        Unresolved: with a question or a refusal.
    """
    words = common_words()
    if spoken(lookup.slot("name")) in words.all | words.everywhere:
        # `everything`: not a name
        lookup.rewrite(name="", scope="all")
    referred = _referred_to(lookup)
    if referred:
        return referred
    for name, area in _with_corrections(lookup):
        found = _look_up(lookup, name, area)
        if found:
            return found
    if _may_be_about_any_device(lookup):
        lookup.any_domain = True
        return find(lookup)
    raise _absent(lookup)


def _may_be_about_any_device(lookup: Lookup) -> bool:
    """Whether a question may be about a device of another domain than its state suggests.

    "Is the front door open" of a lock: its state is the answer.
    """
    if not lookup.is_question or not lookup.slot("name"):
        return False
    # only people are in zones
    return bool(lookup.allowed) and not lookup.slot("zone")


def _referred_to(lookup: Lookup) -> list[str]:
    """Return what "it" stands for: the last targets that this action may touch."""
    if spoken(lookup.slot("name")) not in common_words().it:
        return []
    entities = lookup.home.entities
    found = []
    for id_ in lookup.last:
        # the last target may have been a timer
        if id_ in entities and lookup.may_touch(entities[id_]):
            found.append(id_)
    return found


def _with_corrections(lookup: Lookup) -> Iterator[tuple[str, str]]:
    """Yield the words of name and area as they were said, then with typos corrected."""
    name = lookup.slot("name")
    area = lookup.slot("area")
    yield name, area
    better_name = lookup.index.correct(name)
    better_area = lookup.index.correct(area)
    if better_name or better_area:
        yield better_name or name, better_area or area


def _look_up(lookup: Lookup, name: str, area: str) -> list[str]:
    """Return what one spelling of name and area means.

    Raises:
        Unresolved: one is meant and several fit.
    """
    if is_everywhere(lookup, area):
        if area:
            lookup.rewrite(scope="all")
        return _in_place(lookup, name, None)
    place, options = find_place(lookup, area)
    if place:
        lookup.place = place.id
        return _in_place(lookup, name, place, area)
    # the area may be part of a name: `counter` of the `kitchen counter light`
    phrases = [area]
    if name:
        phrases = [f"{area} {name}", f"{name} {area}"]
    found = find_named(lookup, phrases, None)
    return found or _in_one_of(lookup, name, options)


def _in_place(lookup: Lookup, name: str, place: NamedPlace | None, area: str = "") -> list[str]:
    """Return what a name means in a place; without a name, the devices of the action's kind.

    Args:
        lookup: the action.
        name: the words of the name, if any.
        place: where; None for the whole home.
        area: the words of the place, if they may be part of the name.

    Raises:
        Unresolved: one is meant and several fit.
    """
    if not name:
        return find_group(lookup, lookup.kind, place)
    phrases = [name]
    if area:
        # `kitchen` and `light` may be the name of the `Kitchen light`
        phrases.insert(0, f"{area} {name}")
    return find_named(lookup, phrases, place)


def _in_one_of(lookup: Lookup, name: str, places: Sequence[NamedPlace]) -> list[str]:
    """Return the devices in the one place that has them.

    Raises:
        Unresolved: several places have such devices.
    """
    options = []
    for place in places:
        ids = _in_place(lookup, name, place)
        if ids:
            options.append(Candidate(lookup.title(place.id), tuple(ids)))
    return lookup.only_option(options)


# -- nothing found -------------------------------------------------------------------------------


def _absent(lookup: Lookup) -> Unresolved:
    """Return why nothing was found: a device cannot do it, or the place or device is not there."""
    other = _device_of_other_domain(lookup)
    if other:
        return lookup.refusal("cannot", entity=other)
    about: dict[str, Value] = {}
    area = lookup.slot("area")
    if not is_everywhere(lookup, area):
        place, _ = find_place(lookup, area)
        if place is None:
            return lookup.refusal("place", words=area)
        about["place"] = place.id
    name = lookup.slot("name")
    if name:
        return lookup.refusal("absent", words=name, **about)
    return lookup.refusal("absent", **about, kind=_kind_word(lookup))


def _kind_word(lookup: Lookup) -> str:
    """Return the kind of device that is missing, as replies call it."""
    if lookup.kind is None:
        domains = ACTS_ON.get(lookup.intent, ())
        return domains[0] if domains else ""
    return lookup.kind.sense or min(lookup.kind.domains)


def _device_of_other_domain(lookup: Lookup) -> str | None:
    """Return a device that is called so but that this intent cannot act on."""
    if not lookup.slot("name"):
        return None
    slots = {}
    for slot in ("name", "area"):
        if lookup.slot(slot):
            slots[slot] = lookup.slot(slot)
    # a question about states may be about any device
    any_device = Lookup(Action("HassGetState", lookup.lang, slots), lookup.home, lookup.here)
    try:
        for name, area in _with_corrections(any_device):
            place, _ = find_place(any_device, area) if area else (None, ())
            if area and place is None:
                continue
            for id_ in find_named(any_device, [name], place):
                if not lookup.may_touch(lookup.entity(id_)):
                    return id_
    except Unresolved:
        # several devices are called so: none of them is the one
        return None
    return None
