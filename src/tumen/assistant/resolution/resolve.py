"""Resolve: from the words of an action to the real things of a home, without guessing.

The name, the area, the domain and the device class of an action are used together as evidence,
because people and models put words in either slot. In this order:

    1  an entity called exactly so wins over everything                 "bedroom lamp"
    2  a place and a kind mean all devices of that kind there           "kitchen lights", 厨房的灯
    3  words that distinguish devices of a kind                        "the left bedside lamp"
    4  the same again with small typos corrected to the home's own words

Without a name and a place it is the room of the speaker (`here`), else the only candidate, else a
question. A question about states means the whole home; a command never does unless it says so.
Several equally good candidates are a `Question`; what is not there is a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tumen.assistant.resolution.find import find
from tumen.assistant.resolution.lookup import Lookup
from tumen.assistant.resolution.places import find_place, place_of_area
from tumen.assistant.resolution.results import Resolution, Resolved, Unresolved
from tumen.assistant.resolution.timer_lookup import resolve_timer, resolve_timer_start
from tumen.assistant.values import SHARE, Unknown, Values
from tumen.home import SHOPPING, Entity, Home
from tumen.language import CLOSED, COPIED, INTENTS, Action

_EVIDENCE = frozenset(("lang", "domain", "device_class", "scope", "name", "area"))
_VALUE_NAMES = {"duration": "seconds", "start": "start_seconds"}
_BUILT_IN_VALUES = Values()


def resolve(
    action: Action,
    home: Home,
    values: Values | None = None,
    here: str | None = None,
    last: Sequence[str] = (),
) -> Resolution:
    """Return what an action means in a home. Every action gives one of three results.

    Nothing is changed and nothing is raised.

    Args:
        action: what was understood.
        home: the home it is for.
        values: the lexicon of a bundle; the built-in one if left out.
        here: the area of the speaker, if it is not the home's own `here`.
        last: what "it" stands for: the targets of the turn before.
    """
    lookup = Lookup(action, home, here or home.here, tuple(last))
    try:
        _read_values(lookup, values or _BUILT_IN_VALUES)
        return _resolver_of(action.intent)(lookup)
    except Unresolved as unresolved:
        return unresolved.result


def _read_values(lookup: Lookup, reader: Values) -> None:
    """Read the words of value slots as numbers and text, time spans as seconds."""
    # a value beside a direction is how much it changes
    is_change = "step" in lookup.action.slots
    for slot, words in lookup.action.slots.items():
        if slot in _EVIDENCE:
            continue
        # closed slots hold one of a few known words
        if slot in CLOSED:
            lookup.values[slot] = words
            continue
        share = reader.share(slot, words, lookup.lang) if is_change else None
        # `by half` is a part of what is set now
        if share is not None:
            lookup.values[SHARE] = share
        # copied slots hold words of the sentence
        elif slot in COPIED:
            read = reader.difference if is_change else reader.read
            value = read(slot, words, lookup.lang)
            if isinstance(value, Unknown):
                raise lookup.refusal("value", slot=slot, words=words)
            lookup.values[_VALUE_NAMES.get(slot, slot)] = value


def _resolver_of(intent: str) -> Callable[[Lookup], Resolved]:
    """Return the function that resolves an intent."""
    # most intents act on devices by name, place and kind
    if intent in _SPECIAL:
        return _SPECIAL[intent]
    return _devices if intent in INTENTS else _not_home


def _devices(lookup: Lookup) -> Resolved:
    """Resolve intents that act on, or ask about, devices by name, place and kind."""
    return lookup.resolved(find(lookup))


def _nothing(lookup: Lookup) -> Resolved:
    """Resolve intents that are not about a device."""
    return lookup.resolved()


def _not_home(lookup: Lookup) -> Resolved:
    """Refuse what is not for a home."""
    raise lookup.refusal("not_home")


def _shopping_list(lookup: Lookup) -> Resolved:
    """Resolve the list that every home has."""
    return lookup.resolved((SHOPPING,))


def _temperature(lookup: Lookup) -> Resolved:
    """Resolve who measures the temperature: climate devices first, then temperature sensors."""
    if lookup.slot("name"):
        return _devices(lookup)
    place = place_of_area(lookup)
    devices = [entity for entity in lookup.home.entities.values() if _measures(entity)]
    if place:
        devices = [entity for entity in devices if entity.area in place.areas]
    # the speaker's room, if anything measures there
    near = [] if place else [entity for entity in devices if entity.area == lookup.here]
    devices = near or devices
    # heating regulates the room, so its reading is the room's
    climates = [entity for entity in devices if entity.domain == "climate"]
    found = [entity.id for entity in climates or devices]
    if not found:
        if place:
            raise lookup.refusal("absent", kind="temperature", place=place.id)
        raise lookup.refusal("absent", kind="temperature")
    # no room is named, or nothing measures here: the temperature of which one?
    if len(found) > 1 and not place and not near:
        raise lookup.which(sorted(found))
    return lookup.resolved(found)


def _measures(entity: Entity) -> bool:
    """Whether an entity measures the temperature of its area."""
    if entity.domain == "sensor":
        return entity.device_class == "temperature"
    return entity.domain == "climate"


def _vacuum(lookup: Lookup) -> Resolved:
    """Resolve a vacuum that is to start. A place without a vacuum is one to clean."""
    # a named vacuum starts wherever it is
    if lookup.slot("area") and not lookup.slot("name"):
        place = place_of_area(lookup)
        areas = place.areas if place else frozenset()
        if not any(vacuum.area in areas for vacuum in _vacuums(lookup)):
            return _clean_area(lookup)
    return _devices(lookup)


def _clean_area(lookup: Lookup) -> Resolved:
    """Resolve the areas to clean and the vacuum: the named one, the only one, or the floor's.

    `values["area"]` gets the ids of the areas, joined by commas.
    """
    place = place_of_area(lookup)
    if place:
        lookup.values["area"] = ",".join(sorted(place.areas))
        lookup.place = place.id
    elif lookup.here and not lookup.slot("area"):
        lookup.values["area"] = lookup.here
    # a vacuum comes from wherever it stands, so the area does not narrow which one
    slots = {slot: words for slot, words in lookup.action.slots.items() if slot != "area"}
    lookup.action = Action(lookup.intent, lookup.lang, slots)
    if place and not slots.get("name"):
        # vacuums do not climb stairs
        near = [vacuum.id for vacuum in _vacuums(lookup) if _reaches(lookup, vacuum, place.areas)]
        if len(near) == 1:
            return lookup.resolved(near)
    return _devices(lookup)


def _vacuums(lookup: Lookup) -> list[Entity]:
    """Return the vacuums of the home."""
    return [entity for entity in lookup.home.entities.values() if entity.domain == "vacuum"]


def _reaches(lookup: Lookup, vacuum: Entity, areas: frozenset[str]) -> bool:
    """Whether a vacuum stands in one of the areas or on the floor of one."""
    if not vacuum.area:
        return False
    # areas without a floor are all on the same one
    floors = {lookup.home.areas[area].floor for area in areas}
    return vacuum.area in areas or lookup.home.areas[vacuum.area].floor in floors


def _broadcast(lookup: Lookup) -> Resolved:
    """Resolve the speakers of a place or of the home; without speakers, every media player."""
    # a message is for all people at home
    lookup.rewrite(scope="all")
    found = find(lookup)
    speakers = [id_ for id_ in found if lookup.entity(id_).device_class == "speaker"]
    return lookup.resolved(speakers or found)


def _weather(lookup: Lookup) -> Resolved:
    """Resolve the weather of the home; other places are refused, they have another weather."""
    name = lookup.slot("name")
    if name:
        # `the weather in the garden` is the weather of the home
        place, _ = find_place(lookup, name)
        if place is not None:
            lookup.place = place.id
            lookup.action = Action(lookup.intent, lookup.lang)
    return _devices(lookup)


def _not_possible(lookup: Lookup) -> Resolved:
    """Refuse what is understood, but what no home here does: an alarm, a reminder."""
    raise lookup.refusal("not_possible", wish=lookup.slot("wish") or "that")


_SPECIAL: dict[str, Callable[[Lookup], Resolved]] = {
    "none": _not_home,
    "NotPossible": _not_possible,
    "HassNevermind": _nothing,
    "HassRespond": _nothing,
    "HassGetCurrentTime": _nothing,
    "HassGetCurrentDate": _nothing,
    "HassClimateGetTemperature": _temperature,
    "HassVacuumStart": _vacuum,
    "HassVacuumCleanArea": _clean_area,
    "HassBroadcast": _broadcast,
    "HassShoppingListAddItem": _shopping_list,
    "HassShoppingListCompleteItem": _shopping_list,
    "HassGetWeather": _weather,
    "HassStartTimer": resolve_timer_start,
    "HassCancelTimer": resolve_timer,
    "HassCancelAllTimers": resolve_timer,
    "HassIncreaseTimer": resolve_timer,
    "HassDecreaseTimer": resolve_timer,
    "HassPauseTimer": resolve_timer,
    "HassUnpauseTimer": resolve_timer,
    "HassTimerStatus": resolve_timer,
}
"""Intents that are not resolved by name, place and kind alone."""
