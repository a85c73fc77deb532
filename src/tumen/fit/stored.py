"""JSON files of what is measured once: the calibration profile of a machine, a device."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from tumen.core.errors import PlanError, disk

Model = TypeVar("Model", bound=BaseModel)


def store(measured: BaseModel, path: Path) -> None:
    """Write a measurement; the folder is made.

    Raises:
        DiskError: no room or not permitted.
    """
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(measured.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load(kind: type[Model], path: Path, name: str, verb: str) -> Model:
    """Read a measurement.

    Args:
        kind: class of the measurement.
        path: the file that `store` wrote.
        name: what the measurement is called, for errors.
        verb: the command that makes one, for errors.

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
        reason = str(error).splitlines()[0]
        raise PlanError(f"{path}: no {name} ({reason}); make one with `{verb}`") from None
