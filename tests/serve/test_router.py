"""Policies are total and keep private sentences on the device; the router survives a cloud that fails."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.errors import InputError, RecipeError, RunnerError
from tumen.recipe import Serve
from tumen.serve import POLICIES, Router, device_first, load_policy
from tumen.serve.router import Route, RoutedAnswer, Tier, cloud_always, device_only

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SERVE = Serve(unsure=0.5)


def ask(router: Router, private: bool = False, tier: Tier | None = None) -> RoutedAnswer:
    return asyncio.run(router.act("lamp on", private, tier))


class TestPolicies:
    @pytest.mark.parametrize("name", POLICIES)
    @given(confidence=FLOATS, unsure=st.floats(0, 1), private=st.booleans(), alive=st.booleans())
    def test_a_policy_is_total_pure_and_keeps_private_sentences_on_the_device(
        self, name: str, confidence: float, unsure: float, private: bool, alive: bool
    ) -> None:
        policy = load_policy(name)
        route = policy(confidence, unsure, private, alive)
        assert route == policy(confidence, unsure, private, alive)
        assert route.tier in ("device", "cloud")
        assert route.reason
        assert route.reason.isprintable()
        if private or not alive:
            assert route.tier == "device"

    @given(confidence=FLOATS, unsure=st.floats(0, 1))
    def test_device_first_uses_the_cloud_exactly_when_unsure(
        self, confidence: float, unsure: float
    ) -> None:
        sure = not math.isnan(confidence) and confidence >= unsure
        route = device_first(confidence, unsure, private=False, cloud_alive=True)
        assert route.tier == ("device" if sure else "cloud")

    def test_a_confidence_equal_to_the_threshold_is_sure(self) -> None:
        assert device_first(0.5, 0.5, private=False, cloud_alive=True).tier == "device"

    def test_device_first_says_why(self) -> None:
        def reason(confidence: float, private: bool, alive: bool) -> str:
            return device_first(confidence, 0.5, private, alive).reason

        assert reason(0.9, False, True) == "sure, 0.90 is at least 0.50"
        assert reason(0.1, False, True) == "unsure, 0.10 is below 0.50"
        assert reason(0.1, False, False) == "unsure, 0.10 is below 0.50, but no cloud tier answers"
        assert reason(0.9, True, True) == "private"

    @given(confidence=FLOATS, unsure=st.floats(0, 1), private=st.booleans(), alive=st.booleans())
    def test_device_only_never_uses_the_cloud(
        self, confidence: float, unsure: float, private: bool, alive: bool
    ) -> None:
        assert device_only(confidence, unsure, private, alive).tier == "device"

    @given(confidence=FLOATS, unsure=st.floats(0, 1), private=st.booleans(), alive=st.booleans())
    def test_cloud_always_uses_the_cloud_whenever_it_may(
        self, confidence: float, unsure: float, private: bool, alive: bool
    ) -> None:
        allowed = alive and not private
        route = cloud_always(confidence, unsure, private, alive)
        assert route.tier == ("cloud" if allowed else "device")

    def test_a_policy_may_come_from_another_package(self) -> None:
        assert load_policy("tumen.serve.router:device_first") is device_first

    @pytest.mark.parametrize(
        "name", ["nearest", "tumen.serve.router:nothing", "no_such_pkg:thing", ":"]
    )
    def test_an_unknown_policy_is_an_error_that_lists_the_known_ones(self, name: str) -> None:
        with pytest.raises(RecipeError, match="is not a policy; use one of device-first"):
            load_policy(name)


class TestRouting:
    @pytest.mark.parametrize(
        ("confidence", "private", "tier", "cloud_requests"),
        [
            (0.9, False, "device", 0),
            (0.1, False, "cloud", 1),
            (0.1, True, "device", 0),
            (math.nan, False, "cloud", 1),
        ],
    )
    def test_the_policy_decides_which_answer_is_used(
        self, fake: Any, confidence: float, private: bool, tier: str, cloud_requests: int
    ) -> None:
        device, cloud = fake(confidence=confidence), fake()
        answer = ask(Router(device, cloud, SERVE), private)
        assert answer.tier == tier
        assert len(device.sentences) == 1
        assert len(cloud.sentences) == cloud_requests
        assert set(answer.seconds) == ({"device", "cloud"} if cloud_requests else {"device"})

    def test_the_reason_is_the_policys(self, fake: Any) -> None:
        def policy(*_: object) -> Route:
            return Route("cloud", "because")

        assert ask(Router(fake(), fake(), SERVE, policy)).reason == "because"
        assert ask(Router(fake(), None, SERVE, policy)).reason == "because"

    def test_the_time_of_each_tier_is_measured(self, fake: Any) -> None:
        now = [100.0]

        def taking(seconds: float, error: Exception | None = None) -> Any:
            class Timed(fake):  # type: ignore[misc]
                async def act(self, sentence: str) -> Any:
                    now[0] += seconds
                    return await super().act(sentence)

            return Timed(confidence=0.1, error=error)

        def seconds(cloud_error: Exception | None) -> Any:
            router = Router(taking(2), taking(7, cloud_error), SERVE, clock=lambda: now[0])
            return ask(router).seconds

        assert seconds(None) == {"device": 2.0, "cloud": 7.0}
        assert seconds(RunnerError("failed")) == {"device": 2.0, "cloud": 7.0}

    def test_names_of_the_home_are_for_a_runner_on_this_device_alone(
        self, fake: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Knows(fake):  # type: ignore[misc]
            async def act(self, sentence: str, names: Any = ()) -> Any:
                self.names = names
                return await super().act(sentence)

        device, cloud = Knows(confidence=0.1), Knows()
        names = [(1, 2, ("name",))]

        def act() -> None:
            asyncio.run(Router(device, cloud, SERVE).act("the lamp", names=names))

        act()
        assert device.names == (), "a runner elsewhere"
        monkeypatch.setattr("tumen.serve.router.DeviceRunner", Knows)
        act()
        assert device.names == names
        assert cloud.names == ()

    def test_the_tiers_are_those_that_have_a_runner(self, fake: Any) -> None:
        assert Router(fake(), fake(), SERVE).tiers == ("device", "cloud")
        assert Router(fake(), None, SERVE).tiers == ("device",)

    def test_a_client_can_request_a_tier(self, fake: Any) -> None:
        device, cloud = fake(confidence=0.0), fake()
        router = Router(device, cloud, SERVE)
        answer = ask(router, tier="device")
        assert (answer.tier, answer.reason, answer.seconds) == (
            "device",
            "requested",
            {"device": 0.25},
        )
        assert cloud.sentences == []
        answer = ask(router, tier="cloud")
        assert (answer.tier, answer.reason) == ("cloud", "requested")
        assert len(device.sentences) == 1

    def test_requesting_a_tier_that_is_missing_is_an_input_error(self, fake: Any) -> None:
        with pytest.raises(InputError, match="there is no cloud tier"):
            ask(Router(fake(), None, SERVE), tier="cloud")

    def test_closing_closes_both_runners(self, fake: Any) -> None:
        device, cloud = fake(), fake()
        asyncio.run(Router(device, cloud, SERVE).close())
        assert device.closed
        assert cloud.closed
        alone = fake()
        asyncio.run(Router(alone, None, SERVE).close())
        assert alone.closed


class TestPrivacy:
    @given(
        confidence=st.floats(0, 1),
        device_fails=st.booleans(),
        requested=st.sampled_from([None, "device", "cloud"]),
    )
    def test_the_cloud_never_gets_a_private_sentence(
        self, fake: Any, confidence: float, device_fails: bool, requested: Any
    ) -> None:
        error = RunnerError("dead") if device_fails else None
        cloud = fake()
        policy = load_policy("cloud-always")
        router = Router(fake(confidence=confidence, error=error), cloud, SERVE, policy)
        with contextlib.suppress(RunnerError, InputError):
            asyncio.run(router.act("my secret", private=True, tier=requested))
        assert cloud.sentences == []

    def test_a_careless_policy_cannot_send_a_private_sentence_out(self, fake: Any) -> None:
        def careless(*_: object) -> Route:
            return Route("cloud", "always")

        cloud = fake()
        assert ask(Router(fake(), cloud, SERVE, careless), private=True).tier == "device"
        assert cloud.sentences == []

    def test_a_private_sentence_cannot_be_sent_to_the_cloud_on_request(self, fake: Any) -> None:
        router = Router(fake(), fake(), SERVE)
        with pytest.raises(InputError, match="a private sentence stays on the device"):
            router.runner("cloud", private=True)
        assert router.runner("device", private=True) is router.device


class TestFailures:
    @pytest.mark.parametrize("error", [RunnerError("no answer"), InputError("does not fit")])
    def test_a_cloud_that_fails_costs_its_answer_and_is_then_paused(
        self, fake: Any, error: Exception
    ) -> None:
        now = [100.0]
        cloud = fake(error=error)
        router = Router(fake(confidence=0.1), cloud, SERVE, pause_seconds=3.0, clock=lambda: now[0])
        first = ask(router)
        assert first.tier == "device"
        assert f"but the cloud tier failed: {error}" in first.reason
        now[0] += 2.9
        assert "no cloud tier answers" in ask(router).reason
        assert len(cloud.sentences) == 1, "the cloud was asked during its pause"
        now[0] += 0.1
        cloud.error = None
        assert ask(router).tier == "cloud"

    def test_the_cloud_replaces_a_device_that_fails(self, fake: Any) -> None:
        answer = ask(Router(fake(error=RunnerError("device is dead")), fake(), SERVE))
        assert (answer.tier, answer.reason) == ("cloud", "the device runner failed")

    @pytest.mark.parametrize("private", [True, False])
    def test_without_a_cloud_that_may_answer_the_devices_error_is_raised(
        self, fake: Any, private: bool
    ) -> None:
        cloud = fake() if private else None
        with pytest.raises(RunnerError, match="device is dead"):
            ask(Router(fake(error=RunnerError("device is dead")), cloud, SERVE), private)

    def test_when_both_fail_the_devices_error_is_raised(self, fake: Any) -> None:
        device = fake(error=RunnerError("device is dead"))
        with pytest.raises(RunnerError, match="device is dead"):
            ask(Router(device, fake(error=RunnerError("cloud is dead")), SERVE))

    def test_a_sentence_the_device_rejects_is_not_sent_to_the_cloud(self, fake: Any) -> None:
        cloud = fake()
        with pytest.raises(InputError, match="too long"):
            ask(Router(fake(error=InputError("too long")), cloud, SERVE))
        assert cloud.sentences == []
