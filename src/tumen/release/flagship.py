"""The flagship: the bundle that ships inside the package, so that a fresh install answers at once.

    shipped/bundle/          a gated bundle with its scorecard
    shipped/lineage.json     what it was made from, see `Lineage`

It is as trusted as the code beside it, so no trust store is asked. `python -m tests.ship RUN` puts
the bundle of a finished run in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tumen.core import units, untrusted
from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import ArtifactError
from tumen.language import HOME, Ontology

FOLDER = Path(__file__).parent / "shipped"
BUNDLE = FOLDER / "bundle"
LINEAGE = "lineage.json"
MOST_BYTES = 8_000_000  # of the whole folder


class Lineage(BaseModel):
    """What the flagship was made from.

    Attributes:
        digest: of the bundle.
        scorecard: digest of the scorecard that was made of it.
        recipe: its name.
        recipe_hash: of what the recipe says, see `core.artifact.hash_of`.
        commit: of the source that made it.
        command: that made it.
        date: when it was shipped.
        stages: digest of each artifact of its run, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    digest: str
    scorecard: str
    recipe: str
    recipe_hash: str
    commit: str
    command: str
    date: str
    stages: dict[str, str]


def read_lineage(folder: Path = FOLDER) -> Lineage:
    """Return what the flagship was made from.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = folder / LINEAGE
    try:
        return Lineage.model_validate(untrusted.read_json(path))
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        fault = f"{path}: damaged at {field}; `python -m tests.ship` writes it"
        raise ArtifactError(fault) from None


def describe(bundle: Path) -> str:
    """Return a line that says which bundle this is: its folder, or what the flagship is.

    Raises:
        ArtifactError: the flagship is missing or damaged.
    """
    if bundle != BUNDLE:
        return str(bundle)
    size = units.show_bytes(manifest_of(bundle, "bundle").payload_bytes)
    languages = ", ".join(Ontology.load(bundle).languages)
    return f"the flagship that ships with tumen ({read_lineage().recipe}, {size}; {languages})"


def flagship_faults(folder: Path = FOLDER) -> Iterator[str]:
    """Yield what is wrong with a flagship, one line each; nothing when it may ship.

    Raises:
        ArtifactError: a file of it is missing or damaged.
    """
    bundle = folder / BUNDLE.name
    made = verify(bundle, "bundle")
    scored = verify(bundle / "scorecard", "scorecard")
    lineage = read_lineage(folder)
    if made.digest not in scored.made_from:
        yield f"its scorecard belongs to another bundle than {made.digest}"
    if (lineage.digest, lineage.scorecard) != (made.digest, scored.digest):
        yield f"its {LINEAGE} is of another bundle or scorecard ({lineage.digest})"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        yield f"it has {units.show_bytes(size)}, at most {units.show_bytes(MOST_BYTES)} may ship"
    if Ontology.load(bundle) != HOME:
        yield "its ontology is not the source's: train and ship it anew"
