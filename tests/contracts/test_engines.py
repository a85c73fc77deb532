"""What every entry of `ENGINES` keeps. An engine that cannot run here says so in its own tests."""

from __future__ import annotations

import inspect
import sys
import types

import pytest

from tumen.cluster.engines import ENGINES, Engine, Node, connect
from tumen.core.errors import EngineError

VERBS = {
    "submit": ["job"],
    "status": ["job_id"],
    "logs": ["job_id"],
    "cancel": ["job_id"],
    "nodes": [],
}


def test_five_verbs_and_no_more() -> None:
    assert {name for name in vars(Engine) if not name.startswith("_")} == set(VERBS)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_the_five_verbs(name: str) -> None:
    engine = connect(name)
    for verb, parameters in VERBS.items():
        assert list(inspect.signature(getattr(engine, verb)).parameters) == parameters


@pytest.mark.parametrize("name", ENGINES)
def test_an_unknown_job_is_lost(name: str, tmp_path: object) -> None:
    assert connect(name).status(f"{tmp_path}/no such job").state == "lost"


def test_local_has_this_machine() -> None:
    (node,) = connect("local").nodes()
    assert isinstance(node, Node)
    assert node.ready


@pytest.mark.parametrize("name", ["nowhere", "no_such_pkg:X", "json:NoSuch", ":"])
def test_unknown(name: str) -> None:
    with pytest.raises(EngineError, match=r"fleet\.engine"):
        connect(name)


def test_an_engine_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        pass

    module = types.ModuleType("my_engines")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_engines", module)
    assert isinstance(connect("my_engines:Own"), Own)
