"""Every error tumen raises on purpose, as one tree.

    TumenError                 one line for people: what, where, what to do
    ├── RecipeError            a recipe that cannot be used; carries all its faults
    ├── ArtifactError          a folder or file that is missing, cut short, tampered with or of another kind
    ├── InputError             a request, sentence or user file that cannot be taken
    ├── DiskError              no room, read-only, not permitted; nothing was lost
    ├── PlanError              no layout fits, or the question makes no sense
    ├── TrainError             training cannot start or must stop (NaN, another shape, missing shards)
    │   ├── LossError          a loss that is no number, or leaps
    │   └── PeerError          another rank is gone; that one has the reason
    ├── ExportError            the exported model does not do what the trained one does
    ├── GateError              a bundle that is not good enough to be shown
    ├── RunnerError            a runner that does not start, answer or finish
    │   └── RunnerBusy         the port or the slot is taken
    ├── EngineError            an engine that refuses, is absent or lost a run
    └── MissingExtra           an optional package that is not installed, with the extra that has it

Library code raises these and never prints or exits; `cli` turns them into one line and the exit code of the class.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class TumenError(Exception):
    """Base of all errors that are for people. `str(error)` is one line."""

    exit_code = 1


class RecipeError(TumenError):
    """A recipe with faults. `faults` holds one line each, with a dotted path."""

    exit_code = 2

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where, self.faults = where, list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{where}: {count}\n" + "\n".join(f"  {fault}" for fault in self.faults))


class ArtifactError(TumenError):
    """An artifact or payload file that cannot be trusted or found."""

    exit_code = 3


class InputError(TumenError):
    """A request or user file that cannot be taken."""

    exit_code = 4


class DiskError(TumenError):
    """The disk said no. What was there before is untouched."""

    exit_code = 5


class PlanError(TumenError):
    """A plan that does not exist, with the nearest legal value."""

    exit_code = 6


class TrainError(TumenError):
    """Training that cannot start or must stop."""

    exit_code = 7


class LossError(TrainError):
    """A loss that is no number (`kind` nan) or leaps (spike), at a step counted from 0."""

    def __init__(self, kind: str, step: int, why: str) -> None:
        self.kind, self.step = kind, step
        super().__init__(why)

    def __reduce__(self) -> tuple[type[LossError], tuple[str, int, str]]:
        return LossError, (self.kind, self.step, str(self))


# Words of two messages that are searched for in the logs of ranks.
PEER_LOST = "another rank exited or hung"
RANKS_CANNOT_MEET = "cannot meet"


class PeerError(TrainError):
    """Another rank is gone; what that one said is the reason."""


class ExportError(TumenError):
    """An export that is not the trained model any more."""

    exit_code = 8


class GateError(TumenError):
    """A bundle below its recipe's floors."""

    exit_code = 9


class RunnerError(TumenError):
    """A runner that does not start, answer or finish."""

    exit_code = 10


class RunnerBusy(RunnerError):
    """A port or slot that is taken."""


class EngineError(TumenError):
    """An engine that refuses, is absent or lost a run."""

    exit_code = 11


class MissingExtra(TumenError):
    """An optional package is not installed."""

    exit_code = 12


DISK_ERRNOS = {  # what happened, and what to do
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the quota is used up", "make room"),
    errno.EFBIG: (
        "a file may not grow that large here",
        "raise the limit (ulimit -f), or make room",
    ),
    errno.EROFS: ("the disk is read-only", "make it writable, or name another folder"),
    errno.EACCES: ("permission denied", "make it writable, or name another folder"),
    errno.EPERM: ("not permitted", "make it writable, or name another folder"),
}


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a `DiskError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRNOS:
            raise
        happened, remedy = DISK_ERRNOS[error.errno]
        raise DiskError(
            f"{path}: {happened}; what was written before is intact: {remedy} and run the same command again"
        ) from error
