"""Section `ablation`: variants of a tier that are trained side by side."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from tumen.core import units
from tumen.core.errors import InputError
from tumen.core.shape import Frozen
from tumen.recipe.field_types import VARIANT_NAME


class Variant(Frozen):
    """One variant: a tier of the family with changes.

    `set` works as `--set` does: the whole value at a path is replaced.
    """

    tier: str = Field(description="tier of the family it starts from")
    set: dict[str, Any] = Field(
        {}, description='changes by path in the tier, such as { "train.learning_rate" = 1e-3 }'
    )
    without: tuple[str, ...] = Field(
        (),
        description="sections of the tier that the variant does not have, such as "
        '["shape.experts", "distil"]',
    )

    @model_validator(mode="before")
    @classmethod
    def _table(cls, value: Any) -> Any:
        if not isinstance(value, dict | Variant):
            raise ValueError(
                "neither a field (seeds, budget, seconds, eval) "
                "nor a variant, which is a table with a tier"
            )
        return value


class Ablation(Frozen):
    """Variants trained side by side, `[ablation.NAME]` each, at one budget.

    Each is trained once a seed; the seed sets the initial weights and the order of the data.
    """

    # Every other key of the table is a variant's name.
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Variant]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 2, 3), min_length=1)
    budget: str | float | None = Field(
        None, description="FLOPs of a variant and seed, such as 2e15"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="instead of budget: seconds of training steps of a variant and seed, on this "
        "machine",
    )
    eval: bool = Field(False, description="pack every variant and run the recipe's eval on it")

    @model_validator(mode="after")
    def _one_budget(self) -> Ablation:
        if (self.budget is None) == (self.seconds is None):
            raise ValueError("set one of budget (FLOPs) and seconds")
        if self.budget is not None and self.flops() <= 0:
            raise ValueError(f"budget {self.budget!r} must be above 0 FLOPs")
        # The same seed twice would count one run as two.
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        if not self.each():
            raise ValueError(
                "there is no variant; write a table [ablation.NAME] with a tier for each"
            )
        for name in self.each():
            if not re.fullmatch(VARIANT_NAME, name):
                raise ValueError(
                    f"{name!r}: a variant's name is its folder: "
                    "small letters, digits, - and _, and not 'table'"
                )
        return self

    def flops(self) -> float:
        """The budget as a number."""
        try:
            return units.count(self.budget or 0)
        except InputError as error:
            raise ValueError(f"budget: {error}") from None

    def each(self) -> dict[str, Variant]:
        """The variants by name, in the recipe's order."""
        return self.__pydantic_extra__
