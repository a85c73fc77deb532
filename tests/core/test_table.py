"""Plugin tables: names, own classes, and one line for what cannot be imported."""

from __future__ import annotations

import collections

import pytest

from tumen.core.errors import EngineError
from tumen.core.table import named

TABLE = {"counter": "collections:Counter", "broken": "collections:NoSuchClass"}


def test_a_name_of_the_table_and_an_own_class() -> None:
    assert named("counter", TABLE, "fleet.engine", EngineError) is collections.Counter
    assert named("collections:deque", TABLE, "fleet.engine", EngineError) is collections.deque


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cuonter", "fleet.engine 'cuonter' is unknown; known: counter, broken, or 'package"),
        ("broken", "fleet.engine 'broken' cannot be imported: .*NoSuchClass"),
        ("no_such_package:Class", "cannot be imported: No module named 'no_such_package'"),
        (":Class", "cannot be imported: Empty module name"),
    ],
)
def test_what_cannot_be_imported_is_the_error_of_the_room(name: str, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        named(name, TABLE, "fleet.engine", EngineError)
