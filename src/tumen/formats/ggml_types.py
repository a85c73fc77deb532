"""ggml's tensor types: names and sizes of their blocks (ggml.h). The only copy of this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GgmlType(NamedTuple):
    """One tensor type. A row is stored in blocks of `values` elements, `bytes` each."""

    name: str
    values: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits of one element, scales included."""
        return 8 * self.bytes / self.values


# Number in a file -> type. Types that are missing here are refused.
BY_NUMBER: Mapping[int, GgmlType] = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    30: GgmlType("BF16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
}
BY_NAME: Mapping[str, GgmlType] = {kind.name: kind for kind in BY_NUMBER.values()}
