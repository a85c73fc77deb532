"""Numbers from words and digits in three languages: `eighty`, `百分之八十`, `zweiundzwanzig`, `21.5`, `anderthalb`, `两个半`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from tumen.home import fold
from tumen.language import is_cjk

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


def read_number(words: str, lang: str) -> float | None:
    """A number from digits or words in one of three languages (`lang` first); units at the end are taken away.

    `eighty`, `百分之八十`, `zweiundzwanzig`, `21.5`, `twenty one point five`, `half`, `anderthalb`, `两个半`, `零下五`.
    """
    said = fold(words).replace("-", " - ").strip()
    said = re.sub(r"^- (?=\d)", "-", said).replace(" - ", " ")
    said = said.removeprefix("百分之").removeprefix("the ").strip()
    for _ in range(3):
        said = _UNITS.sub("", said).strip()
    said = (
        said.replace("个", "").replace("of an", "").strip()
        if not said.endswith("quarter of an")
        else said
    )
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
    bare = said.replace("-", " ")
    forms = (
        bare,
        bare.replace(" and ", " "),
        re.sub(r"^an? ", "one ", bare),
        bare.replace(" ", ""),
    )
    for table in (
        _number_words,
        _larger_number_words,
    ):  # the second takes a moment to build and is seldom needed
        found = next((table(lang)[form] for form in forms if form in table(lang)), None)
        if found is not None:
            return found
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
    above, below = (
        _whole(before, lang),
        _whole(after.replace(" and ", " ").strip(), lang) if after.strip() else 0,
    )
    return None if above is None or below is None or below > 99 else float(above * 100 + below)


@cache
def _number_words(lang: str) -> dict[str, int]:
    """Words -> number for 0 to 100."""
    return _spell_out(lang, range(101)) | _MORE_WORDS[lang]


@cache
def _larger_number_words(lang: str) -> dict[str, int]:
    """Words -> number for 101 to 999 and every 50 up to 10,000; 两百五 is 250."""
    short = {f"{above}百{below}": n * 100 + d * 10 for above, n in _ones() for below, d in _ones()}
    return _spell_out(lang, (*range(101, 1000), *range(1000, 10_001, 50))) | (
        short if lang == "zh" else {}
    )


def _spell_out(lang: str, numbers: Iterable[int]) -> dict[str, int]:
    """Unicode's spell-out rules turned round, words folded."""
    from unicode_rbnf import RbnfEngine

    engine = RbnfEngine.for_language(lang)
    table: dict[str, int] = {}
    for number in numbers:
        for text in engine.format_number(
            number, ruleset_names=_RULES[lang]
        ).text_by_ruleset.values():
            word = fold(text).replace("\u00ad", "").replace("-", " ")
            for form in (
                word,
                word.replace("〇", "零"),
                re.sub(r"^ein(?=hundert|tausend)", "", word),
            ):
                table.setdefault(form, number)
    return table


_RULES = {
    "en": ["spellout-cardinal"],
    "zh": ["spellout-cardinal", "spellout-numbering", "spellout-cardinal-alternate2"],
    "de": ["spellout-numbering", "spellout-cardinal-neuter"],
}
_MORE_WORDS: dict[str, dict[str, int]] = {
    "en": {"a": 1, "an": 1, "a single": 1, "a couple": 2, "a dozen": 12, "hundred": 100},
    "zh": {"俩": 2, "两": 2},
    "de": {**dict.fromkeys(("eine", "einen", "einer", "eines", "einem"), 1), "zwo": 2},
}


def _ones() -> tuple[tuple[str, int], ...]:
    return (*((char, n) for n, char in enumerate("一二三四五六七八九", 1)), ("两", 2))
