"""Reply: one short answer in the speaker's language, from what really happened to the home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tumen.assistant.acts import Change, Outcome, lacks
from tumen.assistant.replies.wording import COLORS, MONTHS, NOUNS, REPLIES, UNITS, WEEKDAYS, WORDS
from tumen.assistant.values import Value, plain
from tumen.assistant.verdict import TOLD, Question, Refusal, Resolved
from tumen.home import Home, Timer
from tumen.language import LANGUAGES

_PERCENT = ("brightness", "position", "percentage", "volume", "humidity")
_STATE_DOMAINS = ("scene", "script", "button")


def reply(result: Outcome | Question | Refusal, home: Home) -> str:
    """The answer to an outcome, a question or a refusal; never empty."""
    if isinstance(result, Question):
        return _question(_Said(home, result.lang), result)
    if isinstance(result, Refusal):
        return _refusal(_Said(home, result.lang), result)
    said = _Said(home, result.resolved.lang)
    if result.refusal:
        return _refusal(said, result.refusal)
    if result.answer:
        return _answer(said, result)
    return _done(said, result)


def reply_undone(outcome: Outcome, home: Home) -> str:
    """The answer to an undo."""
    if outcome.refusal:
        return reply(outcome.refusal, home)
    said = _Said(home, outcome.resolved.lang)
    told = []
    for change in outcome.changes:
        if change.id not in home.entities:
            told.append(said.timer(change.id, change.after or change.before or {}))
            continue
        after = said.fields(change)
        told.append(f"{said.title(change.id)} ({after})" if after else said.title(change.id))
    return said.fill("undone", names=said.shortened(told))


def reply_finished(timer: Timer, home: Home, lang: str) -> str:
    """What is said when a timer has run out."""
    said = _Said(home, lang)
    return said.fill("timer_done", names=said.timer(timer.id, timer.fields()))


class _Said:
    """The words of one language about one home."""

    def __init__(self, home: Home, lang: str) -> None:
        self.home = home
        self.lang = lang if lang in LANGUAGES else "en"

    def fill(self, key: str, **parts: Any) -> str:
        text = REPLIES[self.lang][key].format(**parts)
        return text[0].upper() + text[1:]

    def word(self, word: Any) -> str:
        return WORDS[self.lang].get(str(word), str(word))

    def noun(self, domain: str, count: int) -> str:
        forms = NOUNS[self.lang].get(domain) or NOUNS[self.lang][""]
        return forms.split("|")[0 if count == 1 else -1]

    def title(self, id_: str) -> str:
        return self.home.title(id_, self.lang)

    def listed(self, names: Sequence[str], joint: str = "and") -> str:
        """`a, b and c`."""
        words = REPLIES[self.lang]
        if len(names) < 2:
            return "".join(names)
        return words["comma"].join(names[:-1]) + words[joint] + names[-1]

    def shortened(self, names: Sequence[str]) -> str:
        """At most five of them, and how many more."""
        if len(names) <= TOLD:
            return self.listed(names)
        shown = REPLIES[self.lang]["comma"].join(names[:TOLD])
        count = len(names) if self.lang == "zh" else len(names) - TOLD
        return REPLIES[self.lang]["more"].format(names=shown, count=count)

    def counted(self, ids: Sequence[str]) -> str:
        """`4 lights`, by domain or, where all share one, by device class."""
        things = [self.home.entities[id_] for id_ in ids if id_ in self.home.entities]
        for noun in ({thing.device_class for thing in things}, {thing.domain for thing in things}):
            known = next(iter(noun)) if len(noun) == 1 else ""
            if known and known in NOUNS[self.lang]:
                return REPLIES[self.lang]["count"].format(
                    count=len(ids), noun=self.noun(known, len(ids))
                )
        return REPLIES[self.lang]["count"].format(count=len(ids), noun=self.noun("", len(ids)))

    def names(self, ids: Sequence[str], place: str | None = None) -> str:
        """Up to three by name, more by number and place."""
        if len(ids) <= 3:
            return self.listed([self.title(id_) for id_ in ids])
        counted = self.counted(ids)
        return (
            REPLIES[self.lang]["in"].format(names=counted, place=self.place(place))
            if place
            else counted
        )

    def where(self, id_: str) -> str:
        """The room of an entity, or its own name when that tells more."""
        entity = self.home.entities[id_]
        return (
            self.title(entity.area)
            if entity.area and entity.domain == "climate"
            else self.title(id_)
        )

    def place(self, place: str) -> str:
        return self.listed([self.title(part) for part in place.replace("+", ",").split(",")])

    def quantity(self, name: str, value: Any) -> str:
        """A field with its unit: `80 %`, `21.5 °C`, `2700 K`, a colour, a state."""
        if name in _PERCENT:
            return f"{plain(value)} %"
        if name in ("temperature", "current_temperature"):
            return f"{plain(value)} °C"
        if name == "color_temperature":
            return f"{plain(value)} K"
        if name == "color":
            return COLORS.get(self.lang, {}).get(str(value), str(value))
        if name == "muted":
            return self.word("muted" if value else "unmuted")
        if isinstance(value, (list, tuple)):
            return REPLIES[self.lang]["comma"].join(map(str, value)) or "0"
        return self.word(value)

    def fields(self, change: Change) -> str:
        """What a change made of an entity, in a few words."""
        return ", ".join(
            self.quantity(name, after)
            for name, (_, after) in change.fields().items()
            if after is not None
        )

    def time(self, seconds: float) -> str:
        """`1 h 5 min`."""
        whole = round(seconds)
        parts = (whole // 3600, whole % 3600 // 60, whole % 60)
        gap = "" if self.lang == "zh" else " "
        return (
            gap.join(
                f"{n}{gap}{unit}" for n, unit in zip(parts, UNITS[self.lang], strict=True) if n
            )
            or f"0{gap}{UNITS[self.lang][2]}"
        )

    def timer(self, id_: str, state: Mapping[str, Any]) -> str:
        """`the pizza timer`, or the timer by its length."""
        name = str(state.get("name") or "")
        key = "timer" if name else "timer_plain"
        return REPLIES[self.lang][key].format(
            name=name, time=self.time(float(state.get("seconds", 0)))
        )


# -- done ------------------------------------------------------------------------------------------------------------


def _done(said: _Said, outcome: Outcome) -> str:
    intent = outcome.resolved.intent
    if intent in ("HassRespond", "HassNevermind"):
        return said.fill(intent.removeprefix("Hass").lower())
    if "Timer" in intent:
        return _timer(said, outcome)
    if "List" in intent:
        return _list(said, outcome)
    own = [change for change in outcome.changes if change.id in outcome.resolved.targets]
    made = [change.id for change in own if change.real]
    if not made:
        return _already(said, outcome, own)
    text = _made(said, outcome.resolved, [change for change in own if change.real])
    if len(made) < len(own):
        text = said.fill("part", reply=text, count=len(own) - len(made))
    return _skipped(said, outcome, text) + _still_off(said, own)


def _skipped(said: _Said, outcome: Outcome, text: str) -> str:
    """Lights of a group that cannot do what was asked are told apart from those that did it."""
    things = [
        said.home.entities[id_] for id_ in outcome.resolved.targets if id_ in said.home.entities
    ]
    lacking = {thing.id: lacks(thing, outcome.resolved.values) for thing in things}
    left = [id_ for id_, slot in lacking.items() if slot]
    if outcome.resolved.intent != "HassLightSet" or not left:
        return text
    return said.fill(
        "skipped", reply=text, names=said.names(left), slot=said.word(lacking[left[0]])
    )


def _still_off(said: _Said, own: Sequence[Change]) -> str:
    """A target temperature of a device that is off changes nothing yet, so it is said."""
    idle = [
        c
        for c in own
        if c.id.startswith("climate.")
        and (c.after or {}).get("state") == "off"
        and "temperature" in c.fields()
    ]
    gap = "" if said.lang == "zh" else " "
    return gap + said.fill("still_off") if idle and len(idle) == len(own) else ""


def _already(said: _Said, outcome: Outcome, own: Sequence[Change]) -> str:
    ids = [change.id for change in own]
    if not ids:
        return said.fill("nevermind")
    what = _what(said, outcome.resolved, own[0])
    return said.fill(
        "already" if len(ids) == 1 else "already_all",
        names=said.names(ids, outcome.resolved.place),
        what=what,
    )


def _what(said: _Said, resolved: Resolved, change: Change) -> str:
    """The fields an intent sets, as they are after it."""
    after = change.after or {}
    names = [name for name in _SETS.get(resolved.intent, ("state",)) if name in after]
    if resolved.intent == "HassLightSet" and after.get("state") == "on":
        asked = {
            "brightness": {"brightness", "step"},
            "color": {"color"},
            "color_temperature": {"temperature"},
        }
        names = [
            name for name, slots in asked.items() if slots & set(resolved.values) and name in after
        ]
    return ", ".join(said.quantity(name, after[name]) for name in names or ["state"])


_SETS: dict[str, tuple[str, ...]] = {
    "HassSetPosition": ("position",),
    "HassClimateSetTemperature": ("temperature",),
    "HassClimateSetFanMode": ("fan_mode",),
    "HassFanSetSpeed": ("percentage",),
    "HassSetVolume": ("volume",),
    "HassSetVolumeRelative": ("volume",),
    "HassMediaPlayerMute": ("muted",),
    "HassMediaPlayerUnmute": ("muted",),
}
_VERBS = {
    "HassMediaPause": "paused",
    "HassMediaUnpause": "playing",
    "HassMediaNext": "next",
    "HassMediaPrevious": "previous",
    "HassMediaPlayerMute": "muted",
    "HassMediaPlayerUnmute": "unmuted",
    "HassBroadcast": "broadcast",
}


def _made(said: _Said, resolved: Resolved, changes: Sequence[Change]) -> str:
    ids = [change.id for change in changes]
    names = said.names(ids, resolved.place)
    after = changes[0].after or {}
    if resolved.intent == "HassMediaSearchAndPlay":
        return said.fill("play", names=names, title=after.get("media_title", ""))
    if resolved.intent in _VERBS:
        return said.fill(_VERBS[resolved.intent], names=names)
    if "cleaning_area" in after and after["state"] == "cleaning" and "area" in resolved.values:
        return said.fill(
            "cleaning_area", names=names, place=said.place(str(resolved.values["area"]))
        )
    if resolved.intent in _SETS or (resolved.intent == "HassLightSet" and after["state"] == "on"):
        return said.fill("set", names=names, what=_what(said, resolved, changes[0]))
    return said.fill(_verb(resolved, ids, str(after["state"])), names=names)


def _verb(resolved: Resolved, ids: Sequence[str], state: str) -> str:
    domains = {id_.partition(".")[0] for id_ in ids}
    domain = next(iter(domains)) if len(domains) == 1 else ""
    if domain in _STATE_DOMAINS:
        return domain
    if (
        state in ("open", "closed", "locked", "unlocked", "cleaning", "mowing", "returning")
        and domain
    ):
        return state
    return "off" if resolved.intent == "HassTurnOff" or state == "off" else "on"


def _timer(said: _Said, outcome: Outcome) -> str:
    intent = outcome.resolved.intent
    if not outcome.changes:
        return said.fill("timer_none")
    states = [change.after or change.before or {} for change in outcome.changes]
    names = said.listed(
        [
            said.timer(change.id, state)
            for change, state in zip(outcome.changes, states, strict=True)
        ]
    )
    if intent == "HassStartTimer":
        key = "timer_start_named" if states[0].get("name") else "timer_start"
        return said.fill(key, name=states[0].get("name"), time=said.time(states[0]["seconds"]))
    if "Cancel" in intent:
        return said.fill("timer_cancel", names=names)
    timer = said.home.timers[outcome.changes[0].id]
    key = "timer_pause" if timer.ends is None else "timer_go"
    return said.fill(key, names=names, time=said.time(said.home.seconds_left(timer)))


def _list(said: _Said, outcome: Outcome) -> str:
    made, item = (
        [change for change in outcome.changes if change.real],
        outcome.resolved.values.get("item", ""),
    )
    key = (
        "list_add"
        if "AddItem" in outcome.resolved.intent
        else "list_done"
        if "Complete" in outcome.resolved.intent
        else "list_remove"
    )
    names = said.shortened([said.title(change.id) for change in made or outcome.changes])
    return said.fill(key if made else "list_has", item=item, names=names)


# -- questions answered ----------------------------------------------------------------------------------------------


def _answer(said: _Said, outcome: Outcome) -> str:
    answer, resolved = outcome.answer, outcome.resolved
    assert answer is not None
    facts: Mapping[str, Any] = answer.facts
    if resolved.intent == "HassGetCurrentTime":
        return said.fill("time", hour=facts["hour"], minute=facts["minute"])
    if resolved.intent == "HassGetCurrentDate":
        day = {
            "weekday": WEEKDAYS[said.lang][facts["weekday"]],
            "month": MONTHS[said.lang][facts["month"] - 1],
        }
        return said.fill("date", day=facts["day"], year=facts["year"], **day)
    if resolved.intent == "HassGetWeather":
        return said.fill("weather", what=_facts(said, facts))
    if resolved.intent == "HassClimateGetTemperature":
        told = [
            said.fill("temperature", names=said.where(id_), what=f"{degrees} °C")
            for id_, degrees in facts.items()
        ]
        return (" " if said.lang != "zh" else "").join(told)
    if resolved.intent == "HassTimerStatus":
        timers = said.home.timers
        told = [
            said.fill("timer_left", names=said.timer(i, timers[i].fields()), time=said.time(left))
            for i, left in facts.items()
        ]
        return (" " if said.lang != "zh" else "").join(told)
    return _states(said, resolved, answer.matching, answer.among, facts)


def _facts(said: _Said, facts: Mapping[str, Any]) -> str:
    """`on, brightness 50 %`; a sensor's state with its unit."""
    if "unit" in facts:
        return f"{facts['state']} {facts['unit']}"
    parts = [said.word(facts["state"])]
    for name, value in facts.items():
        if name != "state":
            shown = said.quantity(name, value)
            parts.append(
                shown if name == "temperature" and len(facts) < 5 else f"{said.word(name)} {shown}"
            )
    return ("，" if said.lang == "zh" else ", ").join(parts)


def _states(
    said: _Said,
    resolved: Resolved,
    matching: Sequence[str],
    among: Sequence[str],
    facts: Mapping[str, Value],
) -> str:
    ask = str(resolved.values.get("ask", ""))
    if "asked" not in facts:
        if len(among) == 1:
            return said.fill("is", names=said.title(among[0]), what=_facts(said, facts))
        told = [
            f"{said.title(id_)}: {said.word(said.home.state(id_).get('state'))}" for id_ in among
        ]
        return said.fill("which_yes", names=said.shortened(told))
    if len(among) == 1 and ask in ("", "where", "all", "any"):
        state = _shown_state(said, among[0])
        return said.fill(
            "yes_one" if matching else "no_one", names=said.title(among[0]), what=state
        )
    count, names = said.counted(among), said.shortened([said.title(id_) for id_ in matching])
    if ask in ("all", ""):
        rest = said.shortened([said.title(id_) for id_ in among if id_ not in matching])
        return said.fill(
            "all_yes" if len(matching) == len(among) else "all_no",
            count=count,
            part=len(among) - len(matching),
            names=rest,
        )
    key = {"any": "any", "which": "which", "where": "which"}.get(ask)
    if key:
        return said.fill(f"{key}_{'yes' if matching else 'no'}", names=names, count=count)
    return said.fill(
        "how_many_some" if 0 < len(matching) <= TOLD else "how_many",
        part=len(matching),
        count=count,
        names=names,
    )


def _shown_state(said: _Said, id_: str) -> str:
    """The state of an entity, where a sensor on a door or window says open or closed."""
    state = str(said.home.state(id_).get("state"))
    if id_.startswith("binary_sensor.") and said.home.entities[id_].device_class in (
        "door",
        "window",
        "garage_door",
        "opening",
    ):
        state = {"on": "open", "off": "closed"}.get(state, state)
    return said.word(state)


# -- questions and refusals ------------------------------------------------------------------------------------------


def _question(said: _Said, question: Question) -> str:
    if question.reason == "which":
        return said.fill("which", options=said.listed(question.told, "or"))
    return said.fill(question.reason)


def _refusal(said: _Said, refusal: Refusal) -> str:
    about: dict[str, Any] = dict(refusal.about)
    key = refusal.reason
    if key == "absent":
        about["words"] = about.get("words") or said.noun(str(about.get("kind", "")), 1)
        key = "absent_place" if "place" in about else "absent"
    if key == "mode" and not about.get("modes"):
        key = "mode_none"
    for name in ("slot",):
        if name in about:
            about[name] = said.word(about[name])
    for name in ("entity",):
        if name in about:
            about[name] = said.title(str(about[name]))
    if "place" in about:
        about["place"] = said.place(str(about["place"]))
    if "seconds" in about:
        about["time"] = said.time(float(about["seconds"]))
    return said.fill(key, **about)
