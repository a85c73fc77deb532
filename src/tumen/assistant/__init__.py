"""assistant: from an understood sentence to a changed lamp. From an understood sentence to a changed lamp and a short answer.

What: a stateful home, words onto its real devices, acts within their real ranges, replies in three languages,
conversations. In: an `Action` (tumen.language.action), the TOML of a home, a lexicon of values. Out: `Resolved`,
`Question` or `Refusal`; changes before -> after; one `Turn` a sentence. Never: torch, network, printing; a guessed or
invented device; a change on refusal. Read next: resolution.py, then find.py, acts.py, session.py.
"""

from tumen.assistant.acts import Outcome, act, undo
from tumen.assistant.resolution import resolve
from tumen.assistant.session import Session, Turn
from tumen.assistant.understand import Reader
from tumen.assistant.verdict import Option, Question, Refusal, Resolved

__all__ = [
    "Option",
    "Outcome",
    "Question",
    "Reader",
    "Refusal",
    "Resolved",
    "Session",
    "Turn",
    "act",
    "resolve",
    "undo",
]
