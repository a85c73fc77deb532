"""AdamW over one flat buffer, and the learning rate of a step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tumen.core.recipe import Train
from tumen.train.optimizer import FlatAdamW, rate_at


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.Parameter(torch.rand(5))
        self.matrix = nn.Parameter(torch.randn(5, 3))
        self.second = nn.Parameter(torch.randn(3, 4))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return ((x * self.norm) @ self.matrix @ self.second).square().mean()


class TestRate:
    @given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1))
    def test_never_above_the_peak_nor_at_zero(self, steps: int, warmup: float, decay: float) -> None:
        section = Train(steps=steps, warmup=warmup, decay=decay, rate=0.01)
        rates = [rate_at(section, step) for step in range(steps)]
        assert all(0 < rate <= 0.01 for rate in rates)

    @given(st.integers(10, 500))
    def test_rises_stays_and_falls(self, steps: int) -> None:
        section = Train(steps=steps, warmup=0.2, decay=0.4, rate=1.0)
        rates = [rate_at(section, step) for step in range(steps)]
        top = [step for step, rate in enumerate(rates) if rate == 1.0]
        assert top == list(range(top[0], top[-1] + 1))
        assert rates[: top[0] + 1] == sorted(rates[: top[0] + 1])
        assert rates[top[-1] :] == sorted(rates[top[-1] :], reverse=True)

    def test_numbers(self) -> None:
        section = Train(steps=10, warmup=0.2, decay=0.4, rate=0.1)
        rates = [rate_at(section, step) for step in range(10)]
        assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05, 0.025])

    def test_no_warm_up_no_decay(self) -> None:
        section = Train(steps=3, warmup=0, decay=0, rate=0.1)
        assert [rate_at(section, step) for step in range(3)] == [0.1] * 3


class TestUpdate:
    def test_is_torchs_own_adamw(self) -> None:
        section = Train(steps=5, clip=1e9, weight_decay=0.3, betas=(0.8, 0.9))
        ours, theirs = Tiny(), Tiny()
        flat = FlatAdamW(ours, section, torch.float32)
        groups = [
            {"params": [theirs.matrix, theirs.second], "weight_decay": 0.3},
            {"params": [theirs.norm], "weight_decay": 0.0},
        ]
        plain = torch.optim.AdamW(groups, betas=(0.8, 0.9))
        for step in range(5):
            x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
            for group in plain.param_groups:
                group["lr"] = 0.01 * (step + 1)
            plain.zero_grad()
            theirs.loss(x).backward()
            plain.step()
            ours.loss(x).backward()
            flat.step(0.01 * (step + 1))
        for (name, left), right in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(left, right, msg=name)

    def test_clips_to_the_norm_and_reports_what_it_was(self) -> None:
        first, second = Tiny(), Tiny()
        loose = FlatAdamW(first, Train(steps=1, clip=1e9), torch.float32)
        tight = FlatAdamW(second, Train(steps=1, clip=0.01), torch.float32)
        x = torch.ones(2, 5)
        norms = []
        for network, optimizer in ((first, loose), (second, tight)):
            network.loss(x).backward()
            norms.append(optimizer.step(0.0))
        assert norms[0] == pytest.approx(norms[1])
        kept = [
            torch.cat([optimizer.moments()[f"{i}.exp_avg"] for i in (0, 1)]).norm() / 0.1
            for optimizer in (loose, tight)
        ]
        assert float(kept[0]) == pytest.approx(norms[0], rel=1e-3)
        assert float(kept[1]) == pytest.approx(0.01, rel=1e-3)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_no_update_with_a_gradient_that_is_no_number(self, value: float) -> None:
        network = Tiny()
        optimizer = FlatAdamW(network, Train(steps=1), torch.float32)
        before = optimizer.master.clone()
        assert network.matrix.grad is not None
        network.matrix.grad[0, 0] = value
        norm = optimizer.step(0.1)
        assert norm != norm or norm == float("inf")
        assert torch.equal(optimizer.master, before)
        assert not optimizer.gradient.any(), "cleared for the next"

    def test_half_the_bits_to_compute_whole_ones_to_remember(self) -> None:
        """Updates too small for bf16 add up in the master weights."""
        network = Tiny()
        optimizer = FlatAdamW(network, Train(steps=1, weight_decay=0), torch.bfloat16)
        assert network.matrix.dtype == torch.bfloat16
        start = optimizer.master.clone()
        for _ in range(100):
            for weight in network.parameters():
                assert weight.grad is not None
                weight.grad.fill_(1.0)
            optimizer.step(1e-5)
        torch.testing.assert_close(start - optimizer.master, torch.full_like(start, 1e-3), atol=2e-5, rtol=0)
        torch.testing.assert_close(optimizer.weights.float(), optimizer.master, atol=0.01, rtol=0.01)


def test_restored_state_goes_on_in_the_same_bits() -> None:
    def run(network: Tiny, optimizer: FlatAdamW, steps: range) -> None:
        for step in steps:
            x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step)).bfloat16()
            network.loss(x).backward()
            optimizer.step(0.01)

    first, section = Tiny(), Train(steps=1)
    whole = FlatAdamW(first, section, torch.bfloat16)
    run(first, whole, range(4))
    weights = {name: tensor.clone() for name, tensor in whole.named_master().items()}
    moments = {name: tensor.clone() for name, tensor in whole.moments().items()}
    run(first, whole, range(4, 8))
    second = Tiny()
    other = FlatAdamW(second, section, torch.bfloat16)
    other.restore(weights, moments)
    run(second, other, range(4, 8))
    assert torch.equal(whole.master, other.master)
    assert torch.equal(first.matrix, second.matrix)
    assert set(weights) == {name for name, _ in first.named_parameters()}
