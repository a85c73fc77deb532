"""The reference column: Home Assistant's own template matcher (hassil) on the home's names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.data.sources import language_data
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.eval.suites.home_assistant import SLOT_NAMES, time_spans
from tumen.home import Home
from tumen.language import CLOSED, INTENTS, LANGUAGES, NONE, Action, normalise

PURPOSE = "the reference column of a scorecard"


class TemplateMatcher:
    """Answers cases with hassil's best match over all of Home Assistant's templates.

    Raises:
        MissingExtra: hassil or its templates are not installed.
    """

    def __init__(self) -> None:
        self.hassil = need("hassil", PURPOSE)
        self._slot_lists: dict[tuple[str, int], Mapping[str, Any]] = {}

    def answer(self, case: EvalCase) -> Prediction:
        """Return the best match of a case, or the action `none`."""
        start = time.perf_counter()
        if case.gold:
            lang = case.gold.lang
        else:
            lang = LANGUAGES[0]
        match = self.hassil.recognize_best(
            case.sentence,
            _intents(lang),
            slot_lists=self._names_of(case.home, lang),
            language=language_data(lang).home_assistant,
        )
        if match:
            action = _matched_action(match, lang)
        else:
            action = Action(NONE, lang)
        return Prediction(action, time.perf_counter() - start)

    def _names_of(self, home: Home | None, lang: str) -> Mapping[str, Any]:
        """Return hassil's lists of what a home's devices, areas and floors are called."""
        key = (lang, id(home))
        if key not in self._slot_lists:
            self._slot_lists[key] = self._build_lists(home)
        return self._slot_lists[key]

    def _build_lists(self, home: Home | None) -> Mapping[str, Any]:
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
        make = self.hassil.TextSlotList.from_tuples
        return {
            "name": make(names, allow_template=False),
            "area": make(areas, allow_template=False),
            "floor": make(floors, allow_template=False),
        }


@cache
def _intents(lang: str) -> Any:
    code = language_data(lang).home_assistant
    tree = need("home_assistant_intents", PURPOSE).get_intents(code)
    return need("hassil", PURPOSE).Intents.from_dict(tree)


def _matched_action(match: Any, lang: str) -> Action:
    """Return a match under our names: closed slots by value, others by the matched words."""
    intent = match.intent.name
    if intent not in INTENTS:
        return Action(NONE, lang)
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
        except InputError:  # punctuation alone
            continue
    return Action(intent, lang, slots)
