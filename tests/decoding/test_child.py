"""The child process starts light; how it answers, stops and dies is tested by tests/serve/test_device.py."""

from __future__ import annotations

import ast
import subprocess
import sys

from tumen.decoding import CHILD

HEAVY = ("pydantic", "starlette", "uvicorn", "aiohttp", "cryptography", "torch")


def test_the_child_imports_nothing_heavy() -> None:
    code = f"import sys, {CHILD}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_the_child_imports_only_its_own_room_and_core() -> None:
    code = f"import sys, {CHILD}; print(sorted(name for name in sys.modules if name.startswith('tumen')))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for name in ast.literal_eval(result.stdout):
        assert name in ("tumen", "tumen.core", "tumen.core.errors") or "decoding" in name


def test_a_parent_that_ends_before_it_sends_settings_is_not_an_error() -> None:
    command = [sys.executable, "-P", "-m", CHILD]
    result = subprocess.run(command, input=b"", capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
