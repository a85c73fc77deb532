"""Grounding: an action is held against the words that were said and the names of the home.

A small model drops words or cuts a name short: `the TV light strip` becomes `light`, and four other
lamps turn red. The home knows what its things are called, so a name or place of the home that
stands in the sentence must stand in the action. Where a slot is free it is filled in; where that is
not possible the words are unaccounted for, and nothing may be done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from tumen.assistant.intents import ACTS_ON
from tumen.assistant.modifiers import command_words
from tumen.assistant.values import Unknown, Values
from tumen.home import (
    SHOPPING,
    Home,
    Mention,
    common_words,
    fold,
    forms,
    kind_word,
    mentions_of,
    split,
)
from tumen.language import ACTS, CLOSED, INTENTS, JOINT, Action, units

FREE_TEXT = frozenset(("message", "item", "query", "command"))
"""Slots that hold any words; what is named in them is not meant."""

_PLACES = ("name", "area")
_TIMERS = "Timer"
_MOST_UNITS = 6
_MOST_COLOUR_UNITS = 3
_LIGHT_VALUES = ("step", "brightness", "color", "temperature")


@dataclass(frozen=True)
class Grounded:
    """An action whose names are those of the home.

    Attributes:
        action: the action, with names and places that were cut short or left out.
        unaccounted: words that name something of the home and have no place in the action.
    """

    action: Action
    unaccounted: str = ""


@dataclass(frozen=True)
class _Span:
    """The units of a sentence that a slot holds."""

    slot: str
    start: int
    end: int


def ground(said: str, action: Action, home: Home) -> Grounded:
    """Return an action with the names that were said.

    Args:
        said: the normalised sentence.
        action: what a model made of it.
        home: the home that is spoken to.
    """
    # a question changes nothing, and a timer is no thing of the home
    if action.intent not in ACTS or _TIMERS in action.intent:
        return Grounded(action)
    pieces = units(said)
    for mention in mentions_of(home.index, said, action.lang):
        spans = spans_of(pieces, action)
        if _is_inside(mention, spans, FREE_TEXT) or _is_inside(mention, spans, _PLACES):
            continue
        better = _with_mention(pieces, action, spans, mention, home)
        if better is None:
            return Grounded(action, mention.words)
        action = better
    return Grounded(_with_here(pieces, action))


def _with_here(pieces: Sequence[str], action: Action) -> Action:
    """Return an act about the speaker's room where it says `here` and no other place."""
    if "area" not in INTENTS[action.intent] or action.slots.get("area"):
        return action
    if action.slots.get("name"):
        return action
    words = common_words()
    # `room` alone is a word of many names
    here = {word for word in words.here if word not in words.rooms}
    for start in range(len(pieces)):
        for end in range(min(len(pieces), start + _MOST_UNITS), start, -1):
            said = "".join(pieces[start:end]).strip()
            if fold(said) in here:
                slots = {**action.slots, "area": said}
                ordered = {name: slots[name] for name in INTENTS[action.intent] if name in slots}
                return replace(action, slots=ordered)
    return action


def spans_of(pieces: Sequence[str], action: Action) -> list[_Span]:
    """Return which units of a sentence the copied slots of an action hold.

    Args:
        pieces: the units of the sentence.
        action: what a model made of it; a slot whose words are not in the sentence has no span.
    """
    found: list[_Span] = []
    for slot, words in action.slots.items():
        if slot in CLOSED:
            continue
        for run in words.split(JOINT):
            found += _runs(pieces, slot, run)
    return found


def _runs(pieces: Sequence[str], slot: str, run: str) -> Iterator[_Span]:
    """Yield the first place where the words of a slot stand."""
    wanted = [piece.strip() for piece in units(run.strip())]
    bare = [piece.strip() for piece in pieces]
    for start in range(len(bare) - len(wanted) + 1):
        if wanted and bare[start : start + len(wanted)] == wanted:
            yield _Span(slot, start, start + len(wanted))
            return


def _is_inside(mention: Mention, spans: Sequence[_Span], slots: Collection[str]) -> bool:
    """Whether one slot of some holds all words of a mention."""
    return any(
        span.slot in slots and span.start <= mention.start and mention.end <= span.end
        for span in spans
    )


def _with_mention(
    pieces: Sequence[str], action: Action, spans: Sequence[_Span], mention: Mention, home: Home
) -> Action | None:
    """Return the action with a mention in it; None if there is no place for it.

    Args:
        pieces: the units of the sentence.
        action: what is known so far.
        spans: the units that its slots hold.
        mention: something that it does not hold.
        home: the home.
    """
    if mention.entities and _may_be_acted_on(action, mention, home):
        if "name" not in INTENTS[action.intent]:
            return _with_list(action, mention, home)
        return _with_words(pieces, action, spans, mention, "name")
    if mention.place is None:
        # a sensor that is named beside a lamp; `movie night` where nothing is played
        return None if mention.entities else action
    # `open the garage`: the kind says it already
    if _is_said_by_kind(action, mention):
        return action
    return _with_words(pieces, action, spans, mention, "area")


def _may_be_acted_on(action: Action, mention: Mention, home: Home) -> bool:
    """Whether an intent may act on one of the things that a mention names."""
    domains = ACTS_ON.get(action.intent, ())
    return any(home.index.entities[number].domain in domains for number in mention.entities)


def _with_list(action: Action, mention: Mention, home: Home) -> Action | None:
    """Return an action on the shopping list as one on the list that was named.

    Args:
        action: an act without a slot for the list.
        mention: the list.
        home: the home.
    """
    ids = {home.index.entities[number].id for number in mention.entities}
    if SHOPPING in ids:
        return action
    intent = action.intent.replace("ShoppingList", "List")
    if intent == action.intent:
        return None
    return Action(intent, action.lang, {"name": mention.words, **action.slots})


def _is_said_by_kind(action: Action, mention: Mention) -> bool:
    """Whether a closed slot says what a place word says (`garage`)."""
    known = kind_word(fold(mention.words).replace(" ", ""))
    said = {action.slots.get("device_class", ""), action.slots.get("domain", "")}
    word = fold(mention.words)
    if word in said or any(form in said for form in forms(word)):
        return True
    return known is not None and (known[0].sense in said or bool(known[0].domains & said))


def _with_words(
    pieces: Sequence[str], action: Action, spans: Sequence[_Span], mention: Mention, slot: str
) -> Action | None:
    """Return the action with the words of a mention in a slot; None if others stand there.

    Args:
        pieces: the units of the sentence.
        action: what is known so far.
        spans: the units that its slots hold.
        mention: the words.
        slot: `name` or `area`.
    """
    if slot not in INTENTS[action.intent]:
        return None
    slots = dict(action.slots)
    start, end = mention.start, mention.end
    for span in spans:
        if not mention.overlaps(span.start, span.end):
            continue
        if span.slot in _PLACES:
            # a name that was cut short
            start, end = min(start, span.start), max(end, span.end)
            slots.pop(span.slot, None)
            continue
        # `the red lamp` is a name and no colour; `strip red` holds a word of the name
        beyond = [*pieces[span.start : mention.start], *pieces[mention.end : span.end]]
        slots[span.slot] = "".join(beyond).strip()
        if not slots[span.slot]:
            del slots[span.slot]
    taken = [span for span in spans if span.slot == slot and span.slot in slots]
    for span in taken:
        if not _are_joined(pieces, (span.start, span.end), (start, end)):
            return None
        start, end = min(start, span.start), max(end, span.end)
    slots[slot] = "".join(pieces[start:end]).strip()
    # in the order in which they are written
    ordered = {name: slots[name] for name in INTENTS[action.intent] if name in slots}
    return replace(action, slots=ordered)


def _are_joined(pieces: Sequence[str], one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether only `and` and small words stand between two runs of units."""
    first, second = sorted((one, other))
    between = "".join(pieces[first[1] : second[0]]).split()
    if not between:
        return False
    words = common_words()
    joints = {joint.strip() for joint in words.joints}
    return all(word in joints or word in words.stops for word in between)


def with_colour(said: str, action: Action, values: Values) -> Action:
    """Return an action with the colour that was said, where a light is to be set to nothing else.

    Args:
        said: the normalised sentence.
        action: the action, after `ground`.
        values: reads colours.
    """
    if action.intent != "HassLightSet" or any(slot in action.slots for slot in _LIGHT_VALUES):
        return action
    pieces = units(said)
    taken = spans_of(pieces, action)
    for width in range(_MOST_COLOUR_UNITS, 0, -1):
        for start in range(len(pieces) - width + 1):
            if any(span.start < start + width and start < span.end for span in taken):
                continue
            words = "".join(pieces[start : start + width]).strip()
            if not isinstance(values.read("color", words, action.lang), Unknown):
                return replace(action, slots={**action.slots, "color": words})
    return action


# -- a word beside a kind ------------------------------------------------------------------------


def unknown_qualifier(said: str, action: Action, home: Home) -> str:
    """Return words that narrow a kind of device and that nothing accounts for.

    `the spot light` in a home without one must not switch all lights.

    Args:
        said: the normalised sentence.
        action: what was understood, after `ground`.
        home: the home that is spoken to.

    Returns:
        the words with the kind, such as `spot light`; empty if there are none.
    """
    pieces = units(said)
    known = _known_units(said, pieces, action, home)
    for start, end in _kinds_said(pieces):
        first = start
        while first > 0 and first - 1 not in known:
            first -= 1
        if first < start:
            return "".join(pieces[first:end]).strip()
    return ""


def _known_units(said: str, pieces: Sequence[str], action: Action, home: Home) -> set[int]:
    """Return the units of a sentence that something accounts for."""
    known: set[int] = set()
    for span in spans_of(pieces, action):
        known.update(range(span.start, span.end))
    for mention in mentions_of(home.index, said, action.lang):
        known.update(range(mention.start, mention.end))
    for start, end in _kinds_said(pieces):
        known.update(range(start, end))
    for start, end in command_words(said):
        known.update(_units_between(pieces, start, end))
    for start in range(len(pieces)):
        known.update(_common_words_at(pieces, start))
    return known


def _common_words_at(pieces: Sequence[str], start: int) -> range:
    """Return the units of the longest small word that starts at a unit."""
    words = common_words()
    for end in range(min(len(pieces), start + _MOST_UNITS), start, -1):
        said = fold("".join(pieces[start:end]))
        if said in words.stops | words.all | words.here | words.everywhere | words.it:
            return range(start, end)
    return range(0)


def _kinds_said(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Return the units of the kinds of devices that a sentence names, the longest words first."""
    found = []
    at = 0
    while at < len(pieces):
        end = next(
            (
                end
                for end in range(min(len(pieces), at + _MOST_UNITS), at, -1)
                if kind_word("".join(split("".join(pieces[at:end]))))
            ),
            None,
        )
        if end is not None:
            found.append((at, end))
        at = end or at + 1
    return found


def _units_between(pieces: Sequence[str], start: int, end: int) -> Iterator[int]:
    """Yield the units that stand between two characters of the sentence."""
    # the first unit has a space that the sentence does not have
    at = -1 if pieces and pieces[0].startswith(" ") else 0
    for number, piece in enumerate(pieces):
        first = at + len(piece) - len(piece.lstrip())
        at += len(piece)
        if start <= first and at <= end:
            yield number
