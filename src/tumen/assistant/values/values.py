"""Values: words into numbers, colours and times, in three languages; what is not understood is said, never guessed.

Number words come from the spell-out rules of Unicode (`unicode-rbnf`), turned round into a table. What people say
instead of a number (`half`, `最亮`, `warmweiß`) is a lexicon {language: {slot: {words: value}}}; a bundle brings its
own as `values.json`, the one below is what is known without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tumen.assistant.values.numbers import read_number
from tumen.assistant.values.spans import read_span
from tumen.core import untrusted
from tumen.core.errors import ArtifactError
from tumen.home import fold
from tumen.language import LANGUAGES, NUMBERS

Value = float | str
Lexicon = Mapping[str, Mapping[str, Mapping[str, Value]]]
PERCENT = ("brightness", "position", "percentage", "volume")


@dataclass(frozen=True)
class Unknown:
    """Words that are no value of their slot."""

    slot: str
    words: str


_LEVELS: dict[str, dict[str, str]] = {
    "en": {
        "100": "max|maximum|full|fully|full brightness|highest|brightest|loudest|all the way|all the way up",
        "50": "half|halfway|half way|medium|middle|mid",
        "25": "a quarter|quarter|one quarter",
        "75": "three quarters",
    },
    "zh": {
        "100": "最大|最高|最亮|最强|最大值|最响|满|全开|百分百|百分之百|最大亮度|最高亮度",
        "50": "一半|半|中间|中等|中",
    },
    "de": {
        "100": "max|maximum|maximal|voll|volle|voller|ganz|höchste|höchsten|höchste stufe|maximale|maximaler|hellste",
        "50": "halb|halbe|hälfte|die hälfte|zur hälfte|mittel|mitte|mittlere",
        "25": "viertel|ein viertel",
        "75": "dreiviertel|drei viertel",
    },
}
_LEAST = {
    "en": "min|minimum|lowest|the lowest|dimmest|darkest|quietest",
    "zh": "最小|最低|最暗|最弱|最小值|最小亮度|最低亮度",
    "de": "min|minimum|minimal|niedrigste|niedrigsten|minimale|dunkelste|dunkelsten|leiseste",
}
_SPEEDS = {
    "en": {"low": 33, "slow": 33, "medium": 66, "high": 100, "fast": 100},
    "zh": {
        "低": 33,
        "低速": 33,
        "低档": 33,
        "中": 66,
        "中速": 66,
        "中档": 66,
        "高": 100,
        "高速": 100,
        "高档": 100,
    },
    "de": {"niedrig": 33, "langsam": 33, "mittel": 66, "hoch": 100, "schnell": 100},
}
_WHITES = {
    "en": {
        "candle light": 2000,
        "candlelight": 2000,
        "warm white": 2700,
        "soft white": 3000,
        "neutral white": 4000,
    }
    | {
        "natural white": 4000,
        "cool white": 5000,
        "cold white": 6000,
        "daylight": 6500,
        "warm": 2700,
        "neutral": 4000,
        "cold": 6000,
    },
    "zh": {
        "烛光": 2000,
        "暖白": 2700,
        "暖光": 2700,
        "暖白光": 2700,
        "暖色": 2700,
        "自然光": 4000,
        "正白光": 4000,
        "自然白": 4000,
    }
    | {"冷白": 6000, "冷光": 6000, "冷白光": 6000, "日光": 6500, "白光": 4000},
    "de": {
        "kerzenlicht": 2000,
        "warmweiß": 2700,
        "warmes weiß": 2700,
        "neutralweiß": 4000,
        "kaltweiß": 6000,
        "kaltes weiß": 6000,
    }
    | {"tageslicht": 6500, "tageslichtweiß": 6500, "warm": 2700, "neutral": 4000, "kalt": 6000},
}
_COLORS: dict[str, str] = {
    # name (CSS, as Home Assistant has it): English | Chinese | German, without endings
    "red": "red|红|大红|rot",
    "orange": "orange|橙|橘|橙子|orang|orangen",
    "yellow": "yellow|黄|gelb",
    "green": "green|绿|grün",
    "blue": "blue|蓝|blau",
    "purple": "purple|紫|lila|purpur",
    "pink": "pink|粉|粉红|rosa",
    "white": "white|白|weiß",
    "black": "black|黑|schwarz",
    "brown": "brown|棕|褐|咖啡|braun",
    "turquoise": "turquoise|绿松石|青绿|türkis",
    "cyan": "cyan|青|zyan",
    "magenta": "magenta|品红|洋红",
    "violet": "violet|紫罗兰|violett",
    "indigo": "indigo|靛|靛蓝",
    "gold": "gold|gold|金|golden",
    "lime": "lime|酸橙|limette|limettengrün|lindgrün",
    "teal": "teal|水鸭|蓝绿|petrol",
    "salmon": "salmon|鲑鱼|橙红|lachs|lachsrot",
    "lavender": "lavender|薰衣草|淡紫|lavendel",
    "beige": "beige|米|米黄",
    "crimson": "crimson|深红|绯红|karmin|karminrot",
    "skyblue": "sky blue|light blue|天蓝|浅蓝|himmelblau|hellblau",
    "darkblue": "dark blue|navy|深蓝|藏青|dunkelblau",
    "lightgreen": "light green|浅绿|hellgrün",
    "darkgreen": "dark green|深绿|墨绿|dunkelgrün",
}


class Values:
    """Reads the value of a slot from words.

    Args:
        lexicon: {language: {slot: {words: value}}}, asked before what is built in.
    """

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        self._tables = (_folded(lexicon or {}), _built_in())

    @classmethod
    def load(cls, path: Path) -> Values:
        """The lexicon of a bundle.

        Raises:
            ArtifactError: the file is missing or is no such lexicon.
        """
        try:
            return cls(_checked(untrusted.read_json(path)))
        except ValueError as error:
            raise ArtifactError(
                f"{path}: no lexicon of values ({error}); run the recipe again"
            ) from None

    def read(self, slot: str, words: str, lang: str) -> Value | Unknown:
        """The value of a slot: a number (percent, degrees Celsius, kelvin or a count), a colour's English name, or
        text.

        The speaker's language is asked first, then the others. Fahrenheit is turned into Celsius.
        """
        said = re.sub(r"^(?:to |the |auf |der |die |das |den )+(?=.)", "", fold(words))
        known = self._look_up(slot, said, lang)
        if known is not None:
            return known
        if slot == "color":
            return self._color(said, lang) or Unknown(slot, words)
        if slot in ("duration", "start"):
            seconds = self._span(said, lang)
            return Unknown(slot, words) if seconds is None else plain(seconds)
        if slot not in NUMBERS:
            return " ".join(words.split()) or Unknown(slot, words)
        number = read_number(said, lang)
        if number is None:
            return Unknown(slot, words)
        if slot in PERCENT and 0 < number < 1 and not said[:1].isdigit():
            number *= 100
        if slot == "temperature" and re.search(r"fahrenheit|华氏|° ?f$", said):
            number = round((number - 32) / 1.8 * 2) / 2
        return plain(number)

    def _span(self, said: str, lang: str) -> float | None:
        """Seconds of a time span, from the lexicon as a whole (`anderthalb stunden`) or from its numbers and units."""
        for slot, size in (("minutes", 60), ("seconds", 1)):
            known = self._look_up(slot, said, lang)
            if known is not None and not isinstance(known, str) and read_span(said, lang) is None:
                return known * size
        return read_span(said, lang)

    def _look_up(self, slot: str, said: str, lang: str) -> Value | None:
        for table in self._tables:
            for tongue in (lang, *LANGUAGES):
                value = table.get(tongue, {}).get(slot, {}).get(said)
                if value is not None:
                    return value if isinstance(value, str) else plain(value)
        return None

    def _color(self, said: str, lang: str) -> str | None:
        """A colour without its ending (`rotes`, `红色的`, `blue colour`)."""
        bare = re.sub(r"(?:颜色|色的|色光|色|光)$|\s+(?:colou?r|light|farbe)$", "", said)
        for word in (
            bare,
            *(
                bare[: -len(end)]
                for end in ("es", "en", "er", "em", "e", "n", "s")
                if bare.endswith(end)
            ),
        ):
            found = self._look_up("color", word, lang)
            if found is not None:
                return str(found)
        return None


def plain(number: float) -> float:
    """A whole number as int, others rounded to three places."""
    return int(number) if float(number).is_integer() else round(float(number), 3)


@cache
def _built_in() -> dict[str, dict[str, dict[str, Value]]]:
    tables: dict[str, dict[str, dict[str, Value]]] = {}
    for lang in LANGUAGES:
        levels: dict[str, Value] = {
            fold(w): float(n) for n, words in _LEVELS[lang].items() for w in words.split("|")
        }
        least = {fold(word) for word in _LEAST[lang].split("|")}
        slots = {
            slot: levels | dict.fromkeys(least, 1.0 if slot == "brightness" else 0.0)
            for slot in PERCENT
        }
        slots["percentage"] |= {fold(word): float(speed) for word, speed in _SPEEDS[lang].items()}
        slots["temperature"] = {fold(word): float(kelvin) for word, kelvin in _WHITES[lang].items()}
        slots["color"] = {
            fold(word): name for name, words in _COLORS.items() for word in words.split("|")
        }
        tables[lang] = slots
    tables["en"]["zone"] = {
        "home": "home",
        "at home": "home",
        "the house": "home",
        "work": "work",
        "away": "not_home",
    }
    tables["zh"]["zone"] = {
        "家": "home",
        "家里": "home",
        "在家": "home",
        "公司": "work",
        "外面": "not_home",
    }
    tables["de"]["zone"] = {
        "zuhause": "home",
        "zu hause": "home",
        "daheim": "home",
        "hause": "home",
        "arbeit": "work",
        "weg": "not_home",
    }
    return tables


def _folded(lexicon: Lexicon) -> dict[str, dict[str, dict[str, Value]]]:
    return {
        lang: {
            slot: {fold(words): value for words, value in table.items()}
            for slot, table in slots.items()
        }
        for lang, slots in lexicon.items()
    }


def _checked(tree: object) -> Lexicon:
    """A lexicon from JSON, or ValueError with what is wrong."""
    if not isinstance(tree, dict):
        raise ValueError("not an object of languages")
    for lang, slots in tree.items():
        if not isinstance(slots, dict) or not all(
            isinstance(table, dict) for table in slots.values()
        ):
            raise ValueError(f"{lang} is not an object of slots")
        for slot, table in slots.items():
            for words, value in table.items():
                if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                    raise ValueError(f"{lang}.{slot}.{words} is neither number nor text")
    return tree
