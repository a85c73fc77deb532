"""Words: one spelling for what people say and what a home is called, and the small words that carry no name.

Nothing here knows a home. `fold` and `split` make words comparable, `forms` undoes plurals and endings, the sets hold
articles, "here", "everywhere", "all" and "it" in three languages.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from tumen.language import is_cjk

_ORDINALS = {"1 st": "first", "2 nd": "second", "3 rd": "third", "4 th": "fourth", "5 th": "fifth"}
_ENDINGS = ("ern", "en", "er", "es", "em", "e", "n", "s")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"


def _words(*lines: str) -> frozenset[str]:
    """Words and phrases divided by bars."""
    return frozenset("|".join(lines).split("|"))


STOP = {
    "en": _words(
        "the|a|an|my|our|your|his|her|their|its|this|that|these|those|of|in|on|at|to|for|from|with|by|please|some|any"
    ),
    "de": _words(
        "der|die|das|den|dem|des|ein|eine|einen|einem|einer|eines|mein|meine|meinen|meinem|meiner|unser|unsere|unseren",
        "unserem|unserer|dein|deine|deinen|deinem|im|in|am|an|auf|aus|vom|von|zum|zur|bei|beim|ins|mit|bitte",
        "dieser|diese|dieses|diesem",
    ),
    "zh": _words("的|里的|里面的|里|里面|那个|这个|那盏|这盏|我的|我们的|一下|请|上的|中的"),
}
ALL_STOPS = frozenset().union(*STOP.values())

HERE = _words(
    "here|in here|room|this room|the room|in this room",
    "hier|hier drin|zimmer|raum|diesem zimmer|diesem raum",
    "这里|这儿|这边|这间房|这个房间|房间|屋里",
)
EVERYWHERE = _words(
    "everywhere|home|house|whole house|entire house|whole home|apartment|flat",
    "haus|ganze haus|ganzen haus|wohnung|ganze wohnung|ganzen wohnung|uberall|zuhause",
    "every room|all rooms|all the rooms|alle zimmer|allen zimmern|alle raume|allen raumen",
    "全屋|家里|家里面|全家|整个家|整个屋子|家|到处|所有房间|每个房间|各个房间",
)
ALL = _words(
    "all|every|each|both|everything|alle|allen|aller|alles|jede|jedes|beide|beiden|samtliche",
    "所有|所有的|全部|全部的|一切|每个|都",
)
IT = _words("it|them|that|this|one|that one|this one|es|sie|ihn|das|die|den|它|它们|那个|这个")
ORDINALS = (
    _words("first|1|one|erste|ersten|erster|erstes|eins|第一|第一个|一"),
    _words("second|2|two|zweite|zweiten|zweiter|zweites|zwei|第二|第二个|二"),
    _words("third|3|three|dritte|dritten|dritter|drittes|drei|第三|第三个|三"),
    _words("fourth|4|four|vierte|vierten|vierter|viertes|vier|第四|第四个|四"),
    _words("fifth|5|five|funfte|funften|funfter|funftes|funf|第五|第五个|五"),
)
LAST = _words("last|letzte|letzten|letzter|letztes|最后|最后一个")
NEVERMIND = _words(
    "no|none|neither|never mind|nevermind|cancel|stop|forget it",
    "nein|keine|keinen|keins|egal|vergiss es|abbrechen",
    "算了|不用了|不要|取消|都不是|没事",
)
UNDO = _words(
    "undo|undo that|undo it|take that back|revert|revert that",
    "ruckgangig|ruckgangig machen|mach das ruckgangig|mach es ruckgangig|nimm das zuruck",
    "撤销|撤回|恢复原样|还原",
)


COUNTED = {
    **{
        word: str(n)
        for n, word in enumerate(
            ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), 1
        )
    },
    **{
        word: str(n)
        for n, word in enumerate(
            ("eins", "zwei", "drei", "vier", "funf", "sechs", "sieben", "acht"), 1
        )
    },
}
"""Number words in names: `lamp two` is `Lamp 2`."""


@lru_cache(maxsize=8192)
def fold(text: str) -> str:
    """One spelling: lower case, no accents, `ss` for `ß`, no apostrophes, single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    plain = "".join(
        char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char)
    )
    return " ".join(plain.split())


@lru_cache(maxsize=8192)
def split(text: str) -> tuple[str, ...]:
    """The pieces a name is compared by: words, numbers, whole runs of Chinese characters (`2 号灯` is `二号灯`)."""
    plain = fold(text)
    for digits, word in _ORDINALS.items():
        plain = re.sub(rf"\b{digits[0]} ?{digits[2:]}\b", word, plain)
    plain = re.sub(
        rf"(?<!\d)([1-9])\s*(?=[{_CJK}])",
        lambda found: "一二三四五六七八九"[int(found[1]) - 1],
        plain,
    )
    return tuple(re.findall(rf"[{_CJK}]+|[^\W_{_CJK}]+", plain))


def counted(pieces: tuple[str, ...]) -> tuple[str, ...]:
    """The pieces of a name with its number words as digits; a first word is no number."""
    return (*pieces[:1], *(COUNTED.get(piece, piece) for piece in pieces[1:]))


@lru_cache(maxsize=16384)
def forms(word: str) -> tuple[str, ...]:
    """A folded word without its plural or case ending, nearest first; three letters always stay. Chinese has none."""
    if is_cjk(word[-1:] or " "):
        return ()
    return tuple(
        word[: -len(end)] for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= 3
    ) or ((word[:-1],) if word.endswith("s") and len(word) == 3 else ())


def spoken(text: str) -> str:
    """The folded words of a whole sentence without small words, to compare it with the sets above."""
    return " ".join(split(text))
