"""Hook of mkdocs: links that leave docs/ become plain text, as the site holds the docs alone."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(
    r"\[([^\]]*)\]\((?:\.\./)+(?!decisions/)(?:src|tests|benchmarks|recipes|examples|README)[^)]*\)"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each link to a file of the repository by its text."""
    return OUTSIDE.sub(r"`\1`", markdown)
