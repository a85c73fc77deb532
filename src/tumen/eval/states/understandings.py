"""Understandings: who reads the sentences of a row, by name, so that each can be judged alike."""

from __future__ import annotations

from collections.abc import Callable

from tumen.assistant import Interpretation, Reader, TemplateMatcher, templates_first
from tumen.core.errors import InputError
from tumen.core.table import named
from tumen.eval.states.turn_player import Understand, Understanding
from tumen.home import Home
from tumen.language import LANGUAGES, NONE, Action

BOTH = "both"  # templates first, then the bundle's model: what `tumen talk` does
MODEL = "model"
MATCHER = "matcher"

Opener = Callable[[Understand], Understanding]


def understanding_of(name: str, model: Understand) -> Understanding:
    """Return what reads the sentences of a row.

    Args:
        name: `both`, `model`, `matcher`, or `package.module:function` of a function that takes what
            asks the model and returns an `Understanding`.
        model: asks the bundle's model.

    Raises:
        InputError: unknown.
    """
    opener: Opener = named(name, UNDERSTANDINGS, "understanding", InputError)
    return opener(model)


def open_both(model: Understand) -> Understanding:
    """Return Home Assistant's templates, and the model where none fits."""

    def of_home(home: Home, lang: str) -> Understand:
        return templates_first(home, _in(home, model))

    return of_home


def open_model(model: Understand) -> Understanding:
    """Return the model alone."""

    def of_home(home: Home, lang: str) -> Understand:
        return _in(home, model)

    return of_home


def _in(home: Home, model: Understand) -> Understand:
    """Return what asks the model and lets it know the names of the home."""
    return model.of(home) if isinstance(model, Reader) else model


def open_matcher(model: Understand) -> Understanding:
    """Return Home Assistant's templates alone; what fits none of them is `none`.

    Raises:
        MissingExtra: on use, if hassil or its templates are not installed.
    """

    def of_home(home: Home, lang: str) -> Understand:
        matcher = TemplateMatcher(home)
        spoken = lang if lang in LANGUAGES else LANGUAGES[0]

        def understand(sentence: str) -> Interpretation:
            action = matcher.match(sentence, spoken)
            return Interpretation(action or Action(NONE, spoken), "templates", "matcher", 1.0)

        return understand

    return of_home


UNDERSTANDINGS = {
    BOTH: "tumen.eval.states.understandings:open_both",
    MODEL: "tumen.eval.states.understandings:open_model",
    MATCHER: "tumen.eval.states.understandings:open_matcher",
}
"""Who can read the sentences."""
