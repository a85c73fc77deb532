"""Types that fields of several sections share: closed sets of words, patterns of names."""

from __future__ import annotations

import typing
from typing import Annotated, Literal

from pydantic import Field

from tumen.language import LANGUAGES

# Each variant has a folder of its own in ablation/, and the table of results is called `table`.
VARIANT_NAME = r"(?!table$)[a-z0-9][a-z0-9_-]*"

# The list is data of the language room; mypy cannot read it and sees Any.
Language = Literal[LANGUAGES]  # type: ignore[valid-type]

# A language of a data set, with or without its region: `pt`, `pt-PT`.
Locale = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]

Filter = Literal["quality", "held_out", "exact", "near"]

# Matrices of a block that LoRA can adapt, and all of them.
Matrix = Literal["q", "k", "v", "q_down", "q_up", "kv_down", "out", "gate", "up", "down"]
LINEAR: tuple[Matrix, ...] = typing.get_args(Matrix)

# Names of llama.cpp's quantization types, and two short words for common mixes of them.
QuantType = Literal["bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k"]
Word = Literal["int8", "int4", QuantType]
# What a size budget chooses from, largest first.
LADDER: tuple[QuantType, ...] = ("q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k")

# Goes into job scripts and manifests, so nothing that a shell would interpret.
SiteWord = Annotated[str, Field(pattern=r"""^[^\s'"\\$`#]+$""")]
