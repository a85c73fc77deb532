"""core: words and files that every room shares.

What: errors, units, events, artifacts (folder, manifest, digest), locks, plugin tables, model
shapes, checks of untrusted files.
In: paths, JSON, the numbers of an architecture.
Out: frozen objects, digests, one-line errors.
Never: torch, printing, the network, another room. There is no door: import the module, such as
`tumen.core.errors`.
Read next: errors.py, then artifact.py and shape.py.
"""
