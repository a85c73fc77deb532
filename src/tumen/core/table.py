"""Plugin tables: `name -> "module:attribute"`, imported on use.

A recipe may give `"my_pkg.mod:Class"` instead of a name in the table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from tumen.core.errors import TumenError


def named(
    name: str, table: Mapping[str, str], field: str, error: Callable[[str], TumenError]
) -> Any:
    """Import what a name of a table, or `"package.module:attribute"`, stands for.

    Args:
        name: the name, as in the recipe.
        table: known names.
        field: of the recipe, for the error.
        error: class of the error that is raised for an unknown name or a failed import.
    """
    module, colon, attribute = table.get(name, name).partition(":")
    if not colon:
        known = ", ".join(table)
        raise error(f"{field} {name!r} is unknown; known: {known}, or 'package.module:Class'")
    try:
        # Imported now, so that a room loads only the plugins that a recipe uses.
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as fault:
        raise error(f"{field} {name!r} cannot be imported: {fault}") from None
