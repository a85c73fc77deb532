"""Values: words into numbers, colours and times, in three languages; what is not understood is said, never guessed.

Number words come from the spell-out rules of Unicode (`unicode-rbnf`), turned round into a table. What people say
instead of a number (`half`, `最亮`, `warmweiß`) is a lexicon {language: {slot: {words: value}}}; a bundle brings its
own as `values.json`, the one below is what is known without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tumen.assistant.words import fold
from tumen.core.action import LANGUAGES, NUMBERS, is_cjk
from tumen.core.errors import ArtifactError

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
    "zh": {"低": 33, "低速": 33, "低档": 33, "中": 66, "中速": 66, "中档": 66, "高": 100, "高速": 100, "高档": 100},
    "de": {"niedrig": 33, "langsam": 33, "mittel": 66, "hoch": 100, "schnell": 100},
}
_WHITES = {
    "en": {"candle light": 2000, "candlelight": 2000, "warm white": 2700, "soft white": 3000, "neutral white": 4000}
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
_UNITS = re.compile(
    r"(?:%|per ?cent|prozent|°|degrees?|grad|celsius|fahrenheit|kelvin|开尔文|摄氏度?|华氏度?|度|hours?|hrs?|"
    r"stunden?|std|小时|钟头|minutes?|mins?|minuten?|分钟|分|"
    r"seconds?|secs?|sekunden?|秒钟|秒|(?<=\d )[kcfh]|(?<=° )[cf]|(?<=\d)k)$"
)
_HALVES = {
    "half",
    "a half",
    "half a",
    "half an",
    "halb",
    "halbe",
    "halben",
    "halbes",
    "eine halbe",
    "einer halben",
    "半",
}
_FRACTIONS = {
    "quarter": 0.25,
    "a quarter": 0.25,
    "quarter of an": 0.25,
    "a quarter of an": 0.25,
    "three quarters": 0.75,
}
_FRACTIONS |= {
    "three quarters of an": 0.75,
    "viertel": 0.25,
    "ein viertel": 0.25,
    "eine viertel": 0.25,
    "dreiviertel": 0.75,
}
_FRACTIONS |= {
    "drei viertel": 0.75,
    "eine dreiviertel": 0.75,
    "a third": 1 / 3,
    "ein drittel": 1 / 3,
    "zwei drittel": 2 / 3,
}
_ONE_AND_HALF = {"anderthalb": 1.5, "eineinhalb": 1.5, "einundeinhalb": 1.5}
_MINUS = re.compile(r"^(?:minus|negative|零下|负|-)\s*")
_DIGITS = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


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
            return cls(_checked(json.loads(path.read_bytes().decode("utf-8"))))
        except FileNotFoundError:
            raise ArtifactError(f"{path}: missing; run the recipe again") from None
        except ValueError as error:
            raise ArtifactError(f"{path}: no lexicon of values ({error}); run the recipe again") from None

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
        if slot not in NUMBERS:
            return " ".join(words.split()) or Unknown(slot, words)
        number = read_number(said, lang)
        if number is None:
            return Unknown(slot, words)
        if slot in PERCENT and 0 < number < 1 and not _DIGITS.match(said):
            number *= 100
        if slot == "temperature" and re.search(r"fahrenheit|华氏|° ?f$", said):
            number = round((number - 32) / 1.8 * 2) / 2
        return plain(number)

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
            *(bare[: -len(end)] for end in ("es", "en", "er", "em", "e", "n", "s") if bare.endswith(end)),
        ):
            found = self._look_up("color", word, lang)
            if found is not None:
                return str(found)
        return None


def plain(number: float) -> float:
    """A whole number as int, others rounded to three places."""
    return int(number) if float(number).is_integer() else round(float(number), 3)


def read_number(words: str, lang: str) -> float | None:
    """A number from digits or words in one of three languages (`lang` first); units at the end are taken away.

    `eighty`, `百分之八十`, `zweiundzwanzig`, `21.5`, `twenty one point five`, `half`, `anderthalb`, `两个半`, `零下五`.
    """
    said = fold(words).replace("-", " - ").strip()
    said = re.sub(r"^- (?=\d)", "-", said).replace(" - ", " ")
    said = said.removeprefix("百分之").removeprefix("the ").strip()
    for _ in range(3):
        said = _UNITS.sub("", said).strip()
    said = said.replace("个", "").replace("of an", "").strip() if not said.endswith("quarter of an") else said
    if not said:
        return None
    minus = _MINUS.match(said)
    if minus and minus.end() < len(said):
        rest = read_number(said[minus.end() :], lang)
        return None if rest is None else -rest
    digits = _digits(said, lang)
    if digits is not None:
        return digits
    script = ("zh",) if any(is_cjk(char) for char in said) else ("en", "de")
    for tongue in sorted(script, key=lambda tongue: tongue != lang):
        number = _spelled(said, tongue)
        if number is not None:
            return number
    return None


def _digits(said: str, lang: str) -> float | None:
    """`80`, `21.5`, `21,5`; a comma (in German a point) before three digits is a thousands mark."""
    bare = said.replace(" ", "") if re.fullmatch(r"[+-]? ?[\d.,]+", said) else said
    mark = r"\." if lang == "de" else ","
    if re.fullmatch(rf"[+-]?\d{{1,3}}(?:{mark}\d{{3}})+", bare):
        bare = re.sub(mark, "", bare)
    if _DIGITS.fullmatch(bare):
        return float(bare.replace(",", "."))
    half = re.fullmatch(r"(\d+) ?(?:半|and a half|and half|einhalb|und einhalb)", said)
    if half:
        return float(half[1]) + 0.5
    part = re.fullmatch(r"(\d+) ?/ ?(\d+)", said)
    return float(part[1]) / float(part[2]) if part and float(part[2]) else None


def _spelled(said: str, lang: str) -> float | None:
    if said in _HALVES:
        return 0.5
    if said in _FRACTIONS or said in _ONE_AND_HALF:
        return _FRACTIONS.get(said, _ONE_AND_HALF.get(said))
    whole = _whole(said, lang)
    if whole is not None:
        return float(whole)
    readings = (read(said, lang) for read in (_half_more, _fraction, _decimal, _hundreds))
    return next((number for number in readings if number is not None), None)


def _whole(said: str, lang: str) -> int | None:
    table = _number_words(lang)
    bare = said.replace("-", " ")
    for form in (bare, bare.replace(" and ", " "), re.sub(r"^an? ", "one ", bare), bare.replace(" ", "")):
        if form in table:
            return table[form]
    return None


def _half_more(said: str, lang: str) -> float | None:
    """`two and a half`, `zweieinhalb`, `两个半`."""
    for end in (" and a half", " and half", "und einhalb", "einhalb", "半"):
        if said.endswith(end) and said != end:
            whole = _whole(said.removesuffix(end).strip(), lang)
            return None if whole is None else whole + 0.5
    return None


def _fraction(said: str, lang: str) -> float | None:
    """`四分之三`; `八成` is eight tenths."""
    below, over, above = said.partition("分之")
    if over:
        parts = _whole(below, lang), _whole(above, lang)
        return parts[1] / parts[0] if parts[0] and parts[1] is not None else None
    tenths = _whole(said.removesuffix("成"), lang) if lang == "zh" and said.endswith("成") else None
    return None if tenths is None else tenths / 10


def _decimal(said: str, lang: str) -> float | None:
    """`twenty one point five`, `einundzwanzig komma fünf`, `二十一点五`."""
    mark = {"en": " point ", "de": " komma ", "zh": "点"}[lang]
    before, found, after = said.partition(mark)
    if not found:
        return None
    whole = _whole(before.strip(), lang)
    digits = [_whole(piece, lang) for piece in (after.strip() if lang == "zh" else after.split())]
    if whole is None or not digits or any(d is None or d > 9 for d in digits):
        return None
    return float(f"{whole}." + "".join(str(d) for d in digits))


def _hundreds(said: str, lang: str) -> float | None:
    """`twenty seven hundred (and fifty)`, as English says kelvin."""
    before, found, after = said.partition(" hundred")
    if lang != "en" or not found:
        return None
    above, below = _whole(before, lang), _whole(after.replace(" and ", " ").strip(), lang) if after.strip() else 0
    return None if above is None or below is None or below > 99 else float(above * 100 + below)


@cache
def _number_words(lang: str) -> dict[str, int]:
    """Words -> number for 0 to 999 and every 50 up to 10,000, from Unicode's spell-out rules, folded."""
    from unicode_rbnf import RbnfEngine

    engine = RbnfEngine.for_language(lang)
    table: dict[str, int] = dict(_MORE_WORDS[lang])
    for number in (*range(1000), *range(1000, 10_001, 50)):
        for text in engine.format_number(number, ruleset_names=_RULES[lang]).text_by_ruleset.values():
            word = fold(text).replace("\u00ad", "").replace("-", " ")
            for form in (word, word.replace("〇", "零"), re.sub(r"^ein(?=hundert|tausend)", "", word)):
                table.setdefault(form, number)
    if lang == "zh":  # 两百五 is 250
        table |= {f"{table_word}百{digit}": n * 100 + d * 10 for table_word, n in _ones() for digit, d in _ones()}
    return table


_RULES = {
    "en": ["spellout-cardinal"],
    "zh": ["spellout-cardinal", "spellout-numbering", "spellout-cardinal-alternate2"],
    "de": ["spellout-numbering", "spellout-cardinal-neuter"],
}
_MORE_WORDS: dict[str, dict[str, int]] = {
    "en": {"a": 1, "an": 1, "a single": 1, "a couple": 2, "a dozen": 12},
    "zh": {"俩": 2, "两": 2},
    "de": {**dict.fromkeys(("eine", "einen", "einer", "eines", "einem"), 1), "zwo": 2},
}


def _ones() -> tuple[tuple[str, int], ...]:
    return (*((char, n) for n, char in enumerate("一二三四五六七八九", 1)), ("两", 2))


@cache
def _built_in() -> dict[str, dict[str, dict[str, Value]]]:
    tables: dict[str, dict[str, dict[str, Value]]] = {}
    for lang in LANGUAGES:
        levels: dict[str, Value] = {fold(w): float(n) for n, words in _LEVELS[lang].items() for w in words.split("|")}
        least = {fold(word) for word in _LEAST[lang].split("|")}
        slots = {slot: levels | dict.fromkeys(least, 1.0 if slot == "brightness" else 0.0) for slot in PERCENT}
        slots["percentage"] |= {fold(word): float(speed) for word, speed in _SPEEDS[lang].items()}
        slots["temperature"] = {fold(word): float(kelvin) for word, kelvin in _WHITES[lang].items()}
        slots["color"] = {fold(word): name for name, words in _COLORS.items() for word in words.split("|")}
        tables[lang] = slots
    tables["en"]["zone"] = {"home": "home", "at home": "home", "the house": "home", "work": "work", "away": "not_home"}
    tables["zh"]["zone"] = {"家": "home", "家里": "home", "在家": "home", "公司": "work", "外面": "not_home"}
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
        lang: {slot: {fold(words): value for words, value in table.items()} for slot, table in slots.items()}
        for lang, slots in lexicon.items()
    }


def _checked(tree: object) -> Lexicon:
    """A lexicon from JSON, or ValueError with what is wrong."""
    if not isinstance(tree, dict):
        raise ValueError("not an object of languages")
    for lang, slots in tree.items():
        if not isinstance(slots, dict) or not all(isinstance(table, dict) for table in slots.values()):
            raise ValueError(f"{lang} is not an object of slots")
        for slot, table in slots.items():
            for words, value in table.items():
                if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                    raise ValueError(f"{lang}.{slot}.{words} is neither number nor text")
    return tree
