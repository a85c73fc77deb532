"""Reading: a sentence becomes resolved parts, by its words, a model and the names of the home."""

from tumen.assistant.reading.grounding import ground
from tumen.assistant.reading.partition import SpokenPart
from tumen.assistant.reading.sentence import SentenceReader

__all__ = ["SentenceReader", "SpokenPart", "ground"]
