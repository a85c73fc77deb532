"""Modifiers: what a sentence says about its acts: several, not, except, and later."""

from tumen.assistant.modifiers.clauses import (
    MAX_CLAUSES,
    Clause,
    clauses_of,
    command_words,
    marks_in,
    segments_of,
)
from tumen.assistant.modifiers.marks import NO_COMMAND, WAITING, Mark, marks_of, without_marks
from tumen.assistant.modifiers.phrases import (
    GAP,
    alternatives,
    languages_of,
    numbered,
    pattern_of,
    script_of,
    words_of,
)
from tumen.assistant.modifiers.times import Moment, moment_of

__all__ = [
    "GAP",
    "MAX_CLAUSES",
    "NO_COMMAND",
    "WAITING",
    "Clause",
    "Mark",
    "Moment",
    "alternatives",
    "clauses_of",
    "command_words",
    "languages_of",
    "marks_in",
    "marks_of",
    "moment_of",
    "numbered",
    "pattern_of",
    "script_of",
    "segments_of",
    "without_marks",
    "words_of",
]
