"""Types that fields of several sections share: closed sets of words, names."""

from __future__ import annotations

import typing
from typing import Annotated, Literal

from pydantic import Field

from tumen.language import LANGUAGES

VARIANT_NAME = r"(?!table$)[a-z0-9][a-z0-9_-]*"

# The list is data of the language room; mypy cannot read it and sees Any.
Language = Literal[LANGUAGES]  # type: ignore[valid-type]
Filter = Literal["quality", "held_out", "exact", "near"]

Matrix = Literal["q", "k", "v", "q_down", "q_up", "kv_down", "out", "gate", "up", "down"]

LINEAR: tuple[Matrix, ...] = typing.get_args(Matrix)

QuantType = Literal["bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k"]

Word = Literal["int8", "int4", QuantType]

LADDER: tuple[QuantType, ...] = ("q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k")

SiteWord = Annotated[str, Field(pattern=r"""^[^\s'"\\$`#]+$""")]
