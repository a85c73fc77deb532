"""The network: the past alone, packed as apart, cached as not."""

from __future__ import annotations

import math

import pytest
import torch
from tests.model.shapes import SHAPES
from torch import Tensor

from tumen.core.errors import InputError
from tumen.core.shape import Shape
from tumen.model import Cache, Transformer, build, causal_mask, greedy

CLOSE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def lively(shape: Shape, seed: int = 0) -> Transformer:
    """A network whose layers all matter: a fresh one is nearly its embedding."""
    network = build(shape, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
            else:
                weight.uniform_(0.5, 1.5, generator=generator)
    return network


def states_of(
    network: Transformer,
    ids: Tensor,
    documents: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Hidden states of rows, each one document unless said otherwise."""
    if documents is None:
        documents = torch.ones_like(ids)
    if positions is None:
        positions = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        return network(ids, positions, causal_mask(documents))[0]


def some_ids(rows: int, tokens: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def test_the_future_changes_nothing(shape: Shape) -> None:
    network, ids = lively(shape), some_ids(2, 9)
    before = states_of(network, ids)
    for place in range(1, 9):
        other = ids.clone()
        other[:, place:] = (other[:, place:] + 7) % 50
        after = states_of(network, other)
        torch.testing.assert_close(after[:, :place], before[:, :place], **CLOSE)
        assert not torch.allclose(after[:, place], before[:, place], **CLOSE), (
            "and the present does"
        )


def test_the_past_matters(shape: Shape) -> None:
    network, ids = lively(shape), some_ids(1, 6)
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 7) % 50
    assert not torch.allclose(
        states_of(network, ids)[:, -1], states_of(network, other)[:, -1], **CLOSE
    )


def test_order_matters(shape: Shape) -> None:
    network, ids = lively(shape), torch.tensor([[3, 4, 5, 6]])
    other = torch.tensor([[4, 3, 5, 6]])
    assert not torch.allclose(
        states_of(network, ids)[:, -1], states_of(network, other)[:, -1], **CLOSE
    )


def test_only_distances_matter(shape: Shape) -> None:
    """Rotary positions are relative: the same document further on is the same."""
    network, ids = lively(shape), some_ids(1, 6)
    here = states_of(network, ids)
    there = states_of(network, ids, positions=torch.arange(100, 106)[None])
    torch.testing.assert_close(here, there, atol=5e-4, rtol=1e-3)


def test_packed_documents_do_not_see_each_other(shape: Shape) -> None:
    network = lively(shape)
    parts = [some_ids(1, length, seed)[0] for seed, length in enumerate((4, 3, 5))]
    packed = torch.cat([*parts, torch.zeros(2, dtype=torch.long)])[None]
    documents = torch.tensor([[1] * 4 + [2] * 3 + [3] * 5 + [0] * 2])
    positions = torch.cat(
        [torch.arange(len(part)) for part in parts] + [torch.zeros(2, dtype=torch.long)]
    )[None]
    together = states_of(network, packed, documents, positions)[0, :12].split([4, 3, 5])
    for part, state in zip(parts, together, strict=True):
        torch.testing.assert_close(state, states_of(network, part[None])[0], **CLOSE)


@pytest.mark.parametrize("steps", [(1,) * 8, (5, 1, 1, 1), (3, 3, 2), (8,)])
def test_with_a_cache_as_without(shape: Shape, steps: tuple[int, ...]) -> None:
    """Prompt and tokens one by one; MLA reads its latent then (absorbed), which is another way to the same numbers."""
    network, ids = lively(shape), some_ids(2, 8)
    caches, seen, parts = [Cache() for _ in range(shape.num_hidden_layers)], 0, []
    for step in steps:
        positions = torch.arange(seen, seen + step).expand(2, -1)
        past = torch.arange(seen + step)[None] <= torch.arange(seen, seen + step)[:, None]
        mask = torch.zeros(past.shape).masked_fill_(~past, float("-inf"))[None, None]
        with torch.no_grad():
            parts.append(network(ids[:, seen : seen + step], positions, mask, caches)[0])
        seen += step
    torch.testing.assert_close(torch.cat(parts, dim=1), states_of(network, ids), **CLOSE)
    assert all(len(cache) == 8 for cache in caches)
    assert sum(cache.elements() for cache in caches) == shape.cache_elements()


def test_greedy_writes_the_likeliest(shape: Shape) -> None:
    network, prompt = lively(shape), some_ids(1, 5)[0].tolist()
    written = greedy(network, prompt, end=-1, longest=6)
    assert len(written) == 6
    for number, token in enumerate(written):
        states = states_of(network, torch.tensor([prompt + written[:number]]))
        assert int(network.head(states[0, -1]).argmax()) == token
    assert (
        greedy(network, prompt, end=written[2], longest=6) == written[: written.index(written[2])]
    )


def test_same_seed_same_weights(shape: Shape) -> None:
    first, second, third = (
        build(shape, 3).state_dict(),
        build(shape, 3).state_dict(),
        build(shape, 4).state_dict(),
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.weight"], third["embed.weight"])


def test_nothing_is_left_as_memory_had_it(shape: Shape) -> None:
    """Every weight is initialised: small, of both signs, and norms are one."""
    for name, weight in build(shape, 0).named_parameters():
        if weight.dim() == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
        else:
            assert 0.001 < float(weight.detach().std()) < 1, name
            assert abs(float(weight.detach().mean())) < 0.1, name


def test_what_writes_to_the_residual_starts_small_and_nothing_else(shape: Shape) -> None:
    for name, weight in build(shape, 0).named_parameters():
        writes = name.rsplit("attention.")[-1] == "out.weight" or name.endswith(
            (".down.weight", ".down")
        )
        if weight.dim() > 1 and not name.startswith(("embed", "output")):
            inner = weight.shape[-1] if weight.dim() == 2 else weight.shape[-2]
            wanted = 0.5 / (32 * 2 * shape.num_hidden_layers) ** 0.5 if writes else inner**-0.5
            assert float(weight.detach().std()) == pytest.approx(wanted, rel=0.2), name


def test_a_fresh_network_knows_nothing(shape: Shape) -> None:
    """The loss before the first step is the logarithm of the vocabulary."""
    network, ids = build(shape, 0).eval(), some_ids(8, 16)
    logits = network.head(states_of(network, ids)).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, some_ids(8, 16, 5).flatten())
    assert abs(float(loss.detach()) - math.log(50)) < 0.1


def test_overfits_one_batch(shape: Shape) -> None:
    network, ids = build(shape, 0), some_ids(4, 9)
    documents, positions = torch.ones(4, 8, dtype=torch.long), torch.arange(8).expand(4, -1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(80):
        states, balance, _ = network(ids[:, :-1], positions, causal_mask(documents))
        loss = (
            torch.nn.functional.cross_entropy(
                network.head(states).flatten(0, 1), ids[:, 1:].flatten()
            )
            + balance
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach() - balance.detach()) < 0.1


def test_every_weight_learns(shape: Shape) -> None:
    network, ids = lively(shape).train(), some_ids(8, 16)
    following = torch.roll(ids, -1, 1) if shape.num_nextn_predict_layers else None
    states, balance, ahead = network(
        ids, torch.arange(16).expand(8, -1), causal_mask(torch.ones_like(ids)), following=following
    )
    (states.square().sum() + balance + (0 if ahead is None else ahead.square().sum())).backward()
    network.head(torch.ones(1, shape.hidden_size)).sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_no_vocabulary(shape: Shape) -> None:
    with pytest.raises(ValueError, match="vocab_size is 0"):
        build(shape.model_copy(update={"vocab_size": 0}))


@pytest.mark.parametrize(
    ("name", "value"), [("gated", False), ("biases", True), ("n_positions", 16), ("window", 4)]
)
def test_what_is_only_planned_is_not_built_as_something_else(name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"shape\.{name}: the planner counts it"):
        build(SHAPES["gqa"].model_copy(update={name: value}))
