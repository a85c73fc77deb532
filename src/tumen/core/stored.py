"""What was measured once and is kept as JSON: a machine's calibration profile, a device."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from tumen.core.errors import PlanError, disk

Kept = TypeVar("Kept", bound=BaseModel)


def store(what: BaseModel, path: Path) -> None:
    """Write it.

    Raises:
        DiskError: no room or not permitted.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(what.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load(kind: type[Kept], path: Path, name: str, verb: str) -> Kept:
    """Read it.

    Args:
        name, verb: what it is called, and the command that makes one.

    Raises:
        PlanError: missing or damaged.
    """
    try:
        return kind.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise PlanError(
            f"{path}: no {name}: this machine was not measured yet; `{verb}` does it in minutes"
        ) from None
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{path}: no {name} ({str(error).splitlines()[0]}); make one with `{verb}`"
        ) from None
