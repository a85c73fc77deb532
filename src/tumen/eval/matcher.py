"""The reference column: Home Assistant's own template matcher (hassil), given every template and the home's names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.eval.metrics import Answer, Case
from tumen.eval.suites import OHF_SLOTS, spans
from tumen.home import Home
from tumen.language import CLOSED, INTENTS, Action, normalise

PURPOSE = "the reference column of a scorecard"
LANGUAGE = {"en": "en", "zh": "zh-CN", "de": "de"}


class Matcher:
    """Answers cases with hassil's best match. Needs the extra `data`.

    Raises:
        MissingExtra: hassil or its templates are not installed.
    """

    def __init__(self) -> None:
        self.hassil = need("hassil", PURPOSE)
        self.lists: dict[tuple[str, int], Mapping[str, Any]] = {}

    def answer(self, case: Case) -> Answer:
        """The best match of a case, or no action."""
        start = time.perf_counter()
        lang = case.gold.lang if case.gold else "en"
        match = self.hassil.recognize_best(
            case.sentence,
            _intents(lang),
            slot_lists=self._lists(case.home, lang),
            language=LANGUAGE[lang],
        )
        action = _action(match, lang) if match else Action("none", lang)
        return Answer(action, time.perf_counter() - start)

    def _lists(self, home: Home | None, lang: str) -> Mapping[str, Any]:
        key = (lang, id(home))
        if key not in self.lists:
            names, areas, floors = [], [], []
            if home is not None:
                names = [
                    (name, name, {"domain": e.domain})
                    for e in home.entities.values()
                    for name in e.names
                ]
                areas = [(name, name) for area in home.areas.values() for name in area.names]
                floors = [(name, name) for floor in home.floors.values() for name in floor.names]
            of = self.hassil.TextSlotList.from_tuples
            self.lists[key] = {
                "name": of(names, allow_template=False),
                "area": of(areas, allow_template=False),
                "floor": of(floors, allow_template=False),
            }
        return self.lists[key]


@cache
def _intents(lang: str) -> Any:
    tree = need("home_assistant_intents", PURPOSE).get_intents(LANGUAGE[lang])
    return need("hassil", PURPOSE).Intents.from_dict(tree)


def _action(match: Any, lang: str) -> Action:
    """A match of hassil's under our names: closed slots by value, the others by the words that were matched."""
    intent = match.intent.name
    if intent not in INTENTS:
        return Action("none", lang)
    slots = spans({name: entity.value for name, entity in match.entities.items()}, intent)
    for name, entity in match.entities.items():
        slot = OHF_SLOTS.get(name, name)
        value = str(entity.value)
        if slot in CLOSED and value in CLOSED[slot] and slot in INTENTS[intent]:
            slots[slot] = value
        elif slot in INTENTS[intent]:
            words = entity.text_clean or value
            try:
                slots[slot] = normalise(words)
            except InputError:
                continue
    return Action(intent, lang, slots)
