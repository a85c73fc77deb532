"""The policies are total and keep private sentences in; the router outlives its cloud."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.errors import InputError, RecipeError, RunnerError
from tumen.recipe.recipe import Serve
from tumen.serve import POLICIES, Router, device_first, load_policy

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SERVE = Serve(unsure=0.5)


@pytest.mark.parametrize("name", POLICIES)
@given(confidence=FLOATS, unsure=st.floats(0, 1), private=st.booleans(), alive=st.booleans())
def test_a_policy_is_total_and_keeps_private_sentences_in(
    name: str, confidence: float, unsure: float, private: bool, alive: bool
) -> None:
    route = load_policy(name)(confidence, unsure, private, alive)
    assert route == load_policy(name)(confidence, unsure, private, alive)
    assert route.where in ("device", "cloud")
    assert route.why
    assert route.why.isprintable()
    if private or not alive:
        assert route.where == "device"


@given(confidence=FLOATS, unsure=st.floats(0, 1))
def test_device_first_asks_the_cloud_exactly_when_unsure(confidence: float, unsure: float) -> None:
    sure = not math.isnan(confidence) and confidence >= unsure
    assert device_first(confidence, unsure, False, True).where == ("device" if sure else "cloud")


def test_a_policy_may_come_from_another_package() -> None:
    assert load_policy("tumen.serve.router:device_first") is device_first
    for name in ("nearest", "tumen.serve.router:nothing", "no_such_pkg:thing", ":"):
        with pytest.raises(RecipeError, match="is no policy; known: device-first"):
            load_policy(name)


@pytest.mark.parametrize(
    ("confidence", "private", "tier", "asked"),
    [
        (0.9, False, "device", 0),
        (0.1, False, "cloud", 1),
        (0.1, True, "device", 0),
        (math.nan, False, "cloud", 1),
    ],
)
def test_where_a_sentence_is_answered(
    fake: Any, confidence: float, private: bool, tier: str, asked: int
) -> None:
    device, cloud = fake(confidence=confidence), fake()
    answer = asyncio.run(Router(device, cloud, SERVE).act("lamp on", private))
    assert answer.tier == tier
    assert len(device.heard) == 1
    assert len(cloud.heard) == asked
    assert set(answer.seconds) == ({"device", "cloud"} if asked else {"device"})


@given(
    confidence=st.floats(0, 1),
    fault=st.booleans(),
    forced=st.sampled_from([None, "device", "cloud"]),
)
def test_the_cloud_never_hears_a_private_sentence(
    fake: Any, confidence: float, fault: bool, forced: Any
) -> None:
    device = fake(confidence=confidence, fault=RunnerError("dead") if fault else None)
    cloud = fake()
    router = Router(device, cloud, SERVE, policy=load_policy("cloud-always"))
    with contextlib.suppress(RunnerError, InputError):
        asyncio.run(router.act("my secret", private=True, tier=forced))
    assert cloud.heard == []


def test_a_careless_policy_cannot_send_a_private_sentence_out(fake: Any) -> None:
    cloud = fake()
    policy = lambda *facts: load_policy("cloud-always")(0.0, 0.5, False, True)  # noqa: E731
    assert (
        asyncio.run(Router(fake(), cloud, SERVE, policy=policy).act("secret", private=True)).tier
        == "device"
    )
    assert cloud.heard == []


@pytest.mark.parametrize("fault", [RunnerError("no answer"), InputError("does not fit")])
def test_a_dead_cloud_costs_only_its_answer_and_is_left_alone_for_a_while(
    fake: Any, fault: Exception
) -> None:
    now = [100.0]
    cloud = fake(fault=fault)
    router = Router(fake(confidence=0.1), cloud, SERVE, rest_seconds=5.0, clock=lambda: now[0])

    def ask() -> Any:
        return asyncio.run(router.act("lamp on"))

    first = ask()
    assert first.tier == "device"
    assert str(fault) in first.why
    assert "no cloud tier answers" in ask().why
    assert len(cloud.heard) == 1  # it rested
    now[0] += 5.1
    cloud.fault = None
    assert ask().tier == "cloud"


def test_a_dead_device_is_stood_in_for_unless_the_sentence_is_private(fake: Any) -> None:
    router = Router(fake(fault=RunnerError("device is dead")), fake(), SERVE)
    assert asyncio.run(router.act("lamp on")).tier == "cloud"
    with pytest.raises(RunnerError, match="device is dead"):
        asyncio.run(router.act("lamp on", private=True))
    alone = Router(fake(fault=RunnerError("device is dead")), None, SERVE)
    with pytest.raises(RunnerError, match="device is dead"):
        asyncio.run(alone.act("lamp on"))


def test_a_tier_can_be_asked_for(fake: Any) -> None:
    router = Router(fake(confidence=0.0), fake(), SERVE)
    assert asyncio.run(router.act("lamp on", tier="device")).tier == "device"
    assert asyncio.run(router.act("lamp on", tier="cloud")).why == "asked for"
    with pytest.raises(InputError, match="there is no cloud tier"):
        asyncio.run(Router(fake(), None, SERVE).act("lamp on", tier="cloud"))


def test_closing_closes_both(fake: Any) -> None:
    device, cloud = fake(), fake()
    asyncio.run(Router(device, cloud, SERVE).close())
    assert device.closed
    assert cloud.closed
