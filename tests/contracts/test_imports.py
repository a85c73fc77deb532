"""What an import loads: the doors that every process opens first stay cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Module -> packages that a fresh interpreter must not load with it.
NOT_LOADED = {
    "tumen.core.errors": ("numpy", "pydantic", "rich", "typer", "aiohttp", "torch"),
    "tumen.core.extras": ("numpy", "pydantic", "rich", "typer", "aiohttp", "torch"),
    "tumen.cli": ("numpy", "pydantic", "torch", "aiohttp", "starlette", "uvicorn", "xllamacpp"),
}


def loaded_by(module: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has after one import."""
    code = f"import sys, {module}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", NOT_LOADED)
def test_an_import_loads_no_more_than_it_needs(module: str) -> None:
    loaded = loaded_by(module)
    assert "tumen" in loaded
    assert not loaded & {*NOT_LOADED[module]}


def test_a_loaded_package_is_seen() -> None:
    assert "pydantic" in loaded_by("tumen.core.shape")
