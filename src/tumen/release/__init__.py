"""release: which bundle may run, and which one is live.

What: Ed25519 signatures and the keys that a device trusts; slots with a live bundle and those before it.
In: a bundle folder, a trust store, a slot folder.
Out: a checked signature, a promoted or rolled back slot, one-line refusals.
Never: torch, a bundle that was not verified.
Read next: signing.py, then slot.py.
"""

from tumen.release import signing, slot

__all__ = ["signing", "slot"]
