"""assistant: from an understood sentence to a changed lamp and a short answer.

What: the words of an action onto the real devices of a home, acts within their real ranges,
replies in the speaker's language, conversations.
In: an `Action` (tumen.language), a `Home`, a lexicon of values.
Out: `Resolved`, `Question` or `Refusal`; changes before and after; one `Turn` for each sentence.
Never: torch, network, printing; a guessed or invented device; a change when it refuses.
Read next: resolve.py, then find.py, act.py, reply.py and session.py.
"""

from tumen.assistant.acts import Outcome, act, undo
from tumen.assistant.as_typed import typed_spans
from tumen.assistant.interpretation import Interpretation
from tumen.assistant.matcher import SLOT_NAMES, TemplateMatcher, templates_first, time_spans
from tumen.assistant.modifiers import marks_in
from tumen.assistant.resolution import Candidate, Question, Refusal, Resolution, Resolved, resolve
from tumen.assistant.session import Session, Turn
from tumen.assistant.understand import Reader, known_names

__all__ = [
    "SLOT_NAMES",
    "Candidate",
    "Interpretation",
    "Outcome",
    "Question",
    "Reader",
    "Refusal",
    "Resolution",
    "Resolved",
    "Session",
    "TemplateMatcher",
    "Turn",
    "act",
    "known_names",
    "marks_in",
    "resolve",
    "templates_first",
    "time_spans",
    "typed_spans",
    "undo",
]
