"""Pruning: what is cut is what matters least, and cutting nothing changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tumen.core.errors import InputError
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.data import Loader, read_shards
from tumen.model import Transformer, build, causal_mask
from tumen.recipe import Tier, Train
from tumen.shrink.prune import best, cut, importance, pruned, refuse
from tumen.train.weights import read_final

GQA = Shape(
    hidden_size=32,
    num_hidden_layers=3,
    intermediate_size=48,
    attention=Gqa(num_attention_heads=4, num_key_value_heads=2, head_dim=8),
    vocab_size=700,
)
MLA = GQA.model_copy(
    update={
        "attention": Mla(
            num_attention_heads=4,
            q_lora_rank=16,
            kv_lora_rank=12,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=8,
        )
    }
)
MOE = MLA.model_copy(
    update={
        "experts": Experts(
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_shared_experts=1,
            moe_intermediate_size=16,
            first_k_dense_replace=1,
        )
    }
)
SHAPES = {"gqa": GQA, "mla": MLA, "moe": MOE}


@pytest.fixture
def batches(dataset: Path) -> list[Any]:
    loader = Loader(read_shards(dataset / "train"), 4, 128, 0)
    return [next(loader) for _ in range(2)]


def logits(network: Transformer, batch: Any) -> torch.Tensor:
    ids, positions, documents = (
        torch.from_numpy(array) for array in (batch.ids, batch.positions, batch.documents)
    )
    with torch.no_grad():
        return network.eval().head(
            network(ids, positions, causal_mask(documents), real=documents > 0).states
        )


def smaller(network: Transformer, to: Shape, batches: list[Any]) -> Transformer:
    made = build(to)
    made.load_state_dict(cut(network.state_dict(), network.shape, to, importance(network, batches)))
    return made


@pytest.mark.parametrize("name", SHAPES)
def test_cutting_nothing_changes_nothing(name: str, batches: list[Any]) -> None:
    network = build(SHAPES[name], seed=1)
    torch.testing.assert_close(
        logits(smaller(network, SHAPES[name], batches), batches[0]), logits(network, batches[0])
    )


@pytest.mark.parametrize("name", SHAPES)
def test_every_part_can_be_cut(name: str, batches: list[Any]) -> None:
    shape = SHAPES[name]
    attention: Any = Gqa(num_attention_heads=2, num_key_value_heads=1, head_dim=8) if name == "gqa" else shape.attention.model_copy(
        update={"num_attention_heads": 3, "q_lora_rank": 10, "kv_lora_rank": 9}
    )  # fmt: skip
    experts = shape.experts and shape.experts.model_copy(update={"n_routed_experts": 3})
    to = shape.model_copy(
        update={
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "intermediate_size": 40,
            "attention": attention,
            "experts": experts,
        }
    )
    assert torch.isfinite(logits(smaller(build(shape, seed=1), to, batches), batches[0])).all()


def test_units_that_do_nothing_go_first(batches: list[Any]) -> None:
    network = build(GQA, seed=1)
    with torch.no_grad():
        for block in network.every_block():
            dead = torch.arange(0, 48, 3)
            block.feed.gate.weight[dead] = 0
            heads = block.attention.q.weight.view(4, 8, 32)
            block.attention.out.weight.view(32, 4, 8)[:, 1] = 0
            heads[1] = 0
    to = GQA.model_copy(update={"intermediate_size": 32})
    torch.testing.assert_close(
        logits(smaller(network, to, batches), batches[0]), logits(network, batches[0])
    )


def test_a_layer_that_does_nothing_goes_first(batches: list[Any]) -> None:
    network = build(MOE, seed=1)
    with torch.no_grad():
        block: Any = network.blocks["1"]
        block.attention.out.weight.zero_()
        block.feed.down.zero_()
        block.feed.shared.down.weight.zero_()
    to = MOE.model_copy(update={"num_hidden_layers": 2})
    torch.testing.assert_close(
        logits(smaller(network, to, batches), batches[0]), logits(network, batches[0])
    )


def test_experts_that_are_never_chosen_go_first(batches: list[Any]) -> None:
    network = build(MOE.model_copy(update={"num_hidden_layers": 2}), seed=1)
    router: Any = network.blocks["1"].feed.router
    with torch.no_grad():
        router.weight[3] = (
            0  # its affinity is never among the best two unless two others are negative
        )
    matters = importance(network, batches)
    assert len(matters.experts["1"]) == 4
    kept = best(matters.experts["1"], 3)
    assert int(matters.experts["1"].argmin()) not in kept.tolist()


def test_a_mixture_that_always_chooses_all_becomes_the_same_dense_layer(batches: list[Any]) -> None:
    shape = MOE.model_copy(
        update={
            "experts": Experts(
                n_routed_experts=2,
                num_experts_per_tok=2,
                n_shared_experts=1,
                moe_intermediate_size=16,
                first_k_dense_replace=1,
            ),
            "num_hidden_layers": 2,
        }
    )
    network = build(shape, seed=1)
    with torch.no_grad():
        network.blocks["1"].feed.router.weight.zero_()  # both experts weigh one half, always
    to = shape.model_copy(update={"experts": None, "intermediate_size": 48})
    real = torch.from_numpy(batches[0].documents) > 0  # padding is not routed
    given, wanted = (
        logits(one, batches[0])[real] for one in (smaller(network, to, batches), network)
    )
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 64}, "hidden_size"),
        ({"num_hidden_layers": 4}, "num_hidden_layers"),
        ({"vocab_size": 701}, "vocab_size"),
        ({"attention": MLA.attention}, "kind"),
        ({"attention": Gqa(num_attention_heads=4, num_key_value_heads=1, head_dim=8)}, "heads"),
        ({"experts": MOE.experts}, "experts"),
    ],
)
def test_what_is_no_part_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        refuse(GQA, GQA.model_copy(update=change))
    assert "\n" not in str(caught.value)


def test_a_tier_starts_from_what_was_cut_out_of_another(cloud: Path, dataset: Path) -> None:
    larger, _ = read_final(cloud)
    to = larger.model_copy(update={"num_hidden_layers": 1, "experts": None})
    weights = pruned(cloud, to, dataset, Train(steps=1, batch_size=4, seq_len=128))
    build(to).load_state_dict(weights)


def test_a_tier_has_one_start() -> None:
    with pytest.raises(ValueError, match="exclude"):
        Tier(shape=GQA, train=Train(steps=1), init_from="a", prune="b")
