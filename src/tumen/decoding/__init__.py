"""decoding: write an action, or text, with a GGUF model through llama.cpp.

What: greedy decoding under an automaton of allowed tokens, in a child process that reads requests from a private socket.
In: a GGUF file, an ontology, requests as length-prefixed JSON.
Out: tokens, their log-probabilities and the text, part by part.
Never: pydantic, a web server, torch, because the child must start fast; a check of the GGUF, which `formats` makes before.
Read next: child.py (the process), handler.py (a request), decoder.py, automaton.py, llama.py (llama.cpp's C API).
"""

from tumen.decoding import frames

CHILD = "tumen.decoding.child"  # run with `python -m`

__all__ = ["CHILD", "frames"]
