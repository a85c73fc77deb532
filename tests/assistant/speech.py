"""Short forms for what is said and what comes of it.

meant(home, "TurnOn name=kitchen light")   ->   "light.kitchen_ceiling light.kitchen_counter"
meant(home, "TurnOn name=fan")             ->   "?fan.bathroom fan.bedroom"    a question
meant(home, "TurnOn name=unicorn")         ->   "!absent"                      a refusal
"""

from __future__ import annotations

from typing import Any

from tumen.assistant import Outcome, Question, Refusal, Resolution, Resolved, act, resolve
from tumen.assistant.replies import reply
from tumen.home.home import Home
from tumen.language.action import Action


def action_of(said: str, lang: str = "en") -> Action:
    """An action from `TurnOn name=kitchen light area=upstairs`: a word with `=` begins a slot."""
    intent, _, rest = said.partition(" ")
    slots: dict[str, str] = {}
    last = ""
    for word in rest.split():
        if "=" in word:
            last, _, word = word.partition("=")
        slots[last] = f"{slots[last]} {word}" if last in slots else word
    return Action(intent if intent == "none" else f"Hass{intent}", lang, slots)


def short(resolution: Resolution) -> str:
    """A resolution in the short form."""
    if isinstance(resolution, Question):
        ids = [target for option in resolution.options for target in option.targets]
        return "?" + " ".join(sorted(ids))
    if isinstance(resolution, Refusal):
        return "!" + resolution.reason
    return " ".join(resolution.targets)


def meant(home: Home, said: str, lang: str = "en", **context: Any) -> str:
    """What an action means in a home, in the short form; `context` is `here` and `last`."""
    return short(resolve(action_of(said, lang), home, **context))


def in_order(expected: str) -> str:
    """A short form with its ids sorted."""
    mark = expected[:1] if expected[:1] in ("?", "!") else ""
    return mark + " ".join(sorted(expected.removeprefix(mark).split()))


def question(home: Home, said: str, lang: str = "en", **context: Any) -> Question:
    """The question that an action needs."""
    resolution = resolve(action_of(said, lang), home, **context)
    assert isinstance(resolution, Question), resolution
    return resolution


def refusal(home: Home, said: str, lang: str = "en", **context: Any) -> Refusal:
    """Why an action is refused."""
    resolution = resolve(action_of(said, lang), home, **context)
    assert isinstance(resolution, Refusal), resolution
    return resolution


def resolved(home: Home, said: str, lang: str = "en", **context: Any) -> Resolved:
    """What an action does to which things."""
    resolution = resolve(action_of(said, lang), home, **context)
    assert isinstance(resolution, Resolved), resolution
    return resolution


def do(home: Home, intent: str, *targets: str, lang: str = "en", **values: Any) -> Outcome:
    """Act on targets, whatever was said."""
    return act(Resolved(f"Hass{intent}", lang, tuple(sorted(targets)), values), home)


def answer(home: Home, said: str, lang: str = "en", **context: Any) -> str:
    """Resolve, act and reply: what a speaker hears."""
    resolution = resolve(action_of(said, lang), home, **context)
    result = act(resolution, home) if isinstance(resolution, Resolved) else resolution
    return reply(result, home)


def states(home: Home, *ids: str) -> str:
    """The states of things, in one line."""
    return " ".join(str(home.state(id_).get("state")) for id_ in ids)
