"""assistant: live with it. From an understood sentence to a changed lamp and a short answer.

What: a stateful home, words onto its real devices, acts within their real ranges, replies in three languages,
conversations. In: an `Action` (tumen.core.action), the TOML of a home, a lexicon of values. Out: `Resolved`,
`Question` or `Refusal`; changes before -> after; one `Turn` a sentence. Never: torch, network, printing; a guessed or
invented device; a change on refusal. Read next: resolution.py, then find.py, home.py, session.py.
"""

from tumen.assistant.acts import Answer, Change, Outcome, act, undo
from tumen.assistant.aliases import at_home
from tumen.assistant.home import Area, Entity, Floor, Home, Timer
from tumen.assistant.replies import reply
from tumen.assistant.resolution import resolve
from tumen.assistant.session import Session, Turn, Understand, Understood
from tumen.assistant.understand import Reader
from tumen.assistant.values import Unknown, Values
from tumen.assistant.verdict import Option, Question, Refusal, Resolved, Verdict

__all__ = [
    "Answer",
    "Area",
    "Change",
    "Entity",
    "Floor",
    "Home",
    "Option",
    "Outcome",
    "Question",
    "Reader",
    "Refusal",
    "Resolved",
    "Session",
    "Timer",
    "Turn",
    "Understand",
    "Understood",
    "Unknown",
    "Values",
    "Verdict",
    "act",
    "at_home",
    "reply",
    "resolve",
    "undo",
]
