"""Acts: a resolved action carried out on a home, answered from it, or undone."""

from tumen.assistant.acts.act import act, undo
from tumen.assistant.acts.light_effects import lacks
from tumen.assistant.acts.outcomes import Change, Outcome, QueryResult

__all__ = ["Change", "Outcome", "QueryResult", "act", "lacks", "undo"]
