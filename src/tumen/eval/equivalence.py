"""When two actions count as the same, and what an action would do."""

from __future__ import annotations

from typing import Any

from tumen.assistant import Resolved, resolve
from tumen.assistant.values import Values
from tumen.home import Home
from tumen.language import ACTS, CLOSED, COPIED, Action, units

# A window sensor that is "on" is an open window (Home Assistant's binary_sensor).
SWITCH_WORDS = {"open": "on", "closed": "off"}
# Slots that only say which devices are meant; the devices themselves are compared.
DEVICE_SLOTS = ("name", "area", "domain", "device_class", "scope", "ask")


def same_action(given: Action, gold: Action, home: Home | None, values: Values) -> bool:
    """Return whether two actions do the same in a home.

    Same means: the same intent, the same real devices, the same values. Where one of them reaches
    no device (there is none of that name), their words are compared instead.

    Args:
        given: the prediction.
        gold: the known answer.
        home: None compares words alone.
        values: lexicon that knows what copied words are worth.
    """
    if given.intent != gold.intent:
        return False
    if home is not None:
        ours = resolve(given, home, values)
        theirs = resolve(gold, home, values)
        if isinstance(ours, Resolved) and isinstance(theirs, Resolved):
            return bool(_with_switch_words(ours.key()) == _with_switch_words(theirs.key()))
    return _comparable_slots(given, values) == _comparable_slots(gold, values)


def _with_switch_words(key: Any) -> Any:
    """Return a resolution's key with `open` as `on` and `closed` as `off`."""
    if isinstance(key, tuple):
        return tuple(map(_with_switch_words, key))
    if isinstance(key, str):
        return SWITCH_WORDS.get(key, key)
    return key


def _comparable_slots(action: Action, values: Values) -> dict[str, Any]:
    """Return the slots that decide: words of a place as one bag, values as what they are worth."""
    place = "".join(action.slots.get(slot, "") for slot in ("name", "area"))
    found: dict[str, Any] = {"place": frozenset(place.split())}
    for slot, words in action.slots.items():
        if slot in DEVICE_SLOTS:
            continue
        if words in SWITCH_WORDS:
            found[slot] = SWITCH_WORDS[words]
        elif slot in COPIED:
            found[slot] = values.read(slot, words, action.lang)
        else:
            found[slot] = words
    return found


def invents_words(action: Action, sentence: str) -> bool:
    """Return whether an action holds words that are not a run of the sentence."""
    text = "".join(units(sentence)).strip()
    copied = [slot for slot in action.slots if slot not in CLOSED]
    return any(run not in text for slot in copied for run in action.runs(slot))


def would_act(action: Action | None, home: Home | None, values: Values) -> bool:
    """Return whether an action would change something in the home."""
    if action is None or action.intent not in ACTS:
        return False
    return home is None or isinstance(resolve(action, home, values), Resolved)
