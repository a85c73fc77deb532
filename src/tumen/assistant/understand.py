"""Understand: a router's answer to a sentence, as an action with its tier, reason and times."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tumen.home import at_home
from tumen.language import Action, parse
from tumen.serve import Router


@dataclass(frozen=True)
class Read:
    """One understood sentence; see `session.Understood`. `seconds` has each tier that was asked."""

    action: Action
    tier: str
    why: str
    confidence: float
    seconds: Mapping[str, float]


class Reader:
    """Reads sentences through a router, for code that waits. Use as a context; it closes the runners at the end.

    Args:
        router: device first, cloud when unsure (tumen.serve).
        private: whether every sentence must stay on the device.
    """

    def __init__(self, router: Router, private: bool = False) -> None:
        self.router, self.private = router, private
        self._loop = asyncio.Runner()

    def __call__(self, sentence: str) -> Read:
        """The action of a sentence.

        Raises:
            InputError: the sentence cannot be taken, or what came back is no action.
            RunnerError: no tier answers.
        """
        answer = self._loop.run(self.router.act(sentence, self.private))
        completion = answer.completion
        action = at_home(parse(completion.text, self.router.device.ontology))
        return Read(action, answer.tier, answer.why, completion.confidence, answer.seconds)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.run(self.router.close())
        finally:
            self._loop.close()
