"""release: which bundles a device accepts, which one is live, and which one ships.

What: Ed25519 keys and signatures, a device's trust store, slots with a live bundle and earlier
ones; the flagship, a bundle inside the package.
In: a bundle folder, a trust store, a slot folder.
Out: a verified signature, a bundle made live or rolled back, errors of one line.
Never: torch, a bundle that was not verified.
Read next: keys.py, signing.py, then slot.py.
"""

from tumen.release import flagship, keys, signing, slot

__all__ = ["flagship", "keys", "signing", "slot"]
