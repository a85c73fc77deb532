"""Values as people say them: numbers, amounts, colours and time spans."""

from tumen.assistant.values.numbers import number_units, read_number
from tumen.assistant.values.time_spans import read_span
from tumen.assistant.values.value_lexicon import Value, first_words, plain
from tumen.assistant.values.values import SHARE, Unknown, Values

__all__ = [
    "SHARE",
    "Unknown",
    "Value",
    "Values",
    "first_words",
    "number_units",
    "plain",
    "read_number",
    "read_span",
]
