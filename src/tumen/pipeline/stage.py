"""A stage: one artifact of a run, with its own section of the recipe, its inputs and its maker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tumen.core.artifact import Kind, Manifest, hash_of
from tumen.core.events import Events


class Update(Protocol):
    """Show how far the current stage is."""

    def __call__(self, step: int, steps: int, text: str) -> None:
        """Show `step` of `steps`, and a few words about it."""


class Progress(AbstractContextManager["Progress"], Protocol):
    """Where a run reports its progress; the command line implements it."""

    live: bool  # whether it draws a live display, so that lines about finished stages help

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def task(self, name: str) -> AbstractContextManager[Update]:
        """Show a stage while the block runs."""


@dataclass(frozen=True)
class Work:
    """What a stage needs in order to be made, besides its own fields."""

    run: Path  # folder of the run
    inputs: str  # hash of everything that decides the artifact, kept in its manifest
    events: Events
    progress: Progress
    update: Update


@dataclass(frozen=True)
class Stage(ABC):
    """One artifact of a run. Subclasses hold the section of the recipe that decides it.

    Attributes:
        kind: of the artifact.
        maker: version of the code that makes it; raise it when the same inputs give another
            artifact.
        name: name of the stage, and its folder inside the run.
        parents: names of the stages it is made from.
    """

    kind: ClassVar[Kind]
    maker: ClassVar[int]
    name: str
    parents: tuple[str, ...]

    @abstractmethod
    def settings(self) -> Any:
        """Return everything in the recipe that decides this artifact, as JSON can hold it."""

    @abstractmethod
    def make(self, work: Work) -> Manifest:
        """Make the artifact in its folder of the run."""

    def inputs(self, digests: Mapping[str, str]) -> str:
        """Return the hash of everything that decides this artifact.

        Args:
            digests: digest of each stage by name; a parent that is not there counts as empty.
        """
        parents = [digests.get(parent, "") for parent in self.parents]
        return hash_of([self.kind, self.maker, self.settings(), parents])
