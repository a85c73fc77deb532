"""The recipes that ship, for tests that look at each of them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"
OUTSIDE = re.compile(r"package:(\w+)/")  # a model that a package carries; ./dev test installs none


def shipped() -> list[Path]:
    """All that can be read here: a recipe that starts from an outside model needs the package that carries it."""
    return [
        path
        for path in sorted(FOLDER.glob("*.toml"))
        if all(find_spec(package) for package in OUTSIDE.findall(path.read_text("utf-8")))
    ]
