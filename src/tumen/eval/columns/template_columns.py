"""Columns beside the model: Home Assistant's own template matcher (hassil), and both together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tumen.assistant import Interpretation, TemplateMatcher, templates_first
from tumen.core.errors import InputError
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.home import Home
from tumen.language import LANGUAGES, NONE, Action


class MatcherColumn:
    """Answers cases with hassil's best match over all of Home Assistant's templates.

    Raises:
        MissingExtra: hassil or its templates are not installed.
    """

    def __init__(self) -> None:
        self._matchers: dict[int, TemplateMatcher] = {}
        # fail before the first case
        self._matcher_of(None)

    def answer(self, case: EvalCase) -> Prediction:
        """Return the best match of a case, or the action `none`."""
        lang = case.gold.lang if case.gold else LANGUAGES[0]
        matcher = self._matcher_of(case.home)
        start = time.perf_counter()
        action = matcher.match(case.sentence, lang) or Action(NONE, lang)
        return Prediction(action, time.perf_counter() - start)

    def _matcher_of(self, home: Home | None) -> TemplateMatcher:
        """Return the matcher of a home; its lists of names are built once."""
        if id(home) not in self._matchers:
            self._matchers[id(home)] = TemplateMatcher(home)
        return self._matchers[id(home)]


class TemplatesFirstColumn:
    """Answers cases as `tumen talk` does: with a template where one fits, else with the model.

    Without hassil's templates all is the model's.
    """

    def __init__(self) -> None:
        self._readers: dict[int, Callable[[str], Interpretation]] = {}
        self._model = Prediction(None)
        self._model_seconds = 0.0

    def answer(self, case: EvalCase, model: Prediction) -> Prediction:
        """Return the answer to a case.

        Args:
            case: one without a home is the model's.
            model: what the model answered; its time counts where it would have been asked.
        """
        if case.home is None:
            return model
        if id(case.home) not in self._readers:
            self._readers[id(case.home)] = templates_first(case.home, self._asked)
        self._model = model
        self._model_seconds = 0.0
        start = time.perf_counter()
        action: Action | None = None
        confidence = 0.0
        # what no template fits and no model answers is wrong
        with contextlib.suppress(InputError):
            found = self._readers[id(case.home)](case.sentence)
            action, confidence = found.action, found.confidence
        seconds = time.perf_counter() - start + self._model_seconds
        return Prediction(action, seconds, confidence)

    def _asked(self, said: str) -> Interpretation:
        """Return what the model answered to the case."""
        self._model_seconds = self._model.seconds
        if self._model.action is None:
            raise InputError("the model has no answer")
        return Interpretation(self._model.action, "device", "model", self._model.confidence)
