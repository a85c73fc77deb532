"""Reading: a sentence becomes resolved parts, by its words, a model and the names of the home."""

from tumen.assistant.reading.sentence import SentenceReader, SpokenPart

__all__ = ["SentenceReader", "SpokenPart"]
