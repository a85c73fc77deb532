"""Groups: devices by kind and place, and the choice among several."""

from __future__ import annotations

from tumen.assistant.intents import ACTIVE_STATES, ENTRANCES, ONE_MEANT, OPENINGS, SWITCHABLE
from tumen.assistant.resolution.lookup import Lookup
from tumen.assistant.resolution.places import is_inside
from tumen.home import Entity, Kind, NamedPlace

_LIGHT = Kind(frozenset(("light",)))
_ANY_SWITCHABLE = Kind(frozenset(SWITCHABLE))


def find_group(lookup: Lookup, kind: Kind | None, place: NamedPlace | None) -> list[str]:
    """Return the devices of a kind in a place.

    Without a place: those in the speaker's room, else the only one there is.

    Args:
        lookup: the action.
        kind: what kind of device; None if the action does not name one.
        place: where; None for the whole home.

    Raises:
        Unresolved: one is meant and several fit.
    """
    # `turn off the kitchen` names no kind; other intents have one by themselves
    if kind is None and lookup.intent in ("HassTurnOn", "HassTurnOff"):
        return _switched(lookup, place)
    devices = devices_of(lookup, kind, place)
    # a question about states means the whole home
    if place or lookup.all_meant or (lookup.is_question and len(devices) > 1):
        return choose(lookup, devices)
    # a command without a place is about the room it is said in
    if lookup.speakers_place:
        near = devices_of(lookup, kind, lookup.speakers_place)
        if near:
            return choose(lookup, near)
    # the speaker's room is not known
    elif _all_lights(lookup, devices):
        return _lights_of_home(lookup, devices)
    return choose_one(lookup, devices)


def _all_lights(lookup: Lookup, ids: list[str]) -> bool:
    """Whether all of these devices are lights."""
    return all(lookup.entity(id_).domain == "light" for id_ in ids)


def _lights_of_home(lookup: Lookup, lights: list[str]) -> list[str]:
    """Return the lights that are meant where the speaker's room is not known.

    An unknown room never means the whole house. Only lights that are lit can be made brighter,
    darker or coloured, and those of one room are the ones.

    Raises:
        Unresolved: lights of several rooms fit; the question is which room.
    """
    if lookup.intent == "HassLightSet":
        lit = [id_ for id_ in lights if lookup.state_word(id_) == "on"]
        lights = lit or lights
    areas = {lookup.entity(id_).area for id_ in lights}
    if len(lights) > 1 and len(areas) > 1:
        raise lookup.question("where")
    return lights


def _switched(lookup: Lookup, place: NamedPlace | None) -> list[str]:
    """Return what on or off means without a kind: all that is switched, else the lights."""
    all_meant = lookup.slot("scope") == "all"
    # `turn on` alone means nothing in particular
    if place is None and not all_meant:
        raise lookup.question("what")
    devices = devices_of(lookup, _ANY_SWITCHABLE, place)
    if all_meant:
        return devices
    # turning off a room means its lights
    lights = devices_of(lookup, _LIGHT, place)
    if lights:
        return lights
    return choose_one(lookup, devices)


def devices_of(lookup: Lookup, kind: Kind | None, place: NamedPlace | None) -> list[str]:
    """Return the devices of a kind in a place that the action may touch.

    Devices that carry the sense of the kind themselves win: `blinds` are not the shutters beside
    them, but shutters where the home does not have blinds.

    Args:
        lookup: the action.
        kind: what kind of device; None for any.
        place: where; None for the whole home.
    """
    index = lookup.index
    if kind is None and lookup.is_question:
        kind = _kind_of_state(lookup)
    # `is anything open`: about no kind of device
    asks_at_large = kind is None and lookup.is_question
    allowed = lookup.allowed
    fits = []
    for number in index.of_domains(_domains_of(allowed, kind)):
        entity = index.entities[number]
        if not is_inside(entity, place):
            continue
        if kind is not None and not index.fits(number, kind):
            continue
        if asks_at_large and not _may_be_open(entity):
            continue
        fits.append(number)
    if kind is not None and kind.sense:
        literal = [number for number in fits if index.has_sense(number, kind)]
        fits = literal or fits
    return [index.entities[number].id for number in fits]


def _domains_of(allowed: frozenset[str], kind: Kind | None) -> frozenset[str]:
    """Return the domains that both an action and a kind have; none if any domain fits."""
    if kind is None:
        return allowed
    # a domain that no entity has, where they have none in common
    return (allowed & kind.domains or frozenset(("",))) if allowed else kind.domains


def _kind_of_state(lookup: Lookup) -> Kind | None:
    """Return what `is anything on` is about."""
    if lookup.slot("state") in ("on", "off"):
        return _ANY_SWITCHABLE
    return None


def _may_be_open(entity: Entity) -> bool:
    """Whether `is anything open` may be about a device: not about a motion sensor."""
    return entity.domain != "binary_sensor" or entity.device_class in OPENINGS


def choose(
    lookup: Lookup, ids: list[str], by_name: bool = False, all_said: bool = False
) -> list[str]:
    """Return all candidates where several are meant, else the one.

    Args:
        lookup: the action.
        ids: the candidates.
        by_name: whether they were found by a name, which means one device.
        all_said: whether the words themselves mean several, such as a plural.

    Raises:
        Unresolved: one is meant and several fit.
    """
    # nothing to choose from, or everything is meant
    if len(ids) < 2 or lookup.all_meant or all_said:
        return ids
    if by_name or lookup.intent in ONE_MEANT or _opens_the_house(lookup, ids):
        return choose_one(lookup, ids)
    return ids


def _opens_the_house(lookup: Lookup, ids: list[str]) -> bool:
    """Whether an act unlocks or opens what keeps the house shut: several only if all are meant."""
    if lookup.intent == "HassTurnOff":
        return any(lookup.entity(id_).domain == "lock" for id_ in ids)
    if lookup.intent not in ("HassTurnOn", "HassSetPosition"):
        return False
    return any(lookup.entity(id_).device_class in ENTRANCES for id_ in ids)


def choose_one(lookup: Lookup, ids: list[str]) -> list[str]:
    """Return the candidate in the speaker's room, or the one whose state makes it the one.

    Args:
        lookup: the action.
        ids: the candidates, if any.

    Raises:
        Unresolved: several are equally good.
    """
    if lookup.here:
        # the room comes before the state: `pause` said in the bath means the bath's radio
        near = [id_ for id_ in ids if lookup.entity(id_).area == lookup.here]
        ids = near or ids
    # `pause` means the one that plays, `go on` the one that is paused
    for state in ACTIVE_STATES.get(lookup.intent, ()):
        active = [id_ for id_ in ids if lookup.state_word(id_) == state]
        if active:
            ids = active
            break
    # a wrong guess costs more than a question
    if len(ids) > 1:
        raise lookup.which(ids)
    return ids
