"""Numbers from digits and words: `eighty`, `百分之八十`, `21.5`, `anderthalb`, `两个半`, `1/3`."""

from __future__ import annotations

import re
from functools import cache

from tumen.assistant.values.number_words import whole_number
from tumen.assistant.values.value_tables import number_styles, of_all_languages, value_tables
from tumen.home import fold
from tumen.language import is_cjk

_MOST_UNITS = 3  # `21 ° c` has two after the number
_SIGNED_DIGITS = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_SPACED_DIGITS = re.compile(r"[+-]? ?[\d.,]+")
_QUOTIENT = re.compile(r"(\d+) ?/ ?(\d+)")


def read_number(words: str, lang: str) -> float | None:
    """Return the number in digits or words, or None.

    Args:
        words: such as `twenty one point five degrees`; units at the end are dropped.
        lang: the language that is tried first; the others of the same script follow.
    """
    said = _without_words_around(_hyphens_apart(fold(words)))
    if not said:
        return None
    # `minus five degrees`
    minus = _minus().match(said)
    if minus and minus.end() < len(said):
        rest = read_number(said[minus.end() :], lang)
        return None if rest is None else -rest
    number = _digits(said, lang)
    if number is not None:
        return number
    # speakers mix languages: `fifty percent` in a German home
    for tongue in _languages_of(said, lang):
        number = _spelled(said, tongue)
        if number is not None:
            return number
    return None


@cache
def number_units() -> frozenset[str]:
    """Return the words that may stand after a number as its unit, in every language."""
    return frozenset((*of_all_languages("numbers", "units"), "%", "°"))


# -- taking the number out of its words ----------------------------------------------------------


def _hyphens_apart(said: str) -> str:
    """Return `twenty one` for `twenty-one`; a hyphen before digits is a minus."""
    said = said.replace("-", " - ").strip()
    said = re.sub(r"^- (?=\d)", "-", said)
    return said.replace(" - ", " ")


def _without_words_around(said: str) -> str:
    """Return a number without units and words that carry no meaning."""
    # 百分之 stands before the number, the percent sign after it
    for word in of_all_languages("numbers", "percent_before"):
        said = said.removeprefix(word)
    # `the eighty`
    for word in of_all_languages("numbers", "before"):
        said = said.removeprefix(word)
    said = said.strip()
    for _ in range(_MOST_UNITS):
        said = _units().sub("", said).strip()
    # `three quarters of an` is known as a whole
    if said not in _fractions():
        for word in of_all_languages("numbers", "fillers"):
            said = said.replace(word, "")
    return said.strip()


@cache
def _units() -> re.Pattern[str]:
    """Units at the end of a number; letters alone are units only after a digit or a degree sign."""
    words = [re.escape(word) for word in of_all_languages("numbers", "units")]
    signs = ["%", "°", r"(?<=\d )[kcfh]", r"(?<=° )[cf]", r"(?<=\d)k"]
    return re.compile(f"(?:{'|'.join(signs + words)})$")


@cache
def _minus() -> re.Pattern[str]:
    """Words and signs before a negative number."""
    words = [re.escape(word) for word in of_all_languages("numbers", "minus")]
    return re.compile(rf"^(?:{'|'.join(words)}|-)\s*")


def _languages_of(said: str, lang: str) -> list[str]:
    """Return the languages of the script in which a number is written, the speaker's own first."""
    spaced = not any(is_cjk(char) for char in said)
    fits = [tongue for tongue, style in number_styles().items() if style.spaced == spaced]
    return sorted(fits, key=lambda tongue: tongue != lang)


# -- digits --------------------------------------------------------------------------------------


def _digits(said: str, lang: str) -> float | None:
    """Return the number of `80`, `21.5`, `21,5`, `2 1/2`, `2 and a half`; None for words."""
    bare = said.replace(" ", "") if _SPACED_DIGITS.fullmatch(said) else said
    thousands = number_styles()[lang].thousands
    # a comma (in German a point) before three digits is no decimal mark
    if re.fullmatch(rf"[+-]?\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+", bare):
        bare = bare.replace(thousands, "")
    if _SIGNED_DIGITS.fullmatch(bare):
        return float(bare.replace(",", "."))
    half = _digits_and_half().fullmatch(said)
    if half:
        return float(half[1]) + 0.5
    quotient = _QUOTIENT.fullmatch(said)
    if quotient and float(quotient[2]):
        return float(quotient[1]) / float(quotient[2])
    return None


@cache
def _digits_and_half() -> re.Pattern[str]:
    """A number in digits and a half: `2 and a half`."""
    endings = [re.escape(word.strip()) for word in of_all_languages("numbers", "half_more")]
    return re.compile(rf"(\d+) ?(?:{'|'.join(endings)})")


# -- words ---------------------------------------------------------------------------------------


def _spelled(said: str, lang: str) -> float | None:
    """Return the number that the words of one language spell, or None."""
    if said in _fractions():
        return _fractions()[said]
    # the usual case
    whole = whole_number(said, lang)
    if whole is not None:
        return float(whole)
    for read in (_half_more, _fraction, _tenths, _decimal, _hundreds):
        number = read(said, lang)
        if number is not None:
            return number
    return None


@cache
def _fractions() -> dict[str, float]:
    """Return words -> amount for amounts that are not whole, in all languages."""
    found: dict[str, float] = {}
    for table in value_tables().values():
        found |= {fold(words): part for words, part in table["numbers"]["fractions"].items()}
    return found


def _half_more(said: str, lang: str) -> float | None:
    """Return the number of `two and a half`, `zweieinhalb`, `两个半`."""
    for ending in of_all_languages("numbers", "half_more"):
        if said.endswith(ending) and said != ending:
            # 一度半: the unit may stand before the half
            rest = _units().sub("", said.removesuffix(ending).strip()).strip()
            whole = whole_number(rest, lang)
            return None if whole is None else whole + 0.5
    return None


def _fraction(said: str, lang: str) -> float | None:
    """Return the number of `四分之三`: the lower part comes first."""
    mark = number_styles()[lang].fraction
    if not mark or mark not in said:
        return None
    below, _, above = said.partition(mark)
    divisor = whole_number(below, lang)
    dividend = whole_number(above, lang)
    # 零分之三 is no number
    if not divisor or dividend is None:
        return None
    return dividend / divisor


def _tenths(said: str, lang: str) -> float | None:
    """Return the number of `八成`."""
    mark = number_styles()[lang].tenths
    if not mark or not said.endswith(mark):
        return None
    tenths = whole_number(said.removesuffix(mark), lang)
    return None if tenths is None else tenths / 10


def _decimal(said: str, lang: str) -> float | None:
    """Return the number of `twenty one point five`, `einundzwanzig komma fünf`, `二十一点五`."""
    style = number_styles()[lang]
    before, mark, after = said.partition(style.decimal)
    if not mark:
        return None
    whole = whole_number(before.strip(), lang)
    words = after.split() if style.spaced else list(after.strip())
    digits = [whole_number(word, lang) for word in words]
    if whole is None or not digits:
        return None
    # decimals are said digit by digit
    if any(digit is None or digit > 9 for digit in digits):
        return None
    return float(f"{whole}." + "".join(str(digit) for digit in digits))


def _hundreds(said: str, lang: str) -> float | None:
    """Return the number of `twenty seven hundred (and fifty)`, as English says kelvin."""
    style = number_styles()[lang]
    if not style.hundred:
        return None
    before, mark, after = said.partition(style.hundred)
    if not mark:
        return None
    above = whole_number(before, lang)
    below: int | None = 0
    if after.strip():
        below = whole_number(after.replace(style.joint, " ").strip(), lang)
    # `twenty seven hundred and two hundred` is no number
    if above is None or below is None or below > 99:
        return None
    return float(above * 100 + below)
