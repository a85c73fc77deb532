"""Values as people say them: numbers, amounts, colours, spans of the sentence."""

from tumen.assistant.values.values import Unknown, Values

__all__ = ["Unknown", "Values"]
