"""language: the action language, what a model may write after a sentence.

What: intents, slots and their values (an ontology); actions as JSON, as tokens and under a grammar.
In: a sentence, an ontology, the text that a model generated.
Out: `Action`, a GBNF grammar, a JSON schema; `InputError` for text that is not an action.
Never: torch, a home, a guess about what was meant.
Read next: action.py, then ontology.py.
"""

from tumen.language.action import (
    ACTS,
    BEGIN,
    CJK,
    CLOSED,
    COPIED,
    DO,
    END,
    HOME,
    INTENTS,
    LANGUAGES,
    NUMBERS,
    Action,
    is_cjk,
    normalise,
    parse,
    pieces,
    units,
)
from tumen.language.ontology import JOINT, NONE, Ontology

__all__ = [
    "ACTS",
    "BEGIN",
    "CJK",
    "CLOSED",
    "COPIED",
    "DO",
    "END",
    "HOME",
    "INTENTS",
    "JOINT",
    "LANGUAGES",
    "NONE",
    "NUMBERS",
    "Action",
    "Ontology",
    "is_cjk",
    "normalise",
    "parse",
    "pieces",
    "units",
]
