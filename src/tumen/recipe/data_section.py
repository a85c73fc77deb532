"""Sections `data` and `tokenizer`: where sentences come from and how they become tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tumen.core.shape import Frozen, Positive, Share
from tumen.language import LANGUAGES
from tumen.recipe.field_types import Filter, Language, Locale

# Filters by kind of source, where a recipe sets none.
FILTERS: dict[str, tuple[Filter, ...]] = {
    "text": ("quality", "held_out", "exact", "near"),
    "home": (),  # generated homes are split by template already
}
OTHER_FILTERS: tuple[Filter, ...] = ("held_out", "exact")
PATH = (
    "file of a local source, folder or glob of texts, folder of SNIPS, "
    "or name of a Hugging Face data set"
)


class Part(Frozen):
    """One source of a mix.

    `weight` is its share of the characters relative to the other weights, whatever its size.
    """

    source: str = "text"
    path: str | None = Field(None, description=PATH)
    # How much of it is used, and how often.
    weight: float = Field(gt=0)
    epochs: Positive = Field(
        1, description="how often its rows may be used; the mix ends when one source is used up"
    )
    slot_swap: Share = Field(
        0.0,
        description="share of its rows, from the second epoch on, whose slot values are taken "
        "from another row of the same intent",
    )
    # Which intents of it are used.
    exclude_intents: tuple[str, ...] = Field(
        (), description="intents whose rows are dropped, as another source has better ones"
    )
    class_priors: str | None = Field(
        None,
        description="labelled file whose intent frequencies are used as class priors for this "
        "source (logit adjustment)",
    )
    relabel_none: tuple[str, ...] = Field(
        (),
        description="intents unknown to the other sources: relabelled `none`; all other rows of "
        "this source are dropped",
    )
    # Own values of fields of the data section.
    languages: tuple[Language, ...] | None = Field(None, description="instead of data.languages")
    locales: tuple[Locale, ...] | None = Field(None, description="instead of data.locales")
    sentences: Positive | None = Field(None, description="instead of data.sentences")
    not_home: Share | None = Field(None, description="instead of data.not_home")

    @model_validator(mode="after")
    def _swaps(self) -> Part:
        # The first epoch shows each row as it is.
        can_swap = self.epochs > 1 and self.source != "text"
        if self.slot_swap and not can_swap:
            raise ValueError(
                "slot_swap changes rows with slots from the second pass on: "
                "set epochs above 1, and a source of sentences"
            )
        return self

    def own(self) -> dict[str, Any]:
        """Fields that this source sets in place of those of the data section."""
        fields: dict[str, Any] = {"source": self.source, "path": self.path}
        for name in ("languages", "locales", "sentences", "not_home"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return fields


class Data(Frozen):
    """Where sentences come from.

    `source` is a name of `tumen.data.sources.source.SOURCES` or `"my_pkg.mod:Class"`.
    """

    # Sources and filters.
    source: str = "home"
    path: str | None = Field(None, description=PATH)
    mix: tuple[Part, ...] = Field((), description="several sources instead of `source` and `path`")
    filters: tuple[Filter, ...] | None = Field(
        None,
        description="filters that rows must pass; default: all four for text, none for homes "
        "(split by template), else held_out and exact",
    )
    held_out: tuple[str, ...] = Field(
        (), description="files (JSONL, TSV, Parquet, txt) whose sentences are kept out of training"
    )
    # How texts are cut and processed.
    document_tokens: int | None = Field(
        None,
        gt=1,
        description="longest piece of a plain text in tokens; default: the smallest seq_len of "
        "the family",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="ray: texts are filtered and encoded on a Ray cluster"
    )
    # Generated sentences.
    languages: tuple[Language, ...] = LANGUAGES
    locales: tuple[Locale, ...] = Field(
        (),
        description="locales of a data set in many languages, such as `pt-PT` or, for all of a "
        "language, `pt`; default: those of `languages`",
    )
    sentences: Positive = Field(40_000, description="training sentences")
    validation: Positive = Field(600, description="sentences for the validation loss")
    eval_sentences: Positive = Field(300, description="eval sentences a language")
    held_out_templates: Share = Field(
        0.1, description="share of whole templates kept for the eval split"
    )
    held_out_names: Share = Field(0.2, description="share of whole names kept for the eval split")
    home_entities: tuple[Positive, Positive] = Field(
        (50, 200), description="smallest and largest generated home"
    )
    not_home: Share = Field(0.25, description="share of sentences that are not for the home")

    @model_validator(mode="after")
    def _mixed(self) -> Data:
        if self.mix and self.path:
            raise ValueError(
                "path and mix exclude each other: give every source of the mix its own path"
            )
        if self.engine == "ray" and not self.is_text():
            raise ValueError(
                "engine 'ray' is for plain texts: set source (or every source of the mix) to 'text'"
            )
        return self

    def parts(self) -> tuple[Part, ...]:
        """The sources; one source alone is a mix of one."""
        return self.mix or (Part(source=self.source, path=self.path, weight=1),)

    def is_text(self) -> bool:
        """Whether all of it is plain text, without actions."""
        return all(part.source == "text" for part in self.parts())

    def passed(self) -> tuple[Filter, ...]:
        """The filters that rows must pass; a held-out file is always kept out."""
        chosen = self._default_filters() if self.filters is None else self.filters
        if self.held_out and "held_out" not in chosen:
            return (*chosen, "held_out")
        return chosen

    def _default_filters(self) -> tuple[Filter, ...]:
        # A mix of kinds has no filters that suit all of them but these.
        kinds = {part.source for part in self.parts()}
        if len(kinds) > 1:
            return OTHER_FILTERS
        return FILTERS.get(kinds.pop(), OTHER_FILTERS)


class Tokenizer(Frozen):
    """Byte-fallback BPE. A small vocabulary is the cheapest way to speed up a device."""

    vocab_size: Annotated[int, Field(ge=512, le=262_144)] = 2048
    init_from: str | None = Field(
        None,
        description="pretrained model whose vocabulary is used instead of a trained one; default: "
        "the model that a tier starts from",
    )
    trim: int | None = Field(
        None,
        ge=0,
        description="keep only the tokens that the data needs and this many of the most frequent "
        "others; default: all",
    )
    pieces: bool = Field(
        False,
        description="add a token for each piece of an action (trained vocabularies have them)",
    )

    @model_validator(mode="after")
    def _of_something(self) -> Tokenizer:
        changes_vocabulary = self.trim is not None or self.pieces
        if changes_vocabulary and not self.init_from:
            raise ValueError(
                "trim and pieces are for the vocabulary of an outside model: "
                "set init_from, or start a tier from one"
            )
        return self
