"""Values of copied words: `maximum` is 100, `rot` is red, `eine halbe Stunde` is `30 minutes`.

They come from Home Assistant's lists. A bundle carries its own lexicon, so a device needs no
template package.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from tumen.core.errors import InputError
from tumen.core.extras import optional
from tumen.data.sources.languages import language_data
from tumen.language import normalise

if TYPE_CHECKING:
    from hassil import Intents, TextSlotList

PURPOSE = "reading Home Assistant's word lists"
hassil = optional("hassil", PURPOSE)
home_assistant_intents = optional("home_assistant_intents", PURPOSE)

SLOT_OF_LIST = {
    "brightness_level": "brightness",
    "color": "color",
    "color_temperature_names": "temperature",
    "position_level": "position",
    "volume_mapping": "volume",
    "timer_half": "minutes",
    "timer_hour_parts_to_minutes": "minutes",
    "timer_minute_parts_to_seconds": "seconds",
}
MOST_SPELLINGS = 200  # of one entry of a list
Lexicon = dict[str, dict[str, dict[str, str | float]]]


def lexicon(languages: Sequence[str]) -> Lexicon:
    """Return {language: {slot: {normalized words: value}}}."""
    found: Lexicon = {}
    for lang in languages:
        tree = home_assistant_intents.get_intents(language_data(lang).home_assistant)
        if tree is None:
            raise InputError(f"home-assistant-intents has no templates for {lang!r}")
        intents = hassil.Intents.from_dict(tree)
        slots: dict[str, dict[str, str | float]] = {}
        for name, slot in SLOT_OF_LIST.items():
            words = intents.slot_lists.get(name)
            if isinstance(words, hassil.TextSlotList):
                slots.setdefault(slot, {}).update(_values(words, intents))
        slots.setdefault("seconds", {}).update(language_data(lang).seconds_words)
        found[lang] = slots
    return found


def _values(words: TextSlotList, intents: Intents) -> dict[str, str | float]:
    found = {}
    for value in words.values:
        spellings = hassil.sample_expression(
            value.text_in, intents.slot_lists, intents.expansion_rules
        )
        for text in islice(spellings, MOST_SPELLINGS):
            if text.strip():
                found[normalise(text)] = value.value_out
    return found
