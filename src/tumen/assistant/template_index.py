"""Index of templates: which templates of a language can match a sentence, before any is tried.

A template can match only if its literal words, and the values of its lists, make up all letters of
the sentence. `cover` finds in one pass which templates do, as the bits of a number, so that hassil
tries a few of some thousand. Nothing that could match is left out: a template with a wildcard is
always tried, unless a word that it cannot do without is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tumen.core.extras import need

PURPOSE = "matching sentences with templates"

# of a template's text: {list:slot}, <rule:name>, marks, words
_TOKEN = re.compile(r"\{([^{}]*)\}|<([^<>]*)>|([\[\]()|;])|([^\[\]()|;{}<>\s]+)")
_DIGITS = re.compile(r"\d+")

Names = Mapping[str, Sequence[tuple[Any, ...]]]
"""List of a home -> (what is said, value) or (what is said, value, context)."""


def letters(text: str) -> str:
    """Return the letters and digits of a text, with capitals folded: what hassil compares."""
    return "".join(char for char in text.casefold() if char.isalnum())


@dataclass
class _Parts:
    """What templates are made of.

    Attributes:
        words: literal words, as `letters`.
        lists: names of lists.
    """

    words: set[str]
    lists: set[str]

    def add(self, other: _Parts) -> None:
        """Add the parts of another template."""
        self.words |= other.words
        self.lists |= other.lists


class TemplateIndex:
    """The templates of one language.

    Args:
        tree: the templates as `home_assistant_intents` has them.
        code: Home Assistant's code of the language.

    Raises:
        MissingExtra: hassil is not installed.
    """

    def __init__(self, tree: Mapping[str, Any], code: str) -> None:
        self.code = code
        self._hassil = need("hassil", PURPOSE)
        self.intents = self._hassil.Intents.from_dict(tree)
        self._rules: dict[str, str] = dict(tree.get("expansion_rules", {}))
        self._parts_of_rules: dict[str, _Parts] = {}
        self._texts: list[tuple[str, int, str]] = []  # (intent, number of its data, template)
        self._words: dict[str, int] = {}
        self._lists: dict[str, int] = {}
        self._required: list[tuple[str, ...]] = []
        for intent, block in tree["intents"].items():
            for number, data in enumerate(block["data"]):
                for text in data["sentences"]:
                    self._add(intent, number, text, data)
        self._all = (1 << len(self._texts)) - 1
        self._wildcard = self._of_lists("WildcardSlotList")
        self._number = self._of_lists("RangeSlotList")
        self._add_values(tree.get("lists", {}))
        self._longest = max(map(len, self._words), default=0)

    # -- making it -------------------------------------------------------------------------------

    def _add(self, intent: str, number: int, text: str, data: Mapping[str, Any]) -> None:
        """Add one template."""
        bit = 1 << len(self._texts)
        self._texts.append((intent, number, text))
        self._required.append(_required_words(text))
        parts = self._parts(text, ())
        # what a block of templates has of its own is looked up in no other block
        if data.get("expansion_rules") or data.get("lists"):
            self._lists["*"] = self._lists.get("*", 0) | bit
        for word in parts.words:
            self._words[word] = self._words.get(word, 0) | bit
        for name in parts.lists:
            self._lists[name] = self._lists.get(name, 0) | bit

    def _parts(self, text: str, inside: tuple[str, ...]) -> _Parts:
        """Return what a template is made of, its rules included.

        Args:
            text: of the template.
            inside: the rules that are being read.
        """
        found = _Parts(set(), set())
        for listed, rule, _, words in _TOKEN.findall(text):
            if listed:
                found.lists.add(listed.partition(":")[0])
            elif rule:
                found.add(self._parts_of(rule.partition(":")[0], inside))
            elif words:
                found.words |= {letters(word) for word in (words, *words.split(":"))}
        found.words.discard("")
        return found

    def _parts_of(self, rule: str, inside: tuple[str, ...]) -> _Parts:
        """Return what a rule is made of; a rule inside itself adds nothing."""
        if rule in inside:
            return _Parts(set(), set())
        if rule not in self._parts_of_rules:
            text = self._rules.get(rule, "")
            self._parts_of_rules[rule] = self._parts(text, (*inside, rule))
        return self._parts_of_rules[rule]

    def _of_lists(self, kind: str) -> int:
        """Return the templates that have a list of a kind, or one that is not known here."""
        wanted = getattr(self._hassil, kind, None)
        found = self._lists.get("*", 0)
        for name, templates in self._lists.items():
            known = self.intents.slot_lists.get(name)
            if wanted is not None and isinstance(known, wanted):
                found |= templates
        return found

    def _add_values(self, lists: Mapping[str, Any]) -> None:
        """Add the words of the values of lists to the templates that have the list."""
        for name, block in lists.items():
            templates = self._lists.get(name, 0)
            for value in block.get("values", ()) if templates else ():
                said = value["in"] if isinstance(value, Mapping) else value
                parts = self._parts(str(said), ())
                for word in parts.words:
                    self._words[word] = self._words.get(word, 0) | templates
                # a value may hold a list in turn
                for inner in parts.lists:
                    self._lists[inner] = self._lists.get(inner, 0) | templates

    @cached_property
    def _number_words(self) -> frozenset[str]:
        """Return all numbers of the lists in words."""
        engine = self._engine()
        if engine is None:
            return frozenset()
        ranges = [
            known
            for name, known in self.intents.slot_lists.items()
            if name in self._lists and isinstance(known, self._hassil.RangeSlotList)
        ]
        numbers = {number for known in ranges for number in known.get_numbers()}
        words: set[str] = set()
        for number in numbers:
            said = engine.format_number(number).text_by_ruleset.values()
            words.update(letters(text) for text in said)
        return frozenset(words - {""})

    @cached_property
    def _longest_number(self) -> int:
        return max(map(len, self._number_words), default=0)

    def _engine(self) -> Any:
        """Return what writes numbers in words, None if it does not know the language."""
        numbers = need("unicode_rbnf", PURPOSE)
        for code in (self.code, self.code.replace("-", "_"), self.code.partition("-")[0]):
            try:
                return numbers.RbnfEngine.for_language(code)
            except ValueError:
                continue
        return None

    # -- using it --------------------------------------------------------------------------------

    def chosen(self, said: str, names: Names) -> Any:
        """Return the intents with those templates alone that can match a sentence.

        Args:
            said: a normalised sentence.
            names: what is said of the home's own lists.
        """
        texts = {letters(said), letters(self._without_skip_words(said))}
        spoken = {
            name: {letters(str(entry[0])) for entry in entries} for name, entries in names.items()
        }
        found = 0
        for text in texts:
            found |= self.cover(text, spoken)
        wanted: dict[str, dict[int, set[str]]] = {}
        for number in _bits(found):
            if not _has_all(self._required[number], texts):
                continue
            intent, block, template = self._texts[number]
            wanted.setdefault(intent, {}).setdefault(block, set()).add(template)
        intents = copy(self.intents)
        intents.intents = {
            intent: self._with_templates(intent, blocks) for intent, blocks in wanted.items()
        }
        return intents

    def cover(self, text: str, names: Mapping[str, Iterable[str]]) -> int:
        """Return the templates whose words and lists can make up all letters of a text.

        Args:
            text: as `letters` has it.
            names: list of the home -> what its entries are called, as `letters` has it.

        Returns:
            One bit for each template, in the order of the tree.
        """
        own: dict[str, int] = {}
        for name, entries in names.items():
            for entry in entries:
                own[entry] = own.get(entry, 0) | self._lists.get(name, 0)
        numbers = self._number_words
        longest = max(self._longest, self._longest_number, *map(len, own))
        # reached[n]: templates that make up the first n letters
        reached = [0] * (len(text) + 1)
        reached[0] = self._all
        for start in range(len(text)):
            here = reached[start]
            if not here:
                continue
            digits = _DIGITS.match(text, start)
            for end in range(start + 1, min(len(text), start + longest) + 1):
                piece = text[start:end]
                fits = self._words.get(piece, 0) | own.get(piece, 0)
                if piece in numbers or (digits and end <= digits.end()):
                    fits |= self._number
                if fits:
                    reached[end] |= here & fits
        return reached[-1] | self._wildcard

    def _without_skip_words(self, said: str) -> str:
        """Return a sentence without the words that may be left out anywhere."""
        return self._skipped.sub(" ", said) if self.intents.skip_words else said

    @cached_property
    def _skipped(self) -> re.Pattern[str]:
        words = sorted({word.strip() for word in self.intents.skip_words}, key=len, reverse=True)
        either = "|".join(re.escape(word) for word in words if word)
        if self.intents.settings.ignore_whitespace:
            return re.compile(f"(?:{either})", re.IGNORECASE)
        return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)

    def _with_templates(self, name: str, blocks: Mapping[int, set[str]]) -> Any:
        """Return an intent with some of its templates.

        Args:
            name: of the intent.
            blocks: number of a block of templates -> those that are kept.
        """
        intent = copy(self.intents.intents[name])
        intent.data = [
            _block_with(self.intents.intents[name].data[number], templates)
            for number, templates in sorted(blocks.items())
        ]
        return intent


def _block_with(block: Any, templates: set[str]) -> Any:
    """Return a block with some of its templates, in the order in which hassil tries them."""
    kept = [sentence for sentence in block.sentences if sentence.text in templates]
    chosen = copy(block)
    # hassil reads the templates of a block once and keeps them under this name
    vars(chosen)["sentences"] = kept
    return chosen


def _required_words(text: str) -> tuple[str, ...]:
    """Return words that a template cannot do without: those outside of all brackets."""
    depth = 0
    found = []
    for _, _, mark, words in _TOKEN.findall(text):
        if mark in ("(", "["):
            depth += 1
        elif mark in (")", "]"):
            depth -= 1
        elif mark == "|" and not depth:
            return ()
        elif words and not depth and ":" not in words:
            found.append(letters(words))
    return tuple(word for word in found if word)


def _has_all(words: Iterable[str], texts: Iterable[str]) -> bool:
    return all(any(word in text for text in texts) for word in words)


def _bits(number: int) -> Iterator[int]:
    """Yield the places of the bits that are set."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


class HomeNames:
    """What the things and places of a home are called, found in a sentence.

    Args:
        lists: list -> its entries; see `Names`.
    """

    def __init__(self, lists: Names) -> None:
        self._entries: dict[str, list[tuple[str, tuple[Any, ...]]]] = {}
        self.lists = lists
        for name, entries in lists.items():
            for entry in entries:
                key = letters(str(entry[0]))
                if key:
                    self._entries.setdefault(key, []).append((name, entry))
        self._longest = max(map(len, self._entries), default=0)

    def said(self, said: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return the entries whose names stand in a sentence; one that does not cannot match."""
        text = letters(said)
        found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in self.lists}
        keys: dict[str, None] = {}
        for start in range(len(text)):
            for end in range(start + 1, min(len(text), start + self._longest) + 1):
                if text[start:end] in self._entries:
                    keys[text[start:end]] = None
        for key in keys:
            for name, entry in self._entries[key]:
                found[name].append(entry)
        return found
