"""Host names as operators write them: `n[1-3,7]` is n1, n2, n3 and n7, as in Slurm, pdsh and ClusterShell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

MOST_RANGES = 6  # what still fits a line


class HostName(NamedTuple):
    """A host name around its last number; `number` is -1 where it has none.

    The order of the fields sorts names by what is equal, and then by number.
    """

    before: str
    after: str
    width: int  # digits, where the number is padded with zeros; else 0
    number: int

    @property
    def pattern(self) -> tuple[str, str, int]:
        """What the names of a range have in common."""
        return self[:3]


Range = tuple[HostName, HostName]  # first and last, both included


def fold_hosts(names: Iterable[str], most: int = MOST_RANGES) -> str:
    """Return host names as one short text.

    Args:
        names: in any order.
        most: names and ranges that are written out; of the others their number is.
    """
    ranges = list(_ranges(sorted({_split(name) for name in names})))
    texts = []
    for pattern, group in groupby(ranges[:most], key=lambda span: span[0].pattern):
        before, after, _ = pattern
        numbers = [_numbers(first, last) for first, last in group]
        is_one_host = len(numbers) == 1 and "-" not in numbers[0]
        inside = numbers[0] if is_one_host else f"[{','.join(numbers)}]"
        texts.append(before + inside + after)
    left = sum(last.number - first.number + 1 for first, last in ranges[most:])
    return ",".join(texts) + (f" and {left:,} more" if left else "")


def _split(name: str) -> HostName:
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL)
    if not match:
        return HostName(name, "", 0, -1)
    before, digits, after = match.groups()
    number = int(digits)
    is_padded = digits != str(number)
    return HostName(before, after, len(digits) if is_padded else 0, number)


def _ranges(names: list[HostName]) -> Iterator[Range]:
    """Yield runs of successive names."""
    first = last = None
    for name in names:
        if first is None or last is None:
            first = name
        elif name.pattern != last.pattern or name.number != last.number + 1:
            yield first, last
            first = name
        last = name
    if first is not None and last is not None:
        yield first, last


def _numbers(first: HostName, last: HostName) -> str:
    if first.number < 0:
        return ""
    text = f"{first.number:0{first.width}d}"
    return text if first == last else f"{text}-{last.number:0{first.width}d}"
