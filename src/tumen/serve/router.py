"""Which tier answers: a policy decides, the router does. The device always goes first, so offline nothing changes.

A policy is a pure function of four facts. It is total (any float is a confidence, NaN counts as unsure), a private
sentence never leaves the device, and a dead cloud costs nothing but its answer. Why the device first: the confidence
of a model that has run tells far more than the text alone (docs/decisions).
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from tumen.core.errors import InputError, RecipeError, RunnerError, TumenError
from tumen.recipe import Serve
from tumen.serve.runners.runner import Completion, Runner

Tier = Literal["device", "cloud"]
REST_SECONDS = 5.0


@dataclass(frozen=True)
class Route:
    """Where a sentence is answered, and why, in a few plain words."""

    where: Tier
    why: str


Policy = Callable[[float, float, bool, bool], Route]


def device_first(confidence: float, unsure: float, private: bool, cloud_alive: bool) -> Route:
    """The cloud is asked when the device is less sure than `unsure`, may be asked, and is there."""
    if private:
        return Route("device", "private")
    if confidence >= unsure:
        return Route("device", f"sure, {confidence:.2f} is at least {unsure:.2f}")
    doubt = f"{confidence:.2f} is below {unsure:.2f}"
    return (
        Route("cloud", f"unsure, {doubt}")
        if cloud_alive
        else Route("device", f"unsure, {doubt}, but no cloud tier answers")
    )


def device_only(confidence: float, unsure: float, private: bool, cloud_alive: bool) -> Route:
    """Never the cloud."""
    return Route("device", "private" if private else "the policy keeps all on the device")


def cloud_always(confidence: float, unsure: float, private: bool, cloud_alive: bool) -> Route:
    """The cloud whenever it may be asked: the row to compare with."""
    if private:
        return Route("device", "private")
    return (
        Route("cloud", "the policy asks the cloud")
        if cloud_alive
        else Route("device", "no cloud tier answers")
    )


POLICIES = {
    "device-first": "tumen.serve.router:device_first",
    "device-only": "tumen.serve.router:device_only",
    "cloud-always": "tumen.serve.router:cloud_always",
}


def load_policy(name: str) -> Policy:
    """A policy by its name in `POLICIES`, or as `my_pkg.mod:function`.

    Raises:
        RecipeError: there is none.
    """
    module, _, function = POLICIES.get(name, name).partition(":")
    try:
        return cast(Policy, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError):
        raise RecipeError(
            "policy", [f"{name!r} is no policy; known: {', '.join(POLICIES)}"]
        ) from None


@dataclass(frozen=True)
class RoutedAnswer:
    """A completion, the tier it came from and why. `seconds` has each tier that was asked, those that failed too."""

    completion: Completion
    tier: Tier
    why: str
    seconds: Mapping[str, float]


class Router:
    """Two runners and a policy.

    Args:
        device, cloud: runners; `cloud` may be absent.
        serve: the recipe's section; `unsure` is read.
        rest_seconds: how long a cloud that failed is left alone, so that an outage is not waited for at each sentence.
    """

    def __init__(
        self,
        device: Runner,
        cloud: Runner | None,
        serve: Serve,
        policy: Policy = device_first,
        rest_seconds: float = REST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device, self.cloud, self._serve, self._policy = device, cloud, serve, policy
        self._rest, self._clock, self._rests_until = rest_seconds, clock, -float("inf")

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers there are."""
        return ("device", "cloud") if self.cloud else ("device",)

    @property
    def cloud_alive(self) -> bool:
        """Whether there is a cloud that has not failed just now."""
        return self.cloud is not None and self._clock() >= self._rests_until

    def runner(self, tier: Tier, private: bool = False) -> Runner:
        """The runner of a tier a client asked for by name.

        Raises:
            InputError: there is no such tier, or the sentence is private and the tier is not the device.
        """
        if tier == "device":
            return self.device
        if private:
            raise InputError(
                "a private sentence stays on the device; ask the tier 'device' or leave the choice to the router"
            )
        if self.cloud is None:
            raise InputError("there is no cloud tier here; ask the tier 'device'")
        return self.cloud

    async def act(
        self, sentence: str, private: bool = False, tier: Tier | None = None
    ) -> RoutedAnswer:
        """RoutedAnswer a sentence, by policy or from the `tier` asked for.

        Raises:
            InputError: the sentence cannot be taken.
            RunnerError: no tier that may answer does.
        """
        if tier:
            completion = await self.runner(tier, private).act(sentence)
            return RoutedAnswer(completion, tier, "asked for", {tier: completion.seconds.total})
        start = self._clock()
        device, fault = await _attempt(self.device, sentence, RunnerError)
        seconds = {"device": self._clock() - start}
        route = self._policy(
            device.confidence if device else 0.0, self._serve.unsure, private, self.cloud_alive
        )
        why = route.why
        if route.where == "cloud" and self.cloud and not private:
            start = self._clock()
            cloud, trouble = await _attempt(self.cloud, sentence, RunnerError, InputError)
            seconds["cloud"] = self._clock() - start
            if cloud:
                return RoutedAnswer(
                    cloud, "cloud", why if device else "the device runner failed", seconds
                )
            self._rests_until = self._clock() + self._rest
            why = f"{why}, but the cloud tier failed: {trouble}"
        if device is None:
            raise fault or RunnerError("the device runner did not answer")
        return RoutedAnswer(device, "device", why, seconds)

    async def close(self) -> None:
        """Close both runners."""
        await self.device.close()
        if self.cloud:
            await self.cloud.close()


async def _attempt(
    runner: Runner, sentence: str, *faults: type[TumenError]
) -> tuple[Completion | None, TumenError | None]:
    """A runner's completion, or why there is none."""
    try:
        return await runner.act(sentence), None
    except faults as error:
        return None, error
