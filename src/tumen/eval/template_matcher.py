"""The reference column: Home Assistant's own template matcher (hassil) on the home's names."""

from __future__ import annotations

import time

from tumen.assistant import TemplateMatcher
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
