"""Act replies: what was done, what was so already, and what could not be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from tumen.assistant.acts import Change, Outcome, lacks
from tumen.assistant.replies.phrasing import Phrasing
from tumen.assistant.resolution import Resolved
from tumen.home import State

_OWN_REPLY = ("scene", "script", "button")
"""Domains that are not turned on: the key of their reply is the domain."""

_STATE_REPLIES = ("open", "closed", "locked", "unlocked", "cleaning", "mowing", "returning")
"""States whose reply has the state as its key."""

_FIELD_SET = {
    "HassSetPosition": "position",
    "HassClimateSetTemperature": "temperature",
    "HassClimateSetFanMode": "fan_mode",
    "ClimateSetMode": "state",
    "HassFanSetSpeed": "percentage",
    "HassSetVolume": "volume",
    "HassSetVolumeRelative": "volume",
    "HassMediaPlayerMute": "muted",
    "HassMediaPlayerUnmute": "muted",
}
"""The field that an intent sets."""

_LIGHT_FIELDS = {
    "brightness": ("brightness", "step"),
    "color": ("color",),
    "color_temperature": ("temperature",),
}
"""The fields of a light, and the slots that set them."""

_KEYS = {
    "HassMediaPause": "paused",
    "HassMediaUnpause": "playing",
    "HassMediaNext": "next",
    "HassMediaPrevious": "previous",
    "HassMediaPlayerMute": "muted",
    "HassMediaPlayerUnmute": "unmuted",
    "HassBroadcast": "broadcast",
    "HassStopMoving": "stopped",
}
"""The reply of intents that always have the same one."""


def reply_to_act(phrasing: Phrasing, outcome: Outcome) -> str:
    """Return the reply to an act that was carried out.

    Args:
        phrasing: the words of the reply.
        outcome: what was changed.
    """
    intent = outcome.resolved.intent
    if intent == "HassRespond":
        return phrasing.reply("respond")
    if intent == "HassNevermind":
        return phrasing.reply("nevermind")
    if "Timer" in intent:
        return _timers(phrasing, outcome)
    if "List" in intent:
        return _lists(phrasing, outcome)
    return _devices(phrasing, outcome)


# -- devices -------------------------------------------------------------------------------------


def _devices(phrasing: Phrasing, outcome: Outcome) -> str:
    """Return what was changed of the targets, and what was not."""
    resolved = outcome.resolved
    # the reply names the scene, not each device that it sets
    own = [change for change in outcome.changes if change.id in resolved.targets]
    made = [change for change in own if change.real]
    if not made:
        return _already(phrasing, resolved, own)
    text = _made(phrasing, resolved, made)
    same = len(own) - len(made)
    if same:
        text = phrasing.reply("part", reply=text, count=same)
    text = _with_skipped(phrasing, resolved, text)
    return _with_still_off(phrasing, own, text)


def _made(phrasing: Phrasing, resolved: Resolved, changes: Sequence[Change]) -> str:
    """Return what was changed."""
    intent = resolved.intent
    ids = [change.id for change in changes]
    names = phrasing.names(ids, resolved.place)
    # devices of one act end in the same state
    after = changes[0].after or {}
    if intent == "HassMediaSearchAndPlay":
        return phrasing.reply("play", names=names, title=after.get("media_title", ""))
    # players have replies of their own
    if intent in _KEYS:
        return phrasing.reply(_KEYS[intent], names=names)
    if _cleans_area(resolved, after):
        place = phrasing.place(str(resolved.values["area"]))
        return phrasing.reply("cleaning_area", names=names, place=place)
    light_is_on = intent == "HassLightSet" and after["state"] == "on"
    if intent in _FIELD_SET or light_is_on:
        what = _values_set(phrasing, resolved, changes[0])
        return phrasing.reply("set", names=names, what=what)
    return phrasing.reply(_key(resolved, ids, str(after["state"])), names=names)


def _cleans_area(resolved: Resolved, after: State) -> bool:
    """Whether a vacuum was sent to a place."""
    cleans = after["state"] == "cleaning" and "cleaning_area" in after
    return cleans and "area" in resolved.values


def _key(resolved: Resolved, ids: Sequence[str], state: str) -> str:
    """Return the key of the reply for devices that went to a state."""
    domains = {id_.partition(".")[0] for id_ in ids}
    if len(domains) == 1:
        domain = domains.pop()
        if domain in _OWN_REPLY:
            return domain
        if state in _STATE_REPLIES:
            return state
    if resolved.intent == "HassTurnOff" or state == "off":
        return "off"
    return "on"


def _already(phrasing: Phrasing, resolved: Resolved, own: Sequence[Change]) -> str:
    """Return that everything was so before."""
    # there was no target
    if not own:
        return phrasing.reply("nevermind")
    ids = [change.id for change in own]
    names = phrasing.names(ids, resolved.place)
    what = _values_set(phrasing, resolved, own[0])
    key = "already" if len(own) == 1 else "already_all"
    return phrasing.reply(key, names=names, what=what)


def _values_set(phrasing: Phrasing, resolved: Resolved, change: Change) -> str:
    """Return the fields that an intent sets, as they are after it."""
    after = change.after or {}
    texts = []
    for field in _fields_set(resolved, after) or ["state"]:
        texts.append(phrasing.quantity(field, after[field]))
    return ", ".join(texts)


def _fields_set(resolved: Resolved, after: State) -> list[str]:
    """Return the fields that an intent sets and that the device has."""
    if resolved.intent != "HassLightSet" or after.get("state") != "on":
        field = _FIELD_SET.get(resolved.intent, "state")
        return [field] if field in after else []
    fields = []
    for field, slots in _LIGHT_FIELDS.items():
        said = any(slot in resolved.values for slot in slots)
        if said and field in after:
            fields.append(field)
    return fields


def _with_skipped(phrasing: Phrasing, resolved: Resolved, text: str) -> str:
    """Add the lights of a group that cannot do what was asked."""
    if resolved.intent != "HassLightSet":
        return text
    entities = phrasing.home.entities
    lacking = {}
    for id_ in resolved.targets:
        slot = lacks(entities[id_], resolved.values) if id_ in entities else None
        if slot:
            lacking[id_] = slot
    if not lacking:
        return text
    names = phrasing.names(list(lacking))
    # they may lack different things; the reply names the first
    slot = next(iter(lacking.values()))
    return phrasing.reply("skipped", reply=text, names=names, slot=phrasing.word(slot))


def _with_still_off(phrasing: Phrasing, own: Sequence[Change], text: str) -> str:
    """Add that climate devices are off, where their target temperature changes nothing yet."""
    if not all(_is_idle_climate(change) for change in own):
        return text
    return phrasing.sentences([text, phrasing.reply("still_off")])


def _is_idle_climate(change: Change) -> bool:
    """Whether the target temperature of a climate device was changed that is off."""
    if not change.id.startswith("climate."):
        return False
    is_off = (change.after or {}).get("state") == "off"
    return is_off and "temperature" in change.fields()


# -- timers and lists ----------------------------------------------------------------------------


def _timers(phrasing: Phrasing, outcome: Outcome) -> str:
    """Return what became of timers."""
    intent = outcome.resolved.intent
    if not outcome.changes:
        return phrasing.reply("timer_none")
    if intent == "HassStartTimer":
        return _started_timer(phrasing, outcome.changes[0])
    texts = []
    for change in outcome.changes:
        # a cancelled timer has no fields any more
        texts.append(phrasing.timer(change.id, change.after or change.before or {}))
    names = phrasing.listed(texts)
    if "Cancel" in intent:
        return phrasing.reply("timer_cancel", names=names)
    timer = phrasing.home.timers[outcome.changes[0].id]
    left = phrasing.home.seconds_left(timer)
    key = "timer_pause" if timer.ends is None else "timer_go"
    return phrasing.reply(key, names=names, time=phrasing.time(left))


def _ends_tomorrow(phrasing: Phrasing, fields: Mapping[str, Any]) -> bool:
    """Whether a timer ends on the next day: `at ten`, said after ten."""
    now = phrasing.home.clock()
    end = now + timedelta(seconds=float(fields.get("seconds") or 0))
    return end.date() == now.date() + timedelta(days=1)


def _started_timer(phrasing: Phrasing, change: Change) -> str:
    """Return how long a timer runs, and its name or what is done then."""
    fields = change.after or {}
    name = fields.get("name")
    command = fields.get("command")
    key = "timer_command" if command else "timer_start"
    if command and _ends_tomorrow(phrasing, fields):
        key = "timer_command_tomorrow"
    if name:
        key = "timer_start_named"
    time = phrasing.time(fields["seconds"])
    return phrasing.reply(key, name=name, time=time, command=command)


def _lists(phrasing: Phrasing, outcome: Outcome) -> str:
    """Return what was changed on which lists."""
    resolved = outcome.resolved
    made = [change for change in outcome.changes if change.real]
    # only adding may change nothing: the item was there
    if not made:
        key = "list_has"
    elif "AddItem" in resolved.intent:
        key = "list_add"
    elif "Complete" in resolved.intent:
        key = "list_done"
    else:
        key = "list_remove"
    ids = [change.id for change in made or outcome.changes]
    names = phrasing.shortened(phrasing.titles(ids))
    return phrasing.reply(key, item=resolved.values.get("item", ""), names=names)
