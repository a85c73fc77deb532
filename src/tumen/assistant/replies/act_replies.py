"""Act replies: what was done, what was so already, and what could not be done."""

from __future__ import annotations

from collections.abc import Sequence

from tumen.assistant.acts import Change, Outcome, lacks
from tumen.assistant.replies.phrasing import Phrasing
from tumen.assistant.resolution import Resolved

_OWN_REPLY = ("scene", "script", "button")
"""Domains that are not turned on: the key of their reply is the domain."""

_STATE_REPLIES = ("open", "closed", "locked", "unlocked", "cleaning", "mowing", "returning")
"""States whose reply has the state as its key."""

_FIELD_SET = {
    "HassSetPosition": "position",
    "HassClimateSetTemperature": "temperature",
    "HassClimateSetFanMode": "fan_mode",
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
}
"""The reply of intents that always have the same one."""


def reply_to_act(phrasing: Phrasing, outcome: Outcome) -> str:
    """Return the reply to an act that was carried out."""
    resolved = outcome.resolved
    if resolved.intent == "HassRespond":
        return phrasing.reply("respond")
    if resolved.intent == "HassNevermind":
        return phrasing.reply("nevermind")
    if "Timer" in resolved.intent:
        return _timers(phrasing, outcome)
    if "List" in resolved.intent:
        return _lists(phrasing, outcome)
    # what a scene sets is not told one by one
    own = [change for change in outcome.changes if change.id in resolved.targets]
    made = [change for change in own if change.real]
    if not made:
        return _already(phrasing, resolved, own)
    text = _made(phrasing, resolved, made)
    if len(made) < len(own):
        text = phrasing.reply("part", reply=text, count=len(own) - len(made))
    text = _with_skipped(phrasing, resolved, text)
    return _with_still_off(phrasing, own, text)


def _made(phrasing: Phrasing, resolved: Resolved, changes: Sequence[Change]) -> str:
    """Return what was changed."""
    intent = resolved.intent
    ids = [change.id for change in changes]
    names = phrasing.names(ids, resolved.place)
    after = changes[0].after or {}
    if intent == "HassMediaSearchAndPlay":
        return phrasing.reply("play", names=names, title=after.get("media_title", ""))
    if intent in _KEYS:
        return phrasing.reply(_KEYS[intent], names=names)
    if "area" in resolved.values and "cleaning_area" in after and after["state"] == "cleaning":
        place = phrasing.place(str(resolved.values["area"]))
        return phrasing.reply("cleaning_area", names=names, place=place)
    light_is_on = intent == "HassLightSet" and after["state"] == "on"
    if intent in _FIELD_SET or light_is_on:
        return phrasing.reply("set", names=names, what=_values_set(phrasing, resolved, changes[0]))
    return phrasing.reply(_key(resolved, ids, str(after["state"])), names=names)


def _key(resolved: Resolved, ids: Sequence[str], state: str) -> str:
    """Return the key of the reply for devices that went to a state."""
    domains = {id_.partition(".")[0] for id_ in ids}
    if len(domains) == 1:
        domain = domains.pop()
        if domain in _OWN_REPLY:
            return domain
        if state in _STATE_REPLIES:
            return state
    turned_off = resolved.intent == "HassTurnOff" or state == "off"
    return "off" if turned_off else "on"


def _already(phrasing: Phrasing, resolved: Resolved, own: Sequence[Change]) -> str:
    """Return that everything was so before."""
    if not own:
        return phrasing.reply("nevermind")
    names = phrasing.names([change.id for change in own], resolved.place)
    what = _values_set(phrasing, resolved, own[0])
    key = "already" if len(own) == 1 else "already_all"
    return phrasing.reply(key, names=names, what=what)


def _values_set(phrasing: Phrasing, resolved: Resolved, change: Change) -> str:
    """Return the fields that an intent sets, as they are after it."""
    after = change.after or {}
    fields = []
    if resolved.intent == "HassLightSet" and after.get("state") == "on":
        for field, slots in _LIGHT_FIELDS.items():
            asked = any(slot in resolved.values for slot in slots)
            if asked and field in after:
                fields.append(field)
    else:
        field = _FIELD_SET.get(resolved.intent, "state")
        if field in after:
            fields.append(field)
    return ", ".join(phrasing.quantity(field, after[field]) for field in fields or ["state"])


def _with_skipped(phrasing: Phrasing, resolved: Resolved, text: str) -> str:
    """Add the lights of a group that cannot do what was asked."""
    if resolved.intent != "HassLightSet":
        return text
    lacking = {}
    for id_ in resolved.targets:
        if id_ in phrasing.home.entities:
            slot = lacks(phrasing.home.entities[id_], resolved.values)
            if slot:
                lacking[id_] = slot
    if not lacking:
        return text
    first = next(iter(lacking.values()))
    names = phrasing.names(list(lacking))
    return phrasing.reply("skipped", reply=text, names=names, slot=phrasing.word(first))


def _with_still_off(phrasing: Phrasing, own: Sequence[Change], text: str) -> str:
    """Add that a climate device is off, where its target temperature changes nothing yet."""
    for change in own:
        is_off = (change.after or {}).get("state") == "off"
        if not change.id.startswith("climate.") or not is_off:
            return text
        if "temperature" not in change.fields():
            return text
    return phrasing.sentences([text, phrasing.reply("still_off")])


def _timers(phrasing: Phrasing, outcome: Outcome) -> str:
    intent = outcome.resolved.intent
    if not outcome.changes:
        return phrasing.reply("timer_none")
    states = [change.after or change.before or {} for change in outcome.changes]
    first = outcome.changes[0]
    if intent == "HassStartTimer":
        name = states[0].get("name")
        key = "timer_start_named" if name else "timer_start"
        return phrasing.reply(key, name=name, time=phrasing.time(states[0]["seconds"]))
    told = []
    for change, state in zip(outcome.changes, states, strict=True):
        told.append(phrasing.timer(change.id, state))
    names = phrasing.listed(told)
    if "Cancel" in intent:
        return phrasing.reply("timer_cancel", names=names)
    timer = phrasing.home.timers[first.id]
    key = "timer_pause" if timer.ends is None else "timer_go"
    left = phrasing.time(phrasing.home.seconds_left(timer))
    return phrasing.reply(key, names=names, time=left)


def _lists(phrasing: Phrasing, outcome: Outcome) -> str:
    intent = outcome.resolved.intent
    made = [change for change in outcome.changes if change.real]
    if not made:
        key = "list_has"
    elif "AddItem" in intent:
        key = "list_add"
    elif "Complete" in intent:
        key = "list_done"
    else:
        key = "list_remove"
    lists = phrasing.titles([change.id for change in made or outcome.changes])
    item = outcome.resolved.values.get("item", "")
    return phrasing.reply(key, item=item, names=phrasing.shortened(lists))
