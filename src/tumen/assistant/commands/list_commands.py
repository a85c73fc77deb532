"""List commands: items that are put on a list or taken off, several at once.

The sentences are regular expressions of whole commands in the language files, so that what is
written to a list is just what was said between their words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from tumen.assistant.modifiers import script_of
from tumen.assistant.wording import asks
from tumen.home import Home, kind_word, mentions_of, read_language_tables, split, spoken
from tumen.language import Action, is_cjk

_INTENTS = {
    "complete": "HassListCompleteItem",
    "add": "HassListAddItem",
    "remove": "HassListRemoveItem",
}
"""Acts on lists, in the order in which they are tried."""

_LIST = "\u2022"  # stands for the words of a list


def list_actions(said: str, lang: str, home: Home) -> list[Action]:
    """Return an action for each item of a command about a list; none for another sentence.

    Args:
        said: the normalised sentence; `&` stands for a comma.
        lang: the language of the speaker.
        home: its lists are looked for.
    """
    # `what is on the list` adds nothing
    if asks(said, script_of(said)):
        return []
    for name, replaced in _lists_in(said, lang, home):
        for act, intent in _INTENTS.items():
            # a comma may join items, or two parts (`we have milk, tick it off`)
            item = _matched(lang, act, replaced) or (
                act == "complete" and _matched(lang, act, replaced.replace(" &", ""))
            )
            if item:
                items = _items(item, lang)
                slots = {"name": name if act == "add" else _list_with(items, name, home)}
                return [Action(intent, lang, {**slots, "item": one}) for one in items]
    return _done(said, lang, home)


def more_items(said: str, lang: str) -> list[str]:
    """Return the items of `and tomatoes`, for the list that was spoken of last."""
    item = _matched(lang, "more", said)
    return _items(item, lang) if item else []


def _list_with(items: Sequence[str], name: str, home: Home) -> str:
    """Return the name of the only list that has some items, for `the list`; else what was said."""
    if kind_word("".join(split(name))) is None:
        return name
    wanted = {spoken(item) for item in items}
    names = [
        entity.name
        for entity in home.entities.values()
        if entity.domain == "todo" and wanted <= _items_on(entity.id, home)
    ]
    return names[0] if len(names) == 1 else name


def _items_on(id_: str, home: Home) -> set[str]:
    """Return the items of a list, as they are compared."""
    return {spoken(str(item)) for item in home.state(id_).get("items", ())}


def _done(said: str, lang: str, home: Home) -> list[Action]:
    """Return that an item is done, if it stands on one list (`take out the trash is done`)."""
    item = _matched(lang, "done", said)
    if not item:
        return []
    wanted = spoken(item)
    lists = [
        entity
        for entity in home.entities.values()
        if entity.domain == "todo" and wanted in _items_on(entity.id, home)
    ]
    if len(lists) != 1:
        return []
    slots = {"name": lists[0].name, "item": item}
    return [Action("HassListCompleteItem", lang, slots)]


def _lists_in(said: str, lang: str, home: Home) -> Iterator[tuple[str, str]]:
    """Yield the words of each list in a sentence, and the sentence with a sign in their place."""
    index = home.index
    for mention in mentions_of(index, said, lang):
        if any(index.entities[number].domain == "todo" for number in mention.entities):
            yield mention.words, said.replace(mention.words, _LIST, 1)
    for word in said.split():
        known = kind_word("".join(split(word)))
        if known and known[0].domains == {"todo"}:
            yield word, said.replace(word, _LIST, 1)


def _matched(lang: str, key: str, said: str) -> str:
    """Return the item of the first pattern that is the whole sentence; empty if there is none."""
    for pattern in _patterns(lang, key):
        match = pattern.fullmatch(said)
        if match:
            return match["item"].strip()
    return ""


def _items(words: str, lang: str) -> list[str]:
    """Return the items of an enumeration one by one."""
    parts = [words]
    for joint in sorted(_table(lang)["item_joints"], key=len, reverse=True):
        parts = [one for part in parts for one in part.split(joint)]
    bare = [_without_small(part.strip(" &"), lang) for part in parts]
    return [item for item in bare if item]


def _without_small(item: str, lang: str) -> str:
    """Return an item without what stands before it (`some butter`)."""
    for word in sorted(_table(lang)["before_item"], key=len, reverse=True):
        lead = word if is_cjk(word[0]) else f"{word} "
        if item.startswith(lead) and item != lead:
            return item.removeprefix(lead)
    return item


@cache
def _table(lang: str) -> Mapping[str, Any]:
    """Return what a language says about lists."""
    table: Mapping[str, Any] = read_language_tables("tumen.assistant.commands")[lang]["lists"]
    return table


@cache
def _patterns(lang: str, key: str) -> Sequence[re.Pattern[str]]:
    """Return the patterns of an act."""
    table = _table(lang)
    gap = "" if is_cjk(table["before"][0][0]) else " "
    before = "|".join(re.escape(word) for word in table["before"])
    after = "|".join(re.escape(word) for word in table["after"])
    articles = "|".join(re.escape(word) for word in table["before_list"])
    found = []
    for pattern in table[key]:
        filled = pattern.replace("ITEM", "(?P<item>.+?)")
        filled = filled.replace("LIST", f"(?:(?:{articles}){gap})?{_LIST}")
        lead = "" if key == "more" else f"(?:(?:{before}){gap})*"
        found.append(re.compile(rf"{lead}(?:{filled})(?:{gap}(?:{after}))*"))
    return found
