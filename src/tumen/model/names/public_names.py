"""Names of weights: ours <-> those of `DeepseekV2ForCausalLM` and `LlamaForCausalLM`.

Their names are those of github.com/huggingface/transformers. A table has one row for each weight:
our name, the public one, and how the tensor is converted on its way out:

    same      unchanged
    queries   rows permuted: the rotary features of each head become neighbouring pairs (ours are
    halves) latent    the same, once, for the rotary key that all heads share
    experts   our stack (E, inner, outer) becomes E matrices (outer, inner)
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

OURS = "blocks.{i}."
THEIRS = "model.layers.{i}."


def _layer(rows: Table) -> Table:
    """Rows of a table with the prefixes of a layer."""
    return {OURS + ours: (THEIRS + public, turn) for ours, (public, turn) in rows.items()}


ENDS: Table = {
    "embed.weight": ("model.embed_tokens.weight", "same"),
    "norm.weight": ("model.norm.weight", "same"),
    "output.weight": ("lm_head.weight", "same"),
}
DENSE = _layer(
    {
        "norm_in.weight": ("input_layernorm.weight", "same"),
        "norm_out.weight": ("post_attention_layernorm.weight", "same"),
        "attention.out.weight": ("self_attn.o_proj.weight", "same"),
        "feed.gate.weight": ("mlp.gate_proj.weight", "same"),
        "feed.up.weight": ("mlp.up_proj.weight", "same"),
        "feed.down.weight": ("mlp.down_proj.weight", "same"),
    }
)
LLAMA = _layer(
    {
        "attention.q.weight": ("self_attn.q_proj.weight", "same"),
        "attention.k.weight": ("self_attn.k_proj.weight", "same"),
        "attention.v.weight": ("self_attn.v_proj.weight", "same"),
    }
)
LATENT = _layer(
    {
        "attention.kv_down.weight": ("self_attn.kv_a_proj_with_mqa.weight", "latent"),
        "attention.kv_norm.weight": ("self_attn.kv_a_layernorm.weight", "same"),
        "attention.kv_up.weight": ("self_attn.kv_b_proj.weight", "same"),
    }
)
QUERY = _layer({"attention.q_up.weight": ("self_attn.q_proj.weight", "queries")})
QUERY_BY_RANK = _layer(
    {
        "attention.q_down.weight": ("self_attn.q_a_proj.weight", "same"),
        "attention.q_norm.weight": ("self_attn.q_a_layernorm.weight", "same"),
        "attention.q_up.weight": ("self_attn.q_b_proj.weight", "queries"),
    }
)
EXPERTS = _layer(
    {
        "feed.router.weight": ("mlp.gate.weight", "same"),
        "feed.gate": ("mlp.experts.{e}.gate_proj.weight", "experts"),
        "feed.up": ("mlp.experts.{e}.up_proj.weight", "experts"),
        "feed.down": ("mlp.experts.{e}.down_proj.weight", "experts"),
        "feed.shared.gate.weight": ("mlp.shared_experts.gate_proj.weight", "same"),
        "feed.shared.up.weight": ("mlp.shared_experts.up_proj.weight", "same"),
        "feed.shared.down.weight": ("mlp.shared_experts.down_proj.weight", "same"),
    }
)
LAYER = re.compile(r"(?<=^blocks\.)\d+(?=\.)")


class Name(NamedTuple):
    """A public tensor and its place among ours.

    Attributes:
        public: its name.
        size: of the public tensor.
        ours: the name of our tensor.
        expert: number in our stack; None: the whole tensor.
        turn: how it is converted.
    """

    public: str
    size: tuple[int, ...]
    ours: str
    expert: int | None
    turn: Turn


def layer_of(ours: str) -> int | None:
    """The layer of a weight of ours; None for embedding, last norm and head."""
    found = LAYER.search(ours)
    return int(found[0]) if found else None


def interleave(weight: Tensor, heads: int, rope: int) -> Tensor:
    """Permute rows (heads * d, inner) from rotary halves to neighbouring pairs.

    The last `rope` features of each head are rotary.
    """
    return _reorder(weight, heads, rope, (2, rope // 2))


def halve(weight: Tensor, heads: int, rope: int) -> Tensor:
    """Undo `interleave`."""
    return _reorder(weight, heads, rope, (rope // 2, 2))


def _reorder(weight: Tensor, heads: int, rope: int, grid: tuple[int, int]) -> Tensor:
    rows = weight.view(heads, -1, weight.shape[-1])  # (heads, d, inner)
    first = rows.shape[1] - rope
    plain = rows[:, :first]
    turned = rows[:, first:]
    # Swapping both dimensions of the grid turns halves into pairs, and back.
    turned = turned.reshape(heads, *grid, -1).transpose(1, 2).flatten(1, 2)
    return torch.cat((plain, turned), dim=1).flatten(0, 1)


def outwards(shape: Shape, name: Name, tensor: Tensor) -> Tensor:
    """Convert a tensor of ours (of a stack: one expert) to the public form."""
    return _turned(shape, name.turn, tensor, interleave)


def inwards(shape: Shape, name: Name, tensor: Tensor) -> Tensor:
    """Convert a public tensor to our form (of a stack: one expert)."""
    return _turned(shape, name.turn, tensor, halve)


def _turned(
    shape: Shape, turn: Turn, tensor: Tensor, reorder: Callable[[Tensor, int, int], Tensor]
) -> Tensor:
    attention = shape.attention
    if turn == "experts":
        return tensor.T
    if turn == "same" or isinstance(attention, Gqa):
        return tensor
    heads = attention.num_attention_heads if turn == "queries" else 1
    return reorder(tensor, heads, attention.qk_rope_head_dim)


def sizes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Sizes of all weights of a shape's network, in its order; no memory is allocated for them."""
    with torch.device("meta"):
        weights = Transformer(shape).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def names_of(shape: Shape) -> Iterator[Name]:
    """Public names of all weights, in the order of ours; the experts of a stack follow each other.

    Raises:
        ExportError: the public architecture has no such weight.
    """
    table = _table(shape)
    for ours, size in sizes_of(shape).items():
        layer = LAYER.search(ours)
        pattern = LAYER.sub("{i}", ours)
        if pattern not in table:
            raise ExportError(
                f"{ours}: {architecture_of(shape)} has no such weight; "
                "this model cannot be written under its names"
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
    query = QUERY_BY_RANK if ranked else QUERY
    return ENDS | DENSE | LATENT | query | EXPERTS


def to_public(shape: Shape, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under their public names; values are views where nothing is permuted.

    Raises:
        ExportError: the public architecture has no such weight, or one is missing or of another
            size.
    """
    held = {name: tuple(weight.shape) for name, weight in weights.items()}
    check_weights(sizes_of(shape), held, "these weights", ExportError)
    found = {}
    for name in names_of(shape):
        tensor = weights[name.ours]
        if name.expert is not None:
            tensor = tensor[name.expert]
        found[name.public] = outwards(shape, name, tensor)
    return found


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
        members = list(group)
        parts = [inwards(shape, one, weights[one.public]) for one in members]
        stack = members[0].expert is not None
        ours[name] = torch.stack(parts) if stack else parts[0]
    return ours


def check_weights(
    wanted: Mapping[str, tuple[int, ...]],
    held: Mapping[str, tuple[int, ...]],
    where: str,
    error: Callable[[str], TumenError],
) -> None:
    """Refuse names and sizes that are not exactly the wanted ones.

    Raises:
        `error`: says the first fault and how many more there are.
    """
    faults = [f"{name} is missing" for name in wanted if name not in held]
    faults += [f"{name} is unknown to this architecture" for name in held if name not in wanted]
    for name, size in wanted.items():
        if held.get(name, size) != size:
            faults.append(f"{name} is {held[name]}, not {size}")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise error(f"{where}: {faults[0]}{more}")
