"""Matcher: sentences that are said just as a template of Home Assistant has them.

hassil and the templates of `home-assistant-intents` (60 languages) come with the extra `data`. A
sentence that matches has one reading in this home, so the templates have the first word; all other
sentences are the model's.
"""

from __future__ import annotations

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
from tumen.home import Home
from tumen.language import CLOSED, INTENTS, Action, normalise

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
        return _action_of(match, lang) if match else None

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
    """Reads sentences by templates, and by a model where none fits.

    The model is asked in any case: it knows the language, and all templates of one language cost as
    much as the model.

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
        try:
            found = self.understand(said)
        except TumenError:
            # templates need no model
            matched = self._matched(said, languages_of(script_of(said)))
            if matched is None:
                raise
            return matched
        matched = self._matched(said, (found.action.lang,))
        if matched is None:
            return found
        return replace(matched, seconds=dict(found.seconds) | dict(matched.seconds))

    def _matched(self, said: str, languages: Sequence[str]) -> Interpretation | None:
        """Return what the templates of some languages make of a sentence, or None."""
        start = time.perf_counter()
        for lang in languages:
            action = self.matcher.match(said, lang)
            if action is not None:
                seconds = time.perf_counter() - start
                return Interpretation(action, "templates", "exact", 1.0, {"templates": seconds})
        return None


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


def _action_of(match: Any, lang: str) -> Action | None:
    """Return a match under our names: closed slots by value, others by the matched words."""
    intent = match.intent.name
    if intent not in INTENTS:
        return None
    slots = time_spans({name: entity.value for name, entity in match.entities.items()}, intent)
    for name, entity in match.entities.items():
        slot = SLOT_NAMES.get(name, name)
        if slot not in INTENTS[intent]:
            continue
        value = str(entity.value)
        if value in CLOSED.get(slot, ()):
            slots[slot] = value
            continue
        try:
            slots[slot] = normalise(entity.text_clean or value)
        # punctuation alone
        except InputError:
            continue
    return Action(intent, lang, slots)
