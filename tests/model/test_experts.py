"""Mixture of experts, held against a plain loop written from the paper (arXiv 2405.04434, section 2.2)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tumen.core import Experts
from tumen.model.experts import ROOM, MixtureOfExperts

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
        chosen = torch.topk(affinity, shape.top_k).indices.tolist()
        total = sum(affinity[i] for i in chosen)
        h = layer.shared(u) if layer.shared is not None else torch.zeros(WIDTH)
        for i in chosen:
            out = (F.silu(u @ layer.gate[i]) * (u @ layer.up[i])) @ layer.down[i]
            h = h + shape.scale * (affinity[i] / total if shape.normalise else affinity[i]) * out
        rows.append(h)
    return torch.stack(rows).view_as(x)


SHAPES = st.builds(
    lambda routed, top_k, shared, normalise, scale: Experts(
        routed=routed, top_k=min(top_k, routed), width=8, shared=shared, normalise=normalise, scale=scale, capacity=1e3
    ),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from((1.0, 2.5)),
)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 20), st.booleans())
def test_is_what_the_paper_says(shape: Experts, tokens: int, training: bool) -> None:
    layer = mixture(shape).train(training)
    x = rows_of(tokens)
    torch.testing.assert_close(layer(x)[0], by_the_paper(layer, x), **CLOSE)


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("normalise", [False, True])
def test_gradients_are_those_of_the_paper(shared: int, normalise: bool) -> None:
    shape = Experts(routed=5, top_k=2, width=8, shared=shared, normalise=normalise, capacity=10)
    layer, direction = mixture(shape), rows_of(14, seed=9)
    found: list[dict[str, Tensor]] = []
    for ours in (True, False):
        x = rows_of(14).requires_grad_()
        layer.zero_grad()
        out = layer(x)[0] if ours else by_the_paper(layer, x)
        (out * direction).sum().backward()
        assert x.grad is not None
        found.append(
            {name: weight.grad.clone() for name, weight in layer.named_parameters() if weight.grad is not None} | {"x": x.grad}
        )
    assert set(found[0]) == set(found[1]) == {name for name, _ in layer.named_parameters()} | {"x"}
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], **CLOSE, msg=name)


def test_no_drop_at_evaluation_however_uneven() -> None:
    shape = Experts(routed=4, top_k=1, width=8, capacity=0.01)
    layer = mixture(shape).eval()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2] = 5
    x = rows_of(3 * ROOM).abs()  # all of them like expert 2
    torch.testing.assert_close(layer(x)[0], by_the_paper(layer, x), **CLOSE)


def test_the_last_tokens_beyond_capacity_are_dropped_in_training() -> None:
    shape = Experts(routed=4, top_k=1, width=8, shared=1, capacity=1.0)
    layer = mixture(shape).train()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2] = 5
    x = rows_of(3 * ROOM).abs()
    assert layer.shared is not None
    out, shared, whole = layer(x)[0], layer.shared(x), by_the_paper(layer, x)
    room = math.ceil(3 * ROOM / 4 / ROOM) * ROOM
    torch.testing.assert_close(out[:, :room], whole[:, :room], **CLOSE)
    torch.testing.assert_close(out[:, room:], shared[:, room:], **CLOSE)
    assert not torch.allclose(whole[:, room:], shared[:, room:])


def test_what_is_dropped_has_no_gradient() -> None:
    shape = Experts(routed=2, top_k=1, width=8, shared=0, capacity=0.5)
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
    """Equations 23 to 25: factor * sum over experts of f_i * P_i, f_i = E / (K T) * tokens of i, P_i = mean affinity."""

    @settings(max_examples=20, deadline=None)
    @given(st.integers(2, 6), st.integers(1, 2), st.integers(1, 30))
    def test_is_the_formula(self, routed: int, top_k: int, tokens: int) -> None:
        layer, x = mixture(Experts(routed=routed, top_k=top_k, width=8, balance=0.01)), rows_of(tokens)
        affinity = (x[0] @ layer.router.weight.detach().T).softmax(dim=-1)
        picked = affinity.topk(top_k).indices
        loss = 0.0
        for i in range(routed):
            share = routed / (top_k * tokens) * float((picked == i).sum())
            loss += share * float(affinity[:, i].mean())
        assert float(layer(x)[1].detach()) == pytest.approx(0.01 * loss, rel=1e-4)

    def test_is_the_factor_when_even_and_more_when_not(self) -> None:
        shape = Experts(routed=4, top_k=1, width=8, balance=1.0)
        layer = MixtureOfExperts(WIDTH, shape)
        chosen = F.one_hot(torch.arange(16) % 4, 4)
        even = torch.full((16, 4), 0.25)
        assert float(layer._balance(even, chosen)) == pytest.approx(1.0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(50):
            affinity = (3 * torch.randn(64, 4, generator=generator) + torch.randn(4, generator=generator)).softmax(dim=-1)
            crowd = F.one_hot(affinity.argmax(dim=-1), 4)
            assert float(layer._balance(affinity, crowd)) > 0.999
        all_on_one = torch.tensor([[0.97, 0.01, 0.01, 0.01]]).expand(16, -1)
        assert float(layer._balance(all_on_one, F.one_hot(torch.zeros(16, dtype=torch.long), 4))) == pytest.approx(3.88)

    def test_pushes_the_router_towards_even(self) -> None:
        layer = mixture(Experts(routed=4, top_k=1, width=8, balance=1.0), spread=0.1)
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
