"""The comparison of before and after: every form of the table in docs/eval.md."""

from __future__ import annotations

from typing import Any

import pytest

from tumen.eval.states import Expected, Group, Happened, TimerFacts, expectation_fault
from tumen.eval.states.expectation import direction, value_matches

LAMP = {"state": "off", "brightness": 40}
BEFORE = {
    "light.a": LAMP,
    "light.b": {"state": "on", "brightness": 60},
    "cover.c": {"state": "open", "position": 100},
    "todo.list": {"state": "unknown", "items": ("milk", "eggs")},
    "scene.film": {"state": "unknown"},
}


def happened(*timers: tuple[str, TimerFacts], **changes: dict[str, Any]) -> Happened:
    after = {id_: dict(fields) for id_, fields in BEFORE.items()}
    for name, fields in changes.items():
        after[name.replace("__", ".")].update(fields)
    return Happened(BEFORE, after, timers)


def timer(seconds: float, name: str = "", paused: bool = False) -> TimerFacts:
    return TimerFacts(name, None, "", paused, 1000.0 + seconds, seconds)


def fits(expected: Expected, what: Happened, *ignore: str) -> bool:
    return expectation_fault(expected, what, ignore) == ""


class TestEntities:
    def test_nothing_may_change_where_nothing_is_named(self) -> None:
        assert fits(Expected(), happened())
        assert not fits(Expected(), happened(light__a={"state": "on"}))
        assert (
            expectation_fault(Expected(), happened(light__a={"state": "on"})) == "light.a changed"
        )

    def test_what_is_not_named_must_be_as_before(self) -> None:
        wanted = Expected({"light.a": {"state": "on"}})
        assert fits(wanted, happened(light__a={"state": "on"}))
        assert not fits(wanted, happened(light__a={"state": "on"}, light__b={"state": "off"}))
        assert not fits(wanted, happened())

    def test_attributes_that_are_not_named_may_change(self) -> None:
        wanted = Expected({"light.a": {"state": "on"}})
        assert fits(wanted, happened(light__a={"state": "on", "brightness": 5}))

    def test_an_ignored_entity_does_not_count(self) -> None:
        assert fits(Expected(), happened(light__b={"state": "off"}), "light.b")

    def test_scenes_may_be_used_and_are_used_where_they_are_named(self) -> None:
        used = happened(scene__film={"state": "2026-03-02T18:00:00"})
        assert fits(Expected(), used)
        wanted = Expected({"scene.film": {"state": "on"}})
        assert fits(wanted, used)
        assert expectation_fault(wanted, happened()) == "scene.film was not used"


class TestValues:
    @pytest.mark.parametrize(
        ("value", "wanted", "right"),
        [
            (40, 40, True),
            (40.0, 40, True),
            (41, 40, False),
            ("on", "on", True),
            ("Red", "red", True),
            ("on", "off", False),
            (True, True, True),
            (1, True, False),
            (None, None, True),
            (None, 0, False),
            (0, None, False),
            (39.2, {"near": 40, "by": 1}, True),
            (38.9, {"near": 40, "by": 1}, False),
            (39, {"near": 40}, True),
            ("warm", {"near": 40}, False),
            (None, {"near": 0}, False),
            (("milk",), ["Milk"], True),
            (("milk", "eggs"), ["milk"], False),
            ("milk", ["milk"], False),
            (("a", "b", "c"), {"count": 3}, True),
            (("a", "b"), {"count": 3}, False),
            (("milk", "eggs"), {"has": "Milk "}, True),
            (("eggs",), {"has": "milk"}, False),
            (("milk", "eggs"), {"has": ["eggs", "milk"]}, True),
            (("milk",), {"has": ["eggs", "milk"]}, False),
            (("milk",), {"lacks": "eggs"}, True),
            (("eggs",), {"lacks": "eggs"}, False),
            (("a", "eggs"), {"lacks": ["milk", "eggs"]}, False),
            (("milk",), {"has": "milk", "count": 2}, False),
            (None, {"has": "milk"}, False),
            (None, {"lacks": "milk"}, True),
        ],
    )
    def test_every_form(self, value: Any, wanted: Any, right: bool) -> None:
        assert value_matches(value, wanted) is right

    @pytest.mark.parametrize(
        ("before", "after", "attribute", "expected"),
        [
            ({"state": "on", "brightness": 40}, {"state": "on", "brightness": 50}, "brightness", "up"),
            ({"state": "on", "brightness": 40}, {"state": "on", "brightness": 5}, "brightness", "down"),
            # a lamp that is off is dark, whatever it remembers
            ({"state": "off", "brightness": 40}, {"state": "on", "brightness": 10}, "brightness", "up"),
            ({"state": "on", "brightness": 40}, {"state": "off", "brightness": 90}, "brightness", "down"),
            ({"state": "off"}, {"state": "on"}, "brightness", "up"),
            ({"state": "off"}, {"state": "off"}, "brightness", ""),
            ({"state": "open", "position": 100}, {"state": "open", "position": 30}, "position", "down"),
            ({"state": "heat", "temperature": 20}, {"state": "heat", "temperature": 21}, "temperature", "up"),
            ({"state": "off", "temperature": 20}, {"state": "heat", "temperature": 20}, "temperature", "up"),
            ({"state": "playing", "volume": 20}, {"state": "off", "volume": 20}, "volume", "down"),
            ({"state": "off"}, {"state": "cool"}, "state", "up"),
        ],
    )  # fmt: skip
    def test_directions(
        self, before: dict[str, Any], after: dict[str, Any], attribute: str, expected: str
    ) -> None:
        assert direction(before, after, attribute) == expected

    def test_up_and_down_against_before(self) -> None:
        brighter = happened(light__b={"brightness": 70})
        assert fits(Expected({"light.b": {"brightness": "up"}}), brighter)
        assert not fits(Expected({"light.b": {"brightness": "down"}}), brighter)


class TestGroups:
    GROUP = Expected(group=Group("light", frozenset({"light.a", "light.b"}), "brightness", "up"))

    def test_one_of_the_group_is_enough(self) -> None:
        assert fits(self.GROUP, happened(light__a={"state": "on"}))
        assert fits(self.GROUP, happened(light__b={"brightness": 61}))

    def test_nothing_outside_and_nothing_the_other_way(self) -> None:
        up = {"state": "on"}
        assert not fits(self.GROUP, happened(light__a=up, cover__c={"position": 10}))
        assert not fits(self.GROUP, happened(light__a=up, light__b={"state": "off"}))
        assert not fits(self.GROUP, happened(light__b={"brightness": 10}))
        assert not fits(self.GROUP, happened())


class TestTimers:
    FIVE = Expected(timers=({"seconds": 300, "name": "egg"},))

    def test_exactly_one_timer_with_these_attributes(self) -> None:
        assert fits(self.FIVE, happened(("started", timer(300, "Egg"))))
        assert fits(self.FIVE, happened(("changed", timer(300, "egg"))))
        assert not fits(self.FIVE, happened(("started", timer(300))))
        assert not fits(self.FIVE, happened(("started", timer(301, "egg"))))
        two = (("started", timer(300, "egg")), ("started", timer(60)))
        assert not fits(self.FIVE, happened(*two))
        assert not fits(self.FIVE, happened())

    def test_no_timer_where_none_is_named(self) -> None:
        started = happened(("started", timer(300)))
        assert expectation_fault(Expected(), started).startswith("1 timers")
        assert fits(Expected(), started, "timer")

    def test_several_timers_in_any_order(self) -> None:
        wanted = Expected(timers=({"seconds": 60}, {"seconds": 300}))
        assert fits(wanted, happened(("started", timer(300)), ("started", timer(60))))
        assert not fits(wanted, happened(("started", timer(300)), ("started", timer(300))))

    def test_states_of_timers(self) -> None:
        def wanted(state: str) -> Expected:
            return Expected(timers=({"state": state},))

        assert fits(wanted("cancelled"), happened(("cancelled", timer(10))))
        assert fits(wanted("paused"), happened(("changed", timer(10, paused=True))))
        assert fits(wanted("running"), happened(("started", timer(10))))
        assert not fits(wanted("paused"), happened(("started", timer(10))))
