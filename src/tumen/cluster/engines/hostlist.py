"""Names of hosts as operators write them: `n[1-3,7]` is n1, n2, n3 and n7, as Slurm, pdsh and ClusterShell have it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

MOST_SPANS = 6  # what still fits a line
Name = tuple[
    str, str, int, int
]  # before the number, after it, its digits where it is padded, the number (-1: there is none)


def fold_hosts(names: Iterable[str], most: int = MOST_SPANS) -> str:
    """Host names as one short text. Beyond `most` names or ranges it says how many more there are."""
    spans = _spans(sorted({_split(name) for name in names}))
    texts = []
    for (before, after, width), group in groupby(spans[:most], key=lambda span: span[0][:3]):
        numbers = [_numbers(first[3], last[3], width) for first, last in group]
        alone = len(numbers) == 1 and "-" not in numbers[0]
        texts.append(before + (numbers[0] if alone else f"[{','.join(numbers)}]") + after)
    left = sum(last[3] - first[3] + 1 for first, last in spans[most:])
    return ",".join(texts) + (f" and {left:,} more" if left else "")


def _split(name: str) -> Name:
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL)
    if not match:
        return name, "", 0, -1
    before, digits, after = match.groups()
    return before, after, 0 if digits == str(int(digits)) else len(digits), int(digits)


def _spans(names: list[Name]) -> list[tuple[Name, Name]]:
    """Runs of successive names, as first and last."""
    spans: list[tuple[Name, Name]] = []
    for name in names:
        if spans and name[:3] == spans[-1][1][:3] and name[3] == spans[-1][1][3] + 1:
            spans[-1] = spans[-1][0], name
        else:
            spans.append((name, name))
    return spans


def _numbers(first: int, last: int, width: int) -> str:
    if first < 0:
        return ""
    return f"{first:0{width}d}" if first == last else f"{first:0{width}d}-{last:0{width}d}"
