"""Packages that only an extra of tumen installs, and a one-line error where one is missing.

    hassil = optional("hassil", "sentence templates")    # imported on first use
    with needs("training"):                              # or around an import
        from tumen.train import fit

A light install (`pip install tumen`) has none of these packages. Every room still imports there;
only the call that needs the package fails, with the name of the extra.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tumen.core.errors import MissingExtra

# Top-level package -> the smallest extra of pyproject.toml that installs it.
EXTRAS = {
    "datasets": "hub",
    "executorch": "executorch",
    "gguf": "fit",
    "hassil": "data",
    "home_assistant_intents": "data",
    "prometheus_client": "prometheus",
    "pyarrow": "data",
    "ray": "ray",
    "safetensors": "train",
    "tensorboard": "tensorboard",
    "tokenizers": "data",
    "torch": "train",
    "torchao": "executorch",
    "yaml": "data",
}


def optional(package: str, purpose: str, extra: str = "") -> Any:
    """Return a stand-in for an optional package that imports the package on first use.

    Args:
        package: dotted module name, such as `hassil.intents`.
        purpose: what needs the package, for the error message.
        extra: the extra to name in the error; default: that of `EXTRAS`.
    """
    return _Optional(package, purpose, extra)


def need(package: str, purpose: str, extra: str = "") -> Any:
    """Return an optional package, imported now.

    Raises:
        MissingExtra: the package is not installed.
    """
    with needs(purpose, extra):
        return importlib.import_module(package)


def require(package: str, purpose: str, extra: str = "") -> None:
    """Check that an optional package is installed, without the cost of importing it.

    For work that another process will do: it fails here, at once and with its own exit code.

    Raises:
        MissingExtra: the package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise _missing(package, purpose, extra)


def _missing(package: str, purpose: str, extra: str) -> MissingExtra:
    name = extra or EXTRAS[package]
    return MissingExtra(f"{purpose} needs {package}: pip install 'tumen[{name}]'")


@contextmanager
def needs(purpose: str, extra: str = "") -> Iterator[None]:
    """Turn the failed import of an optional package inside the block into a MissingExtra.

    Other failed imports pass unchanged: they are bugs, and a traceback finds them.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise _missing(package, purpose, extra) from None


class _Optional:
    """Stand-in for a module; attribute access imports it."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        self._wanted = (package, purpose, extra)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy, pickle and inspect probe for special methods
            raise AttributeError(name)
        value = getattr(need(*self._wanted), name)
        setattr(self, name, value)  # the next access is a plain attribute
        return value
