"""Every error tumen raises on purpose, as one tree.

    TumenError                 one line for people: what, where, what to do
    ├── RecipeError            a recipe that cannot be used; carries all its faults
    ├── ArtifactError          a missing, cut short or changed folder or file, or of another kind
    ├── InputError             a request, sentence or user file that cannot be taken
    ├── DiskError              no room, read-only, not permitted; nothing was lost
    ├── PlanError              no layout fits, or the question makes no sense
    ├── TrainError             training cannot start or must stop (NaN, shape, missing shards)
    │   ├── LossError          the loss is NaN, or spikes
    │   └── PeerError          another rank exited or hung; see that rank's log
    ├── ExportError            the exported model does not compute what the trained one does
    ├── GateError              a bundle below its recipe's thresholds
    ├── RunnerError            a runner that does not start, answer or finish
    │   └── RunnerBusy         the port or the slot is taken
    ├── EngineError            an engine that refuses, is absent or lost a run
    └── MissingExtra           an optional package is not installed; names the extra that has it

Library code raises these and never prints or exits; `cli` prints the line and exits with the exit
code of the class.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class TumenError(Exception):
    """Base of all errors that are for people. `str(error)` is one line."""

    exit_code = 1  # of the process; each class below has its own


class RecipeError(TumenError):
    """A recipe with faults. `faults` holds one line each, with a dotted path."""

    exit_code = 2

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where = where
        self.faults = list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{where}: {count}\n{lines}")


class ArtifactError(TumenError):
    """An artifact or payload file that cannot be trusted or found."""

    exit_code = 3


class InputError(TumenError):
    """A request or user file that cannot be taken."""

    exit_code = 4


class DiskError(TumenError):
    """The disk refused a write. What was there before is unchanged."""

    exit_code = 5


class PlanError(TumenError):
    """There is no such plan; names the nearest legal value."""

    exit_code = 6


class TrainError(TumenError):
    """Training that cannot start or must stop."""

    exit_code = 7


class LossError(TrainError):
    """The loss is NaN (`kind` "nan") or spikes ("spike"), at a step counted from 0."""

    def __init__(self, kind: str, step: int, why: str) -> None:
        self.kind = kind
        self.step = step
        super().__init__(why)

    def __reduce__(self) -> tuple[type[LossError], tuple[str, int, str]]:
        # Errors of ranks are pickled; the default would call __init__ with the text alone.
        return LossError, (self.kind, self.step, str(self))


# Words of two messages that are searched for in the logs of ranks.
PEER_LOST = "another rank exited or hung"
RANKS_CANNOT_MEET = "cannot meet"


class PeerError(TrainError):
    """Another rank exited or hung; see that rank's log for the cause."""


class ExportError(TumenError):
    """An export that does not compute what the trained model does."""

    exit_code = 8


class GateError(TumenError):
    """A bundle below its recipe's thresholds."""

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
    """Turn the operating system's refusal to write `path` into a DiskError that says what to do.

    Other errors pass unchanged: they are bugs.
    """
    try:
        yield
    except OSError as error:
        # Such as EBADF: not the disk's fault.
        if error.errno not in DISK_ERRNOS:
            raise
        happened, remedy = DISK_ERRNOS[error.errno]
        raise DiskError(
            f"{path}: {happened}; what was written before is intact: "
            f"{remedy} and run the same command again"
        ) from error
