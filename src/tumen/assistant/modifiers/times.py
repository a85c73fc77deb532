"""Times: when an act is wanted, as far as a clock can tell (`at eight pm`, `五分钟后`).

A time is read in three steps: the clock time itself, then day and half of the day anywhere in the
same clause, then the next moment that fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from tumen.assistant.modifiers.phrases import (
    alternatives,
    languages_of,
    numbered,
    pattern_of,
    words_of,
)
from tumen.assistant.values import number_units, read_number, read_span

_HALF_DAY = 12
_DAY_HOURS = 24
_HOUR_MINUTES = 60
_DIGITS = re.compile(r"(\d{1,2})[:.](\d{2})")
_TOKEN = re.compile(r"\S+")
_LONGEST_SPAN = 8  # words of `one hour and twenty five minutes`
_CJK_NUMBER = "[零〇一二两三四五六七八九十]{1,3}"


@dataclass(frozen=True)
class Moment:
    """A moment that was said.

    Attributes:
        spans: (start, end) of its characters in the sentence, in order.
        seconds: seconds from now, where a time span was said.
        hour: 0 to 24, where a clock time was said.
        minute: 0 to 59.
        half: `am` or `pm` if that was said.
        day: days from today, if that was said.
        weekday: 0 for Monday, if that was said.
        weak: whether a preposition is the only sign that a number is a time (`at eight`).
    """

    spans: tuple[tuple[int, int], ...]
    seconds: float | None = None
    hour: int = 0
    minute: int = 0
    half: str = ""
    day: int | None = None
    weekday: int | None = None
    weak: bool = False

    def at(self, now: datetime) -> datetime:
        """Return the first time from now on that fits what was said.

        Args:
            now: the present time, with its time zone.
        """
        if self.seconds is not None:
            return now + timedelta(seconds=self.seconds)
        hours = self._hours()
        first = 0 if self.day is None else self.day
        # eight days reach the same weekday of the next week
        for day in range(first, first + 9):
            date = now + timedelta(days=day)
            if self.weekday is not None and date.weekday() != self.weekday:
                continue
            for hour in hours:
                midnight = date.replace(hour=0, minute=0, second=0, microsecond=0)
                moment = midnight + timedelta(hours=hour, minutes=self.minute)
                if moment > now:
                    return moment
        # a day was said whose hour has passed: the next day it is
        return now + timedelta(days=1)

    def _hours(self) -> tuple[int, ...]:
        """Return the hours of a day that may be meant, the earlier first."""
        if self.half == "pm":
            return (self.hour % _HALF_DAY + _HALF_DAY,)
        if self.half == "am":
            return (self.hour % _HALF_DAY,)
        # `at eight` is whichever eight comes next, `tomorrow at eight` is in the morning
        if self.hour <= _HALF_DAY and self.day is None and self.weekday is None:
            return tuple(sorted({self.hour, (self.hour + _HALF_DAY) % _DAY_HOURS}))
        return (self.hour,)


@dataclass(frozen=True)
class _Clock:
    """A clock time in a sentence: where it stands, and what it says."""

    start: int
    end: int
    hour: int
    minute: int = 0
    weak: bool = False


def moment_of(said: str, script: str) -> Moment | None:
    """Return the moment that a clause says, or None.

    Args:
        said: a normalised clause; what must not be read is blanked out.
        script: the language with a script of its own, or empty.
    """
    delay = _delay(said, script)
    if delay:
        return delay
    clock = _clock(said, script)
    if clock is None:
        return None
    return _with_day(said, script, clock)


# -- time spans ----------------------------------------------------------------------------------


def _delay(said: str, script: str) -> Moment | None:
    """Return `in five minutes`, `5 minutes from now`, `五分钟后`."""
    lang = languages_of(script)[0]
    for before in pattern_of(script, "delay_before").finditer(said):
        for end in _ends(said, before.end()):
            seconds = read_span(said[before.end() : end].strip(), lang)
            if seconds:
                # `过十分钟` may be followed by `后`
                after = pattern_of(script, "delay_after").match(said, end)
                return Moment(((before.start(), after.end() if after else end),), seconds)
    for after in pattern_of(script, "delay_after").finditer(said):
        for start in _starts(said, after.start()):
            seconds = read_span(said[start : after.start()].strip(), lang)
            if seconds:
                return Moment(((start, after.end()),), seconds)
    return None


def _ends(said: str, start: int) -> Iterator[int]:
    """Yield the ends of the words after a position, the farthest first."""
    ends = [start + token.end() for token in _pieces(said[start:])]
    yield from reversed(ends[:_LONGEST_SPAN])


def _starts(said: str, end: int) -> Iterator[int]:
    """Yield the starts of the words before a position, the farthest first."""
    starts = [token.start() for token in _pieces(said[:end])]
    yield from starts[-_LONGEST_SPAN:]


def _pieces(text: str) -> Iterator[re.Match[str]]:
    """Yield spaced words, numbers and single characters of scripts without spaces."""
    return re.finditer(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+", text)


# -- clock times ---------------------------------------------------------------------------------


def _clock(said: str, script: str) -> _Clock | None:
    """Return the first clock time of a clause, or None."""
    found = [
        *_named(said, script),
        *(_unspaced_clocks(said, script) if script else _spaced_clocks(said)),
    ]
    return min(found, key=lambda clock: (clock.start, -clock.end), default=None)


def _named(said: str, script: str) -> Iterator[_Clock]:
    """Yield `noon` and `midnight`."""
    names = numbered(script, "clock", "named")
    for match in re.finditer(alternatives(names), said):
        hour, minute = names[match[0]].split(":")
        yield _Clock(match.start(), match.end(), int(hour), int(minute))


def _unspaced_clocks(said: str, script: str) -> Iterator[_Clock]:
    """Yield `早上八点半` and `20:15`."""
    for match in _DIGITS.finditer(said):
        yield from _valid(match.start(), match.end(), int(match[1]), int(match[2]))
    lang = languages_of(script)[0]
    minutes_after = numbered(script, "clock", "after_hour")
    for match in _unspaced_clock(script).finditer(said):
        hour = read_number(match["hour"], lang)
        minute = 0.0
        if match["named"]:
            minute = float(minutes_after[match["named"]])
        elif match["minute"]:
            minute = read_number(match["minute"], lang) or 0.0
        # `二十六点五度` is a temperature, `亮一点` is a bit brighter
        is_bit = match[0] in words_of(script, "not_clock") and not _says_half(said, script)
        if hour is not None and not match["unit"] and not is_bit:
            yield from _valid(match.start(), match.end(), int(hour), int(minute))


def _says_half(said: str, script: str) -> bool:
    """Whether a clause says which half of the day."""
    return any(pattern_of(script, "clock", half).search(said) for half in ("am", "pm"))


@cache
def _unspaced_clock(script: str) -> re.Pattern[str]:
    """Return the pattern of a clock time in a script without spaces."""
    number = rf"(?:\d{{1,2}}|{_CJK_NUMBER})"
    oclock = alternatives(words_of(script, "clock", "oclock"))
    named = alternatives(numbered(script, "clock", "after_hour"))
    before = alternatives(words_of(script, "clock", "before"))
    return re.compile(
        rf"(?:{before})? ?(?P<hour>{number})(?:{oclock})"
        rf"(?:(?P<named>{named})| ?(?P<minute>{number})分?)?(?P<unit>度|成|%)?"
    )


def _spaced_clocks(said: str) -> Iterator[_Clock]:
    """Yield clock times of languages with spaces."""
    tokens = list(_TOKEN.finditer(said))
    reader = _SpacedReader(said, tokens)
    for number in range(len(tokens)):
        yield from reader.clocks_at(number)


class _SpacedReader:
    """Reads clock times from words.

    Args:
        said: the clause.
        tokens: its words.
    """

    def __init__(self, said: str, tokens: list[re.Match[str]]) -> None:
        self.said = said
        self.tokens = tokens
        self.to_next = numbered("", "clock", "to_next")
        self.minutes_to_next = numbered("", "clock", "minutes_to_next")

    def clocks_at(self, at: int) -> Iterator[_Clock]:
        """Yield the clock times that start at a word."""
        after_before = self._phrase(at, words_of("", "clock", "before"))
        start = self.tokens[at].start()
        if after_before:
            introduced = self._phrase(at, words_of("", "clock", "introduces")) == after_before
            yield from self._from(start, after_before, introduced)
        yield from self._from(start, at, introduced=False)

    def _from(self, start: int, at: int, introduced: bool) -> Iterator[_Clock]:
        """Yield the clock times whose first number is at a word.

        Args:
            start: the character at which it starts, with its preposition.
            at: the word.
            introduced: whether a preposition stands before it that clock times have.
        """
        for phrase, minutes in self.to_next.items():
            # `half past six`, `viertel vor drei`
            hour_at = self._phrase(at, (phrase,))
            if hour_at:
                yield from self._offset(start, hour_at, int(minutes))
        digits = _DIGITS.fullmatch(self._word(at))
        if digits:
            end = self._end_of_suffix(at + 1)
            yield from _valid(start, end, int(digits[1]), int(digits[2]))
            return
        first = self._number(at)
        if first is None:
            return
        for phrase, sign in self.minutes_to_next.items():
            # `ten to six`
            hour_at = self._phrase(at + 1, (phrase,))
            if hour_at and introduced:
                yield from self._offset(start, hour_at, int(first) * int(sign))
        yield from self._plain(start, at, int(first), introduced)

    def _plain(self, start: int, at: int, hour: int, introduced: bool) -> Iterator[_Clock]:
        """Yield `eight o'clock`, `acht uhr dreißig`, `seven thirty pm`, `at eight`."""
        oclock = self._phrase(at + 1, words_of("", "clock", "oclock"))
        if oclock:
            minute = self._number(oclock)
            if minute is not None and self._is_unit(oclock + 1):
                minute = None
            end = self._end(oclock if minute is None else oclock + 1)
            yield from _valid(start, end, hour, int(minute or 0))
            return
        second = self._number(at + 1)
        after = at + 1 if second is None else at + 2
        if self._half_at(after):
            yield from _valid(start, self._end(after), hour, int(second or 0))
            return
        # a preposition alone is weak: `at fifty percent`
        if introduced and not self._is_unit(after):
            for clock in _valid(start, self._end(after), hour, int(second or 0)):
                yield replace(clock, weak=True)

    def _offset(self, start: int, hour_at: int, minutes: int) -> Iterator[_Clock]:
        """Yield a clock time some minutes before or after an hour."""
        hour = self._number(hour_at)
        if hour is None:
            return
        total = int(hour) * _HOUR_MINUTES + minutes
        end = self._end_of_suffix(hour_at + 1)
        yield from _valid(start, end, total // _HOUR_MINUTES, total % _HOUR_MINUTES)

    def _end_of_suffix(self, at: int) -> int:
        """Return the end of the word before one, or of `o'clock` there."""
        oclock = self._phrase(at, words_of("", "clock", "oclock"))
        return self._end(oclock or at)

    def _half_at(self, at: int) -> bool:
        """Whether a word says which half of the day."""
        halves = (*words_of("", "clock", "am"), *words_of("", "clock", "pm"))
        return self._phrase(at, halves) is not None

    def _is_unit(self, at: int) -> bool:
        """Whether a word is the unit of a number, so that the number is no hour."""
        return self._word(at) in number_units()

    def _word(self, at: int) -> str:
        """Return a word, empty beyond the end."""
        return self.tokens[at][0] if at < len(self.tokens) else ""

    def _end(self, at: int) -> int:
        """Return the end of the word before one."""
        return self.tokens[at - 1].end()

    def _number(self, at: int) -> float | None:
        """Return the whole number that a word is, or None."""
        word = self._word(at)
        if not word or word in words_of("", "clock", "not_hours"):
            return None
        for lang in languages_of(""):
            number = read_number(word, lang)
            if number is not None and number == int(number) and 0 <= number < _HOUR_MINUTES:
                return number
        return None

    def _phrase(self, at: int, phrases: tuple[str, ...]) -> int | None:
        """Return the word after a phrase that starts at a word, or None."""
        for phrase in phrases:
            length = phrase.count(" ") + 1
            words = [self._word(at + offset) for offset in range(length)]
            if " ".join(words) == phrase:
                return at + length
        return None


def _valid(start: int, end: int, hour: int, minute: int) -> Iterator[_Clock]:
    """Yield a clock time if there is such a time."""
    if 0 <= hour <= _DAY_HOURS and 0 <= minute < _HOUR_MINUTES:
        yield _Clock(start, end, hour, minute)


# -- day and half of the day ---------------------------------------------------------------------


def _with_day(said: str, script: str, clock: _Clock) -> Moment:
    """Return a moment with the day and the half of the day that the clause says."""
    spans = [(clock.start, clock.end)]
    half = ""
    for name in ("am", "pm"):
        for match in pattern_of(script, "clock", name).finditer(said):
            half = half or name
            spans.append(match.span())
    day = _said_number(said, numbered(script, "days"), spans)
    before = alternatives(words_of(script, "clock", "before_days"))
    weekday = _said_number(said, numbered(script, "weekdays"), spans, f"(?:(?:{before}) )?")
    return Moment(
        spans=_joined(spans),
        hour=clock.hour,
        minute=clock.minute,
        half=half,
        day=day,
        weekday=weekday,
        # a day beside it is a second sign
        weak=clock.weak and len(spans) == 1,
    )


def _said_number(
    said: str, words: Mapping[str, str], spans: list[tuple[int, int]], before: str = ""
) -> int | None:
    """Return the number of the longest phrase that is said; its place is added to the spans."""
    for match in re.finditer(f"{before}(?P<word>{alternatives(words)})", said):
        spans.append(match.span())
        return int(words[match["word"]])
    return None


def _joined(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return spans in order; those that overlap are one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
