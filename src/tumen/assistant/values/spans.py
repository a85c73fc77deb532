"""Time spans from words: `an hour and a half`, `fifty hours and 44 minutes`, `eine dreiviertel stunde`, `两个半小时`."""

from __future__ import annotations

import re

from tumen.assistant.values.numbers import read_number
from tumen.home import fold

HOUR, MINUTE, SECOND = 3600, 60, 1
_UNIT = re.compile(
    r"(?P<hour>hours?\b|hrs?\b|stunden?\b|std\b|小时|钟头)|(?P<quarter>刻钟)|(?P<minute>minutes?\b|mins?\b|minuten?\b|分钟|分)|"
    r"(?P<second>seconds?\b|secs?\b|sekunden?\b|sek\b|秒钟|秒)"
)
_SIZE = {"hour": HOUR, "quarter": 15 * MINUTE, "minute": MINUTE, "second": SECOND}
_JOINTS = re.compile(
    r"^(?:and\b|und\b|plus\b|和|零|又)\s*|^,\s*|\s*(?:full|more|extra|ganze|ganzen|weitere|mehr)$"
)
_HALF_MORE = re.compile(r"^\s*(?:and a half|and half|und eine halbe|und ne halbe|半)\s*$")


def read_span(words: str, lang: str) -> float | None:
    """Seconds of a time span said in numbers and units, or None when it is not one."""
    said, total, position, last = fold(words), 0.0, 0, 0
    for unit in _UNIT.finditer(said):
        number = _number(said[position : unit.start()], lang)
        if number is None:
            return None
        last = _SIZE[str(unit.lastgroup)]
        total, position = total + number * last, unit.end()
    tail = said[position:]
    if not last or (tail.strip() and not _HALF_MORE.match(tail)):
        return None
    return total + (last / 2 if tail.strip() else 0)


def _number(words: str, lang: str) -> float | None:
    """The number before a unit; an article alone is one."""
    plain = _JOINTS.sub("", _JOINTS.sub("", words.strip()).strip()).strip()
    if plain in ("a", "an", "one", "eine", "einer", "ein"):
        return 1.0
    return read_number(plain, lang) if plain else None
