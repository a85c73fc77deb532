"""Said kinds: the kind of device that the words name is the one that is acted on.

A model that does not know `Gartentor` closes the curtains. Where the words name a kind and the
action has another one, the words are right; a home without such a thing then says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tumen.home import Home, Kind, kind_word, mentions_of, split
from tumen.language import ACTS, CLOSED, INTENTS, Action, units

_MOST_UNITS = 4


def with_said_kind(said: str, action: Action, home: Home) -> Action:
    """Return an act on the kind of device that was said.

    Args:
        said: the normalised command.
        action: what was understood.
        home: the home that is spoken to.
    """
    if action.intent not in ACTS or "domain" not in INTENTS[action.intent]:
        return action
    class_ = action.slots.get("device_class", "")
    mentions = mentions_of(home.index, said, action.lang)
    if not class_ or any(mention.entities for mention in mentions):
        return action
    said_classes = {kind.sense for kind in _kinds(units(said)) if "cover" in kind.domains}
    said_classes &= set(CLOSED["device_class"])
    if not said_classes or class_ in said_classes:
        return action
    slots = {**action.slots, "device_class": min(said_classes)}
    return replace(action, slots=slots)


def _kinds(pieces: Sequence[str]) -> Iterator[Kind]:
    """Yield the kinds of devices that some units name, the longest words first."""
    at = 0
    while at < len(pieces):
        step = 1
        for end in range(min(len(pieces), at + _MOST_UNITS), at, -1):
            known = kind_word("".join(split("".join(pieces[at:end]))))
            if known:
                yield known[0]
                step = end - at
                break
        at += step
