"""Mixture of experts, held against a plain loop written from the paper (arXiv 2405.04434, section 2.2)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tumen.core.shape import Experts
from tumen.model.experts import MixtureOfExperts
from tumen.model.kernels import KERNELS, ROOM

WIDTH = 12
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def mixture(shape: Experts, seed: int = 0, spread: float = 1.0) -> MixtureOfExperts:
    """A layer with weights that make experts differ; `spread` sets how sure the router is."""
    layer = MixtureOfExperts(WIDTH, shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            weight.normal_(0, spread if name.startswith("router") else 0.4, generator=generator)
    return layer


def rows_of(count: int, seed: int = 1) -> Tensor:
    return torch.randn(1, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def by_the_paper(layer: MixtureOfExperts, x: Tensor) -> Tensor:
    """Equations 20 to 22, one token and one expert at a time."""
    shape, rows = layer.shape, []
    for u in x.flatten(0, 1):
        affinity = torch.softmax(layer.router.weight @ u, dim=0)  # s_it
        chosen = torch.topk(affinity, shape.num_experts_per_tok).indices.tolist()
        total = sum(affinity[i] for i in chosen)
        h = layer.shared(u) if layer.shared is not None else torch.zeros(WIDTH)
        for i in chosen:
            out = (F.silu(u @ layer.gate[i]) * (u @ layer.up[i])) @ layer.down[i]
            h = (
                h
                + shape.routed_scaling_factor
                * (affinity[i] / total if shape.norm_topk_prob else affinity[i])
                * out
            )
        rows.append(h)
    return torch.stack(rows).view_as(x)


SHAPES = st.builds(
    lambda routed, top_k, shared, normalise, scale: Experts(
        n_routed_experts=routed,
        num_experts_per_tok=min(top_k, routed),
        moe_intermediate_size=8,
        n_shared_experts=shared,
        norm_topk_prob=normalise,
        routed_scaling_factor=scale,
        capacity_factor=1e3,
    ),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from((1.0, 2.5)),
)


@settings(max_examples=25)
@given(SHAPES, st.integers(1, 20), st.booleans())
def test_is_what_the_paper_says(shape: Experts, tokens: int, training: bool) -> None:
    layer = mixture(shape).train(training)
    x = rows_of(tokens)
    torch.testing.assert_close(layer(x)[0], by_the_paper(layer, x), **CLOSE)


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("normalise", [False, True])
def test_gradients_are_those_of_the_paper(shared: int, normalise: bool) -> None:
    shape = Experts(
        n_routed_experts=5,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        n_shared_experts=shared,
        norm_topk_prob=normalise,
        capacity_factor=10,
    )
    layer, direction = mixture(shape), rows_of(14, seed=9)
    found: list[dict[str, Tensor]] = []
    for ours in (True, False):
        x = rows_of(14).requires_grad_()
        layer.zero_grad()
        out = layer(x)[0] if ours else by_the_paper(layer, x)
        (out * direction).sum().backward()
        assert x.grad is not None
        found.append(
            {
                name: weight.grad.clone()
                for name, weight in layer.named_parameters()
                if weight.grad is not None
            }
            | {"x": x.grad}
        )
    assert set(found[0]) == set(found[1]) == {name for name, _ in layer.named_parameters()} | {"x"}
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], **CLOSE, msg=name)


def test_no_drop_at_evaluation_however_uneven() -> None:
    shape = Experts(
        n_routed_experts=4, num_experts_per_tok=1, moe_intermediate_size=8, capacity_factor=0.01
    )
    layer = mixture(shape).eval()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2] = 5
    x = rows_of(3 * ROOM).abs()  # all of them like expert 2
    torch.testing.assert_close(layer(x)[0], by_the_paper(layer, x), **CLOSE)


def test_the_least_liked_tokens_beyond_capacity_are_dropped_in_training() -> None:
    layer = mixture(
        Experts(
            n_routed_experts=4,
            num_experts_per_tok=1,
            moe_intermediate_size=8,
            n_shared_experts=1,
            capacity_factor=1.0,
        )
    ).train()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2] = 1
    x = rows_of(3 * ROOM).abs()
    assert layer.shared is not None
    fed, shared, whole = layer(x), layer.shared(x), by_the_paper(layer, x)
    room = math.ceil(3 * ROOM / 4 / ROOM) * ROOM
    affinity = (x[0] @ layer.router.weight.detach().T).softmax(dim=-1)[:, 2]
    kept = affinity.argsort(descending=True)[:room]
    lost = affinity.argsort(descending=True)[room:]
    torch.testing.assert_close(fed.out[:, kept], whole[:, kept], **CLOSE)
    torch.testing.assert_close(fed.out[:, lost], shared[:, lost], **CLOSE)
    assert not torch.allclose(whole[:, lost], shared[:, lost])
    assert fed.load.tolist() == [0, 0, 3 * ROOM, 0, len(lost)]


def test_a_safe_row_loses_nothing() -> None:
    layer = mixture(
        Experts(
            n_routed_experts=4,
            num_experts_per_tok=1,
            moe_intermediate_size=8,
            n_shared_experts=0,
            capacity_factor=0.01,
        )
    ).train()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2] = 1
    x = torch.cat((rows_of(2 * ROOM), rows_of(2 * ROOM, seed=5), rows_of(2 * ROOM, seed=6))).abs()
    for kernel in ("grouped", "loop"):
        layer.kernel = KERNELS[kernel]
        out = layer(x, safe=torch.tensor([False, True, False])).out
        torch.testing.assert_close(out[1], by_the_paper(layer, x)[1], **CLOSE)
        assert (out[0] == 0).any()


def test_padding_is_not_routed() -> None:
    shape = Experts(
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        n_shared_experts=0,
        capacity_factor=1e3,
    )
    layer, x = mixture(shape).train(), rows_of(10)
    real = torch.arange(10).unsqueeze(0) < 7
    fed = layer(x, real)
    torch.testing.assert_close(fed.out[:, :7], layer(x[:, :7]).out, **CLOSE)
    assert (fed.out[:, 7:] == 0).all()
    assert float(fed.balance.detach()) == pytest.approx(
        float(layer(x[:, :7]).balance.detach()), rel=1e-5
    )
    assert fed.load[:-1].sum() == 14


@pytest.mark.parametrize("kernel", ["grouped", "loop"])
@pytest.mark.parametrize("capacity", [0.6, 1e3])
def test_kernels_agree(kernel: str, capacity: float) -> None:
    layer = mixture(
        Experts(
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            capacity_factor=capacity,
            protect=0,
        )
    ).train()
    direction, found = rows_of(4 * ROOM, seed=9), []
    for name in ("padded", kernel):
        layer.kernel = KERNELS[name]
        x = rows_of(4 * ROOM).requires_grad_()
        layer.zero_grad()
        out = layer(x).out
        (out * direction).sum().backward()
        found.append(
            {n: w.grad.clone() for n, w in layer.named_parameters() if w.grad is not None}
            | {"x": x.grad, "out": out}
        )
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, **CLOSE, msg=name)


GROUPED = Experts(
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=8,
    n_group=4,
    topk_group=2,
    aux_loss_alpha=0.01,
    balance_devices=0.05,
    balance_communication=0.02,
    capacity_factor=1e3,
)


def test_a_token_goes_to_the_devices_of_its_best_experts() -> None:
    """Section 2.2.2: M devices with the highest affinities first, then top-K among their experts."""
    layer, x = mixture(GROUPED), rows_of(50)
    choice = layer.route(x[0])
    for t, u in enumerate(x[0]):
        affinity = torch.softmax(layer.router.weight.detach() @ u, dim=0)
        best = sorted(range(4), key=lambda d: -max(affinity[2 * d : 2 * d + 2]))[:2]
        near = sorted((e for d in best for e in (2 * d, 2 * d + 1)), key=lambda e: -affinity[e])[:3]
        assert sorted(choice.expert[t].tolist()) == sorted(near)
        assert set(choice.expert[t].tolist()) <= {e for d in best for e in (2 * d, 2 * d + 1)}


def test_a_device_keeps_its_best_up_to_the_budget() -> None:
    layer = mixture(GROUPED.model_copy(update={"capacity_factor": 0.5})).train()
    x = rows_of(8 * ROOM)
    choice, real = layer.route(x[0]), torch.ones(1, 8 * ROOM, dtype=torch.bool)
    kept = layer.keep(choice, real, None)
    affinity = choice.affinity.gather(1, choice.expert)
    budget = math.ceil(0.5 * 8 * ROOM * 3 / 4 / ROOM) * ROOM
    for device in range(4):
        here = choice.expert // 2 == device
        assert int((kept & here).sum()) == min(budget, int(here.sum()))
        if int(here.sum()) > budget:
            assert affinity[kept & here].min() >= affinity[~kept & here].max()
    assert not kept.all()


def test_the_bias_likes_the_idle_and_changes_no_weight() -> None:
    shape = Experts(
        n_routed_experts=4,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        n_shared_experts=0,
        scoring_func="sigmoid",
        bias_rate=0.004,
        norm_topk_prob=False,
        capacity_factor=1e3,
    )
    layer, x = mixture(shape, spread=0.1), rows_of(200).abs()
    with torch.no_grad():
        layer.router.weight[0] += 0.05
    before = layer.route(x[0])
    for _ in range(100):
        layer.rebalance(layer(x).load[:-1])
    after = layer.route(x[0])
    torch.testing.assert_close(after.affinity, before.affinity)
    torch.testing.assert_close(after.weight, after.affinity.gather(1, after.expert))
    loads = [torch.bincount(c.expert.flatten(), minlength=4).float() for c in (before, after)]
    assert loads[1].std() < 0.5 * loads[0].std()


def test_what_is_dropped_has_no_gradient() -> None:
    shape = Experts(
        n_routed_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        n_shared_experts=0,
        capacity_factor=0.5,
    )
    layer = mixture(shape).train()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[0] = 5
    x = rows_of(4 * ROOM).abs().requires_grad_()
    layer(x)[0].sum().backward()
    assert x.grad is not None
    per_token = x.grad[0].abs().sum(dim=-1)
    assert (per_token[:ROOM] > 0).all()
    assert (per_token[ROOM:] == 0).all()


class TestBalance:
    """Equations 23 to 31, a row at a time: each row is a sequence."""

    @settings(max_examples=20)
    @given(st.integers(2, 6), st.integers(1, 2), st.integers(1, 30), st.integers(1, 3))
    def test_expert_level(self, routed: int, top_k: int, tokens: int, rows: int) -> None:
        layer = mixture(
            Experts(
                n_routed_experts=routed,
                num_experts_per_tok=top_k,
                moe_intermediate_size=8,
                aux_loss_alpha=0.01,
            )
        )
        x = torch.cat([rows_of(tokens, seed) for seed in range(rows)])
        losses = []
        for row in x:
            affinity = (row @ layer.router.weight.detach().T).softmax(dim=-1)
            picked = affinity.topk(top_k).indices
            shares = [routed / (top_k * tokens) * float((picked == i).sum()) for i in range(routed)]
            losses.append(
                sum(share * float(affinity[:, i].mean()) for i, share in enumerate(shares))
            )
        assert float(layer(x).balance.detach()) == pytest.approx(
            0.01 * sum(losses) / rows, rel=1e-4
        )

    def test_device_level_and_communication(self) -> None:
        layer, x, T, E, D, K, M = mixture(GROUPED), rows_of(40), 40, 8, 4, 3, 2
        affinity = (x[0] @ layer.router.weight.detach().T).softmax(dim=-1)
        picked = layer.route(x[0]).expert
        f = [E / (K * T) * int((picked == i).sum()) for i in range(E)]  # equation 24
        P = [float(affinity[:, i].mean()) for i in range(E)]  # equation 25
        f1 = [(f[2 * d] + f[2 * d + 1]) / 2 for d in range(D)]  # equation 27
        P1 = [P[2 * d] + P[2 * d + 1] for d in range(D)]  # equation 28
        f2 = [
            D / (M * T) * sum(any(e // 2 == d for e in row) for row in picked.tolist())
            for d in range(D)
        ]  # equation 30
        wanted = 0.01 * sum(a * b for a, b in zip(f, P, strict=True))
        wanted += 0.05 * sum(a * b for a, b in zip(f1, P1, strict=True)) + 0.02 * sum(
            a * b for a, b in zip(f2, P1, strict=True)
        )
        assert float(layer(x).balance.detach()) == pytest.approx(wanted, rel=1e-4)

    def test_the_gradient_goes_through_the_affinity_alone(self) -> None:
        layer, x = (
            mixture(
                Experts(
                    n_routed_experts=4,
                    num_experts_per_tok=1,
                    moe_intermediate_size=8,
                    aux_loss_alpha=1.0,
                )
            ),
            rows_of(30),
        )
        layer(x).balance.backward()
        weight = layer.router.weight.detach().clone().requires_grad_()
        affinity = (x[0] @ weight.T).softmax(dim=-1)
        share = F.one_hot(affinity.argmax(dim=-1), 4).float().mean(dim=0) * 4
        (share * affinity.mean(dim=0)).sum().backward()
        torch.testing.assert_close(layer.router.weight.grad, weight.grad)

    def test_pushes_the_router_towards_even(self) -> None:
        layer = mixture(
            Experts(
                n_routed_experts=4,
                num_experts_per_tok=1,
                moe_intermediate_size=8,
                aux_loss_alpha=1.0,
            ),
            spread=0.1,
        )
        with torch.no_grad():
            layer.router.weight[0] += 0.2
        x = rows_of(64).abs()
        optimizer = torch.optim.SGD([layer.router.weight], lr=0.05)
        losses = []
        for _ in range(100):
            optimizer.zero_grad()
            loss = layer(x)[1]
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[0] > 1.5
        assert losses[-1] < 1.3
