"""Matcher: sentences that are said just as a template of Home Assistant has them.

hassil and the templates of `home-assistant-intents` (60 languages) come with the extra `data`. A
sentence that matches has one reading in this home, so the templates have the first word; all other
sentences are the model's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tumen.assistant.interpretation import Interpretation
from tumen.assistant.modifiers import languages_of, script_of
from tumen.core.errors import InputError, MissingExtra, TumenError
from tumen.core.extras import need
from tumen.data.sources import language_data
from tumen.home import Home, common_words, split
from tumen.language import CLOSED, INTENTS, Action, is_cjk, normalise

PURPOSE = "matching sentences with templates"

SLOT_NAMES = {
    "floor": "area",
    "volume_level": "volume",
    "search_query": "query",
    "conversation_command": "command",
    "volume_step": "step",
}
"""Home Assistant's names of slots -> ours."""

TIME_UNITS = ("hours", "minutes", "seconds")


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
        self._lists = self._names_of(home)

    def match(self, said: str, lang: str) -> Action | None:
        """Return the action of the best match, or None.

        Args:
            said: a normalised sentence.
            lang: the language whose templates are tried.
        """
        match = self._hassil.recognize_best(
            said,
            _templates(lang),
            slot_lists=self._lists,
            language=language_data(lang).home_assistant,
        )
        return _action_of(match, said, lang) if match else None

    def _names_of(self, home: Home | None) -> Mapping[str, Any]:
        """Return hassil's lists of what a home's devices, areas and floors are called."""
        names: list[tuple[Any, ...]] = []
        areas: list[tuple[Any, ...]] = []
        floors: list[tuple[Any, ...]] = []
        if home is not None:
            for entity in home.entities.values():
                names += [(name, name, {"domain": entity.domain}) for name in entity.names]
            for area in home.areas.values():
                areas += [(name, name) for name in area.names]
            for floor in home.floors.values():
                floors += [(name, name) for name in floor.names]
        make = self._hassil.TextSlotList.from_tuples
        return {
            "name": make(names, allow_template=False),
            "area": make(areas, allow_template=False),
            "floor": make(floors, allow_template=False),
        }


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
        if matched and "step" not in matched.action.slots:
            return matched
        try:
            found = self.understand(said)
        except TumenError:
            # templates need no model
            matched = matched or self._matched(said, languages_of(script_of(said)))
            if matched is None:
                raise
            return matched
        if matched is None and found.action.lang != tried:
            matched = self._matched(said, (found.action.lang,))
        if matched is None:
            return found
        action = _with_direction(matched.action, found.action)
        return replace(matched, action=action, seconds={**found.seconds, **matched.seconds})

    def _matched(self, said: str, languages: Sequence[str]) -> Interpretation | None:
        """Return what the templates of some languages make of a sentence, or None."""
        start = time.perf_counter()
        for lang in languages:
            action = self.matcher.match(said, lang)
            if action is not None:
                seconds = time.perf_counter() - start
                return Interpretation(action, "templates", "exact", 1.0, {"templates": seconds})
        return None


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
def _templates(lang: str) -> Any:
    """Return the templates of a language; reading them takes about a second."""
    code = language_data(lang).home_assistant
    tree = need("home_assistant_intents", PURPOSE).get_intents(code)
    return need("hassil", PURPOSE).Intents.from_dict(tree)


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
