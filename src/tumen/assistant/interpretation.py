"""Interpretation: what a model made of one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tumen.language import Action


@dataclass(frozen=True)
class Interpretation:
    """What a model made of one sentence.

    Attributes:
        action: what is wanted, in the words of the sentence.
        tier: who answered, `device` or `cloud`.
        why: why that tier answered.
        confidence: how sure the model is, 0 to 1.
        seconds: what each tier that was asked took.
    """

    action: Action
    tier: str
    why: str
    confidence: float
    seconds: Mapping[str, float] = field(default_factory=dict)
