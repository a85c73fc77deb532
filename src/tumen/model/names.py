"""Names of weights: ours <-> those of `DeepseekV2ForCausalLM` and `LlamaForCausalLM` (github.com/huggingface/transformers).

One row of a table for each weight: our name, the public one, and how the tensor is turned on its way out:

    same      nothing
    queries   rows reordered, so that the rotary features of each head turn as neighbours (ours turn as halves)
    latent    the same once, for the rotary key that all heads share
    experts   our stack (E, inner, outer) is E matrices (outer, inner) there
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tumen.core.errors import ExportError, InputError, TumenError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.formats import architecture_of
from tumen.model.transformer import Transformer

Turn = Literal["same", "queries", "latent", "experts"]
Table = dict[str, tuple[str, Turn]]

ENDS: Table = {
    "embed.weight": ("model.embed_tokens.weight", "same"),
    "norm.weight": ("model.norm.weight", "same"),
    "output.weight": ("lm_head.weight", "same"),
}
DENSE: Table = {
    "blocks.{i}.norm_in.weight": ("model.layers.{i}.input_layernorm.weight", "same"),
    "blocks.{i}.norm_out.weight": ("model.layers.{i}.post_attention_layernorm.weight", "same"),
    "blocks.{i}.attention.out.weight": ("model.layers.{i}.self_attn.o_proj.weight", "same"),
    "blocks.{i}.feed.gate.weight": ("model.layers.{i}.mlp.gate_proj.weight", "same"),
    "blocks.{i}.feed.up.weight": ("model.layers.{i}.mlp.up_proj.weight", "same"),
    "blocks.{i}.feed.down.weight": ("model.layers.{i}.mlp.down_proj.weight", "same"),
}
LLAMA: Table = {
    "blocks.{i}.attention.q.weight": ("model.layers.{i}.self_attn.q_proj.weight", "same"),
    "blocks.{i}.attention.k.weight": ("model.layers.{i}.self_attn.k_proj.weight", "same"),
    "blocks.{i}.attention.v.weight": ("model.layers.{i}.self_attn.v_proj.weight", "same"),
}
LATENT: Table = {
    "blocks.{i}.attention.kv_down.weight": (
        "model.layers.{i}.self_attn.kv_a_proj_with_mqa.weight",
        "latent",
    ),
    "blocks.{i}.attention.kv_norm.weight": (
        "model.layers.{i}.self_attn.kv_a_layernorm.weight",
        "same",
    ),
    "blocks.{i}.attention.kv_up.weight": ("model.layers.{i}.self_attn.kv_b_proj.weight", "same"),
}
QUERY: Table = {
    "blocks.{i}.attention.q_up.weight": ("model.layers.{i}.self_attn.q_proj.weight", "queries")
}
QUERY_BY_RANK: Table = {
    "blocks.{i}.attention.q_down.weight": ("model.layers.{i}.self_attn.q_a_proj.weight", "same"),
    "blocks.{i}.attention.q_norm.weight": (
        "model.layers.{i}.self_attn.q_a_layernorm.weight",
        "same",
    ),
    "blocks.{i}.attention.q_up.weight": ("model.layers.{i}.self_attn.q_b_proj.weight", "queries"),
}
EXPERTS: Table = {
    "blocks.{i}.feed.router.weight": ("model.layers.{i}.mlp.gate.weight", "same"),
    "blocks.{i}.feed.gate": ("model.layers.{i}.mlp.experts.{e}.gate_proj.weight", "experts"),
    "blocks.{i}.feed.up": ("model.layers.{i}.mlp.experts.{e}.up_proj.weight", "experts"),
    "blocks.{i}.feed.down": ("model.layers.{i}.mlp.experts.{e}.down_proj.weight", "experts"),
    "blocks.{i}.feed.shared.gate.weight": (
        "model.layers.{i}.mlp.shared_experts.gate_proj.weight",
        "same",
    ),
    "blocks.{i}.feed.shared.up.weight": (
        "model.layers.{i}.mlp.shared_experts.up_proj.weight",
        "same",
    ),
    "blocks.{i}.feed.shared.down.weight": (
        "model.layers.{i}.mlp.shared_experts.down_proj.weight",
        "same",
    ),
}
LAYER = re.compile(r"(?<=^blocks\.)\d+(?=\.)")


class Name(NamedTuple):
    """A public tensor and where it lies among ours: a whole tensor, or one expert of a stack."""

    public: str
    size: tuple[int, ...]  # of the public tensor
    ours: str
    expert: int | None
    turn: Turn


def layer_of(ours: str) -> int | None:
    """The layer of a weight of ours; None at the ends."""
    found = LAYER.search(ours)
    return int(found[0]) if found else None


def interleave(weight: Tensor, heads: int, rope: int) -> Tensor:
    """Reorder rows (heads * d, inner) so that the last `rope` features of each head turn as neighbours instead of halves."""
    return _reorder(weight, heads, rope, (2, rope // 2))


def halve(weight: Tensor, heads: int, rope: int) -> Tensor:
    """Undo `interleave`."""
    return _reorder(weight, heads, rope, (rope // 2, 2))


def _reorder(weight: Tensor, heads: int, rope: int, grid: tuple[int, int]) -> Tensor:
    rows = weight.view(heads, -1, weight.shape[-1])
    plain = rows[:, : rows.shape[1] - rope]
    turned = rows[:, rows.shape[1] - rope :]
    turned = turned.reshape(heads, *grid, -1).transpose(1, 2).flatten(1, 2)
    return torch.cat((plain, turned), dim=1).flatten(0, 1)


def outwards(shape: Shape, name: Name, tensor: Tensor) -> Tensor:
    """A tensor of ours (of a stack: one expert) as the public has it."""
    return _turned(shape, name.turn, tensor, interleave)


def inwards(shape: Shape, name: Name, tensor: Tensor) -> Tensor:
    """A public tensor as we have it (of a stack: one expert)."""
    return _turned(shape, name.turn, tensor, halve)


def _turned(
    shape: Shape, turn: Turn, tensor: Tensor, reorder: Callable[[Tensor, int, int], Tensor]
) -> Tensor:
    attention = shape.attention
    if turn == "experts":
        return tensor.T
    if turn == "same" or isinstance(attention, Gqa):
        return tensor
    return reorder(
        tensor,
        attention.num_attention_heads if turn == "queries" else 1,
        attention.qk_rope_head_dim,
    )


def sizes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every weight of a shape's network, in its order, without holding one."""
    with torch.device("meta"):
        return {
            name: tuple(tensor.shape) for name, tensor in Transformer(shape).state_dict().items()
        }


def names_of(shape: Shape) -> Iterator[Name]:
    """Public names of all weights, in the order of ours; the experts of a stack follow each other.

    Raises:
        ExportError: a weight the public architecture has no place for.
    """
    table = _table(shape)
    for ours, size in sizes_of(shape).items():
        layer = LAYER.search(ours)
        pattern = LAYER.sub("{i}", ours)
        if pattern not in table:
            raise ExportError(
                f"{ours}: {architecture_of(shape)} has no such weight; this model cannot be written under its names"
            )
        public, turn = table[pattern]
        number = int(layer[0]) if layer else 0
        if turn != "experts":
            yield Name(public.format(i=number), size, ours, None, turn)
            continue
        for expert in range(size[0]):
            yield Name(public.format(i=number, e=expert), (size[2], size[1]), ours, expert, turn)


def _table(shape: Shape) -> Table:
    if architecture_of(shape) == "LlamaForCausalLM":
        return ENDS | DENSE | LLAMA
    ranked = isinstance(shape.attention, Mla) and shape.attention.q_lora_rank
    return ENDS | DENSE | LATENT | (QUERY_BY_RANK if ranked else QUERY) | EXPERTS


def to_public(shape: Shape, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their public names; values are views where nothing is reordered.

    Raises:
        ExportError: a weight the public architecture has no place for, or one that is missing or of another size.
    """
    check_weights(
        sizes_of(shape),
        {name: tuple(weight.shape) for name, weight in weights.items()},
        "these weights",
        ExportError,
    )
    return {
        name.public: outwards(
            shape,
            name,
            weights[name.ours] if name.expert is None else weights[name.ours][name.expert],
        )
        for name in names_of(shape)
    }


def from_public(shape: Shape, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public weights under our names.

    Raises:
        InputError: a weight is missing, unknown or of another size.
    """
    names = list(names_of(shape))
    held = {name: tuple(weight.shape) for name, weight in weights.items()}
    check_weights({name.public: name.size for name in names}, held, "these weights", InputError)
    ours: dict[str, Tensor] = {}
    for name, group in groupby(names, key=lambda one: one.ours):
        parts = [(one.expert, inwards(shape, one, weights[one.public])) for one in group]
        ours[name] = (
            parts[0][1] if parts[0][0] is None else torch.stack([part for _, part in parts])
        )
    return ours


def check_weights(
    wanted: Mapping[str, tuple[int, ...]],
    held: Mapping[str, tuple[int, ...]],
    where: str,
    error: Callable[[str], TumenError],
) -> None:
    """Refuse names and sizes that are not exactly the wanted ones; the first fault and how many there are is the message."""
    faults = [f"{name} is missing" for name in wanted if name not in held]
    faults += [f"{name} is unknown to this architecture" for name in held if name not in wanted]
    faults += [
        f"{name} is {held[name]}, not {size}"
        for name, size in wanted.items()
        if held.get(name, size) != size
    ]
    if faults:
        if len(faults) > 1:
            more = f" (and {len(faults) - 1} more)"
        else:
            more = ""
        raise error(f"{where}: {faults[0]}{more}")
