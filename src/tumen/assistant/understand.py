"""Understand: sentences are interpreted by a router's models."""

from __future__ import annotations

import asyncio

from tumen.assistant.interpretation import Interpretation
from tumen.home import at_home
from tumen.language import parse
from tumen.serve import Router


class Reader:
    """Interprets sentences through a router, for code that is not asynchronous.

    Use it as a context manager; it closes the runners at the end.

    Args:
        router: asks the device tier first, the cloud tier when that is unsure (tumen.serve).
        private: whether every sentence must stay on the device.
    """

    def __init__(self, router: Router, private: bool = False) -> None:
        self.router = router
        self.private = private
        self._loop = asyncio.Runner()

    def __call__(self, sentence: str) -> Interpretation:
        """Return the interpretation of a sentence.

        Raises:
            InputError: the sentence is not accepted, or the answer is not an action.
            RunnerError: no tier answers.
        """
        answer = self._loop.run(self.router.act(sentence, self.private))
        completion = answer.completion
        # a model trained on people's sentences may answer with their labels
        action = at_home(parse(completion.text, self.router.device.ontology))
        return Interpretation(
            action, answer.tier, answer.reason, completion.confidence, answer.seconds
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.run(self.router.close())
        # the loop ends even if a runner does not answer any more
        finally:
            self._loop.close()
