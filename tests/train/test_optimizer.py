"""AdamW and Muon over one flat buffer, and the learning rate of a step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tumen.recipe import Train
from tumen.train.optimizer import FlatOptimizer, orthogonal, rate_at


def fill(
    optimizer: FlatOptimizer, weights: dict[str, Tensor], moments: dict[str, Tensor], step: int
) -> None:
    """What a checkpoint does: fill what the optimiser names, then go on from a step."""
    with torch.no_grad():
        for part, held in ((weights, optimizer.named_master()), (moments, optimizer.moments())):
            for name, tensor in part.items():
                held[name].copy_(tensor)
    optimizer.restored(step)


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
    def test_never_above_the_peak_nor_at_zero(
        self, steps: int, warmup: float, decay: float
    ) -> None:
        section = Train(steps=steps, warmup=warmup, decay=decay, learning_rate=0.01)
        rates = [rate_at(section, step) for step in range(steps)]
        assert all(0 < rate <= 0.01 for rate in rates)

    @given(st.integers(10, 500))
    def test_rises_stays_and_falls(self, steps: int) -> None:
        section = Train(steps=steps, warmup=0.2, decay=0.4, learning_rate=1.0)
        rates = [rate_at(section, step) for step in range(steps)]
        top = [step for step, rate in enumerate(rates) if rate == 1.0]
        assert top == list(range(top[0], top[-1] + 1))
        assert rates[: top[0] + 1] == sorted(rates[: top[0] + 1])
        assert rates[top[-1] :] == sorted(rates[top[-1] :], reverse=True)

    def test_numbers(self) -> None:
        section = Train(steps=10, warmup=0.2, decay=0.4, learning_rate=0.1)
        rates = [rate_at(section, step) for step in range(10)]
        assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05, 0.025])

    def test_no_warm_up_no_decay(self) -> None:
        section = Train(steps=3, warmup=0, decay=0, learning_rate=0.1)
        assert [rate_at(section, step) for step in range(3)] == [0.1] * 3


class TestUpdate:
    def test_is_torchs_own_adamw(self) -> None:
        section = Train(steps=5, grad_clip=1e9, weight_decay=0.3, betas=(0.8, 0.9))
        ours, theirs = Tiny(), Tiny()
        flat = FlatOptimizer(ours, section, torch.float32)
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
        loose = FlatOptimizer(first, Train(steps=1, grad_clip=1e9), torch.float32)
        tight = FlatOptimizer(second, Train(steps=1, grad_clip=0.01), torch.float32)
        x = torch.ones(2, 5)
        norms = []
        for network, optimizer in ((first, loose), (second, tight)):
            network.loss(x).backward()
            norms.append(optimizer.step(0.0))
        assert norms[0] == pytest.approx(norms[1])
        kept = [
            torch.cat(
                [
                    m.flatten()
                    for name, m in optimizer.moments().items()
                    if name.startswith("exp_avg.")
                ]
            ).norm()
            / 0.1
            for optimizer in (loose, tight)
        ]
        assert float(kept[0]) == pytest.approx(norms[0], rel=1e-3)
        assert float(kept[1]) == pytest.approx(0.01, rel=1e-3)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_no_update_with_a_gradient_that_is_no_number(self, value: float) -> None:
        network = Tiny()
        optimizer = FlatOptimizer(network, Train(steps=1), torch.float32)
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
        optimizer = FlatOptimizer(network, Train(steps=1, weight_decay=0), torch.bfloat16)
        assert network.matrix.dtype == torch.bfloat16
        start = optimizer.master.clone()
        for _ in range(100):
            for weight in network.parameters():
                assert weight.grad is not None
                weight.grad.fill_(1.0)
            optimizer.step(1e-5)
        torch.testing.assert_close(
            start - optimizer.master, torch.full_like(start, 1e-3), atol=2e-5, rtol=0
        )
        torch.testing.assert_close(
            optimizer.weights.float(), optimizer.master, atol=0.01, rtol=0.01
        )


def test_restored_state_goes_on_in_the_same_bits() -> None:
    def run(network: Tiny, optimizer: FlatOptimizer, steps: range) -> None:
        for step in steps:
            x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step)).bfloat16()
            network.loss(x).backward()
            optimizer.step(0.01)

    first, section = Tiny(), Train(steps=1)
    whole = FlatOptimizer(first, section, torch.bfloat16)
    run(first, whole, range(4))
    weights = {name: tensor.clone() for name, tensor in whole.named_master().items()}
    moments = {name: tensor.clone() for name, tensor in whole.moments().items()}
    run(first, whole, range(4, 8))
    second = Tiny()
    other = FlatOptimizer(second, section, torch.bfloat16)
    fill(other, weights, moments, 4)
    run(second, other, range(4, 8))
    assert torch.equal(whole.master, other.master)
    assert torch.equal(first.matrix, second.matrix)
    assert set(weights) == {name for name, _ in first.named_parameters()}


class Layers(nn.Module):
    """Named as a transformer's weights are: inside of blocks, and around them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(6, 4)
        self.blocks = nn.ModuleDict(
            {
                "a": nn.Linear(4, 8, bias=False),
                "b": nn.Linear(8, 4, bias=False),
                "router": nn.Linear(4, 3, bias=False),
            }
        )
        self.blocks["c"] = nn.Linear(4, 8, bias=False)
        self.stack = nn.Parameter(torch.randn(2, 4, 8))
        self.norm = nn.Parameter(torch.ones(4))

    def loss(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) * self.norm
        x = self.blocks["b"](self.blocks["a"](x) + self.blocks["c"](x)) + (
            x @ self.stack[0] @ self.stack[1].T
        )
        return (self.blocks["router"](x).square().mean() + x.square().mean()).float()


IDS = torch.arange(6)


class TestMuon:
    @pytest.mark.parametrize("rows_columns", [(4, 4), (4, 9), (9, 4), (16, 64)])
    def test_orthogonal_matrices_have_singular_values_near_one(
        self, rows_columns: tuple[int, int]
    ) -> None:
        """The five steps of arXiv 2502.16982 leave them between 0.5 and 1.3, and turn nothing."""
        update = torch.randn(3, *rows_columns, generator=torch.Generator().manual_seed(1))
        turned = orthogonal(update)
        left, values, right = torch.linalg.svd(update, full_matrices=False)
        found = torch.linalg.svdvals(turned)
        large = values > 0.3 * values.max()
        assert found[large].min() > 0.5
        assert found.max() < 1.35
        assert (
            float((turned * (left @ right)).sum() / (turned.norm() * (left @ right).norm())) > 0.9
        )

    def test_moves_the_matrices_of_blocks_and_adamw_the_others(self) -> None:
        """One step without decay: an AdamW step has entries of the rate, a Muon step an even spectrum."""
        network = Layers()
        optimizer = FlatOptimizer(
            network, Train(steps=1, optimizer="muon", weight_decay=0, grad_clip=1e9), torch.float32
        )
        before = {name: tensor.clone() for name, tensor in optimizer.named_master().items()}
        network.loss(IDS).backward()
        optimizer.step(0.01)
        moved = {name: before[name] - tensor for name, tensor in optimizer.named_master().items()}
        for name in ("embed.weight", "blocks.router.weight", "norm", "stack"):
            entries = moved[name].abs()
            torch.testing.assert_close(
                entries[entries > 1e-6],
                torch.full_like(entries[entries > 1e-6], 0.01),
                atol=1e-4,
                rtol=0,
                msg=name,
            )
        for name in ("blocks.a.weight", "blocks.b.weight", "blocks.c.weight"):
            rows, columns = moved[name].shape
            assert (
                float(moved[name].norm())
                < 1.35 * 0.01 * 0.2 * max(rows, columns) ** 0.5 * min(rows, columns) ** 0.5
            )
            assert (
                float(torch.linalg.svdvals(moved[name]).max())
                > 0.5 * 0.01 * 0.2 * max(rows, columns) ** 0.5
            )

    def test_without_it_everything_is_adamw(self) -> None:
        optimizer = FlatOptimizer(Layers(), Train(steps=1, optimizer="adamw"), torch.float32)
        assert optimizer.batches == []
        assert set(optimizer.moments()) == {
            f"{kind}.{name}"
            for name in optimizer.named_master()
            for kind in ("exp_avg", "exp_avg_sq")
        }

    @pytest.mark.parametrize("kind", ["adamw", "muon"])
    def test_goes_on_in_the_same_bits(self, kind: str) -> None:
        section = Train(steps=1, optimizer=kind)  # type: ignore[arg-type]
        whole, other = Layers(), Layers()
        first = FlatOptimizer(whole, section, torch.bfloat16)

        def run(network: Layers, optimizer: FlatOptimizer, steps: int) -> None:
            for _ in range(steps):
                network.loss(IDS).backward()
                optimizer.step(0.02)

        run(whole, first, 3)
        kept = [
            {name: tensor.clone() for name, tensor in part().items()}
            for part in (first.named_master, first.moments)
        ]
        run(whole, first, 3)
        second = FlatOptimizer(other, section, torch.bfloat16)
        fill(second, *kept, 3)
        run(other, second, 3)
        assert torch.equal(first.master, second.master)
        assert whole.loss(IDS) < Layers().loss(IDS)
