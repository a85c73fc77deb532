"""Number words: whole numbers from words (`eighty`, `zweiundzwanzig`, `两百五`).

The words come from the spell-out rules of Unicode (CLDR's RBNF, package `unicode-rbnf`), turned
round into a table from words to numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from tumen.assistant.values.value_tables import number_styles, value_tables
from tumen.home import fold

_SOFT_HYPHEN = "\u00ad"  # RBNF writes one between the parts of German number words


def whole_number(said: str, lang: str) -> int | None:
    """Return the whole number that folded words of a language spell, or None.

    Args:
        said: folded words.
        lang: the language of the words.
    """
    forms = _spellings(said.replace("-", " "), lang)
    # the larger table takes a moment to build and is seldom needed
    for table_of in (_number_words, _larger_number_words):
        table = table_of(lang)
        for form in forms:
            if form in table:
                return table[form]
    return None


def _spellings(said: str, lang: str) -> list[str]:
    """Return the words and other ways to write them: `one hundred and five`, `a hundred five`."""
    style = number_styles()[lang]
    spellings = [said]
    if style.joint:
        spellings.append(said.replace(style.joint, " "))
    for article in style.articles:
        if said.startswith(f"{article} "):
            spellings.append(f"{style.one} {said.removeprefix(article).lstrip()}")
    # German writes numbers in one word, people dictate them in several
    spellings.append(said.replace(" ", ""))
    return spellings


@cache
def _number_words(lang: str) -> dict[str, int]:
    """Return words -> number for 0 to 100."""
    more: dict[str, int] = value_tables()[lang]["numbers"]["words"]
    return _spell_out(lang, range(101)) | more


@cache
def _larger_number_words(lang: str) -> dict[str, int]:
    """Return words -> number for 101 to 999 and every 50 up to 10,000."""
    words = _spell_out(lang, (*range(101, 1000), *range(1000, 10_001, 50)))
    # 250 is 两百五: the digit after the hundreds counts tens
    short: dict[str, Any] = value_tables()[lang]["numbers"].get("short_hundreds", {})
    if short:
        ones: dict[str, int] = short["ones"]
        for hundreds, above in ones.items():
            for tens, below in ones.items():
                words[f"{hundreds}{short['hundred']}{tens}"] = above * 100 + below * 10
    return words


def _spell_out(lang: str, numbers: Iterable[int]) -> dict[str, int]:
    """Return folded words -> number for some numbers."""
    # RBNF's rules take tens of milliseconds to load, and most commands hold no number word
    from unicode_rbnf import RbnfEngine

    engine = RbnfEngine.for_language(lang)
    rules: dict[str, Any] = value_tables()[lang]["numbers"]
    table: dict[str, int] = {}
    for number in numbers:
        spelled = engine.format_number(number, ruleset_names=rules["rulesets"])
        for text in spelled.text_by_ruleset.values():
            word = fold(text).replace(_SOFT_HYPHEN, "").replace("-", " ")
            # the first rule set is the usual one
            table.setdefault(word, number)
            for variant in rules.get("variants", ()):
                other = re.sub(variant["pattern"], variant["replacement"], word)
                table.setdefault(other, number)
    return table
