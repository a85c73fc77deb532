"""A scorecard read back. It may lie in a bundle that somebody handed over, so every field is checked before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tumen.core import untrusted
from tumen.core.artifact import Manifest, manifest_of
from tumen.core.errors import ArtifactError
from tumen.recipe import Gate, Share


def _one_line(text: str) -> str:
    if not text.isprintable() or len(text) > 4096:
        raise ValueError("is no line of text")
    return text


Kind = TypeVar("Kind", bound=BaseModel)
Line = Annotated[str, AfterValidator(_one_line)]
Count = Annotated[int, Field(ge=0)]
Marks = Annotated[str, Field(pattern="^[01]*$")]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Row(_Read):
    """One group of an exam; a group without cases has `n` alone."""

    n: Count
    exact: Share = 0.0
    low: Share = 0.0
    high: Share = 0.0
    corrected: float = 0.0
    intent: Share = 0.0
    false_acts: Share | None = None
    false_intents: Share | None = None
    invented: Count = 0
    marks: Marks = ""

    @model_validator(mode="after")
    def _pairs(self) -> Row:
        if self.marks and len(self.marks) != self.n:
            raise ValueError(f"{len(self.marks)} marks of {self.n} cases")
        if self.n and "exact" not in self.model_fields_set:
            raise ValueError("exact is missing")
        return self


class ClassRow(_Read):
    """Device against cloud in one scenario class."""

    n: Count
    device: Share
    cloud: Share
    ratio: float | None
    low: float | None
    high: float | None
    reached: bool


class Card(_Read):
    """`scorecard.json`."""

    exam: Line = ""
    columns: dict[Line, dict[Line, Row]]
    bytes: dict[Line, Annotated[int, Field(gt=0)]]
    classes: dict[Line, ClassRow] = {}
    shortfalls: list[Line] = []

    @model_validator(mode="after")
    def _whole(self) -> Card:
        if "device" not in self.columns or not all("all" in rows for rows in self.columns.values()):
            raise ValueError("a column or its row `all` is missing")
        if missing := {"device", "cloud"} & set(self.columns) - set(self.bytes):
            raise ValueError(f"bytes of {', '.join(sorted(missing))} are missing")
        return self


class Facts(_Read):
    """What the manifest of a scorecard says besides: seconds and agreement by column."""

    seconds_p50: dict[Line, float] = {}
    seconds_p95: dict[Line, float] = {}
    agreement: dict[Line, Share | None] = {}


class _About(_Read):
    gate: Gate


class _Made(_Read):
    agreement: Share | None = None


def read_card(bundle: Path) -> dict[str, Any]:
    """What a bundle's `scorecard.json` says.

    Raises:
        ArtifactError: missing, damaged or of an older kind.
    """
    path = bundle / "scorecard" / "scorecard.json"
    return _checked(
        Card, untrusted.read_json(path), path, "is no scorecard; the recipe examines it anew"
    ).model_dump()


def facts_of(bundle: Path) -> dict[str, Any]:
    """What the scorecard's manifest says besides.

    Raises:
        ArtifactError: missing or damaged.
    """
    card = bundle / "scorecard"
    facts = manifest_of(card, "scorecard").facts
    return _checked(
        Facts, facts, card, "has facts that are none; the recipe examines it anew"
    ).model_dump()


def gate_of(bundle: Path) -> Gate:
    """The floors in a bundle's `bundle.json`.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = bundle / "bundle.json"
    return _checked(
        _About,
        untrusted.read_json(path),
        path,
        "has no gate that can be read; run the recipe again",
    ).gate


def agreement_of(bundle: Manifest, where: Path) -> float | None:
    """What the export check found of a bundle: its share of torch's tokens; None if there was none.

    Raises:
        ArtifactError: damaged.
    """
    return _checked(
        _Made, bundle.facts, where, "has a fact `agreement` that is no share; run the recipe again"
    ).agreement


def _checked(kind: type[Kind], tree: Any, where: Path, says: str) -> Kind:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        at = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtifactError(
            f"{where}: {says}{f' (at {untrusted.shown(at)[:60]})' if at else ''}"
        ) from None
