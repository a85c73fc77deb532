"""Values as people say them: numbers, amounts, colours and time spans."""

from tumen.assistant.values.value_lexicon import Value, plain
from tumen.assistant.values.values import Unknown, Values

__all__ = ["Unknown", "Value", "Values", "plain"]
