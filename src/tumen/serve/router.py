"""Which tier answers: a policy decides, the router carries it out.

The device always runs first, so nothing changes offline, and because the confidence of a model that
has run predicts far better than the text alone whether its answer is right (docs/decisions).

A policy is a pure function of four facts. It is total: any float is a confidence, and NaN counts as
unsure. The router itself makes sure that a private sentence never leaves the device and that a
cloud that fails costs no more than its own answer.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from tumen.core.errors import InputError, RecipeError, RunnerError, TumenError
from tumen.recipe import Serve
from tumen.serve.runners.device_runner import DeviceRunner
from tumen.serve.runners.runner import Completion, KnownName, Runner

Tier = Literal["device", "cloud"]
CLOUD_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Route:
    """The tier whose answer is used, and the reason in a few plain words."""

    tier: Tier
    reason: str


# (confidence of the device, threshold `serve.unsure`, private, cloud available) -> Route
Policy = Callable[[float, float, bool, bool], Route]


def device_first(confidence: float, unsure: float, private: bool, cloud_alive: bool) -> Route:
    """Use the cloud when the device is less confident than `unsure` and the cloud may be used.

    Args:
        confidence: of the device's answer, 0 to 1.
        unsure: the recipe's threshold, 0 to 1.
        private: whether the sentence must stay on the device.
        cloud_alive: whether there is a cloud tier that has not just failed.
    """
    if private:
        return Route("device", "private")
    if confidence >= unsure:  # false for NaN
        return Route("device", f"sure, {confidence:.2f} is at least {unsure:.2f}")
    doubt = f"unsure, {confidence:.2f} is below {unsure:.2f}"
    if cloud_alive:
        return Route("cloud", doubt)
    return Route("device", f"{doubt}, but no cloud tier answers")


def device_only(confidence: float, unsure: float, private: bool, cloud_alive: bool) -> Route:
    """Never use the cloud; see `device_first` for the arguments."""
    if private:
        return Route("device", "private")
    return Route("device", "the policy keeps everything on the device")


def cloud_always(confidence: float, unsure: float, private: bool, cloud_alive: bool) -> Route:
    """Use the cloud whenever it may be used: a baseline; see `device_first` for the arguments."""
    if private:
        return Route("device", "private")
    if cloud_alive:
        return Route("cloud", "the policy always asks the cloud")
    return Route("device", "no cloud tier answers")


POLICIES = {
    "device-first": "tumen.serve.router:device_first",
    "device-only": "tumen.serve.router:device_only",
    "cloud-always": "tumen.serve.router:cloud_always",
}


def load_policy(name: str) -> Policy:
    """Return a policy by its name in `POLICIES`, or as `my_pkg.mod:function`.

    Raises:
        RecipeError: there is no such policy.
    """
    module_name, _, function = POLICIES.get(name, name).partition(":")
    try:
        module = importlib.import_module(module_name)
        return cast(Policy, getattr(module, function))
    except (ImportError, AttributeError, ValueError):
        known = ", ".join(POLICIES)
        fault = f"{name!r} is not a policy; use one of {known}, or package.module:function"
        raise RecipeError("policy", [fault]) from None


@dataclass(frozen=True)
class RoutedAnswer:
    """The answer to a sentence.

    Attributes:
        completion: of the runner that answered.
        tier: where it was answered.
        reason: why there, in a few plain words.
        seconds: time of each tier that was asked, also of one that failed.
    """

    completion: Completion
    tier: Tier
    reason: str
    seconds: Mapping[str, float]


class Router:
    """Two runners and a policy.

    Args:
        device: answers every sentence first.
        cloud: answers what the policy sends on; may be absent.
        serve: the recipe's section; `unsure` is read.
        policy: see `POLICIES`.
        pause_seconds: how long a cloud that failed is not used, so that an outage does not delay
            every sentence.
        clock: monotonic seconds; tests pass their own.
    """

    def __init__(
        self,
        device: Runner,
        cloud: Runner | None,
        serve: Serve,
        policy: Policy = device_first,
        pause_seconds: float = CLOUD_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self.cloud = cloud
        self._serve = serve
        self._policy = policy
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._paused_until = -float("inf")

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers this router has."""
        if self.cloud:
            return ("device", "cloud")
        return ("device",)

    @property
    def cloud_alive(self) -> bool:
        """Whether there is a cloud tier that has not failed within the pause."""
        return self.cloud is not None and self._clock() >= self._paused_until

    def runner(self, tier: Tier, private: bool = False) -> Runner:
        """Return the runner of the tier that a client requested.

        Raises:
            InputError: there is no such tier, or the sentence is private and the tier is not the
                device.
        """
        if tier == "device":
            return self.device
        if private:
            raise InputError(
                "a private sentence stays on the device; "
                "request the tier 'device' or leave the choice to the router"
            )
        if self.cloud is None:
            raise InputError("there is no cloud tier here; request the tier 'device'")
        return self.cloud

    async def act(
        self,
        sentence: str,
        private: bool = False,
        tier: Tier | None = None,
        names: Sequence[KnownName] = (),
    ) -> RoutedAnswer:
        """Answer a sentence.

        Args:
            sentence: what the user said.
            private: whether it must stay on the device.
            tier: the tier that must answer; by default the policy chooses.
            names: what in it names a thing or a place of the home, for the device's runner alone;
                they never leave it.

        Raises:
            InputError: the sentence cannot be used: empty, too long, or the tier is not available.
            RunnerError: no tier that may answer does.
        """
        if tier is None:
            return await self._act_by_policy(sentence, private, names)
        completion = await self.runner(tier, private).act(sentence)
        return RoutedAnswer(completion, tier, "requested", {tier: completion.seconds.total})

    async def _act_by_policy(
        self, sentence: str, private: bool, names: Sequence[KnownName]
    ) -> RoutedAnswer:
        """Ask the device, and the cloud where the policy says so.

        Raises:
            InputError: the device rejects the sentence.
            RunnerError: neither answers.
        """
        start = self._clock()
        device, device_error = await _try(self._device_act(sentence, names), RunnerError)
        seconds = {"device": self._clock() - start}
        confidence = device.confidence if device else 0.0
        route = self._policy(confidence, self._serve.unsure, private, self.cloud_alive)
        reason = route.reason
        # Checked here as well: a policy of another package must not send a private sentence out.
        if route.tier == "cloud" and self.cloud and not private:
            cloud, cloud_error = await self._ask_cloud(self.cloud, sentence, seconds)
            if cloud and device:
                return RoutedAnswer(cloud, "cloud", reason, seconds)
            if cloud:
                return RoutedAnswer(cloud, "cloud", "the device runner failed", seconds)
            reason = f"{reason}, but the cloud tier failed: {cloud_error}"
        if device is None:
            raise device_error or RunnerError("the device runner did not answer")
        return RoutedAnswer(device, "device", reason, seconds)

    async def _ask_cloud(
        self, cloud: Runner, sentence: str, seconds: dict[str, float]
    ) -> tuple[Completion | None, TumenError | None]:
        """Return the cloud's completion, or why it failed; then it is not asked for a while.

        Args:
            cloud: the runner.
            sentence: that is sent to it.
            seconds: gets the time that it took.
        """
        start = self._clock()
        completion, error = await _try(cloud.act(sentence), RunnerError, InputError)
        seconds["cloud"] = self._clock() - start
        if completion is None:
            # The next sentences do not wait for a cloud that is down.
            self._paused_until = self._clock() + self._pause_seconds
        return completion, error

    def _device_act(self, sentence: str, names: Sequence[KnownName]) -> Awaitable[Completion]:
        """Ask the device's runner; only one with a child of its own takes names."""
        if names and isinstance(self.device, DeviceRunner):
            return self.device.act(sentence, names=names)
        return self.device.act(sentence)

    async def close(self) -> None:
        """Close both runners."""
        await self.device.close()
        if self.cloud:
            await self.cloud.close()


async def _try(
    answer: Awaitable[Completion], *expected: type[TumenError]
) -> tuple[Completion | None, TumenError | None]:
    """Return a runner's completion, or the expected error that it raised."""
    try:
        completion = await answer
    except expected as error:
        return None, error
    return completion, None
