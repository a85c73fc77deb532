"""What holds for every action: one of three results, real targets only, and a refusal changes nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tumen.assistant import Question, Refusal, Resolved, act, resolve, undo
from tumen.assistant.replies import reply
from tumen.home.home import Home
from tumen.language.action import CLOSED, INTENTS, LANGUAGES, Action

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOME = Home.load(clock=lambda: NOON)
NAMES = sorted({name.lower() for entity in HOME.file.entity for name in entity.names})
PLACES = sorted(
    {name.lower() for place in (*HOME.file.area, *HOME.file.floor) for name in place.names}
)
SAID = "lights|lamp|灯|licht|blinds|the door|all|alle|所有的灯|it|here|hier|tv|max|half|eighty|百分之八十|21.5|-4|red|rot"
WORDS = st.sampled_from(
    [*NAMES, *PLACES, *SAID.split("|"), "5", "1e9", "home", "kitchen and hallway", "的", "", "'"]
)
TEXT = st.one_of(WORDS, st.tuples(WORDS, WORDS).map(" ".join), st.text(max_size=12))


@st.composite
def actions(draw: st.DrawFn) -> Action:
    intent = draw(st.sampled_from(sorted(INTENTS)))
    slots = {}
    for slot in draw(st.sets(st.sampled_from(INTENTS[intent]))) if INTENTS[intent] else ():
        slots[slot] = draw(st.sampled_from(CLOSED[slot])) if slot in CLOSED else draw(TEXT)
    return Action(intent, draw(st.sampled_from(LANGUAGES)), slots)


def targets(verdict: Resolved | Question | Refusal) -> set[str]:
    if isinstance(verdict, Question):
        return {target for option in verdict.options for target in option.targets}
    return set(verdict.targets) if isinstance(verdict, Resolved) else set()


MANY = settings(max_examples=400, derandomize=True, suppress_health_check=list(HealthCheck))


@MANY
@given(actions(), st.sampled_from([None, "kitchen", "office"]))
def test_resolve_is_total_and_invents_nothing(action: Action, here: str | None) -> None:
    before = HOME.snapshot()
    verdict = resolve(action, HOME, here=here, last=("light.desk_lamp",))
    assert isinstance(verdict, (Resolved, Question, Refusal))
    assert targets(verdict) <= HOME.entities.keys()
    assert verdict.key() == resolve(action, HOME, here=here, last=("light.desk_lamp",)).key()
    assert HOME.snapshot() == before
    hash(verdict.key())


@MANY
@given(st.lists(actions(), min_size=1, max_size=3))
@example(
    [
        Action("HassListAddItem", "en", {"name": "all", "item": "milk"}),
        Action("HassListRemoveItem", "de", {"name": "alle", "item": "milk"}),
    ]
)
@example([Action("HassListAddItem", "en", {"name": "all"})])
def test_acts_are_whole_said_and_undone(several: list[Action]) -> None:
    home = Home.load(clock=lambda: NOON)
    for action in several:
        verdict = resolve(action, home)
        before = home.snapshot()
        if not isinstance(verdict, Resolved):
            assert reply(verdict, home)
            assert home.snapshot() == before
            continue
        outcome = act(verdict, home)
        assert reply(outcome, home)
        if outcome.refusal or not outcome.changed:
            assert home.snapshot() == before
        else:
            assert home.snapshot() != before
            after = home.snapshot()
            undo(outcome, home)
            assert home.snapshot() == before
            act(verdict, home)
            assert home.snapshot().keys() == after.keys()
        assert Home.of(home.snapshot()).snapshot() == home.snapshot()


def test_an_intent_nobody_knows_is_refused() -> None:
    assert isinstance(
        resolve(Action("HassMakeCoffee", "en", {"name": "coffee machine"}), HOME), Refusal
    )


@st.composite
def homes(draw: st.DrawFn) -> dict[str, Any]:
    rooms = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    kinds = ("light", "cover", "lock", "fan", "climate", "media_player", "switch")
    areas = [{"id": f"a{n}", "name": room} for n, room in enumerate(rooms)]
    names = st.one_of(WORDS.filter(bool), st.text(min_size=1, max_size=8))
    things = [
        {
            "id": f"{draw(st.sampled_from(kinds))}.e{n}",
            "name": draw(names),
            "area": draw(st.sampled_from(areas))["id"],
        }
        for n in range(draw(st.integers(0, 6)))
    ]
    return {"area": areas, "entity": things}


@MANY
@given(homes(), actions())
def test_any_home_will_do(tree: dict[str, Any], action: Action) -> None:
    home = Home.of(tree)
    verdict = resolve(action, home)
    assert targets(verdict) <= home.entities.keys()
    assert reply(act(verdict, home) if isinstance(verdict, Resolved) else verdict, home)


ROOMS = [
    f"{which} {room}"
    for which in ("upper", "lower", "guest", "old")
    for room in ("bedroom", "hall", "study", "bathroom", "pantry")
]
KINDS = (
    *(
        ("light", "lamp"),
        ("light", "ceiling light"),
        ("light", "wall light"),
        ("cover", "blind"),
        ("fan", "fan"),
    ),
    *(("switch", "kettle"), ("media_player", "speaker"), ("climate", "heater"), ("lock", "lock")),
    ("light", "mirror light"),
)


@pytest.fixture(scope="module")
def large() -> Home:
    """A home of 200 entities and its list, each named by its room."""
    areas = [{"id": f"a{n}", "name": room, "aliases": [f"{n}号房"]} for n, room in enumerate(ROOMS)]
    things = [
        {"id": f"{domain}.e{n}_{k}", "name": f"{room} {word}", "area": f"a{n}"}
        for n, room in enumerate(ROOMS)
        for k, (domain, word) in enumerate(KINDS)
    ]
    return Home.of({"area": areas, "entity": things})


def test_every_one_of_200_is_found_by_its_name_and_by_its_room(large: Home) -> None:
    assert len(large.entities) == 201
    for entity in large.file.entity[:200]:
        room = large.areas[entity.area or ""].name
        word = entity.name.removeprefix(room).strip()
        for slots in (
            {"name": entity.name},
            {"name": f"the {word}", "area": room},
            {"name": f"{word} in the {room}"},
        ):
            verdict = resolve(Action("HassTurnOn", "en", slots), large)
            assert targets(verdict) == {entity.id}, slots


def test_the_lights_of_every_room(large: Home) -> None:
    for n, area in enumerate(large.file.area):
        lights = {f"light.e{n}_{k}" for k in (0, 1, 2, 9)}
        for slots in (
            {"domain": "light", "area": area.name},
            {"name": f"{area.name} lights"},
            {"name": f"lights in the {area.name}"},
        ):
            assert targets(resolve(Action("HassTurnOff", "en", slots), large)) == lights, slots
