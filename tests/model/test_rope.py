"""Rotary positions: turns that keep lengths and know distances alone."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.model.rope import angles, rotate


def turned(x: torch.Tensor, position: int, theta: float = 10_000.0) -> torch.Tensor:
    cos, sin = angles(torch.tensor([[[position]]]), x.shape[-1], theta)
    return rotate(x.view(1, 1, 1, -1), cos, sin).flatten()


@settings(max_examples=40, deadline=None)
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
