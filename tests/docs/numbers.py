"""Honest numbers: what reads like a measurement says where it comes from.

    python -m tests.docs.numbers    check README.md, CHANGELOG.md and docs/, fail with one line a fault

A number with a unit (5.9 ms, 97 %, 40k tokens/s, 3x; digits, not words) must stand in a block that carries one of the tags
*measured*, *simulated*, *published*, and beside the tag a command or source: `code`, a link, an arXiv number, or the words
"ad-hoc script, not kept". `Inline code` quotes programs and sentences and claims nothing itself. A block is a paragraph, an item
of a list, a table or a fence; for a table or a fence the tag may stand in the paragraph next to it. Limits that are settings
or goals, not claims, carry `<!-- setting -->` in their block or on the line before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNITS = (
    *("%", "‰", "percent", "points?", "×", "x", "-?fold", "times"),
    *(
        "ns",
        "µs",
        "us",
        "ms",
        "s",
        "sec",
        "seconds?",
        "min",
        "minutes?",
        "h",
        "hours?",
        "d",
        "days?",
        "weeks?",
        "months?",
    ),
    *(
        "(?:k|M|G|T)?(?:tokens?|tok)/(?:cpu-)?s",
        "(?:requests?|sentences?|steps?|commands?|examples?)/s",
    ),
    *("(?:tokens?|requests?|sentences?|steps?) (?:a|per) second", "tokens? a sentence"),
    *("(?:k|[KMGTP]i?)B", "bytes?", "(?:kilo|mega|giga)bytes?", "[kMGTPE]?FLOP(?:S|/s)?"),
    *("[kKMG]?Wh?", "[kMG]?Hz", "USD", "EUR", "€", "dollars?"),
)
CLAIM = re.compile(
    rf"(?<![\w.#/-])[~<>≤≥±]?\d[\d,.]*[kKMGTB]?(?:[ \u00a0-]?(?:{'|'.join(UNITS)}))(?![\w/])|[$€]\s?\d"
)
TAG = re.compile(r"\*(measured|simulated|published)\*", re.IGNORECASE)
SOURCE = re.compile(r"`[^`]+`|\]\([^)]+\)|https?://|arXiv|ad-hoc\s+script,\s+not\s+kept")
QUIET = re.compile(r"<!--.*?-->|https?://\S+|`[^`\n]+`", re.DOTALL)
DEFAULT = re.compile(r"\[default: [^\]]*\]")  # in a page of --help
SETTING = "<!-- setting -->"
ITEM = re.compile(r"\s*(?:[-*+]|\d+\.) ")


@dataclass(frozen=True)
class Block:
    """A paragraph, list item, table or fence of a page; `kind` is text, table or fence, `line` counts from 1."""

    kind: str
    line: int
    text: str


def blocks(page: str) -> list[Block]:
    """Cut a page into blocks."""
    found: list[Block] = []
    lines: list[str] = []
    kind, start = "text", 1

    def close() -> None:
        if lines:
            found.append(Block(kind, start, "\n".join(lines)))
            lines.clear()

    for number, line in enumerate(page.splitlines(), start=1):
        mark = line.lstrip().startswith("```")
        if kind == "fence" and lines:
            lines.append(line)
            if mark:
                close()
                kind = "text"
            continue
        fresh = "fence" if mark else "table" if line.lstrip().startswith("|") else "text"
        if not line.strip() or fresh != kind or ITEM.match(line) or line.startswith(("#", "<!--")):
            close()
        if line.strip():
            if not lines:
                kind, start = fresh, number
            lines.append(line)
    close()
    return found


def is_sourced(text: str) -> bool:
    """Whether a text carries a tag, and a command or source beside it."""
    return bool(TAG.search(text) and SOURCE.search(text))


def faults(page: str, name: str) -> Iterator[str]:
    """One line for each block with a number that does not say where it comes from."""
    found = blocks(page)
    for place, block in enumerate(found):
        claim = CLAIM.search((QUIET if block.kind != "fence" else DEFAULT).sub(" ", block.text))
        if not claim:
            continue
        near = [found[i] for i in (place - 1, place + 1) if 0 <= i < len(found)]
        before = found[place - 1].text if place else ""
        if SETTING in block.text or before.rstrip().endswith(SETTING):
            continue
        texts = (
            [block.text]
            if block.kind == "text"
            else [block.text, *(other.text for other in near if other.kind == "text")]
        )
        if not any(map(is_sourced, texts)):
            where = f"{name}:{block.line}"
            yield f"{where}: {claim[0].strip()!r} has no *measured*, *simulated* or *published* with its command or source"


def pages() -> list[Path]:
    """Every page that makes claims."""
    return [
        path
        for path in (
            ROOT / "README.md",
            ROOT / "README.zh-CN.md",
            ROOT / "CHANGELOG.md",
            ROOT / "CONTRIBUTING.md",
            ROOT / "SECURITY.md",
            *sorted((ROOT / "docs").rglob("*.md")),
        )
        if path.exists()
    ]


def main() -> int:
    """Check all pages."""
    found = [
        fault
        for path in pages()
        for fault in faults(path.read_text("utf-8"), str(path.relative_to(ROOT)))
    ]
    print(
        "\n".join(found) if found else f"numbers: {len(pages())} pages say where theirs come from"
    )
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
