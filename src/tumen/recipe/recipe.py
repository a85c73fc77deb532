"""The recipe: one TOML that drives plan, data, tiers, shrink, serve, gate and home.

A recipe is frozen, and an unknown field is a fault. All faults of a file are reported at once, each
with its dotted path. A room gets its own section and the artifacts it needs, never the whole
recipe. To vary a recipe, write another file or use `--set family.cloud.train.steps=10`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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

# Each stage has a folder in the run's folder; a tier may not take one of these names.
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
CLOUD = "cloud"  # the tier that is served as the cloud's where `serve.cloud` names none
TIER_NAME = (
    r"(?!(corpus|tokenizer|dataset|jobs|ablation)$|bundle-|.*-(logits|quant|qat)$)"
    r"[a-z0-9][a-z0-9_-]*"
)


class Recipe(Frozen):
    """One recipe, from sentences to a gated bundle."""

    # The run.
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="names the run's folder")
    seed: int = 0
    # What is trained, and on what.
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    family: dict[str, Tier] = Field(min_length=1)
    # How it is served, and where it runs.
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

    @model_validator(mode="before")
    @classmethod
    def _no_cloud(cls, tree: Any) -> Any:
        """Leave `serve.cloud` empty where it is not named and the family has no tier `cloud`."""
        if not isinstance(tree, dict) or not isinstance(tree.get("family"), dict):
            return tree
        serve = tree.get("serve", {})
        if not isinstance(serve, dict) or "cloud" in serve or CLOUD in tree["family"]:
            return tree
        if serve.get("cloud_url"):
            return tree
        return {**tree, "serve": {**serve, "cloud": None}}

    @model_validator(mode="after")
    def _tiers(self) -> Recipe:
        faults = list(self._tier_faults())
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _tier_faults(self) -> Iterator[str]:
        """Faults that one section alone cannot find, each with its dotted path."""
        wrong_origins = list(self._origin_faults())
        yield from self._name_faults(wrong_origins)
        # With unknown teachers every order is broken; that is no second fault.
        if not wrong_origins:
            yield from self._circle_faults()
        yield from self._length_faults()
        yield from self._serve_faults()
        yield from self._ablation_faults()

    def _origin_faults(self) -> Iterator[tuple[str, str]]:
        """Teachers and pruned tiers that are not another tier: (tier, fault)."""
        for name, tier in self.family.items():
            others = [other for other in self.family if other != name]
            teacher = tier.distil.teacher if tier.distil else None
            for field, origin in (("distil.teacher", teacher), ("prune", tier.prune)):
                if origin and origin not in others:
                    fault = f"family.{name}.{field}: {origin!r} is no other tier of the family"
                    yield name, fault

    def _name_faults(self, origin_faults: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Names of tiers that cannot be folders; after each name, the tier's faulty origins."""
        for name in self.family:
            if not re.fullmatch(TIER_NAME, name):
                yield (
                    f"family.{name}: a tier's name is its folder: small letters, digits, - and _, "
                    f"and none of {', '.join(STAGE_NAMES)}"
                )
            yield from (fault for tier, fault in origin_faults if tier == name)

    def _circle_faults(self) -> Iterator[str]:
        """Tiers that can never be made, as each needs another one first."""
        order = self.tiers_in_order()
        left = [name for name in self.family if name not in order]
        if left:
            yield f"family: tiers are made from each other in a circle: {', '.join(left)}"

    def _length_faults(self) -> Iterator[str]:
        """Texts that are longer than what a tier is trained on."""
        # Without a setting, texts are as long as the shortest tier allows.
        longest = self.data.document_tokens
        for name, tier in self.family.items():
            if longest and longest > tier.train.seq_len:
                yield (
                    f"data.document_tokens: {longest} do not fit into family.{name}.train.seq_len"
                )

    def _serve_faults(self) -> Iterator[str]:
        """Tiers to serve that do not exist; with a URL the cloud tier may be elsewhere."""
        serve = self.serve
        if serve.device not in self.family:
            yield f"serve.device: {self._unknown(serve.device)}"
        if serve.cloud and not serve.cloud_url and serve.cloud not in self.family:
            yield f"serve.cloud: {self._unknown(serve.cloud)}"
        alone = self.gate.alone
        if alone and alone not in self.family:
            yield f"gate.alone: {self._unknown(alone)}"

    def _ablation_faults(self) -> Iterator[str]:
        """Variants of unknown tiers, or with changes that do not fit."""
        if not self.ablation:
            return
        for name, variant in self.ablation.each().items():
            if variant.tier not in self.family:
                yield f"ablation.{name}.tier: {self._unknown(variant.tier)}"
                continue
            for fault in self._variant_faults(name, variant):
                yield f"ablation.{name}.{fault}"

    def _variant_faults(self, name: str, variant: Variant) -> Iterator[str]:
        """Faults of a variant of a known tier; their paths begin below the tier."""
        # All variants train for the same budget.
        if "train.steps" in variant.set:
            yield "set: train.steps follows from the budget"
        try:
            tier = self.variant(name)
        except ValidationError as error:
            yield from faults_of(Tier, error)
            return
        except ValueError as error:
            yield f"set: {error}"
            return
        # A change may name another teacher, which only the family can check.
        if tier.distil and tier.distil.teacher not in self.family:
            yield f"distil.teacher: {self._unknown(tier.distil.teacher)}"
        if tier.prune and tier.prune not in self.family:
            yield f"prune: {self._unknown(tier.prune)}"

    def _unknown(self, tier: str) -> str:
        return f"{tier!r} is no tier; the family has {', '.join(self.family)}"

    def variant(self, name: str) -> Tier:
        """Return a variant as a tier; its steps are still those of the tier it is a variant of.

        Raises:
            ValueError: its changes do not fit (a checked recipe has no such variant).
        """
        variant = (self.ablation or Ablation()).each()[name]
        # As plain data, so that all checks run again on the changed tier.
        tree = self.family[variant.tier].model_dump()
        for path in variant.without:
            put(tree, path, None)
        for path, value in variant.set.items():
            put(tree, path, value)
        return Tier.model_validate(tree)

    def document_tokens(self) -> int:
        """Most tokens of a piece of plain text."""
        if self.data.document_tokens:
            return self.data.document_tokens
        return min(tier.train.seq_len for tier in self.family.values())

    def tiers_in_order(self) -> list[str]:
        """Names of the tiers, each after the tiers it is made from.

        Tiers that are made from each other in a circle are missing.
        """
        order: list[str] = []
        # Each pass adds one more generation of students.
        for _ in self.family:
            ready = [name for name in self.family if self._can_follow(name, order)]
            order += ready
        return order

    def _can_follow(self, name: str, order: Sequence[str]) -> bool:
        if name in order:
            return False
        return all(other in order for other in self.family[name].made_from())


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path; sections above it are made where they are missing.

    Raises:
        ValueError: a part of the path is a value, not a section.
    """
    *parents, leaf = path.strip().split(".")
    # `None` is a section that the tier leaves out, such as distil.
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise ValueError(f"{parent!r} is a value, not a section")
    tree[leaf] = value
