"""Rows of a file of end states: read, checked against their home, each with its line.

One JSON object a line, UTF-8; docs/eval.md has the table of fields. A row that cannot be used is a
`BrokenRow` with its line, and the rest goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError
from tumen.eval.states.expectation import DIRECTIONS, FORMS, TIMER, Attributes, Expected, Group
from tumen.home import Home

TURN_FIELDS = ("say", "wait_seconds", "expect", "answer", "or_answer", "reply", "ignore", "note")
ANSWERS = ("ask", "refuse")
GROUP_FIELDS = ("group", "attribute", "direction")
TIMER_FIELDS = ("id", "name", "area", "seconds", "left_seconds", "paused", "command")
_MOVED = ("cover", "valve")
"""Domains whose position decides their state."""


@dataclass(frozen=True)
class StateTurn:
    """One turn of a row.

    Attributes:
        say: what is said; None: nothing, time passes.
        wait_seconds: time that passes before the turn.
        expect: right outcomes, any one of them; None: the home is not judged.
        answer: `ask`, `refuse` or empty: what must come back.
        or_answer: what may come back instead, with no change.
        reply: what the reply must contain; None: any reply.
        ignore: entities, or `timer`, whose changes do not count.
    """

    say: str | None
    wait_seconds: float = 0.0
    expect: tuple[Expected, ...] | None = (Expected(),)
    answer: str = ""
    or_answer: str = ""
    reply: re.Pattern[str] | None = None
    ignore: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StateRow:
    """One row.

    Attributes:
        id: of the row; its line if it has none.
        where: file and line.
        lang: language of the row.
        kind: what it tries.
        home: the tree of a home file, with the speaker's area and the states before the first turn.
        timers: timers before the first turn; `seconds` is their length.
        turns: at least one.
    """

    id: str
    where: str
    lang: str
    kind: str
    home: Mapping[str, Any]
    turns: tuple[StateTurn, ...]
    timers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class BrokenRow:
    """A row that cannot be used.

    Attributes:
        where: file and line.
        why: one line.
    """

    where: str
    why: str


def read_state_rows(path: Path) -> Iterator[StateRow | BrokenRow]:
    """Yield the rows of a file, or of all `*.jsonl` files of a folder in the order of their names.

    Raises:
        InputError: the file cannot be read, or the folder holds no such file.
    """
    homes = _Homes()
    for file in _files(path):
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                yield _row(line, where, file.parent, homes)
            except (InputError, RecursionError) as error:
                yield BrokenRow(where, str(error) or type(error).__name__)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.jsonl"))
    if not files:
        raise InputError(f"{path}: holds no .jsonl file; name a file of rows or a folder with some")
    return files


@dataclass
class _Homes:
    """Homes by path, each read once."""

    trees: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def tree(self, named: Any, folder: Path) -> dict[str, Any]:
        """Return a copy of the home that a row names.

        Raises:
            InputError: it is no home.
        """
        if isinstance(named, Mapping):
            return Home.of(named).snapshot()
        if named is not None and not isinstance(named, str):
            raise InputError("home: must be null, a path or an object")
        key = "" if named is None else str(folder / named)
        if key not in self.trees:
            self.trees[key] = _load(key).snapshot()
        return deepcopy(dict(self.trees[key]))


def _load(path: str) -> Home:
    if not path:
        return Home.load()
    if not path.endswith(".json"):
        return Home.load(Path(path))
    try:
        tree = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON of a home: {error}") from None
    return Home.of(_mapping(tree, path), where=path)


def _row(line: bytes, where: str, folder: Path, homes: _Homes) -> StateRow:
    """Return the row of a line.

    Raises:
        InputError: it cannot be used; the line says why.
    """
    try:
        tree = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError("not UTF-8") from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from None
    row = _mapping(tree, "a row")
    home = _prepared(homes.tree(row.get("home"), folder), row)
    # a fault of what the row sets must show here, not in the middle of the suite
    place = Home.of(home)
    turns = _sequence(row.get("turns"), "turns")
    if not turns:
        raise InputError("turns: at least one is needed")
    read = [_turn(_mapping(turn, "a turn"), place) for turn in turns]
    return StateRow(
        id=str(row.get("id", where.rpartition(":")[2])),
        where=where,
        lang=str(row.get("lang", "")),
        kind=str(row.get("kind", "")),
        home=home,
        turns=tuple(read),
        timers=tuple(_timer(timer) for timer in _sequence(row.get("timers") or (), "timers")),
    )


def _prepared(home: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a home with the speaker's area and the states of a row."""
    if "here" in row:
        home.pop("here", None)
        if row["here"] is not None:
            home["here"] = row["here"]
    blocks = {block["id"]: block for block in home["entity"]}
    for id_, fields in _mapping(row.get("set") or {}, "set").items():
        if id_ not in blocks:
            raise InputError(f"set: {id_} is not in the home")
        block = blocks[id_]
        # an old position would decide against the new state
        if id_.partition(".")[0] in _MOVED and "position" not in fields:
            block.pop("position", None)
        block.update(_mapping(fields, f"set {id_}"))
    return home


def _timer(given: Any) -> Mapping[str, Any]:
    timer = _mapping(given, "a timer")
    _known_fields(timer, TIMER_FIELDS, "a timer")
    seconds = timer.get("seconds")
    if not isinstance(seconds, (int, float)) or seconds <= 0:
        raise InputError("timers: seconds must be above 0")
    return timer


def _turn(turn: Mapping[str, Any], home: Home) -> StateTurn:
    _known_fields(turn, TURN_FIELDS, "a turn")
    if "say" not in turn:
        raise InputError("say: is missing; null says nothing")
    say = turn["say"]
    if say is not None and not isinstance(say, str):
        raise InputError("say: must be text or null")
    wait = turn.get("wait_seconds", 0)
    if not isinstance(wait, (int, float)) or isinstance(wait, bool) or not 0 <= wait < 1e9:
        raise InputError("wait_seconds: must be a number from 0 to 1,000,000,000")
    for name in ("answer", "or_answer"):
        if turn.get(name) not in (None, *ANSWERS):
            raise InputError(f"{name}: must be one of {', '.join(ANSWERS)}")
    return StateTurn(
        say=say,
        wait_seconds=float(wait),
        expect=_expectations(turn.get("expect", {}), home),
        answer=turn.get("answer") or "",
        or_answer=turn.get("or_answer") or "",
        reply=_pattern(turn.get("reply")),
        ignore=_ignored(turn.get("ignore") or (), home),
    )


def _pattern(text: Any) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(str(text), re.IGNORECASE)
    except re.error as error:
        raise InputError(f"reply: no regular expression: {error}") from None


def _ignored(ids: Any, home: Home) -> frozenset[str]:
    named = _sequence(ids, "ignore")
    for id_ in named:
        _known_entity(id_, home, "ignore")
    return frozenset(named)


def _expectations(expect: Any, home: Home) -> tuple[Expected, ...] | None:
    if expect is None:
        return None
    if isinstance(expect, list):
        return tuple(_expected(one, home) for one in expect)
    return (_expected(expect, home),)


def _expected(expect: Any, home: Home) -> Expected:
    wanted = dict(_mapping(expect, "expect"))
    group = _group(wanted, home) if "group" in wanted else None
    for name in GROUP_FIELDS:
        wanted.pop(name, None)
    timers: tuple[Attributes, ...] = ()
    if TIMER in wanted:
        timers = _timers(wanted.pop(TIMER))
    for id_, attributes in wanted.items():
        _known_entity(id_, home, "expect")
        for value in _mapping(attributes, f"expect {id_}").values():
            _check_value(value, id_)
    return Expected(wanted, timers, group)


def _timers(given: Any) -> tuple[Attributes, ...]:
    """Return the attributes of each timer; an object stands for one timer."""
    several = given if isinstance(given, list) else [given]
    timers = [_mapping(one, "expect timer") for one in several]
    for timer in timers:
        _known_fields(timer, (*TIMER_FIELDS, "state"), "expect timer")
        for value in timer.values():
            _check_value(value, TIMER)
    return tuple(timers)


def _check_value(value: Any, id_: str) -> None:
    if isinstance(value, Mapping):
        _known_fields(value, FORMS, f"expect {id_}")
        if not value:
            raise InputError(f"expect {id_}: a value needs one of {', '.join(FORMS)}")


def _group(wanted: Mapping[str, Any], home: Home) -> Group:
    name = str(wanted["group"])
    heading = wanted.get("direction")
    if heading not in DIRECTIONS:
        raise InputError(f"group {name}: direction must be up or down")
    return Group(name, group_ids(name, home), str(wanted.get("attribute", "state")), str(heading))


def group_ids(name: str, home: Home) -> frozenset[str]:
    """Return the entities of a group such as `light@living_room`.

    Args:
        name: a domain, or `domain@place` with the id of an area or floor.
        home: the home.

    Raises:
        InputError: the place is unknown, or the group is empty.
    """
    domain, _, place = name.partition("@")
    areas = set(home.areas)
    if place in home.areas:
        areas = {place}
    elif place in home.floors:
        areas = {area.id for area in home.areas.values() if area.floor == place}
    elif place:
        raise InputError(f"group {name}: {place} is no area or floor of the home")
    ids = []
    for entity in home.entities.values():
        inside = not place or entity.area in areas
        if entity.domain == domain and inside:
            ids.append(entity.id)
    if not ids:
        raise InputError(f"group {name}: is empty")
    return frozenset(ids)


def _known_entity(id_: Any, home: Home, field_: str) -> None:
    if id_ != TIMER and id_ not in home.entities:
        raise InputError(f"{field_}: {id_} is not in the home")


def _known_fields(tree: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in tree:
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}; known: {', '.join(known)}")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{what}: must be an object")
    return value


def _sequence(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{what}: must be a list")
    return value
