"""Resolution: from an action's words to the things of a home, or to a question or refusal."""

from tumen.assistant.resolution.resolve import resolve
from tumen.assistant.resolution.results import (
    MAX_SHOWN,
    Candidate,
    Question,
    Refusal,
    Resolution,
    Resolved,
)

__all__ = ["MAX_SHOWN", "Candidate", "Question", "Refusal", "Resolution", "Resolved", "resolve"]
