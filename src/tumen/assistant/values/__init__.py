"""Values as people say them: numbers, amounts, colours and time spans."""

from tumen.assistant.values.numbers import number_units, read_number
from tumen.assistant.values.time_spans import read_span
from tumen.assistant.values.value_lexicon import Value, plain
from tumen.assistant.values.values import Unknown, Values

__all__ = ["Unknown", "Value", "Values", "number_units", "plain", "read_number", "read_span"]
