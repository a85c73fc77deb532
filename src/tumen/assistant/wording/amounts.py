"""Amounts: how much is wanted, and whether it is reached or changed by it.

    the floor lamp 20 percent brighter   ->  a change up by 20
    AC one degree cooler                 ->  a change down by 1
    half close the curtains              ->  a position of 50
    standing fan at a third              ->  a speed of 33

A small model mixes these up: two degrees warmer becomes 2 °C. Which domain is meant, which way, and
how much stand in the words and in the names of the home.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from tumen.assistant.modifiers import alternatives, script_of
from tumen.assistant.values import Unknown, Values, first_words, number_units, read_number
from tumen.assistant.wording.tables import asks, pattern_of_phrases, phrases_by_key, phrases_of
from tumen.home import Home, common_words, fold, kind_word, mentions_of, split
from tumen.language import ACTS, CLOSED, INTENTS, NONE, Action, is_cjk, units

_SETS = {
    "light": ("HassLightSet", "brightness"),
    "media_player": ("HassSetVolume", "volume"),
    "fan": ("HassFanSetSpeed", "percentage"),
    "cover": ("HassSetPosition", "position"),
    "valve": ("HassSetPosition", "position"),
    "climate": ("HassClimateSetTemperature", "temperature"),
}
"""The intent and the slot that set a number on a device of a domain."""

_STEPS = {**_SETS, "media_player": ("HassSetVolumeRelative", "volume")}
"""The same for a change."""

_FAMILY = {
    "light": ("HassLightSet",),
    "media_player": ("HassSetVolume", "HassSetVolumeRelative"),
    "fan": ("HassFanSetSpeed",),
    "cover": ("HassSetPosition",),
    "climate": ("HassClimateSetTemperature",),
}
_MOVES = frozenset(("cover", "valve"))
_MOST_UNITS = 7
_KELVIN = 1000  # from here on a number that is said to a light is a colour temperature
_DIGIT = re.compile(r"\d")
_CJK_NUMBER = frozenset("零〇一二两三四五六七八九十百千半华摄最中低高满全1234567890")
_UNTOUCHED = frozenset(("HassBroadcast", "HassMediaSearchAndPlay", "HassRespond"))


@dataclass(frozen=True)
class _Amount:
    """A number of a sentence, in units of it.

    Attributes:
        words: the number with its unit.
        start: its first unit.
        end: the unit after its last.
        value: what it is worth for the slot.
        reached: whether the word before it says that it is reached.
        changed: whether the word before it says that it is a difference.
    """

    words: str
    start: int
    end: int
    value: float
    reached: bool
    changed: bool


def with_amount(said: str, action: Action, home: Home, values: Values) -> Action:
    """Return the action that an amount in the words asks for; other actions stay as they are.

    Args:
        said: the normalised command.
        action: what was understood.
        home: the home that is spoken to.
        values: reads numbers.
    """
    script = script_of(said)
    if not _may_hold_an_amount(said, script, action):
        return action
    reader = _Reader(said, action, home, values, script)
    return reader.stopped() or reader.mode() or reader.amount() or action


def amount_spans(said: str) -> list[tuple[int, int]]:
    """Return (start, end) of the characters of differences: `15 lauter` is no time of day."""
    script = script_of(said)
    if not _compares(script).search(said):
        return []
    counts = alternatives(phrases_of(script, "amounts", "counts"))
    spans = []
    for match in _difference(script).finditer(said):
        if not re.match(rf"\s*(?:{counts})", said[match.end() :]):
            spans.append(match.span())
    return spans


@cache
def _compares(script: str) -> re.Pattern[str]:
    """Return the pattern of words that compare: `louder`, `brighter`."""
    table = phrases_by_key(script, "amounts")
    keys = [f"{domain} {way}" for domain in _SETS if domain not in _MOVES for way in ("up", "down")]
    return re.compile(alternatives(phrase for key in keys for phrase in table.get(key, ())))


@cache
def _difference(script: str) -> re.Pattern[str]:
    """Return the pattern of `by` and the number after it."""
    by = alternatives(phrases_of(script, "amounts", "by"))
    return re.compile(rf"(?:{by})\s*(?:\d[\d.,]*|[^\W\d]+)")


def _may_hold_an_amount(said: str, script: str, action: Action) -> bool:
    """Whether a sentence is a command that may have an amount."""
    if "Timer" in action.intent or "List" in action.intent or action.intent in _UNTOUCHED:
        return False
    return not asks(said, script)


class _Reader:
    """Reads the amount of one command; see `with_amount` for the arguments."""

    def __init__(self, said: str, action: Action, home: Home, values: Values, script: str) -> None:
        self.action = action
        self.values = values
        self.script = script
        self.pieces = units(said)
        self.mentions = mentions_of(home.index, said, action.lang)
        self.named = {
            home.index.entities[number].domain
            for mention in self.mentions
            for number in mention.entities
        }
        self.taken = {at for mention in self.mentions for at in range(mention.start, mention.end)}
        self.rest = self._text(self.taken)
        self.kinds = {domain for kind in self._kinds() for domain in kind}

    def _text(self, blank: set[int]) -> str:
        """Return the sentence without some of its units; a bar stands in their place."""
        pieces = [" |" if at in blank else piece for at, piece in enumerate(self.pieces)]
        return "".join(pieces).strip()

    def _kinds(self) -> Iterator[frozenset[str]]:
        """Yield the domains of the kinds of devices that are said."""
        at = 0
        while at < len(self.pieces):
            for end in range(min(len(self.pieces), at + 4), at, -1):
                words = "".join(self.pieces[at:end])
                known = kind_word("".join(split(words)))
                if known and not self.taken & set(range(at, end)):
                    yield known[0].domains
                    at = end - 1
                    break
            at += 1

    def _says(self, key: str) -> bool:
        """Whether some words of the table stand beside the names."""
        return pattern_of_phrases(self.script, "amounts", key).search(self.rest) is not None

    # -- what is meant ---------------------------------------------------------------------------

    def domain(self) -> str:
        """Return the domain that the amount is about; empty if it is not clear."""
        if self.named:
            # a lock or a switch is named and cannot have an amount
            return _only(self.named & set(_STEPS))
        return (
            self._compared()
            or self._domain_of_thing()
            or _only(self.kinds & set(_SETS))
            or self._domain_of_intent()
        )

    def _compared(self) -> str:
        """Return the domain of `brighter` or `warmer`; `up` has none."""
        for domain in _SETS:
            if domain in _MOVES:
                continue
            if self._says(f"{domain} up") or self._says(f"{domain} down"):
                return domain
        return ""

    def _domain_of_thing(self) -> str:
        """Return the domain of `volume` or `temperature`."""
        for domain, words in phrases_by_key(self.script, "amounts", "things").items():
            if domain in _SETS and re.search(alternatives(words), self.rest):
                return domain
        return ""

    def _domain_of_intent(self) -> str:
        """Return the domain whose amounts the intent sets already."""
        for domain, intents in _FAMILY.items():
            if self.action.intent in intents:
                return domain
        return ""

    def direction(self, domain: str, rest: str) -> tuple[str, bool]:
        """Return `up` or `down` (empty if neither or both), and whether it compares.

        `brighter` compares; `up` and `open` need an amount beside them.
        """
        own = "cover" if domain in _MOVES else domain
        for prefix, compares in ((f"{own} ", own != "cover"), ("", False)):
            found = []
            for way in ("up", "down"):
                pattern = pattern_of_phrases(self.script, "amounts", prefix + way)
                found += [(match.end(), way) for match in pattern.finditer(rest)]
            if found:
                # the last word wins: `auf` may be a preposition, `zu` as well
                return max(found)[1], compares
        return "", False

    # -- the amount ------------------------------------------------------------------------------

    def amount(self) -> Action | None:
        """Return the action with the amount that was said; None if there is none."""
        domain = self.domain()
        if not domain:
            return None
        slot = _SETS[domain][1]
        amount = self._number(slot)
        blank = set(self.taken)
        if amount:
            blank |= set(range(amount.start, amount.end))
            if amount.reached:
                blank.add(amount.start - 1)
        way, compares = self.direction(domain, self._text(blank))
        if domain == "light" and amount and amount.value >= _KELVIN:
            return self._set(domain, "temperature", amount.words)
        if amount is None:
            return self._step(domain, way, compares)
        if self._is_change(domain, amount, way, compares):
            return self._made(domain, _STEPS[domain][0], {"step": way, slot: amount.words})
        if way == "down" and domain in _MOVES and not amount.reached:
            # `half close`, `30 % closed`
            closed = f"{max(0.0, 100 - amount.value):g}"
            return self._made(domain, "HassSetPosition", {"position": closed})
        if not self._is_sure(domain, amount, way):
            return None
        return self._set(domain, slot, amount.words)

    def _is_change(self, domain: str, amount: _Amount, way: str, compares: bool) -> bool:
        """Whether an amount is a difference."""
        if not way or amount.reached:
            return False
        if amount.changed or self._says("again"):
            return True
        if domain in _MOVES:
            return False
        # `all the way up`
        is_end = amount.value in (0, 1, 100) and not _DIGIT.search(amount.words)
        return domain == "climate" or not is_end

    def _is_sure(self, domain: str, amount: _Amount, way: str) -> bool:
        """Whether a number without a direction is the value of a device."""
        if self.action.intent not in ACTS and self.action.intent != NONE:
            return bool(self.named)
        words = amount.words
        bare = not any(words.endswith(unit) for unit in number_units())
        if bare and _DIGIT.search(words):
            times = phrases_of(self.script, "amounts", "times")
            before = self.pieces[amount.start - 1].strip() if amount.start else ""
            if before in times:
                return False
        return bool(
            self.named or self.kinds or way or self.action.intent in _FAMILY.get(domain, ())
        )

    def _step(self, domain: str, way: str, compares: bool) -> Action | None:
        """Return a change without a number; None if none was said."""
        if not way:
            return None
        little = self._says("little") or self._says("again")
        family = self.action.intent in _FAMILY.get(domain, ())
        if not compares and not little and not (family and domain not in _MOVES):
            return None
        # `a warm red`: a colour is no step
        if "color" in self.action.slots and not compares:
            return None
        if family and self._holds_a_number(_STEPS[domain][1]):
            return None
        return self._made(domain, _STEPS[domain][0], {"step": way})

    def _holds_a_number(self, slot: str) -> bool:
        """Whether the action has a number that is written in a way this reader does not know."""
        held = self.action.slots.get(slot, "")
        value = self.values.read(slot, held, self.action.lang) if held else ""
        return not isinstance(value, (Unknown, str))

    def _number(self, slot: str) -> _Amount | None:
        """Return the number beside the names that is the value of a slot, if there is one.

        A number after `to` or `by` goes before others, one that is counted before `slow`.
        """
        found = list(self._numbers(slot))
        return max(found, key=self._weight, default=None)

    def _weight(self, amount: _Amount) -> tuple[bool, bool, int]:
        """Return how likely a number is the one that is meant."""
        counted = read_number(amount.words, self.action.lang) is not None
        return amount.reached or amount.changed, counted, amount.end - amount.start

    def _numbers(self, slot: str) -> Iterator[_Amount]:
        """Yield the numbers beside the names, each as long as it is said."""
        pattern = pattern_of_phrases(self.script, "amounts", "little")
        spans = [match.span() for match in pattern.finditer(self._joined())]
        taken = self.taken | _units_of(self.pieces, spans)
        at = 0
        while at < len(self.pieces):
            found = self._number_at(slot, at, taken)
            if found:
                yield found
            at = found.end if found else at + 1

    def _number_at(self, slot: str, start: int, taken: set[int]) -> _Amount | None:
        """Return the longest number that starts at a unit."""
        if start in taken or not _may_start(self.pieces[start].strip(), self.action.lang):
            return None
        for end in range(min(len(self.pieces), start + _MOST_UNITS), start, -1):
            if taken & set(range(start, end)):
                continue
            found = self._read(slot, start, end)
            if found:
                return found
        return None

    def _joined(self) -> str:
        """Return the sentence as its units are written."""
        return "".join(self.pieces)

    def _read(self, slot: str, start: int, end: int) -> _Amount | None:
        """Return the number that some units are; None if they are none."""
        words = "".join(self.pieces[start:end]).strip()
        if words in phrases_of(self.script, "amounts", "ones"):
            return None
        after = "".join(self.pieces[end : end + 2]).strip()
        counts = phrases_of(self.script, "amounts", "counts")
        if any(after == word or after.startswith(f"{word} ") for word in counts):
            return None
        if is_cjk(after[:1]) and any(after.startswith(word) for word in counts):
            return None
        value = self.values.read(slot, words, self.action.lang)
        if slot == "brightness" and isinstance(value, Unknown):
            value = self.values.read("temperature", words, self.action.lang)
            # a light has no degrees, and a colour temperature is large
            if not isinstance(value, (Unknown, str)) and value < _KELVIN:
                return None
        if isinstance(value, (Unknown, str)):
            return None
        reached = self._follows(start, "to")
        changed = self._follows(start, "by")
        return _Amount(words, start, end, float(value), reached, changed)

    def _follows(self, start: int, key: str) -> bool:
        """Whether one of some words stands just before a unit."""
        before = "".join(self.pieces[max(0, start - 2) : start]).strip()
        words = phrases_of(self.script, "amounts", key)
        if self.script:
            return any(before.endswith(word) for word in words)
        return any(before == word or before.endswith(f" {word}") for word in words)

    # -- the action ------------------------------------------------------------------------------

    def stopped(self) -> Action | None:
        """Return that a cover stops; None if that was not said."""
        about = self.named or self.kinds
        if not about or not about <= _MOVES | {"lock", "binary_sensor"}:
            return None
        if not pattern_of_phrases(self.script, "stop", "words").search(self.rest):
            return None
        return self._made("cover", "HassStopMoving", {})

    def mode(self) -> Action | None:
        """Return that a climate device works in a mode; None if that was not said."""
        if "climate" not in (self.named or self.kinds):
            return None
        for mode, words in phrases_by_key(self.script, "modes").items():
            if mode in CLOSED["mode"] and re.search(alternatives(words), self.rest):
                return self._made("climate", "ClimateSetMode", {"mode": mode})
        return None

    def _set(self, domain: str, slot: str, words: str) -> Action | None:
        """Return the action that sets a number; None if it says so already."""
        intent = _SETS[domain][0]
        held = self.action.slots.get(slot, "")
        if self.action.intent == intent and held and "step" not in self.action.slots:
            lang = self.action.lang
            same = self.values.read(slot, held, lang) == self.values.read(slot, words, lang)
            # the words of a temperature may have lost their unit
            if held == words or (same and domain != "climate"):
                return None
        return self._made(domain, intent, {slot: words})

    def _made(self, domain: str, intent: str, values: dict[str, str]) -> Action:
        """Return an act with values, and with what says what it is about."""
        known = INTENTS[intent]
        slots = dict(values)
        for slot in ("domain", "device_class", "scope"):
            held = self.action.slots.get(slot)
            if held and slot in known:
                slots[slot] = held
        if not self.mentions:
            for slot in ("name", "area"):
                words = self._beyond(self.action.slots.get(slot, ""))
                if words:
                    slots[slot] = words
        if "domain" in known and not self.named and "name" not in slots:
            slots["domain"] = "cover" if domain in _MOVES else domain
        if "domain" in known and slots.get("domain") == "cover" and "device_class" not in slots:
            sense = self._device_class()
            if sense:
                slots["device_class"] = sense
        ordered = {slot: slots[slot] for slot in known if slot in slots}
        return replace(self.action, intent=intent, slots=ordered)

    def _device_class(self) -> str:
        """Return the class of cover that is said; empty if none is."""
        for at in range(len(self.pieces)):
            for end in range(min(len(self.pieces), at + 3), at, -1):
                known = kind_word("".join(split("".join(self.pieces[at:end]))))
                if known and known[0].sense in CLOSED["device_class"]:
                    return known[0].sense
        return ""

    def _beyond(self, words: str) -> str:
        """Return the words of a name that say something else than how much."""
        if not words:
            return ""
        rest = f" {fold(words)} "
        table = phrases_by_key(self.script, "amounts")
        for key, phrases in table.items():
            if key not in ("questions", "counts", "times"):
                rest = re.sub(alternatives(phrases), " ", rest)
        for phrases in phrases_by_key(self.script, "amounts", "things").values():
            rest = re.sub(alternatives(phrases), " ", rest)
        common = common_words()
        small = common.stops | common.it | common.all
        kept = [word for word in rest.split() if word not in small and not _DIGIT.search(word)]
        kept = [word for word in kept if not kind_word(word) and not _may_start(word, "")]
        return words if kept else ""


def _only(domains: set[str]) -> str:
    """Return the only one of some domains; empty if there are several or none."""
    return next(iter(domains)) if len(domains) == 1 else ""


def _units_of(pieces: Sequence[str], spans: Sequence[tuple[int, int]]) -> set[int]:
    """Return the units that stand in some characters of the joined pieces."""
    found = set()
    at = 0
    for number, piece in enumerate(pieces):
        first = at + len(piece) - len(piece.lstrip())
        at += len(piece)
        if any(start <= first and at <= end for start, end in spans):
            found.add(number)
    return found


@cache
def _may_start(piece: str, lang: str) -> bool:
    """Whether a unit may be the first of a number."""
    if _DIGIT.search(piece):
        return True
    if len(piece) == 1 and is_cjk(piece):
        return piece in _CJK_NUMBER or piece in first_words()
    return piece in first_words() or read_number(piece, lang or "en") is not None
