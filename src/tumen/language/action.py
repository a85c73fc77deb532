"""The language of actions: what a model may write after a sentence, as JSON under a grammar.

    turn on the kitchen light  ->  {"lang":"en","intent":"HassTurnOn","domain":"light","area":"kitchen"}

What may be said is an `Ontology` (language/ontology.py); `HOME` is the one of a home, with the names of Home Assistant's Assist
(developers.home-assistant.io/docs/intent_builtin); other sources of sentences bring their own. A slot is either
*closed* (one of the values below) or *copied* (words of the sentence, in their order, never anything else). Areas and floors
share the slot `area`: which of the two a word means is the home's business, not the model's. `none` is a sentence that is not
for the home.

With `step` the value of the same action is a difference: `two degrees warmer` is `"step":"up","temperature":"two degrees"`. Two
intents are this project's own, as Home Assistant has none for them: `ClimateSetMode`, and `NotPossible` for a wish that is understood
and that no home here carries out (an alarm, a reminder, an appointment).

A time span is one copied run (`fifty hours and 44 minutes`): the number comes before its unit, so a model that reads from left to
right cannot know early which of hours and minutes it is looking at.

On the wire a copied value that starts with a spaced word begins with a space (`"area":" kitchen"`), so that the word is the same
token in the sentence and in the action; `parse` and `Action.tidy` take it away again.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from tumen.core.errors import InputError
from tumen.language.ontology import JOINT, NONE, Ontology

LANGUAGES: tuple[str, ...] = tuple(
    tomllib.loads(resources.files("tumen.language").joinpath("languages.toml").read_text("utf-8"))[
        "codes"
    ]
)
MAX_SENTENCE = 300  # characters; people speak about 15 words, a letter is not a command

CLOSED: dict[str, tuple[str, ...]] = {
    "lang": LANGUAGES,
    "domain": ("light", "fan", "cover", "lock", "switch", "person", "media_player", "climate"),
    "device_class": (
        "awning",
        "blind",
        "curtain",
        "door",
        "garage",
        "gate",
        "shade",
        "shutter",
        "window",
        "humidity",
    ),
    "state": ("on", "off", "open", "closed", "opening", "closing", "locked", "unlocked"),
    "ask": ("any", "all", "which", "how_many", "where"),
    "scope": ("all",),
    "step": ("up", "down"),
    "media_class": ("artist", "album", "track", "playlist", "podcast", "movie", "tv_show"),
    "fan_mode": ("auto", "on", "off", "low", "medium", "high", "top", "middle", "focus", "diffuse"),
    "mode": ("heat", "cool", "heat_cool", "auto", "dry", "fan_only"),
    "wish": ("alarm", "reminder", "calendar"),
}
COPIED = (
    *("name", "area", "brightness", "color", "temperature", "position", "percentage", "volume"),
    *("duration", "start"),
    *("item", "message", "query", "zone", "command"),
)
NUMBERS = frozenset(
    ("brightness", "temperature", "position", "percentage", "volume", "duration", "start")
)
PLACE = ("name", "area")
WHICH = ("name", "area", "start")  # a timer: by name, room, or the time it was started with

INTENTS: dict[str, tuple[str, ...]] = {
    "HassTurnOn": ("domain", "device_class", "scope", *PLACE),
    "HassTurnOff": ("domain", "device_class", "scope", *PLACE),
    "HassGetState": ("domain", "device_class", "state", "ask", *PLACE, "zone"),
    "HassLightSet": ("domain", "scope", "step", *PLACE, "brightness", "color", "temperature"),
    "HassSetPosition": ("domain", "device_class", "step", *PLACE, "position"),
    "HassStopMoving": ("domain", "device_class", *PLACE),
    "HassClimateGetTemperature": PLACE,
    "HassClimateSetTemperature": ("step", *PLACE, "temperature"),
    "HassClimateSetFanMode": ("fan_mode", *PLACE),
    "ClimateSetMode": ("mode", *PLACE),
    "HassFanSetSpeed": ("step", *PLACE, "percentage"),
    "HassVacuumStart": PLACE,
    "HassVacuumReturnToBase": PLACE,
    "HassVacuumCleanArea": PLACE,
    "HassLawnMowerStartMowing": PLACE,
    "HassLawnMowerDock": PLACE,
    "HassMediaPause": PLACE,
    "HassMediaUnpause": PLACE,
    "HassMediaNext": PLACE,
    "HassMediaPrevious": PLACE,
    "HassMediaPlayerMute": PLACE,
    "HassMediaPlayerUnmute": PLACE,
    "HassMediaSearchAndPlay": ("media_class", *PLACE, "query"),
    "HassSetVolume": (*PLACE, "volume"),
    "HassSetVolumeRelative": ("step", *PLACE, "volume"),
    "HassStartTimer": ("name", "duration", "command"),
    "HassCancelTimer": WHICH,
    "HassCancelAllTimers": ("area",),
    "HassIncreaseTimer": ("name", "area", "duration", "start"),
    "HassDecreaseTimer": ("name", "area", "duration", "start"),
    "HassPauseTimer": WHICH,
    "HassUnpauseTimer": WHICH,
    "HassTimerStatus": WHICH,
    "HassListAddItem": ("name", "item"),
    "HassListCompleteItem": ("name", "item"),
    "HassListRemoveItem": ("name", "item"),
    "HassShoppingListAddItem": ("item",),
    "HassShoppingListCompleteItem": ("item",),
    "HassBroadcast": ("area", "message"),
    "HassGetWeather": ("name",),
    "HassGetCurrentTime": (),
    "HassGetCurrentDate": (),
    "HassNevermind": (),
    "HassRespond": (),
    "NotPossible": ("wish",),
    NONE: (),
}
DOMAINS: dict[str, tuple[str, ...]] = {
    "lights": ("HassLightSet",),
    "climate": (
        *("HassClimateGetTemperature", "HassClimateSetTemperature", "HassClimateSetFanMode"),
        "ClimateSetMode",
    ),
    "covers": ("HassSetPosition", "HassStopMoving"),
    "fans": ("HassFanSetSpeed",),
    "vacuum": ("HassVacuumStart", "HassVacuumReturnToBase", "HassVacuumCleanArea"),
    "garden": ("HassLawnMowerStartMowing", "HassLawnMowerDock"),
    "media": tuple(name for name in INTENTS if "Media" in name or "Volume" in name),
    "timers": tuple(name for name in INTENTS if "Timer" in name),
    "lists": tuple(name for name in INTENTS if "List" in name),
    "questions": ("HassGetState", "HassGetWeather", "HassGetCurrentTime", "HassGetCurrentDate"),
    "on and off": ("HassTurnOn", "HassTurnOff"),
    "talk": ("HassBroadcast", "HassNevermind", "HassRespond", "NotPossible"),
    "not home": (NONE,),
}
ACTS = (
    frozenset(INTENTS)
    - {NONE, "HassNevermind", "HassRespond", "NotPossible"}
    - set(DOMAINS["questions"])
    - {"HassClimateGetTemperature", "HassTimerStatus"}
)

BEGIN, DO, END = "<s>", "<do>", "</s>"

HOME = Ontology(
    languages=LANGUAGES,
    intents=INTENTS,
    closed={slot: values for slot, values in CLOSED.items() if slot != "lang"},
    groups=DOMAINS,
    acts=tuple(intent for intent in INTENTS if intent in ACTS),
)


@dataclass(frozen=True)
class Action:
    """One understood sentence. `slots` holds closed and copied values as text, without the language."""

    intent: str
    lang: str = "en"
    slots: Mapping[str, str] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        """The row of a home's scorecard it belongs to."""
        return next(
            (name for name, intents in DOMAINS.items() if self.intent in intents), "not home"
        )

    def json(self, ontology: Ontology = HOME) -> str:
        """Compact JSON with slots in the order of the ontology; where it says so, in that of the sentence, which is their own."""
        return json.dumps(
            {"lang": self.lang, "intent": self.intent, **self._ordered(ontology)},
            ensure_ascii=False,
            separators=(",", ":"),
        )

    def wire(self, ontology: Ontology = HOME) -> str:
        """The text a model is trained to write: compact JSON, copied words with the space they had in the sentence."""
        parts = [f'{{"lang":"{self.lang}"', f',"intent":"{self.intent}"']
        for name, value in self._ordered(ontology).items():
            if name not in ontology.closed:
                value = JOINT.join(spaced(run.strip()) for run in value.split(JOINT))
            parts.append(f',"{name}":"{value}"')
        return "".join(parts) + "}"

    @staticmethod
    def tidy(wire: str) -> str:
        """Return compact JSON for the wire: the leading space of copied values is taken away."""
        return wire.replace('":" ', '":"').replace("; ", ";")

    def runs(self, slot: str) -> list[str]:
        """The runs of words that a copied slot holds; most hold one."""
        return [run.strip() for run in self.slots[slot].split(JOINT)]

    def _ordered(self, ontology: Ontology) -> dict[str, str]:
        known = ontology.intents[self.intent]
        if self.intent in ontology.spoken:
            return {name: value for name, value in self.slots.items() if name in known}
        return {name: self.slots[name] for name in known if name in self.slots}


CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # characters written without spaces around them, as a class of `re`


def is_cjk(char: str) -> bool:
    """Whether a character is written without spaces around it (Chinese, and Japanese kana)."""
    return (
        "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"
    )


def spaced(words: str) -> str:
    """Copied words with the leading space a spaced word has inside a sentence."""
    return words if not words or is_cjk(words[0]) else " " + words


def normalise(sentence: str) -> str:
    """The one form in which a sentence is trained on, asked and copied from.

    Lower case, NFKC, no quotes, braces, angle brackets, hyphens or end marks; a space before every word, number and sign, none
    before a CJK character (`调到80%吧` -> `调到 80 %吧`), so that words are the same tokens wherever they stand.

    Raises:
        InputError: nothing is left, or it is longer than `MAX_SENTENCE` characters.
    """
    if len(sentence) > 4 * MAX_SENTENCE:
        raise InputError(
            f"the sentence has {len(sentence)} characters, {MAX_SENTENCE} is the most; say it shorter"
        )
    text = unicodedata.normalize("NFKC", sentence).lower()
    text = "".join(
        " " if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else char
        for char in text
    )
    text = re.sub(
        r"[\"“”„‟«»{}\[\]<>|\\`*#_~^=;!?¡¿▁。、，；！？…《》「」『』]+", " ", text.replace("’", "'")
    )
    text = re.sub(rf"(?<!\d)[.,:]+|[.,:]+(?!\d)|(?<=\w)(?<![{CJK}])-|-(?!\d)", " ", text)
    text = re.sub(r"(?<=\d)(?=[^\d\s.,:/])|(?<=[^\d\s.,:/+-])(?=\d)", " ", text)
    text = re.sub(r"(?<=[^\W\d_])(?=[%°])|(?<=%)(?=\S)", " ", text)
    text = re.sub(rf"(?<=[{CJK}])(?=[^\s{CJK}])", " ", " ".join(text.split()))
    text = re.sub(rf" +(?=[{CJK}])", "", text).strip()
    if not text:
        raise InputError("the sentence is empty; say or type a command")
    if len(text) > MAX_SENTENCE:
        raise InputError(
            f"the sentence has {len(text)} characters, {MAX_SENTENCE} is the most; say it shorter"
        )
    return text


def units(sentence: str) -> list[str]:
    """What may be copied: the spaced words of a normalised sentence (with their space) and its single CJK characters."""
    found: list[str] = []
    for word in sentence.split():
        run = ""
        fresh = True
        for char in word:
            if is_cjk(char):
                if run:
                    found.append((" " if fresh else "") + run)
                    run = ""
                found.append(char)
                fresh = False
            else:
                run += char
        if run:
            found.append((" " if fresh else "") + run)
    return found


PIECES = re.compile(r'\{"lang":"\w+"|,"[\w.-]+":"[\w.-]+"(?=[,}])|,"[\w.-]+":"|"|\}|;|[^"{};]+')


def pieces(wire: str, ontology: Ontology = HOME) -> Iterator[str]:
    """Cut an action on the wire into structure tokens and copied text, in order."""
    for piece in PIECES.findall(wire):
        name = piece[2:].partition('"')[0] if piece[:2] == ',"' else ""
        if name and name != "intent" and name not in ontology.closed and not piece.endswith(':"'):
            head = f',"{name}":"'  # a copied value that looks like a closed one: an unspaced word
            yield from (head, piece[len(head) : -1], '"')
        else:
            yield piece


def parse(text: str, ontology: Ontology = HOME) -> Action:
    """Read an action, from the wire or as plain compact JSON.

    Raises:
        InputError: no JSON object, a name twice, or an intent, slot or closed value that the ontology has not.
    """
    try:
        tree = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise InputError(f"not an action: {text[:80]!r}") from None
    if (
        not isinstance(tree, dict)
        or str(tree.get("intent")) not in ontology.intents
        or tree.get("lang") not in ontology.languages
    ):
        raise InputError(f"not an action: {text[:80]!r}")
    slots: dict[str, str] = {}
    for name, value in tree.items():
        if name in ("lang", "intent"):
            continue
        if name not in ontology.intents[tree["intent"]] or not isinstance(value, str):
            raise InputError(f"{tree['intent']} has no slot {name!r}: {text[:80]!r}")
        if not all(
            run.strip() for run in (value.split(JOINT) if name in ontology.several else (value,))
        ):
            raise InputError(f"{name} is empty: {text[:80]!r}")
        if name in ontology.closed and value not in ontology.closed[name]:
            raise InputError(f"{name} cannot be {value!r}: {text[:80]!r}")
        slots[name] = JOINT.join(run.strip() for run in value.split(JOINT))
    return Action(tree["intent"], tree["lang"], slots)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a name twice")
    return tree


def grammar(sentence: str, ontology: Ontology = HOME) -> str:
    """GBNF for the actions a normalised sentence allows: real intents, their slots, and words of the sentence alone."""
    return ontology.grammar(units(sentence))
