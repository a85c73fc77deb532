"""The recipe: one TOML that drives plan, data, tiers, shrink, serve, gate and home.

A recipe is frozen; a field nobody knows is a fault; all faults of a file are told at once with their dotted paths. A room
gets its own section and the artifacts it needs, never the whole recipe. A variant is another file or
`--set family.cloud.train.steps=10`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError, model_validator

from tumen.core.shape import Frozen
from tumen.recipe.ablation_section import Ablation, Variant
from tumen.recipe.data_section import Data, Tokenizer
from tumen.recipe.faults import faults_of
from tumen.recipe.fleet_section import Fleet
from tumen.recipe.plan_section import Planning
from tumen.recipe.serve_section import Gate, Serve
from tumen.recipe.tier_section import Tier

STAGE_NAMES = (
    "corpus",
    "tokenizer",
    "dataset",
    "jobs",
    "ablation",
    "bundle-*",
    "*-logits",
    "*-quant",
    "*-qat",
)

TIER_NAME = r"(?!(corpus|tokenizer|dataset|jobs|ablation)$|bundle-|.*-(logits|quant|qat)$)[a-z0-9][a-z0-9_-]*"


class Recipe(Frozen):
    """One recipe, from sentences to a gated bundle."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="names the run's folder")
    seed: int = 0
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    family: dict[str, Tier] = Field(min_length=1)
    serve: Serve = Serve()
    gate: Gate = Gate()
    fleet: Fleet = Fleet()
    plan: Planning = Planning()
    ablation: Ablation | None = Field(
        None, description="variants that `tumen ablate` trains side by side"
    )
    home: str | None = Field(
        None, description="TOML of the home that `tumen talk` acts on; default: the example"
    )

    @model_validator(mode="after")
    def _tiers(self) -> Recipe:
        faults = list(self._tier_faults())
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _tier_faults(self) -> Iterator[str]:
        """Names that fit nothing, each with its dotted path."""
        tiers = f"is no tier; the family has {', '.join(self.family)}"
        strangers = False
        for name, tier in self.family.items():
            if not re.fullmatch(TIER_NAME, name):
                taken = ", ".join(STAGE_NAMES)
                yield f"family.{name}: a tier's name is its folder: small letters, digits, - and _, and none of {taken}"
            for field, other in (
                ("distil.teacher", tier.distil and tier.distil.teacher),
                ("prune", tier.prune),
            ):
                if other and (other not in self.family or other == name):
                    strangers = True
                    yield f"family.{name}.{field}: {other!r} is no other tier of the family"
        if not strangers and len(order := self.tiers_in_order()) < len(self.family):
            yield f"family: tiers are made from each other in a circle: {', '.join(n for n in self.family if n not in order)}"
        for name, tier in self.family.items():
            if self.data.document_tokens and self.data.document_tokens > tier.train.seq_len:
                yield f"data.document_tokens: {self.data.document_tokens} do not fit into family.{name}.train.seq_len"
        if self.serve.device not in self.family:
            yield f"serve.device: {self.serve.device!r} {tiers}"
        if self.serve.cloud and not self.serve.cloud_url and self.serve.cloud not in self.family:
            yield f"serve.cloud: {self.serve.cloud!r} {tiers}"
        for name, variant in self.ablation.each().items() if self.ablation else ():
            if variant.tier in self.family:
                yield from (
                    f"ablation.{name}.{fault}" for fault in self._variant_faults(name, variant)
                )
            else:
                yield f"ablation.{name}.tier: {variant.tier!r} {tiers}"

    def _variant_faults(self, name: str, variant: Variant) -> Iterator[str]:
        """What is wrong with a variant of a known tier, paths from the tier on."""
        if "train.steps" in variant.set:
            yield "set: train.steps follows from the budget"
        try:
            tier = self.variant(name)
        except ValidationError as error:
            yield from faults_of(Tier, error)
        except ValueError as error:
            yield f"set: {error}"
        else:
            unknown = f"is no tier; the family has {', '.join(self.family)}"
            if tier.distil and tier.distil.teacher not in self.family:
                yield f"distil.teacher: {tier.distil.teacher!r} {unknown}"
            if tier.prune and tier.prune not in self.family:
                yield f"prune: {tier.prune!r} {unknown}"

    def variant(self, name: str) -> Tier:
        """A variant as the tier it is; its steps are still those of the tier it comes from.

        Raises:
            ValueError: its changes do not fit (a checked recipe has no such variant).
        """
        variant = (self.ablation or Ablation()).each()[name]
        tree = self.family[variant.tier].model_dump()
        for path in variant.without:
            put(tree, path, None)
        for path, value in variant.set.items():
            put(tree, path, value)
        return Tier.model_validate(tree)

    def document_tokens(self) -> int:
        """Most tokens of a piece of plain text."""
        return self.data.document_tokens or min(tier.train.seq_len for tier in self.family.values())

    def tiers_in_order(self) -> list[str]:
        """Tier names with every teacher, and every tier that another is cut from, before those made from it."""
        order: list[str] = []
        for _ in self.family:  # one more generation of students each time
            order += [
                n
                for n, tier in self.family.items()
                if n not in order and all(other in order for other in tier.made_from())
            ]
        return order


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a dotted path, making the sections above it.

    Raises:
        ValueError: a part of the path is a value, not a section.
    """
    *parents, leaf = path.strip().split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise ValueError(f"{parent!r} is a value, not a section")
    tree[leaf] = value
