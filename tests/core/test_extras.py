"""Optional packages: imported on first use, and one line with the extra where one is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tumen.core import extras
from tumen.core.errors import MissingExtra
from tumen.core.extras import EXTRAS, need, needs, optional

ROOT = Path(__file__).parents[2]
# Where the name that is imported is not the name that is installed.
DISTRIBUTIONS = {
    "home_assistant_intents": "home-assistant-intents",
    "prometheus_client": "prometheus-client",
    "yaml": "pyyaml",
}


def installed_by(extra: str) -> Iterator[str]:
    """Distributions of an extra of pyproject.toml, those of the extras in it included."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in tables["project"]["optional-dependencies"][extra]:
        name, _, rest = requirement.partition("[")
        if name == "tumen":
            for inner in rest.rstrip("]").split(","):
                yield from installed_by(inner)
        else:
            yield name.split(">")[0].split("=")[0].split("<")[0]


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_named_for_a_package_installs_it(package: str) -> None:
    wanted = DISTRIBUTIONS.get(package, package)
    assert wanted in list(installed_by(EXTRAS[package]))


def test_a_missing_package_is_one_line_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra) as caught:
        need("yaml", "reading suites")
    assert str(caught.value) == "reading suites needs yaml: pip install 'tumen[data]'"
    with pytest.raises(MissingExtra, match=r"tumen\[kubernetes\]"):
        need("yaml", "the engine", "kubernetes")


def test_an_import_inside_the_block_is_reported_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with (
        pytest.raises(MissingExtra, match=r"^training needs torch: .*tumen\[train\]"),
        needs("training"),
    ):
        import torch  # noqa: F401


def test_a_missing_module_of_no_extra_stays_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError, match="tumen_misspelt"), needs("training"):
        import tumen_misspelt  # noqa: F401


def test_a_stand_in_imports_on_first_use_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    module = ModuleType("yaml")
    module.__dict__["safe_load"] = str

    def imported(package: str, purpose: str, extra: str = "") -> ModuleType:
        asked.append(package)
        return module

    monkeypatch.setattr(extras, "need", imported)
    yaml = optional("yaml", "reading suites")
    assert asked == []
    assert yaml.safe_load is str
    assert yaml.safe_load is str
    assert asked == ["yaml"]


def test_every_light_room_imports_without_any_extra() -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "from tumen.core.extras import EXTRAS\n"
        "for name in EXTRAS: sys.modules[name] = None\n"
        "import tumen\n"
        "heavy = ('tumen.model', 'tumen.train', 'tumen.shrink')\n"
        "for room in pkgutil.iter_modules(tumen.__path__, 'tumen.'):\n"
        "    if room.ispkg and not room.name.startswith(heavy):\n"
        "        importlib.import_module(room.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_package_is_required_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require("yaml", "reading suites")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra) as caught:
        extras.require("torch", "training")
    assert str(caught.value) == "training needs torch: pip install 'tumen[train]'"
