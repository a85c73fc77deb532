"""Host names as operators write them: `n[1-3,7]` is n1, n2, n3 and n7.

Slurm, pdsh and ClusterShell use the same notation.
"""

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
    # Sorted, hosts of one pattern stand together and their numbers rise.
    hosts = sorted({_split(name) for name in names})
    ranges = list(_ranges(hosts))
    texts = []
    for _, group in groupby(ranges[:most], key=lambda span: span[0].pattern):
        texts.append(_fold_group(list(group)))
    folded = ",".join(texts)
    left = 0
    for first, last in ranges[most:]:
        left += last.number - first.number + 1
    if left:
        folded += f" and {left:,} more"
    return folded


def _fold_group(ranges: list[Range]) -> str:
    """Return ranges that have the same pattern as one text."""
    before, after, _ = ranges[0][0].pattern
    numbers = [_numbers(first, last) for first, last in ranges]
    inside = ",".join(numbers)
    is_one_host = len(numbers) == 1 and "-" not in inside
    if not is_one_host:
        inside = f"[{inside}]"
    return before + inside + after


def _split(name: str) -> HostName:
    """Split a host name around its last number."""
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL)
    if not match:
        return HostName(name, "", 0, -1)
    before, digits, after = match.groups()
    number = int(digits)
    width = 0
    if digits != str(number):  # padded with zeros
        width = len(digits)
    return HostName(before, after, width, number)


def _ranges(names: list[HostName]) -> Iterator[Range]:
    """Yield runs of successive names.

    Args:
        names: sorted, each once.
    """
    if not names:
        return
    first = names[0]
    last = first
    for name in names[1:]:
        follows = name.pattern == last.pattern and name.number == last.number + 1
        if not follows:
            yield first, last
            first = name
        last = name
    yield first, last


def _numbers(first: HostName, last: HostName) -> str:
    """Return the numbers of a range, `07-12`; "" for names without a number."""
    if first.number < 0:
        return ""
    text = f"{first.number:0{first.width}d}"
    if first == last:
        return text
    return f"{text}-{last.number:0{first.width}d}"
