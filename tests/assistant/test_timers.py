"""Timers: which one is meant, and what happens to it."""

from __future__ import annotations

import pytest
from tests.assistant.speech import answer, do, meant, question, refusal, resolved
from tests.homes import Clock, home_of, thing

from tumen.assistant import undo
from tumen.home.home import Home


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(clock: Clock) -> Home:
    """A pasta timer and a tea timer in the kitchen, and one without a name in the den."""
    things = (thing("light.k", "Lamp", "kitchen"), thing("light.d", "Lamp", "den"))
    home = home_of(*things, clock=clock)
    start(home, "timer.pasta", 600, name="Pasta", area="kitchen")
    start(home, "timer.tea", 300, name="Tea", area="kitchen")
    start(home, "timer.plain", 300, area="den")
    return home


def start(home: Home, id_: str, seconds: float, **fields: object) -> None:
    ends = home.clock().timestamp() + seconds
    home.put(id_, {"seconds": seconds, "ends": ends, **fields})


ALL = "timer.pasta timer.plain timer.tea"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # by name, whatever its case
        ("CancelTimer name=pasta", "timer.pasta"),
        ("CancelTimer name=PASTA", "timer.pasta"),
        ("CancelTimer name=pizza", "!which_timer"),
        # by room
        ("CancelTimer area=den", "timer.plain"),
        ("CancelTimer area=kitchen", "?timer.pasta timer.tea"),
        ("CancelTimer area=kitchen and den", f"?{ALL}"),
        ("CancelTimer area=everywhere", f"?{ALL}"),
        ("CancelTimer area=attic", "!place"),
        # by the time it was started with
        ("CancelTimer start=ten minutes", "timer.pasta"),
        ("CancelTimer start=five minutes", "?timer.plain timer.tea"),
        ("CancelTimer start=six minutes", "!which_timer"),
        # by several of them
        ("CancelTimer start=five minutes area=kitchen", "timer.tea"),
        ("CancelTimer name=tea area=kitchen", "timer.tea"),
        ("CancelTimer name=tea area=den", "!which_timer"),
        ("CancelTimer name=tea start=ten minutes", "!which_timer"),
        # one is meant, unless all are
        ("CancelTimer", f"?{ALL}"),
        ("PauseTimer", f"?{ALL}"),
        ("UnpauseTimer", f"?{ALL}"),
        ("IncreaseTimer duration=one minute", f"?{ALL}"),
        ("DecreaseTimer duration=one minute", f"?{ALL}"),
        ("TimerStatus", ALL),
        ("TimerStatus area=kitchen", "timer.pasta timer.tea"),
        ("TimerStatus name=tea", "timer.tea"),
        ("CancelAllTimers", ALL),
        ("CancelAllTimers area=kitchen", "timer.pasta timer.tea"),
    ],
)
def test_which_timer_is_meant(home: Home, said: str, expected: str) -> None:
    assert meant(home, said) == expected


@pytest.mark.parametrize("intent", ["CancelTimer", "CancelAllTimers", "TimerStatus", "PauseTimer"])
def test_without_timers_there_is_none_to_change(intent: str) -> None:
    assert meant(Home.of({}), intent) == "!no_timer"


def test_a_timer_keeps_the_words_it_was_asked_for_with(home: Home) -> None:
    assert resolved(home, "CancelTimer name=tea area=kitchen").values == {
        "name": "tea",
        "area": "kitchen",
    }
    assert refusal(home, "CancelTimer name=pizza").values == {"name": "pizza"}


def test_a_timer_needs_a_length(home: Home) -> None:
    asked = question(home, "StartTimer name=eggs")
    assert asked.reason == "how_long"
    assert question(home, "StartTimer duration=zero seconds").reason == "how_long"


def test_a_timer_is_started_where_the_home_hears_it(clock: Clock) -> None:
    lamp = thing("light.k", "Lamp", "kitchen")
    home = home_of(lamp, clock=clock, here="kitchen")
    told = answer(home, "StartTimer duration=90 seconds name=eggs command=turn off lamp")
    assert told == "Started the eggs timer for 1 min 30 s."
    (timer,) = home.timers.values()
    assert timer.name == "eggs"
    assert timer.area == "kitchen"
    assert timer.command == "turn off lamp"
    assert timer.seconds == 90
    assert timer.ends == clock().timestamp() + 90


def test_timers_get_ids_of_their_own(clock: Clock) -> None:
    home = home_of(thing("timer.2", "Egg clock"), clock=clock)
    for _ in range(3):
        do(home, "StartTimer", seconds=60)
    assert list(home.timers) == ["timer.1", "timer.3", "timer.4"]
    do(home, "CancelTimer", "timer.3")
    do(home, "StartTimer", seconds=60)
    assert set(home.timers) == {"timer.1", "timer.3", "timer.4"}


@pytest.mark.parametrize(
    ("seconds", "started"), [(1, True), (604_800, True), (604_801, False), (0, False), (-5, False)]
)
def test_a_timer_runs_a_second_to_a_week(seconds: float, started: bool) -> None:
    home = Home.of({})
    outcome = do(home, "StartTimer", seconds=seconds)
    assert bool(home.timers) is started
    if not started:
        assert outcome.refusal is not None
        assert outcome.refusal.reason == "timer_range"


def test_pausing_keeps_what_is_left(home: Home, clock: Clock) -> None:
    clock.wind(100)
    assert answer(home, "PauseTimer name=tea") == "Paused the Tea timer with 3 min 20 s left."
    clock.wind(1000)
    assert answer(home, "TimerStatus name=tea") == "The Tea timer: 3 min 20 s left."
    # pausing again changes nothing
    assert do(home, "PauseTimer", "timer.tea").changed == ()
    assert answer(home, "UnpauseTimer name=tea") == "The Tea timer goes on: 3 min 20 s left."
    assert do(home, "UnpauseTimer", "timer.tea").changed == ()
    clock.wind(100)
    assert home.seconds_left(home.timers["timer.tea"]) == 100


def test_longer_and_shorter_whether_it_runs_or_not(home: Home, clock: Clock) -> None:
    clock.wind(60)
    do(home, "IncreaseTimer", "timer.tea", seconds=30)
    assert home.seconds_left(home.timers["timer.tea"]) == 270
    do(home, "DecreaseTimer", "timer.tea", seconds=70)
    assert home.seconds_left(home.timers["timer.tea"]) == 200
    do(home, "PauseTimer", "timer.tea")
    do(home, "IncreaseTimer", "timer.tea", seconds=10)
    do(home, "DecreaseTimer", "timer.tea", seconds=5)
    assert home.seconds_left(home.timers["timer.tea"]) == 205
    # the length it was started with stays, it is how people call it
    assert home.timers["timer.tea"].seconds == 300


def test_a_timer_is_not_shortened_below_nothing(home: Home) -> None:
    before = home.snapshot()
    for seconds in (300, 301):
        refused = do(home, "DecreaseTimer", "timer.tea", seconds=seconds).refusal
        assert refused is not None
        assert refused.reason == "timer_short"
        assert refused.about == {"seconds": 300}
    assert home.snapshot() == before
    assert do(home, "DecreaseTimer", "timer.tea", seconds=299).refusal is None
    missing = do(home, "IncreaseTimer", "timer.tea").refusal
    assert missing is not None
    assert missing.reason == "missing"


def test_all_or_none_of_several_timers_change(home: Home) -> None:
    before = home.snapshot()
    refused = do(home, "DecreaseTimer", "timer.pasta", "timer.tea", seconds=400).refusal
    assert refused is not None
    assert home.snapshot() == before
    gone = do(home, "CancelTimer", "timer.gone", "timer.tea").refusal
    assert gone is not None
    assert gone.reason == "no_timer"
    assert home.snapshot() == before


def test_cancelling_is_undone_with_the_time_that_is_left(home: Home, clock: Clock) -> None:
    cancelled = do(home, "CancelAllTimers", "timer.pasta", "timer.tea", "timer.plain")
    assert home.timers == {}
    clock.wind(100)
    undo(cancelled, home)
    assert home.seconds_left(home.timers["timer.tea"]) == 200
    assert home.timers["timer.pasta"].name == "Pasta"


def test_what_is_left_is_told_for_each(home: Home, clock: Clock) -> None:
    clock.wind(30)
    assert answer(home, "TimerStatus area=kitchen") == (
        "The Pasta timer: 9 min 30 s left. The Tea timer: 4 min 30 s left."
    )
    assert answer(home, "TimerStatus area=den") == "The 5 min timer: 4 min 30 s left."
    clock.wind(3600)
    assert answer(home, "TimerStatus area=den") == "The 5 min timer: 0 s left."


def test_a_timer_that_ran_out_is_gone(home: Home, clock: Clock) -> None:
    do(home, "PauseTimer", "timer.plain")
    clock.wind(299)
    assert home.finished() == []
    clock.wind(1)
    assert [timer.id for timer in home.finished()] == ["timer.tea"]
    assert home.finished() == []
    clock.wind(9999)
    assert [timer.id for timer in home.finished()] == ["timer.pasta"]
    # a paused timer never ends
    assert list(home.timers) == ["timer.plain"]
