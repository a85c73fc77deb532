"""Act: do what was resolved, all of it or nothing, and keep what was there before.

Each effect computes the new fields of one entity from its old ones and refuses when a value lies outside of the
entity's real range; only when every target has its new fields is anything written. So a refusal changes nothing, and
`undo` needs no more than the outcome. As in Home Assistant, turning on opens a cover, locks a lock, activates a scene
and starts a vacuum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rapidfuzz.distance import OSA

from tumen.assistant.intents import OPENINGS
from tumen.assistant.values import Value, plain
from tumen.assistant.verdict import Refusal, Resolved
from tumen.home import SHOPPING, Entity, Home, State, Timer, fold, forms, split

STEP = 10
"""Percent a relative change without a number makes."""


@dataclass(frozen=True)
class Change:
    """One entity or timer before and after; None where there is none. Equal if it already was so."""

    id: str
    before: State | None
    after: State | None

    @property
    def real(self) -> bool:
        """Whether anything is different now."""
        return self.before != self.after

    def fields(self) -> dict[str, tuple[Any, Any]]:
        """The fields that differ: name -> (before, after)."""
        before, after = self.before or {}, self.after or {}
        return {
            name: (before.get(name), after.get(name))
            for name in before | after
            if before.get(name) != after.get(name)
        }


@dataclass(frozen=True)
class Answer:
    """What a question found: those it is true of, all that were looked at, and facts (degrees Celsius, seconds)."""

    matching: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    facts: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a resolved action: a change for every target, or an answer, or a refusal."""

    resolved: Resolved
    changes: tuple[Change, ...] = ()
    answer: Answer | None = None
    refusal: Refusal | None = None

    @property
    def changed(self) -> tuple[Change, ...]:
        """The changes that are real."""
        return tuple(change for change in self.changes if change.real)


class _Refused(Exception):
    def __init__(self, reason: str, **about: Value) -> None:
        super().__init__(reason)
        self.reason, self.about = reason, about


def act(resolved: Resolved, home: Home) -> Outcome:
    """Carry out a resolved action on its home, or answer its question.

    Everything or nothing: the outcome holds a refusal and the home is as it was, or every target has its new state.
    """
    try:
        if resolved.intent in _ANSWERS:
            return Outcome(resolved, answer=_ANSWERS[resolved.intent](resolved, home))
        changes = (
            _WHOLE[resolved.intent](resolved, home)
            if resolved.intent in _WHOLE
            else _each(resolved, home)
        )
    except _Refused as refused:
        return Outcome(
            resolved,
            refusal=Refusal(
                resolved.intent, resolved.lang, refused.reason, refused.about, resolved.values
            ),
        )
    for change in changes:
        if change.real:
            home.put(change.id, change.after)
    return Outcome(resolved, tuple(changes))


def undo(outcome: Outcome, home: Home) -> Outcome:
    """Put back what an outcome changed.

    Refused with `changed` when something it changed is not as it left it any more, and with `nothing` when it changed
    nothing.
    """
    made = outcome.changed
    moved = next(
        (change for change in made if (home.state(change.id) or None) != change.after), None
    )
    if moved or not made:
        about: dict[str, Value] = {"entity": moved.id} if moved else {}
        reason = "changed" if moved else "nothing"
        return Outcome(
            outcome.resolved,
            refusal=Refusal(outcome.resolved.intent, outcome.resolved.lang, reason, about),
        )
    back = tuple(Change(change.id, change.after, change.before) for change in reversed(made))
    for change in back:
        home.put(change.id, change.after)
    return Outcome(outcome.resolved, back)


def _each(resolved: Resolved, home: Home) -> list[Change]:
    """One effect on each target."""
    effect = _EFFECTS.get(resolved.intent)
    if effect is None:
        raise _Refused("not_home")
    targets, values = _relevant(resolved, home), dict(resolved.values)
    changes: dict[str, Change] = {}
    for id_ in targets:
        entity, before = home.entities[id_], home.state(id_)
        if before.get("state") == "unavailable":
            raise _Refused("unavailable", entity=id_)
        changes[id_] = Change(id_, before, _with(before, effect(entity, before, values)))
        if entity.domain in ("scene", "script", "button"):
            changes[id_] = Change(
                id_, before, before | {"state": home.clock().isoformat(timespec="seconds")}
            )
        for other, fields in entity.sets.items():
            old = home.state(other)
            changes[other] = Change(other, old, _with(old, fields))
    return list(changes.values())


def _with(state: State, fields: State) -> State:
    """A state with some fields changed; None takes a field away."""
    return {name: value for name, value in (state | fields).items() if value is not None}


def _relevant(resolved: Resolved, home: Home) -> tuple[str, ...]:
    """Of a group: lights that can do what is asked; for a step, those that are on."""
    targets = resolved.targets
    if resolved.intent != "HassLightSet" or len(targets) < 2:
        return targets
    able = tuple(id_ for id_ in targets if not lacks(home.entities[id_], resolved.values))
    if "step" in resolved.values:
        able = tuple(id_ for id_ in able if home.state(id_).get("state") == "on") or able
    return able or targets


# -- effects: entity, its state, values -> the fields that change ----------------------------------------------------

Effect = Callable[[Entity, State, Mapping[str, Any]], State]

_ON = {
    "cover": "open",
    "valve": "open",
    "lock": "locked",
    "vacuum": "cleaning",
    "lawn_mower": "mowing",
}
_OFF = {
    "cover": "closed",
    "valve": "closed",
    "lock": "unlocked",
    "vacuum": "returning",
    "lawn_mower": "returning",
}


def _turn_on(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    if entity.domain in ("cover", "valve"):
        return {"state": "open", "position": 100}
    if entity.domain == "climate":
        return {} if state["state"] != "off" else {"state": entity.mode}
    if entity.domain == "media_player":
        return {} if state["state"] not in ("off", "standby") else {"state": "on"}
    if entity.domain == "fan" and not state.get("percentage"):
        return {"state": "on"} | ({"percentage": 100} if "percentage" in state else {})
    if entity.domain == "light" and state.get("brightness") == 0:
        return {"state": "on", "brightness": 100}
    return {"state": _ON.get(entity.domain, "on")}


def _turn_off(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    if entity.domain in ("cover", "valve"):
        return {"state": "closed", "position": 0}
    if entity.domain in ("vacuum", "lawn_mower") and state["state"] == "docked":
        return {}
    return {"state": _OFF.get(entity.domain, "off")}


def _in_range(entity: Entity, slot: str, value: float, low: float, high: float, unit: str) -> float:
    if not low <= value <= high:
        raise _Refused(
            "range",
            entity=entity.id,
            slot=slot,
            value=plain(value),
            low=plain(low),
            high=plain(high),
            unit=unit,
        )
    return plain(value)


def lacks(entity: Entity, values: Mapping[str, Any]) -> str | None:
    """What a light is asked for and cannot do."""
    if entity.supports is None:
        return None
    asked = {
        "brightness": "brightness",
        "step": "brightness",
        "color": "color",
        "temperature": "color_temperature",
    }
    return next(
        (able for slot, able in asked.items() if slot in values and able not in entity.supports),
        None,
    )


def _light(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    lacking = lacks(entity, values)
    if lacking:
        raise _Refused("lacks", entity=entity.id, slot=lacking)
    fields: State = {"state": "on"}
    if "step" in values:
        fields |= _brighter(entity, state, values)
    elif "brightness" in values:
        level = _in_range(entity, "brightness", values["brightness"], 0, 100, "%")
        fields |= {"brightness": level} if level else {"state": "off"}
    if "color" in values:
        fields["color"] = values["color"]
    if "temperature" in values:
        low, high = entity.min_color_temperature, entity.max_color_temperature
        fields["color_temperature"] = _in_range(
            entity, "color_temperature", values["temperature"], low, high, "K"
        )
    return fields


def _brighter(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    """A step from the brightness it has now (an off light has 0), never out of 0 to 100; down to 0 is off."""
    by = _in_range(entity, "brightness", values.get("brightness", STEP), 0, 100, "%")
    now = state.get("brightness", 100) if state["state"] == "on" else 0
    if values["step"] == "up":
        return {"brightness": plain(min(100, now + by))}
    level = plain(max(0, now - by))
    return {"brightness": level} if level else {"state": "off"}


def _position(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    position = _in_range(entity, "position", _needed(values, "position"), 0, 100, "%")
    return {"position": position, "state": "open" if position else "closed"}


def _needed(values: Mapping[str, Any], slot: str) -> Any:
    if slot not in values:
        raise _Refused("missing", slot=slot)
    return values[slot]


def _climate(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    degrees = _needed(values, "temperature")
    return {
        "temperature": _in_range(
            entity, "temperature", degrees, entity.min_temperature, entity.max_temperature, "°C"
        )
    }


def _fan_mode(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    mode = _needed(values, "fan_mode")
    if mode not in entity.fan_modes:
        raise _Refused("mode", entity=entity.id, words=mode, modes=", ".join(entity.fan_modes))
    return {"fan_mode": mode}


def _fan_speed(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    speed = _in_range(entity, "percentage", _needed(values, "percentage"), 0, 100, "%")
    return {"percentage": speed, "state": "on" if speed else "off"}


def _playing(entity: Entity, state: State) -> None:
    if state["state"] not in ("playing", "paused", "on", "idle"):
        raise _Refused("is_off", entity=entity.id)


def _pause(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    _playing(entity, state)
    return {"state": "paused"} if state["state"] in ("playing", "on") else {}


def _unpause(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    _playing(entity, state)
    return {"state": "playing"}


def _track(by: int) -> Effect:
    def change(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
        _playing(entity, state)
        return {
            "state": "playing",
            "media_track": max(1, (state.get("media_track") or 1) + by),
            "media_title": None,
        }

    return change


def _mute(muted: bool) -> Effect:
    def change(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
        _playing(entity, state)
        return {"muted": muted}

    return change


def _volume(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    return {"volume": _in_range(entity, "volume", _needed(values, "volume"), 0, 100, "%")}


def _louder(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    by = _in_range(entity, "volume", values.get("volume", STEP), 0, 100, "%")
    now = state.get("volume", 50)
    return {
        "volume": plain(max(0, min(100, now + (by if _needed(values, "step") == "up" else -by))))
    }


def _play(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    return {"state": "playing", "media_title": str(_needed(values, "query")), "media_track": 1}


def _vacuum(entity: Entity, state: State, values: Mapping[str, Any]) -> State:
    return {"state": "cleaning"} | ({"cleaning_area": values["area"]} if "area" in values else {})


_EFFECTS: dict[str, Effect] = {
    "HassTurnOn": _turn_on,
    "HassTurnOff": _turn_off,
    "HassLightSet": _light,
    "HassSetPosition": _position,
    "HassClimateSetTemperature": _climate,
    "HassClimateSetFanMode": _fan_mode,
    "HassFanSetSpeed": _fan_speed,
    "HassVacuumStart": _vacuum,
    "HassVacuumCleanArea": _vacuum,
    "HassVacuumReturnToBase": _turn_off,
    "HassLawnMowerStartMowing": _turn_on,
    "HassLawnMowerDock": _turn_off,
    "HassMediaPause": _pause,
    "HassMediaUnpause": _unpause,
    "HassMediaNext": _track(1),
    "HassMediaPrevious": _track(-1),
    "HassMediaPlayerMute": _mute(True),
    "HassMediaPlayerUnmute": _mute(False),
    "HassMediaSearchAndPlay": _play,
    "HassSetVolume": _volume,
    "HassSetVolumeRelative": _louder,
}


# -- effects on more than devices ------------------------------------------------------------------------------------


def _nothing(resolved: Resolved, home: Home) -> list[Change]:
    return []


def _broadcast(resolved: Resolved, home: Home) -> list[Change]:
    """Say a message on every target: it is what each of them announced last."""
    message = str(_needed(resolved.values, "message"))
    states = {id_: home.state(id_) for id_ in resolved.targets}
    return [Change(id_, state, state | {"announced": message}) for id_, state in states.items()]


def _start_timer(resolved: Resolved, home: Home) -> list[Change]:
    seconds, name = float(_needed(resolved.values, "seconds")), str(resolved.values.get("name", ""))
    if not 0 < seconds <= 7 * 86_400:
        raise _Refused("timer_range")
    taken, number = {*home.timers, *home.entities}, 1
    while f"timer.{number}" in taken:
        number += 1
    timer = Timer(
        id=f"timer.{number}",
        name=name,
        area=resolved.place,
        seconds=seconds,
        ends=home.clock().timestamp() + seconds,
        command=str(resolved.values.get("command", "")),
    )
    return [Change(timer.id, None, timer.fields())]


def _timers(resolved: Resolved, home: Home) -> list[Change]:
    """Cancel, pause, go on, longer, shorter."""
    changes = []
    for id_ in resolved.targets:
        timer = home.timers.get(id_)
        if timer is None:
            raise _Refused("no_timer")
        left = home.seconds_left(timer)
        after = _timer_after(resolved, timer, left, home.clock().timestamp())
        changes.append(Change(id_, home.state(id_), None if after is None else after.fields()))
    return changes


def _timer_after(resolved: Resolved, timer: Timer, left: float, now: float) -> Timer | None:
    verb = resolved.intent
    if "Cancel" in verb:
        return None
    if verb == "HassPauseTimer":
        return (
            timer.model_copy(update={"ends": None, "left_seconds": left})
            if timer.ends is not None
            else timer
        )
    if verb == "HassUnpauseTimer":
        return (
            timer.model_copy(update={"ends": now + left, "left_seconds": None})
            if timer.ends is None
            else timer
        )
    by = float(_needed(resolved.values, "seconds")) * (1 if verb == "HassIncreaseTimer" else -1)
    if left + by <= 0:
        raise _Refused("timer_short", seconds=plain(left))
    if timer.ends is None:
        return timer.model_copy(update={"left_seconds": left + by})
    return timer.model_copy(update={"ends": timer.ends + by})


def _list(resolved: Resolved, home: Home) -> list[Change]:
    """Add, tick off or take away an item, on each list that is meant; one is found in plural, singular or with a small typo."""
    lists, item = resolved.targets or (SHOPPING,), str(_needed(resolved.values, "item"))
    changes = []
    for id_ in lists:
        state = home.state(id_)
        items, done = tuple(state.get("items", ())), tuple(state.get("done_items", ()))
        known = _item(item, items)
        if "AddItem" in resolved.intent:
            changes.append(
                Change(id_, state, state if known else state | {"items": (*items, item)})
            )
        elif known:
            left = tuple(other for other in items if other != known)
            ticked = (*done, known) if "Complete" in resolved.intent else done
            changes.append(Change(id_, state, state | {"items": left, "done_items": ticked}))
    if not changes:
        raise _Refused("item", entity=lists[0], words=item)
    return changes


def _item(words: str, items: tuple[str, ...]) -> str | None:
    said = "".join(split(words))
    for item in items:
        known = "".join(split(item))
        same = {said, *forms(said)} & {known, *forms(known)}
        if same or (len(said) >= 6 and OSA.distance(said, known, score_cutoff=1) <= 1):
            return item
    return None


_WHOLE: dict[str, Callable[[Resolved, Home], list[Change]]] = {
    **dict.fromkeys(("HassNevermind", "HassRespond"), _nothing),
    "HassBroadcast": _broadcast,
    "HassStartTimer": _start_timer,
    **dict.fromkeys(
        ("HassCancelTimer", "HassCancelAllTimers", "HassPauseTimer", "HassUnpauseTimer"), _timers
    ),
    **dict.fromkeys(("HassIncreaseTimer", "HassDecreaseTimer"), _timers),
    **dict.fromkeys(("HassListAddItem", "HassListCompleteItem", "HassListRemoveItem"), _list),
    **dict.fromkeys(("HassShoppingListAddItem", "HassShoppingListCompleteItem"), _list),
}


# -- questions -------------------------------------------------------------------------------------------------------


def is_so(entity: Entity, state: State, asked: str) -> bool:
    """Whether an entity is `on`, `off`, `open`, `closed`, `locked` ... in the words of a question."""
    now, on = str(state.get("state")), asked == "on"
    if asked in ("on", "off"):
        active = now not in (
            "off",
            "standby",
            "docked",
            "unavailable",
            "unknown",
            "closed",
            "unlocked",
        )
        return active == on
    if entity.domain == "binary_sensor" and asked in ("open", "closed"):
        return now == ("on" if asked == "open" else "off")
    if entity.domain == "lock" and asked in ("open", "closed"):
        return now == ("unlocked" if asked == "open" else "locked")
    return now == asked


def _get_state(resolved: Resolved, home: Home) -> Answer:
    values = resolved.values
    asked = str(values.get("state") or "")
    if not asked and "zone" in values:
        zone = fold(str(values["zone"]))
        matching = tuple(
            id_ for id_ in resolved.targets if fold(str(home.state(id_).get("state"))) == zone
        )
        return Answer(matching, resolved.targets, {"asked": zone})
    if not asked:
        return Answer(
            (),
            resolved.targets,
            _facts(home, resolved.targets[0]) if len(resolved.targets) == 1 else {},
        )
    matching = tuple(
        id_ for id_ in resolved.targets if is_so(home.entities[id_], home.state(id_), asked)
    )
    return Answer(matching, resolved.targets, {"asked": asked})


def _facts(home: Home, id_: str) -> dict[str, Value]:
    state, entity = home.state(id_), home.entities[id_]
    facts: dict[str, Value] = {"state": str(state["state"])}
    if entity.unit:
        facts["unit"] = entity.unit
    if entity.domain == "binary_sensor" and entity.device_class in OPENINGS:
        facts["state"] = "open" if state["state"] == "on" else "closed"
    numbers = (
        "brightness",
        "position",
        "volume",
        "temperature",
        "current_temperature",
        "humidity",
        "percentage",
    )
    return facts | {
        name: plain(state[name]) for name in numbers if isinstance(state.get(name), (int, float))
    }


def _get_temperature(resolved: Resolved, home: Home) -> Answer:
    readings: dict[str, Value] = {}
    for id_ in resolved.targets:
        degrees = _measured(home.entities[id_], home.state(id_))
        if degrees is not None:
            readings[id_] = degrees
    if not readings:
        raise _Refused("unknown", entity=resolved.targets[0] if resolved.targets else "")
    return Answer((), resolved.targets, readings)


def _measured(entity: Entity, state: State) -> float | None:
    """Degrees a device measures: its own reading, a sensor's state; a climate device without one has none to tell."""
    value = (
        state.get("temperature") if entity.domain == "weather" else state.get("current_temperature")
    )
    if entity.domain == "sensor":
        try:
            value = float(state["state"])
        except ValueError:
            return None
    return None if value is None else plain(value)


def _get_weather(resolved: Resolved, home: Home) -> Answer:
    return Answer((), resolved.targets, _facts(home, resolved.targets[0]))


def _clock(resolved: Resolved, home: Home) -> Answer:
    now = home.clock()
    return Answer(
        facts={
            "hour": now.hour,
            "minute": now.minute,
            "year": now.year,
            "month": now.month,
            "day": now.day,
            "weekday": now.weekday(),
        }
    )


def _timer_status(resolved: Resolved, home: Home) -> Answer:
    timers = home.timers
    left = {
        id_: plain(round(home.seconds_left(timers[id_])))
        for id_ in resolved.targets
        if id_ in timers
    }
    if not left:
        raise _Refused("no_timer")
    return Answer((), tuple(left), left)


_ANSWERS: dict[str, Callable[[Resolved, Home], Answer]] = {
    "HassGetState": _get_state,
    "HassClimateGetTemperature": _get_temperature,
    "HassGetWeather": _get_weather,
    "HassGetCurrentTime": _clock,
    "HassGetCurrentDate": _clock,
    "HassTimerStatus": _timer_status,
}
