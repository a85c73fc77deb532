"""A set of 64-bit keys in one array.

It takes 16 to 32 bytes a key, and half as much again while it grows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tumen.data.filters.text_keys import Keys

FIRST_SLOTS = 1024
REINSERTED_AT_ONCE = 4096  # keys, when the table grows


class KeySet:
    """Keys that were seen, in a hash table with open addressing that is at most half full."""

    def __init__(self) -> None:
        self.slots: Keys = np.zeros(FIRST_SLOTS, np.uint64)
        self.count = 0

    def add(self, keys: Keys) -> NDArray[np.bool_]:
        """Add keys and return which of them were there before.

        Args:
            keys: distinct, (n,). The key 0 counts as 1, as 0 marks an empty slot.

        Returns:
            (n,) booleans.
        """
        if 2 * (self.count + len(keys)) > len(self.slots):
            self._grow(len(keys))
        keys = np.where(keys == 0, np.uint64(1), keys)
        size = np.uint64(len(self.slots))
        before = np.zeros(len(keys), bool)
        left = np.arange(len(keys))  # keys without a slot yet
        at = keys % size
        while len(left):
            found = self.slots[at[left]]
            before[left[found == keys[left]]] = True
            free = left[found == 0]
            self.slots[at[free]] = keys[free]
            # Of several keys that took one free slot, the last stays; the others go on as those
            # do whose slot holds another key: to the next slot.
            left = left[self.slots[at[left]] != keys[left]]
            at[left] = (at[left] + np.uint64(1)) % size
        self.count += int((~before).sum())
        return before

    def _grow(self, more: int) -> None:
        old = self.slots[self.slots != 0]
        wanted = 2 * (self.count + more)
        self.slots = np.zeros(1 << (wanted - 1).bit_length(), np.uint64)
        self.count = 0
        for start in range(0, len(old), REINSERTED_AT_ONCE):
            self.add(old[start : start + REINSERTED_AT_ONCE])
