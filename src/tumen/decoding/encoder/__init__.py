"""decoding.encoder: read an action off a sentence in one forward pass.

What: hidden states from llama.cpp, label heads in numpy, the likeliest reading under the ontology.
In: a GGUF of the architecture `bert`, label heads, the labels of an ontology; requests for actions.
Out: actions on the wire, piece by piece, with their log-probabilities.
Never: pydantic, torch; free text.
Read next: encoder_reading.py, then encoder_handler.py.
"""

from tumen.decoding.encoder.encoder_handler import EncoderHandler
from tumen.decoding.encoder.encoder_reading import EncoderReading, best_runs, read_heads

__all__ = ["EncoderHandler", "EncoderReading", "best_runs", "read_heads"]
