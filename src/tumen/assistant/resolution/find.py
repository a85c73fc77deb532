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
from tumen.home import Kind, NamedPlace, common_words, spoken
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
    if lookup.is_question and lookup.slot("name") and lookup.allowed and not lookup.slot("zone"):
        # "is the front door open" of a lock: its state is the answer
        lookup.any_domain = True
        return find(lookup)
    raise _absent(lookup)


def _referred_to(lookup: Lookup) -> list[str]:
    """Return what "it" stands for: the last targets that this action may touch."""
    if spoken(lookup.slot("name")) not in common_words().it:
        return []
    known = [id_ for id_ in lookup.last if id_ in lookup.home.entities]
    return [id_ for id_ in known if lookup.may_touch(id_)]


def _with_corrections(lookup: Lookup) -> Iterator[tuple[str, str]]:
    """Yield the words of name and area as they were said, then with typos corrected."""
    name, area = lookup.slot("name"), lookup.slot("area")
    yield name, area
    index = lookup.home.index
    better_name = index.correct(name, lookup.lang)
    better_area = index.correct(area, lookup.lang)
    if better_name or better_area:
        yield better_name or name, better_area or area


def _look_up(lookup: Lookup, name: str, area: str) -> list[str]:
    """Return what one spelling of name and area means."""
    if is_everywhere(lookup, area):
        if area:
            lookup.rewrite(scope="all")
        return _in_place(lookup, [name] if name else [], None)
    place, options = find_place(lookup, area)
    if place:
        lookup.place = place.id
        return _in_place(lookup, [f"{area} {name}", name] if name else [], place)
    # the area may be part of a name: `counter` of the `kitchen counter light`
    phrases = [f"{area} {name}", f"{name} {area}"] if name else [area]
    return find_named(lookup, phrases, None) or _in_one_of(lookup, name, options)


def _in_place(lookup: Lookup, phrases: Sequence[str], place: NamedPlace | None) -> list[str]:
    """Return what phrases name in a place; without phrases, the devices of the action's kind."""
    if phrases:
        return find_named(lookup, phrases, place)
    return find_group(lookup, lookup.kind, place)


def _in_one_of(lookup: Lookup, name: str, places: Sequence[NamedPlace]) -> list[str]:
    """Return the devices in the one place that has them.

    Raises:
        Unresolved: several places have such devices.
    """
    options = []
    for place in places:
        ids = _in_place(lookup, [name] if name else [], place)
        if ids:
            options.append(Candidate(lookup.home.title(place.id, lookup.lang), tuple(ids)))
    if len(options) > 1:
        raise lookup.question("which", options)
    return list(options[0].targets) if options else []


# -- nothing found -------------------------------------------------------------------------------


def _absent(lookup: Lookup) -> Unresolved:
    """Return why nothing was found: a device cannot do it, or the place or device is not there."""
    other = _device_of_other_domain(lookup)
    if other:
        return lookup.refusal("cannot", entity=other)
    name, area = lookup.slot("name"), lookup.slot("area")
    about: dict[str, Value] = {}
    if not is_everywhere(lookup, area):
        place, _ = find_place(lookup, area)
        if place is None:
            return lookup.refusal("place", words=area)
        about["place"] = place.id
    if name:
        return lookup.refusal("absent", words=name, **about)
    # without a name the reply calls the kind of device, at least its first domain
    kind = lookup.kind or Kind(frozenset(ACTS_ON.get(lookup.intent, ())[:1]))
    about["kind"] = kind.sense or min(kind.domains, default="")
    return lookup.refusal("absent", **about)


def _device_of_other_domain(lookup: Lookup) -> str | None:
    """Return a device that is called so but that this intent cannot act on."""
    if not lookup.slot("name"):
        return None
    slots = {slot: lookup.slot(slot) for slot in ("name", "area") if slot in lookup.action.slots}
    # a question about states may be about any device
    any_device = Lookup(Action("HassGetState", lookup.lang, slots), lookup.home, lookup.here)
    try:
        for name, area in _with_corrections(any_device):
            place, _ = find_place(any_device, area) if area else (None, ())
            if area and place is None:
                continue
            for id_ in find_named(any_device, [name], place):
                if not lookup.may_touch(id_):
                    return id_
    except Unresolved:
        # several devices are called so: none of them is the one
        return None
    return None
