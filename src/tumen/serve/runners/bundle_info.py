"""What a bundle folder says about itself: `bundle.json`, and its LoRA adapters."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tumen.core import untrusted
from tumen.core.errors import ArtifactError
from tumen.formats import gguf_header
from tumen.language import Ontology
from tumen.recipe import Gate, Serve

MAX_BYTES = 1 << 20


class BundleInfo(BaseModel):
    """`bundle.json`. Fields of a newer tumen are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    recipe: str
    tier: str
    quantize: str = Field(
        "int8",
        validation_alias=AliasChoices("quantize", "quantise"),
        description="quantization type; `quantise` in older bundles",
    )
    serve: Serve = Serve()
    gate: Gate = Gate()
    prefix: str = Field(
        "",
        description="text before every sentence (a pretrained model's examples); its state is kept",
    )
    control: tuple[int, int, int] | None = Field(
        None,
        description="of a pretrained model's vocabulary: the tokens that begin, "
        "separate sentence from action, and end",
    )
    adapter: str | None = Field(
        None, description="which of `adapters/` is used unless another is requested"
    )


def read_bundle_info(folder: Path) -> BundleInfo:
    """Read `bundle.json` of a bundle folder.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = folder / "bundle.json"
    # The most common mistake: a folder that is no bundle.
    if not path.exists():
        raise ArtifactError(f"{path}: missing, so {folder} is not a bundle; run the recipe again")
    try:
        return BundleInfo.model_validate(untrusted.read_json(path, most_bytes=MAX_BYTES))
    except ValidationError as error:
        # The first fault is enough: the file is written by a program, not by hand.
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        at = f" at {where}" if where else ""
        raise ArtifactError(f"{path}: damaged{at}; run the recipe again") from None


def read_adapters(folder: Path) -> dict[str, tuple[Path, Ontology]]:
    """Return the adapters of a bundle: name -> (GGUF, what it may write).

    Raises:
        ArtifactError: a file is not an adapter of the bundle's model.
    """
    paths = sorted(folder.glob("adapters/*.gguf"))
    if not paths:
        return {}
    # Every file is checked before llama.cpp reads one of them.
    base = gguf_header.check(folder / "model.gguf")
    for path in paths:
        gguf_header.check_adapter(path, base)
    adapters = {}
    for path in paths:
        ontology = Ontology.read(path.with_suffix(".json"))
        adapters[path.stem] = (path, ontology)
    return adapters
