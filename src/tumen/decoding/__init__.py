"""decoding: write an action, or text, with a GGUF model through llama.cpp.

What: greedy decoding under an automaton of allowed tokens, or an encoder's reading in one pass, in
    a child with a private socket.
In: a GGUF file, an ontology, requests as JSON behind their length.
Out: tokens, their log-probabilities and the text, part by part.
Never: pydantic, a web server or torch, as the child must start fast; a check of the GGUF, which
    the parent makes before it starts the child.
Read next: child.py (the process), handler.py (a request), decoder.py, automaton.py, llama.py.
"""

from tumen.decoding import frames

CHILD = "tumen.decoding.child"  # run with `python -m`

__all__ = ["CHILD", "frames"]
