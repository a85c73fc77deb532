"""Meaning: which intents a command stands for, by what its targets are.

`on` opens no curtain and `open` switches no lamp on; a number that is said to a lamp is a
brightness, to a thermostat a temperature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tumen.assistant.commands.command import Command, Named, SaidValue
from tumen.assistant.intents import ACTS_ON
from tumen.assistant.values import Unknown, Values
from tumen.home import Home
from tumen.language import CLOSED, INTENTS, Action

PLACE_ONLY = "place"
"""Stands for the domain of a target that is a place and names no kind."""

_OPENED = frozenset(("cover", "valve"))
_SWITCHED_ON = frozenset(ACTS_ON["HassTurnOn"]) - {"lock", "cover"}
_SWITCHED_OFF = frozenset(ACTS_ON["HassTurnOff"]) - {"lock", "cover"}
_LIGHT = frozenset(("light",))
_MEDIA = frozenset(("media_player",))
_CLIMATE = frozenset(("climate",))
_FAN = frozenset(("fan",))


@dataclass(frozen=True)
class _ActMeaning:
    """What an act means for targets of some domains.

    Attributes:
        intent: what is done.
        domains: what it is done to.
        slots: closed slots that go with it.
        of_places: whether a place alone may be its target.
    """

    intent: str
    domains: frozenset[str]
    slots: Mapping[str, str]
    of_places: bool = False


def _step(intent: str, domains: frozenset[str], step: str, of_places: bool = False) -> _ActMeaning:
    """Return an act that goes one step up or down."""
    return _ActMeaning(intent, domains, {"step": step}, of_places)


def _any_step(step: str, of_cover: _ActMeaning) -> tuple[_ActMeaning, ...]:
    """Return one step up or down of whatever has steps."""
    return (
        _step("HassLightSet", _LIGHT, step),
        _step("HassSetVolumeRelative", _MEDIA, step),
        _step("HassClimateSetTemperature", _CLIMATE, step),
        _step("HassFanSetSpeed", _FAN, step),
        of_cover,
    )


_ACTS: dict[str, tuple[_ActMeaning, ...]] = {
    "on": (_ActMeaning("HassTurnOn", _SWITCHED_ON, {}, of_places=True),),
    "off": (_ActMeaning("HassTurnOff", _SWITCHED_OFF, {}, of_places=True),),
    "open": (_ActMeaning("HassTurnOn", _OPENED, {}),),
    "close": (_ActMeaning("HassTurnOff", _OPENED, {}),),
    "lock": (_ActMeaning("HassTurnOn", frozenset(("lock",)), {}),),
    "unlock": (_ActMeaning("HassTurnOff", frozenset(("lock",)), {}),),
    "brighter": (_step("HassLightSet", _LIGHT, "up", of_places=True),),
    "darker": (_step("HassLightSet", _LIGHT, "down", of_places=True),),
    "louder": (_step("HassSetVolumeRelative", _MEDIA, "up", of_places=True),),
    "quieter": (_step("HassSetVolumeRelative", _MEDIA, "down", of_places=True),),
    "warmer": (_step("HassClimateSetTemperature", _CLIMATE, "up", of_places=True),),
    "cooler": (_step("HassClimateSetTemperature", _CLIMATE, "down", of_places=True),),
    "faster": (_step("HassFanSetSpeed", _FAN, "up"),),
    "slower": (_step("HassFanSetSpeed", _FAN, "down"),),
    "up": _any_step("up", _ActMeaning("HassTurnOn", frozenset(("cover",)), {})),
    "down": _any_step("down", _ActMeaning("HassTurnOff", frozenset(("cover",)), {})),
    "play": (_ActMeaning("HassMediaUnpause", _MEDIA, {}),),
    "pause": (_ActMeaning("HassMediaPause", _MEDIA, {}),),
    "mute": (_ActMeaning("HassMediaPlayerMute", _MEDIA, {}),),
    "unmute": (_ActMeaning("HassMediaPlayerUnmute", _MEDIA, {}),),
    "clean": (_ActMeaning("HassVacuumStart", frozenset(("vacuum",)), {}),),
    "dock": (
        _ActMeaning("HassVacuumReturnToBase", frozenset(("vacuum",)), {}),
        _ActMeaning("HassLawnMowerDock", frozenset(("lawn_mower",)), {}),
    ),
    "mow": (_ActMeaning("HassLawnMowerStartMowing", frozenset(("lawn_mower",)), {}),),
    "start_timer": (_ActMeaning("HassStartTimer", frozenset(("timer",)), {}),),
    "press": (_ActMeaning("HassTurnOn", frozenset(("button",)), {}),),
}
"""What the acts of the vocabulary mean; of several the first whose domains fit."""

_COMPARATIVES = frozenset(
    ("brighter", "darker", "louder", "quieter", "warmer", "cooler", "faster", "slower")
)
"""Acts that are about a change, whatever number stands beside them."""

_CHANGED = ("brightness", "volume", "temperature", "percentage")
"""Slots that may hold by how much something changes; the first of an intent is the one."""

_PERCENT = frozenset(("number", "percent"))
_UNITS = {
    "brightness": _PERCENT,
    "volume": _PERCENT,
    "percentage": _PERCENT,
    "temperature": frozenset(("number", "degrees")),
    "": frozenset[str](),
}

_SETTING: dict[str, frozenset[str]] = {
    "set": frozenset(("light", "cover", "valve", "climate", "media_player", "fan", PLACE_ONLY)),
    "open_to": _OPENED,
    "dim": frozenset(("light", "climate", "media_player", "fan", "cover")),
}
"""Acts that take a value, and the domains they set. `dim` needs a word such as `to`."""

_NUMBERS: dict[str, tuple[str, str, frozenset[str]]] = {
    "light": ("HassLightSet", "brightness", frozenset(("number", "percent"))),
    "cover": ("HassSetPosition", "position", frozenset(("number", "percent"))),
    "valve": ("HassSetPosition", "position", frozenset(("number", "percent"))),
    "media_player": ("HassSetVolume", "volume", frozenset(("number", "percent"))),
    "fan": ("HassFanSetSpeed", "percentage", frozenset(("number", "percent"))),
    "climate": ("HassClimateSetTemperature", "temperature", frozenset(("number", "degrees"))),
}
"""The intent and slot of a number, by domain, and the units it may have."""

_ROOM_DEGREES = range(5, 33)  # a number without a unit is a temperature of a room in these


def actions_of(
    command: Command, targets: Sequence[tuple[Named, frozenset[str]]], lang: str, values: Values
) -> list[Action] | None:
    """Return an action for each target; None if the command means nothing for one of them.

    Args:
        command: what was said.
        targets: what it is about, with the domains that may be meant.
        lang: the language of the speaker.
        values: reads numbers.
    """
    found: list[Action] = []
    for target, domains in targets:
        actions = list(_for_target(command, target, domains, lang, values))
        if not actions:
            return None
        found += actions
    return found


def domains_of(target: Named, home: Home) -> frozenset[str]:
    """Return the domains that a target may be of; those of a place say so."""
    if target.name:
        return frozenset(home.index.entities[number].domain for number in target.entities)
    if target.kind:
        return target.kind.domains
    return frozenset((PLACE_ONLY,))


def _for_target(
    command: Command, target: Named, domains: frozenset[str], lang: str, values: Values
) -> Iterator[Action]:
    """Yield what is done to one target: one act, or one for each of several values."""
    if not command.values:
        yield from _plainly(command, target, domains, lang)
        return
    changed = _change(command, domains)
    if changed:
        yield from _changing(command, changed, target, domains, lang)
        return
    wanted: dict[str, dict[str, str]] = {}
    for value in command.values:
        setting = _setting(command, value, domains, lang, values)
        if setting is None or setting[1] in wanted.get(setting[0], {}):
            return
        intent, slot = setting
        wanted.setdefault(intent, {})[slot] = value.words
    for intent, said in wanted.items():
        domain = frozenset(ACTS_ON[intent]) & domains
        slots = _which(intent, command, target, domain or frozenset(ACTS_ON[intent][:1]))
        yield _action(intent, lang, {**slots, **said})


def _plainly(
    command: Command, target: Named, domains: frozenset[str], lang: str
) -> Iterator[Action]:
    """Yield the first act that means something for a target."""
    for act in command.acts:
        meaning = _meaning(act, domains)
        # `a bit brighter`: nothing is a bit on
        if meaning and ("step" in meaning.slots or "a_bit" not in command.flags):
            slots = _which(meaning.intent, command, target, meaning.domains & domains)
            yield _action(meaning.intent, lang, {**slots, **meaning.slots})
            return


def _changing(
    command: Command, changed: _ActMeaning, target: Named, domains: frozenset[str], lang: str
) -> Iterator[Action]:
    """Yield the act that changes a target by a number."""
    slot = next((s for s in _CHANGED if s in INTENTS[changed.intent]), "")
    value = command.values[0]
    if len(command.values) > 1 or value.to or value.sort not in _UNITS[slot]:
        return
    slots = _which(changed.intent, command, target, changed.domains & domains)
    yield _action(changed.intent, lang, {**slots, **changed.slots, slot: value.words})


def _change(command: Command, domains: frozenset[str]) -> _ActMeaning | None:
    """Return the step of a command that says by how much something changes."""
    for act in command.acts:
        meaning = _meaning(act, domains)
        reached = any(value.to for value in command.values)
        says_how = "by" in command.flags or (act in _COMPARATIVES and not reached)
        if meaning and "step" in meaning.slots and says_how:
            return meaning
    return None


def _meaning(act: str, domains: frozenset[str]) -> _ActMeaning | None:
    """Return what an act means for one of some domains."""
    for meaning in _ACTS.get(act, ()):
        if meaning.domains & domains or (meaning.of_places and PLACE_ONLY in domains):
            return meaning
    return None


def _setting(
    command: Command, value: SaidValue, domains: frozenset[str], lang: str, values: Values
) -> tuple[str, str] | None:
    """Return the intent and the slot of a value; None if the targets have no such value."""
    if "by" in command.flags or not _may_set(command, value, domains):
        return None
    if value.sort in ("color", "white"):
        slot = "color" if value.sort == "color" else "temperature"
        fits = bool({"light", PLACE_ONLY} & domains) and command.attribute in ("", slot)
        return ("HassLightSet", slot) if fits else None
    for domain, (intent, slot, units) in _NUMBERS.items():
        if command.attribute not in ("", slot) or value.sort not in units:
            continue
        of_place = PLACE_ONLY in domains and _is_for_place(command, domain, value, lang, values)
        if domain in domains or of_place:
            return intent, slot
    return None


def _may_set(command: Command, value: SaidValue, domains: frozenset[str]) -> bool:
    """Whether a command that has a value sets something to it."""
    if not command.acts:
        return True
    for act, may in _SETTING.items():
        if act in command.acts and may & domains:
            # `half open` is as far as it opens
            return act != "dim" or value.to
    return False


def _is_for_place(
    command: Command, domain: str, value: SaidValue, lang: str, values: Values
) -> bool:
    """Whether a number that is said to a room is one of its devices of a domain."""
    if command.attribute:
        return True
    if value.sort == "percent":
        return domain == "light"
    if value.sort == "degrees":
        return domain == "climate"
    number = values.read("temperature", value.words, lang)
    if isinstance(number, (Unknown, str)):
        return False
    return domain == "climate" and number in _ROOM_DEGREES


# -- slots ---------------------------------------------------------------------------------------


def _which(intent: str, command: Command, target: Named, domains: frozenset[str]) -> dict[str, str]:
    """Return the slots that say which things are meant.

    Args:
        intent: what is done.
        command: all that was said.
        target: what it is done to.
        domains: the domains of the target that the intent acts on.
    """
    # a timer that is started is no thing of the home yet
    if intent == "HassStartTimer":
        return {}
    slots: dict[str, str] = {"area": target.area} if target.area else {}
    if target.name:
        return {**slots, "name": target.name}
    known = INTENTS[intent]
    everything = bool({"all", "rest", "everything", "everywhere"} & command.flags or command.count)
    if everything and "scope" in known:
        slots["scope"] = "all"
    if target.kind is None:
        # a room that is lit or coloured
        if intent == "HassLightSet":
            slots["domain"] = "light"
        return slots
    sense = target.kind.sense
    if "device_class" in known and sense in CLOSED["device_class"] and "cover" in domains:
        slots["device_class"] = sense
    elif "domain" in known and len(domains) == 1 and domains <= set(CLOSED["domain"]) and not sense:
        slots["domain"] = next(iter(domains))
    elif "domain" in known and domains == {"lock"}:
        slots["domain"] = "lock"
    else:
        slots["name"] = target.kind_words
    # `all blinds to half`: the words themselves say all
    if everything and "scope" not in known:
        slots.pop("device_class", None)
        slots.pop("domain", None)
        slots["name"] = f"{command.all_words} {target.kind_words}".strip()
    return slots


def _action(intent: str, lang: str, slots: Mapping[str, str]) -> Action:
    """Return an action with its slots in the order in which they are written."""
    return Action(intent, lang, {slot: slots[slot] for slot in INTENTS[intent] if slot in slots})
