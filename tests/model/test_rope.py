"""Rotary positions: turns that keep lengths and know distances alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.core.shape import Yarn
from tumen.model.rope import angles, rotate


def turned(x: torch.Tensor, position: int, theta: float = 10_000.0) -> torch.Tensor:
    cos, sin = angles(torch.tensor([[[position]]]), x.shape[-1], theta)
    return rotate(x.view(1, 1, 1, -1), cos, sin).flatten()


@settings(max_examples=40)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 300), st.sampled_from((2, 4, 16)))
def test_products_depend_on_the_distance(at: int, distance: int, shift: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    q, k = torch.randn(dim, generator=generator), torch.randn(dim, generator=generator)
    here = turned(q, at + distance) @ turned(k, at)
    there = turned(q, at + distance + shift) @ turned(k, at + shift)
    torch.testing.assert_close(here, there, atol=2e-3, rtol=1e-3)


@given(st.integers(0, 1000))
def test_lengths_stay(position: int) -> None:
    x = torch.arange(1.0, 9.0)
    torch.testing.assert_close(turned(x, position).norm(), x.norm())


def test_position_zero_turns_nothing() -> None:
    x = torch.arange(1.0, 9.0)
    torch.testing.assert_close(turned(x, 0), x)


def test_the_first_pair_turns_by_one_radian_a_position() -> None:
    """Feature i turns with feature i + d / 2 (the halves convention), the first pair at frequency 1."""
    x = torch.tensor([1.0, 0, 0, 0])
    torch.testing.assert_close(turned(x, 3), torch.tensor([math.cos(3), 0, math.sin(3), 0]))
    slow = turned(torch.tensor([0, 1.0, 0, 0]), 3)
    torch.testing.assert_close(slow, torch.tensor([0, math.cos(0.03), 0, math.sin(0.03)]))


class TestYarn:
    """arXiv 2309.00071; DeepSeek-V2 has factor 40 from 4,096 tokens on."""

    YARN = Yarn(
        factor=40, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707
    )

    def turns(self, yarn: Yarn | None, position: int = 1) -> list[float]:
        cos, sin = angles(torch.tensor([[[position]]]), 64, 10_000.0, yarn)
        return torch.atan2(sin, cos).flatten().tolist()

    def test_fast_frequencies_stay_and_slow_ones_are_divided(self) -> None:
        plain, stretched = self.turns(None), self.turns(self.YARN)
        shares = [new / old for new, old in zip(stretched, plain, strict=True)]
        assert shares[:10] == pytest.approx([1] * 10)
        assert shares[-8:] == pytest.approx([1 / 40] * 8, rel=1e-4)
        assert all(slower <= faster * (1 + 1e-6) for faster, slower in itertools.pairwise(shares))

    def test_the_ramp_lies_where_the_old_context_has_one_turn_to_thirty_two(self) -> None:
        """A frequency of t turns within 4,096 tokens has index 32 log(4096 / (2 pi t)) / log(10000): 10.5 and 22.5."""
        plain, stretched = self.turns(None), self.turns(self.YARN)
        moved = [
            i
            for i, (new, old) in enumerate(zip(stretched, plain, strict=True))
            if new < old * (1 - 1e-6)
        ]
        whole = [
            i
            for i, (new, old) in enumerate(zip(stretched, plain, strict=True))
            if abs(new * 40 / old - 1) < 1e-4
        ]
        assert (moved[0], whole[0]) == (11, 23)

    def test_temperatures(self) -> None:
        """0.1 m ln 40 + 1: of the scores squared; of the turns the quotient of both."""
        assert self.YARN.score_scale == pytest.approx((0.1 * 0.707 * math.log(40) + 1) ** 2)
        assert self.YARN.turn_scale == 1
        apart = Yarn(factor=40, original_max_position_embeddings=4096)
        assert (apart.score_scale, apart.turn_scale) == (1, pytest.approx(0.1 * math.log(40) + 1))
        cos, sin = angles(torch.tensor([[[3]]]), 8, 10_000.0, apart)
        torch.testing.assert_close(cos**2 + sin**2, torch.full_like(cos, apart.turn_scale**2))

    def test_a_factor_of_one_is_none(self) -> None:
        one = Yarn(factor=1, original_max_position_embeddings=64, mscale=0.3, mscale_all_dim=0.9)
        assert self.turns(one, 7) == pytest.approx(self.turns(None, 7))
        assert one.score_scale == one.turn_scale == 1
