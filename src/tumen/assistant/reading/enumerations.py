"""Enumerations: one verb and several things (`turn off the bathroom light and fan`).

A sentence whose things are of different kinds is cut into one sentence for each thing, so that a
model which knows one thing at a time understands all of them. Several places of one kind stay
together: `the lights in the kitchen and the hall` is one slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tumen.assistant.modifiers import command_words
from tumen.home import Index, Mention, common_words, kind_word, mentions_of, split
from tumen.language import Action, units

MAX_THINGS = 6
"""The most things that one verb is taken to be about."""

_MOST_UNITS = 4
_LISTED = ("HassListAddItem", "HassShoppingListAddItem", "HassListRemoveItem")


@dataclass(frozen=True)
class _Thing:
    """Units that name a thing or a kind of thing.

    Attributes:
        start: its first unit, with the place before it.
        end: the unit after it.
        place: how many units at its start are a place.
    """

    start: int
    end: int
    place: int = 0


def one_thing_each(said: str, index: Index, lang: str) -> tuple[str, ...]:
    """Return a sentence for each thing of an enumeration; the sentence itself if there is none.

    Args:
        said: a normalised clause.
        index: the names of the home.
        lang: the language of the speaker.
    """
    pieces = units(said)
    chain = _chain(pieces, _things(index, pieces, mentions_of(index, said, lang)))
    if not 1 < len(chain) <= MAX_THINGS:
        return (said,)
    before = pieces[: chain[0].start]
    after = pieces[chain[-1].end :]
    shared = pieces[chain[0].start : chain[0].start + chain[0].place]
    sentences = []
    for thing in chain:
        own = pieces[thing.start : thing.end]
        # `bathroom light and fan`: the fan is in the bathroom as well
        place: Sequence[str] = ()
        if thing is not chain[0]:
            # a thing with a name ends that
            shared = shared if _is_kind(own) else []
            place = shared
        sentences.append("".join([*before, *place, *own, *after]).strip())
    return tuple(sentences)


def items_of(said: str, action: Action) -> tuple[Action, ...]:
    """Return an action for each item that is put on a list or taken off.

    Args:
        said: the normalised sentence.
        action: what was understood; its item may be one of several.
    """
    item = action.slots.get("item", "")
    if action.intent not in _LISTED or not item:
        return (action,)
    found = _beside(said, item)
    return tuple(Action(action.intent, action.lang, {**action.slots, "item": one}) for one in found)


def _beside(said: str, item: str) -> list[str]:
    """Return the items of an enumeration that an item is part of, in their order."""
    joints = common_words().joints
    parts = [item]
    for joint in joints:
        parts = [one for part in parts for one in part.split(joint)]
    before, _, _ = said.partition(item)
    for joint in joints:
        if not before.endswith(joint) and not before.endswith(joint.rstrip() + " "):
            continue
        # `add eggs and butter`: the words between the verb and the joint
        first = _after_verb(before.removesuffix(joint).removesuffix(joint.rstrip() + " "))
        if first:
            parts.insert(0, first)
        break
    return [part.strip() for part in parts if part.strip()]


def _after_verb(said: str) -> str:
    """Return the words after the last word of a command."""
    end = max((end for _, end in command_words(said)), default=0)
    stops = common_words().stops
    return " ".join(word for word in said[end:].split() if word not in stops)


def _things(index: Index, pieces: Sequence[str], mentions: Sequence[Mention]) -> list[_Thing]:
    """Return the things and kinds of a sentence, from left to right."""
    stops = common_words().stops
    found = []
    places: dict[int, int] = {}
    at = 0
    by_start = {mention.start: mention for mention in mentions}
    while at < len(pieces):
        mention = by_start.get(at)
        if mention and mention.entities:
            found.append(_Thing(at, mention.end, _place_before(index, pieces, mention)))
            at = mention.end
            continue
        if mention:
            start, at = at, mention.end
            # the place may belong to the kind after it: `厨房的灯`
            while at < len(pieces) and pieces[at] in stops:
                at += 1
            places[at] = start
            continue
        end = _kind_end(pieces, at)
        if end is None:
            at += 1
            continue
        start = places.get(at, at)
        found.append(_Thing(start, end, at - start))
        at = end
    return found


def _place_before(index: Index, pieces: Sequence[str], mention: Mention) -> int:
    """Return how many units at the start of a name are a place: one of `bathroom light`."""
    for end in range(mention.end - 1, mention.start, -1):
        if index.places.get("".join(split("".join(pieces[mention.start : end])))):
            return end - mention.start
    return 0


def _kind_end(pieces: Sequence[str], start: int) -> int | None:
    """Return the end of the longest kind word that starts at a unit, or None."""
    for end in range(min(len(pieces), start + _MOST_UNITS), start, -1):
        if _is_kind(pieces[start:end]):
            return end
    return None


def _is_kind(pieces: Sequence[str]) -> bool:
    """Whether units are a kind of device and nothing else."""
    return kind_word("".join(split("".join(pieces)))) is not None


def _chain(pieces: Sequence[str], things: Sequence[_Thing]) -> list[_Thing]:
    """Return the first things that `and` joins; one thing if there are none."""
    chain: list[_Thing] = []
    for thing in things:
        if not chain or _is_joint(pieces[chain[-1].end : thing.start]):
            chain.append(thing)
        elif len(chain) > 1:
            break
        else:
            chain = [thing]
    return chain


def _is_joint(between: Sequence[str]) -> bool:
    """Whether units are `and`, with small words beside it."""
    words = common_words()
    joints = {joint.strip() for joint in words.joints}
    said = [piece.strip() for piece in between]
    return any(word in joints for word in said) and all(
        word in joints or word in words.stops for word in said
    )
