"""Read a scorecard back. It may come from an untrusted bundle, so every field is validated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tumen.core import untrusted
from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import ArtifactError
from tumen.core.shape import Share
from tumen.recipe import Gate

MAX_LINE = 4096  # characters


def _one_line(text: str) -> str:
    if not text.isprintable() or len(text) > MAX_LINE:
        raise ValueError("is not one line of text")
    return text


Kind = TypeVar("Kind", bound=BaseModel)
Line = Annotated[str, AfterValidator(_one_line)]
Count = Annotated[int, Field(ge=0)]
Marks = Annotated[str, Field(pattern="^[01]*$")]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class GroupRow(_Read):
    """One group of a suite; a group without cases has `n` alone. See `Tally.row`."""

    n: Count
    exact: Share = 0.0
    exact_home_known: Share | None = None
    low: Share = 0.0
    high: Share = 0.0
    corrected: float = 0.0
    intent: Share = 0.0
    false_acts: Share | None = None
    false_intents: Share | None = None
    invented: Count = 0
    marks: Marks = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> GroupRow:
        if self.marks and len(self.marks) != self.n:
            raise ValueError(f"{len(self.marks)} marks of {self.n} cases")
        if self.n and "exact" not in self.model_fields_set:
            raise ValueError("exact is missing")
        return self


class ClassRow(_Read):
    """Device against cloud in one scenario class. See `class_rows`."""

    n: Count
    device: Share
    cloud: Share
    ratio: float | None
    low: float | None
    high: float | None
    reached: bool


class Scorecard(_Read):
    """The content of `scorecard.json`.

    Attributes:
        suite: digest of the suite; older scorecards call it `exam`.
        columns: device, cloud, reference, teacher, alone -> group -> row.
        bytes: size of the bundles, by column.
        classes: scenario class -> device against cloud.
        teacher: column of the tier that the device's learned from, "" without one.
        shortfalls: what misses the gate, one line each.
    """

    suite: Line = Field("", validation_alias=AliasChoices("suite", "exam"))
    columns: dict[Line, dict[Line, GroupRow]]
    bytes: dict[Line, Annotated[int, Field(gt=0)]]
    classes: dict[Line, ClassRow] = {}
    teacher: Line = ""
    shortfalls: list[Line] = []

    @model_validator(mode="after")
    def _is_complete(self) -> Scorecard:
        if "device" not in self.columns or not all("all" in rows for rows in self.columns.values()):
            raise ValueError("a column or its row `all` is missing")
        if self.teacher and self.teacher not in self.columns:
            raise ValueError(f"the column of the teacher, {self.teacher!a}, is missing")
        missing = {"device", "cloud"} & set(self.columns) - set(self.bytes)
        if missing:
            raise ValueError(f"bytes of {', '.join(sorted(missing))} are missing")
        return self


class ScorecardFacts(_Read):
    """Facts in the manifest of a scorecard: seconds of an answer and agreement, by column."""

    seconds_p50: dict[Line, float] = {}
    seconds_p95: dict[Line, float] = {}
    agreement: dict[Line, Share | None] = {}


class _BundleSettings(_Read):
    gate: Gate


class _ExportFacts(_Read):
    agreement: Share | None = None


def read_scorecard(bundle: Path) -> dict[str, Any]:
    """Return the content of a bundle's `scorecard.json`, see `Scorecard`.

    Raises:
        ArtifactError: missing, damaged or of an older kind.
    """
    path = bundle / "scorecard" / "scorecard.json"
    tree = untrusted.read_json(path)
    problem = "not a scorecard; run the recipe again to evaluate the bundle"
    return _validated(Scorecard, tree, path, problem).model_dump()


def scorecard_facts(bundle: Path) -> dict[str, Any]:
    """Return the facts of the scorecard's manifest, see `ScorecardFacts`.

    Raises:
        ArtifactError: missing or damaged.
    """
    folder = bundle / "scorecard"
    facts = manifest_of(folder, "scorecard").facts
    problem = "its facts are damaged; run the recipe again to evaluate the bundle"
    return _validated(ScorecardFacts, facts, folder, problem).model_dump()


def gate_of(bundle: Path) -> Gate:
    """Return the gate in a bundle's `bundle.json`.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = bundle / "bundle.json"
    tree = untrusted.read_json(path)
    problem = "its gate cannot be read; run the recipe again"
    return _validated(_BundleSettings, tree, path, problem).gate


def agreement_of(bundle: Manifest, where: Path) -> float | None:
    """Return the share of torch's tokens that the export check found; None without a check.

    Raises:
        ArtifactError: damaged.
    """
    problem = "its fact `agreement` is not a share; run the recipe again"
    return _validated(_ExportFacts, bundle.facts, where, problem).agreement


def _validated(kind: type[Kind], tree: Any, where: Path, problem: str) -> Kind:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        at = f" (at {untrusted.shown(field)[:60]})" if field else ""
        raise ArtifactError(f"{where}: {problem}{at}") from None
