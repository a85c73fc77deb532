"""Understand: sentences are interpreted by a router's models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from tumen.assistant.interpretation import Interpretation
from tumen.home import Home, Mention, at_home, language_of, mentions_of
from tumen.language import LANGUAGES, normalise, parse
from tumen.serve import Router
from tumen.serve.runners import KnownName


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

    def of(self, home: Home) -> Callable[[str], Interpretation]:
        """Return what reads the sentences that are said in a home: its names are known."""

        def read(sentence: str) -> Interpretation:
            return self(sentence, known_names(home, sentence))

        return read

    def __call__(self, sentence: str, names: Sequence[KnownName] = ()) -> Interpretation:
        """Return the interpretation of a sentence.

        Args:
            sentence: what was said.
            names: what in it names a thing or a place of the home.

        Raises:
            InputError: the sentence is not accepted, or the answer is not an action.
            RunnerError: no tier answers.
        """
        answer = self._loop.run(self.router.act(sentence, self.private, names=names))
        completion = answer.completion
        # a model trained on people's sentences may answer with their labels
        action = at_home(parse(completion.text, self.router.device.ontology))
        # a data set may have more languages than a home answers in
        if action.lang not in LANGUAGES:
            action = replace(action, lang=LANGUAGES[0])
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


def known_names(home: Home, sentence: str) -> list[KnownName]:
    """Return what a sentence names of a home, for a runner.

    Raises:
        InputError: the sentence is empty or too long.
    """
    said = normalise(sentence)
    lang = language_of(said, LANGUAGES[0])
    return [_known(mention) for mention in mentions_of(home.index, said, lang)]


def _known(mention: Mention) -> KnownName:
    slots = []
    if mention.entities:
        slots.append("name")
    if mention.place:
        slots.append("area")
    return mention.start, mention.end, tuple(slots)
