"""Resolve: the words of an action onto the real things of a home. Never a guess, never an invented device.

The name, the area, the domain and the device class of an action are one bag of evidence, because people and models
put words in either slot. In this order:

    1  an entity called just so wins over everything                       "bedroom lamp"
    2  a place and a kind mean all of that kind there                      "kitchen lights", `Küchenlicht`, 厨房的灯
    3  words that tell one device of a kind from another                   "the left bedside lamp"
    4  the same again with small typos mended against the home's own words

Without a name and a place it is the room the speaker is in (`here`), else the only candidate, else a question. A
question about states means the whole home, and so do lights where nobody knows the speaker's room: switching a lamp
is harmless and undone in a word, asking each time is not. Several equally good candidates are a `Question`; what is
not there is a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tumen.assistant.find import Search, Stop, find, place_of, spot_of
from tumen.assistant.values import Unknown, Values
from tumen.assistant.verdict import Resolved, Verdict
from tumen.home import SHOPPING, Home, Timer, fold
from tumen.language import CLOSED, COPIED, INTENTS, Action

EVIDENCE = frozenset(("lang", "domain", "device_class", "scope", "name", "area"))
SECONDS = {"duration": "seconds", "start": "start_seconds"}
_VALUES = Values()


def resolve(
    action: Action,
    home: Home,
    values: Values | None = None,
    here: str | None = None,
    last: Sequence[str] = (),
) -> Verdict:
    """Map an action onto a home. Total: every action gives one of the three results; nothing is changed, nothing
    raised.

    Args:
        action: what was understood.
        home: the home it is for.
        values: the lexicon of a bundle; the built-in one if left out.
        here: the area of the speaker, if it is not the home's own `here`.
        last: what "it" means: the targets of the turn before.
    """
    search = Search(action, home, here or home.here, tuple(last))
    try:
        _read_values(search, values or _VALUES)
        return _WAYS.get(action.intent, _devices if action.intent in INTENTS else _not_home)(search)
    except Stop as stop:
        return stop.result


def _read_values(search: Search, reader: Values) -> None:
    """Words of value slots into numbers and text; time spans into seconds."""
    for slot, words in search.action.slots.items():
        if slot in EVIDENCE or not (slot in CLOSED or slot in COPIED):
            continue
        value = words if slot in CLOSED else reader.read(slot, words, search.lang)
        if isinstance(value, Unknown):
            raise search.refuse("value", slot=slot, words=words)
        search.values[SECONDS.get(slot, slot)] = value


def _devices(search: Search) -> Resolved:
    """Intents that act on, or ask about, devices by name, place and kind."""
    return search.done(find(search))


def _nothing(search: Search) -> Resolved:
    """Intents that are about no device."""
    return search.done()


def _not_home(search: Search) -> Resolved:
    raise search.refuse("not_home")


def _temperature(search: Search) -> Resolved:
    """Who knows the temperature: climate devices first, then temperature sensors, where asked."""
    if search.slot("name"):
        return _devices(search)
    entities = search.home.entities.values()
    known = [
        e
        for e in entities
        if e.domain == "climate" or (e.domain == "sensor" and e.device_class == "temperature")
    ]
    spot = place_of(search)
    areas = spot.areas if spot else frozenset(filter(None, (search.here,)))
    near = (
        [e for e in known if e.area in areas]
        if spot
        else [e for e in known if e.area in areas] or known
    )
    found = [e.id for e in near if e.domain == "climate"] or [e.id for e in near]
    if not found:
        raise search.refuse("absent", kind="temperature", **({"place": spot.id} if spot else {}))
    if len(found) > 1 and not spot and not search.here:
        raise search.which(sorted(found))
    return search.done(found)


def _vacuum(search: Search) -> Resolved:
    """A vacuum comes from wherever it stands: a place it is not in does not exclude it."""
    if search.slot("area") and not search.slot("name"):
        spot = place_of(search)
        inside = [
            e
            for e in search.home.entities.values()
            if e.domain == "vacuum" and spot and e.area in spot.areas
        ]
        if not inside:
            return _clean(search)
    return _devices(search)


def _clean(search: Search) -> Resolved:
    """Which areas (`values["area"]`, ids with commas) and which vacuum: the named, the only, the floor's."""
    words, spot = search.slot("area"), place_of(search)
    if spot:
        search.values["area"], search.place = ",".join(sorted(spot.areas)), spot.id
    elif search.here and not words:
        search.values["area"] = search.here
    slots = {name: value for name, value in search.action.slots.items() if name != "area"}
    search.action = Action(search.intent, search.lang, slots)
    if not slots.get("name") and spot:
        floors = {search.home.areas[area].floor for area in spot.areas}
        vacuums = [e for e in search.home.entities.values() if e.domain == "vacuum"]
        near = [
            e.id
            for e in vacuums
            if e.area in spot.areas or (e.area and search.home.areas[e.area].floor in floors)
        ]
        if len(near) == 1:
            return search.done(near)
    return _devices(search)


def _broadcast(search: Search) -> Resolved:
    """Speakers of a place or of the whole home; where there are none, everything that plays sound."""
    search.action = Action(search.intent, search.lang, {**search.action.slots, "scope": "all"})
    found = find(search)
    speakers = [id_ for id_ in found if search.home.entities[id_].device_class == "speaker"]
    return search.done(speakers or found)


def _shopping(search: Search) -> Resolved:
    return search.done((SHOPPING,))


def _weather(search: Search) -> Resolved:
    """The weather of the home; a place that no weather service of the home is called is refused."""
    name = search.slot("name")
    if name and (home_spot := spot_of(search, name)[0]) is not None:
        search.place = home_spot.id
        search.action = Action(search.intent, search.lang)
    return _devices(search)


# -- timers ----------------------------------------------------------------------------------------------------------


def _start_timer(search: Search) -> Resolved:
    if not search.values.get("seconds"):
        raise search.ask(reason="how_long")
    name = search.slot("name")
    if name:
        search.values["name"] = " ".join(name.split())
    search.place = search.home.here
    return search.done()


def _timer(search: Search) -> Resolved:
    """The timers that fit name, place and length; one is meant, except by a question or by all."""
    _keep_timer_words(search)
    timers = list(search.home.timers.values())
    if not timers:
        raise search.refuse("no_timer")
    fits = [timer for timer in timers if _timer_fits(search, timer)]
    if not fits:
        raise search.refuse("which_timer")
    ids = [timer.id for timer in fits]
    if len(ids) > 1 and search.intent not in ("HassTimerStatus", "HassCancelAllTimers"):
        raise search.which(ids)
    return search.done(ids)


def _keep_timer_words(search: Search) -> None:
    """Name and area of a timer are values: which timers run is not for an exam to know."""
    if search.slot("name"):
        search.values["name"] = " ".join(search.slot("name").split())
    spot = place_of(search)
    if spot:
        search.values["area"] = ",".join(sorted(spot.areas))


def _timer_fits(search: Search, timer: Timer) -> bool:
    name, start, area = (search.values.get(key) for key in ("name", "start_seconds", "area"))
    return (
        (name is None or fold(str(name)) == fold(timer.name))
        and (start is None or start == timer.seconds)
        and (area is None or timer.area in str(area).split(","))
    )


_WAYS: dict[str, Callable[[Search], Resolved]] = {
    **dict.fromkeys(
        ("HassNevermind", "HassRespond", "HassGetCurrentTime", "HassGetCurrentDate"), _nothing
    ),
    "none": _not_home,
    "HassClimateGetTemperature": _temperature,
    "HassVacuumStart": _vacuum,
    "HassVacuumCleanArea": _clean,
    "HassBroadcast": _broadcast,
    **dict.fromkeys(("HassShoppingListAddItem", "HassShoppingListCompleteItem"), _shopping),
    "HassGetWeather": _weather,
    "HassStartTimer": _start_timer,
    **dict.fromkeys(
        ("HassCancelTimer", "HassCancelAllTimers", "HassIncreaseTimer", "HassDecreaseTimer"), _timer
    ),
    **dict.fromkeys(("HassPauseTimer", "HassUnpauseTimer", "HassTimerStatus"), _timer),
}
