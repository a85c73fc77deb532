"""Languages are data: what differs by language stands in a file of its code, not in a source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tumen.data.sources import home_assistant_codes
from tumen.language import LANGUAGES
from tumen.recipe import Data

SOURCE = Path(__file__).parents[2] / "src" / "tumen"
# English is the default where no language is known, so its code may stand in a source.
CODES = ({*LANGUAGES} | {*home_assistant_codes()}) - {"en"}
ALLOWED = {"recipe": "`Language` is a type for the schema; a Literal cannot be read from a file"}
# Folder -> ending of its files, one for each language.
FOLDERS = {
    "data/sources/languages": ".toml",
    "data/sources/names": ".yaml",
    "data/sources/phrases": ".yaml",
    "home/naming/languages": ".toml",
    "assistant/wording/languages": ".toml",
    "assistant/values/languages": ".toml",
    "assistant/replies/languages": ".toml",
}


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each string in a source that is the code of a language."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in CODES:
            yield node.lineno, node.value


def test_no_source_names_a_language() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {text!r}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ALLOWED
        for line, text in literals(path.read_text("utf-8"))
    ]
    assert not found


def test_a_literal_is_seen() -> None:
    assert list(literals('joint = "" if lang == "zh" else " "')) == [(1, "zh")]


def test_a_recipe_may_ask_for_every_language_and_no_other() -> None:
    (language, _) = get_args(Data.model_fields["languages"].annotation)
    assert get_args(language) == LANGUAGES


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_language_has_its_file(folder: str) -> None:
    names = {path.stem for path in (SOURCE / folder).glob(f"*{FOLDERS[folder]}")}
    assert names == {*LANGUAGES}
