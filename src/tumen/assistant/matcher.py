"""Matcher: sentences that are said just as a template of Home Assistant has them.

hassil and the templates of `home-assistant-intents` (60 languages) come with the extra `data`. A
sentence that matches has one reading in this home, so the templates have the first word; all other
sentences are the model's.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tumen.assistant.interpretation import Interpretation
from tumen.assistant.modifiers import languages_of, script_of
from tumen.assistant.template_index import PURPOSE, HomeNames, TemplateIndex
from tumen.core.errors import InputError, MissingExtra, TumenError
from tumen.core.extras import need
from tumen.data.sources import language_data
from tumen.home import Home, common_words, split
from tumen.language import CJK, CLOSED, COPIED, INTENTS, NUMBERS, Action, is_cjk, normalise

SLOT_NAMES = {
    "floor": "area",
    "volume_level": "volume",
    "search_query": "query",
    "conversation_command": "command",
    "volume_step": "step",
}
"""Home Assistant's names of slots -> ours."""

_SOMEWHERE = {"area": "here"}
"""What templates may take for granted: it is said in some room. Which one is found out later."""

_NO_SPACE = re.compile(rf"(?<=[{CJK}]) +| +(?=[{CJK}])|(?<=\d) +(?=[%°])")
"""The spaces that a sentence has between words of two scripts; templates have none there."""

TIME_UNITS = ("hours", "minutes", "seconds")


def _as_said(name: str) -> str:
    """Return a name in the form of a sentence; as it is if it has no letters."""
    try:
        return normalise(name)
    except InputError:
        return name


def _without_spaces(entries: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return entries of a list as a language without spaces says them."""
    return [(_NO_SPACE.sub("", entry[0]), *entry[1:]) for entry in entries]


@dataclass(frozen=True)
class TemplateMatch:
    """What a template makes of a sentence.

    Attributes:
        action: what is wanted.
        is_open: whether the template takes any words (`play {query}`) and names nothing of the
            home; a sentence that is not for the home may fit it.
    """

    action: Action
    is_open: bool = False


class TemplateMatcher:
    """Matches sentences with Home Assistant's templates and the names of one home.

    Args:
        home: whose devices, areas and floors may be named; None for none.

    Raises:
        MissingExtra: hassil or its templates are not installed.
    """

    def __init__(self, home: Home | None) -> None:
        self._hassil = need("hassil", PURPOSE)
        need("home_assistant_intents", PURPOSE)
        self._names = HomeNames(_lists_of(home))

    def match(self, said: str, lang: str) -> Action | None:
        """Return the action of the best match, or None; see `read`."""
        match = self.read(said, lang)
        return match.action if match else None

    def read(self, said: str, lang: str) -> TemplateMatch | None:
        """Return the best match, or None.

        Args:
            said: a normalised sentence.
            lang: the language whose templates are tried.
        """
        names = self._names.said(said)
        if not language_data(lang).spaced:
            said = _NO_SPACE.sub("", said)
            names = {name: _without_spaces(entries) for name, entries in names.items()}
        index = _templates(lang)
        make = self._hassil.TextSlotList.from_tuples
        lists = {name: make(entries, allow_template=False) for name, entries in names.items()}
        match = self._hassil.recognize_best(
            said,
            index.chosen(said, names),
            slot_lists=lists,
            intent_context=_SOMEWHERE,
            language=index.code,
        )
        action = _action_of(match, said, lang) if match else None
        if action is None:
            return None
        return TemplateMatch(action, _is_open(match.entities.values()))


def _is_open(entities: Iterable[Any]) -> bool:
    """Whether a match takes for granted what it is about."""
    return any(entity.name in _SOMEWHERE and not entity.text for entity in entities)


def _lists_of(home: Home | None) -> dict[str, list[tuple[Any, ...]]]:
    """Return hassil's lists of what a home's devices, areas and floors are called."""
    names: list[tuple[Any, ...]] = []
    areas: list[tuple[Any, ...]] = []
    floors: list[tuple[Any, ...]] = []
    if home is not None:
        for entity in home.entities.values():
            context = {"domain": entity.domain}
            names += [(_as_said(name), name, context) for name in entity.names]
        for area in home.areas.values():
            areas += [(_as_said(name), name) for name in area.names]
        for floor in home.floors.values():
            floors += [(_as_said(name), name) for name in floor.names]
    return {"name": names, "area": areas, "floor": floors}


class TemplatesFirst:
    """Reads sentences by templates, and asks a model for those that fit none.

    Templates are tried in the language that the small words of a sentence speak for, so that
    nothing is asked of a model, or sent to a cloud tier, that a template answers.

    Args:
        matcher: the templates with the names of the home.
        understand: asks the model.
    """

    def __init__(
        self, matcher: TemplateMatcher, understand: Callable[[str], Interpretation]
    ) -> None:
        self.matcher = matcher
        self.understand = understand

    def __call__(self, said: str) -> Interpretation:
        """Return the interpretation of a normalised sentence.

        Raises:
            TumenError: no template fits and no model answers.
        """
        tried = likely_language(said)
        matched = self._matched(said, (tried,))
        if matched and not matched.is_open and "step" not in matched.action.slots:
            return matched.found
        try:
            found = self.understand(said)
        except TumenError:
            # templates need no model
            matched = matched or self._matched(said, languages_of(script_of(said)))
            if matched is None:
                raise
            return matched.found
        if matched is None and found.action.lang != tried:
            matched = self._matched(said, (found.action.lang,))
        if matched is None:
            return found
        # a sentence that is not for the home may fit a template that takes any words
        if matched.is_open and found.action.intent != matched.action.intent:
            return found
        action = _with_direction(matched.action, found.action)
        seconds = {**found.seconds, **matched.found.seconds}
        return replace(matched.found, action=action, seconds=seconds)

    def _matched(self, said: str, languages: Sequence[str]) -> _Matched | None:
        """Return what the templates of some languages make of a sentence, or None."""
        start = time.perf_counter()
        for lang in languages:
            match = self.matcher.read(said, lang)
            if match is not None:
                seconds = {"templates": time.perf_counter() - start}
                found = Interpretation(match.action, "templates", "exact", 1.0, seconds)
                return _Matched(found, match.is_open)
        return None


@dataclass(frozen=True)
class _Matched:
    """A match as an interpretation; see `TemplateMatch`."""

    found: Interpretation
    is_open: bool

    @property
    def action(self) -> Action:
        """What is wanted."""
        return self.found.action


def _with_direction(matched: Action, found: Action) -> Action:
    """Return a match with the direction that the model heard.

    Some templates write every step as one upwards (`音量调小二十`).
    """
    step = found.slots.get("step")
    if matched.intent != found.intent or not step or not matched.slots.get("step"):
        return matched
    return replace(matched, slots={**matched.slots, "step": step})


def likely_language(said: str) -> str:
    """Return the language of a sentence by its script and its small words.

    Args:
        said: a normalised sentence; one without small words is of the first language.
    """
    languages = languages_of(script_of(said))
    if len(languages) == 1:
        return languages[0]
    pieces = split(said)
    stops = common_words().stop
    counts = {lang: sum(piece in stops[lang] for piece in pieces) for lang in languages}
    # the first of equals
    return max(languages, key=lambda lang: counts[lang])


def templates_first(
    home: Home, understand: Callable[[str], Interpretation]
) -> Callable[[str], Interpretation]:
    """Return a reader that tries the templates first where they are installed.

    Args:
        home: the home that is spoken to.
        understand: asks the model.
    """
    try:
        return TemplatesFirst(TemplateMatcher(home), understand)
    except MissingExtra:
        return understand


@cache
def _templates(lang: str) -> TemplateIndex:
    """Return the templates of a language."""
    code = language_data(lang).home_assistant
    tree = need("home_assistant_intents", PURPOSE).get_intents(code)
    return TemplateIndex(tree, code)


def time_spans(slots: Mapping[str, Any], intent: str) -> dict[str, str]:
    """Return Home Assistant's hours, minutes and seconds as our one run of words."""
    found = {}
    for slot, prefix in (("duration", ""), ("start", "start_")):
        parts = [f"{slots[prefix + unit]} {unit}" for unit in TIME_UNITS if prefix + unit in slots]
        if parts and slot in INTENTS[intent]:
            found[slot] = " ".join(parts)
    return found


def _action_of(match: Any, said: str, lang: str) -> Action | None:
    """Return a match under our names: closed slots by value, others by the matched words."""
    intent = match.intent.name
    if intent not in INTENTS:
        return None
    slots = time_spans({name: entity.value for name, entity in match.entities.items()}, intent)
    for name, entity in match.entities.items():
        slot = SLOT_NAMES.get(name, name)
        if slot in COPIED and not entity.text and slot not in NUMBERS:
            # taken from where it was said, and resolved there: nobody said it
            continue
        if slot == "state" and entity.value not in CLOSED["state"]:
            # somebody is at a place that is no state of theirs: `is anna at work`
            slot = "zone"
        if slot == "step" and isinstance(entity.value, (int, float)):
            slots["volume"] = f"{abs(entity.value):g}"
            slots["step"] = "up" if entity.value > 0 else "down"
        elif slot in INTENTS[intent]:
            _put(slots, slot, entity)
    # which of the answers a question wants
    if match.response in CLOSED["ask"] and "ask" in INTENTS[intent]:
        slots["ask"] = match.response
    # templates take `all the lights` and `the lights` for the same
    if "scope" in INTENTS[intent] and not slots.get("name") and _says_all(said):
        slots["scope"] = "all"
    return Action(intent, lang, {slot: slots[slot] for slot in INTENTS[intent] if slot in slots})


def _put(slots: dict[str, str], slot: str, entity: Any) -> None:
    """Add the value of a slot, or the words that were matched."""
    value = str(entity.value)
    if value in CLOSED.get(slot, ()):
        slots[slot] = value
        return
    # punctuation alone is no value
    with contextlib.suppress(InputError):
        slots[slot] = normalise(entity.text_clean or value)


def _says_all(said: str) -> bool:
    """Whether a sentence is about all of something."""
    words = common_words()
    if {*split(said)} & words.all:
        return True
    return any(word in said for word in words.all if len(word) > 1 and is_cjk(word[0]))
