"""Names of weights: ours <-> those of llama.cpp's architectures `llama` and `deepseek2` (ggml-org/llama.cpp, src/llama-arch.cpp).

A row for each weight: our name, theirs, and how the tensor is turned on its way out:

    same       nothing
    queries    rows reordered, so that the rotary features of each head turn as neighbours (ours turn as halves)
    keys       the same for the heads of keys
    latent     the same once, for the rotary key that all heads share
    experts    a stack (E, inner, outer) is (E, outer, inner) there
    absorbed   their attention runs in the latent: the up-projection is two stacks of halves, `attn_k_b` and `attn_v_b`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from tumen.core.errors import ExportError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.model.names import LAYER, halve, interleave, sizes_of

Turn = Literal["same", "queries", "keys", "latent", "experts", "absorbed"]
Table = dict[str, tuple[str, Turn]]

BOTH: Table = {
    "embed.weight": ("token_embd.weight", "same"),
    "norm.weight": ("output_norm.weight", "same"),
    "output.weight": ("output.weight", "same"),
    "blocks.{i}.norm_in.weight": ("blk.{i}.attn_norm.weight", "same"),
    "blocks.{i}.norm_out.weight": ("blk.{i}.ffn_norm.weight", "same"),
    "blocks.{i}.attention.out.weight": ("blk.{i}.attn_output.weight", "same"),
    "blocks.{i}.feed.gate.weight": ("blk.{i}.ffn_gate.weight", "same"),
    "blocks.{i}.feed.up.weight": ("blk.{i}.ffn_up.weight", "same"),
    "blocks.{i}.feed.down.weight": ("blk.{i}.ffn_down.weight", "same"),
}
LLAMA: Table = {
    "blocks.{i}.attention.q.weight": ("blk.{i}.attn_q.weight", "queries"),
    "blocks.{i}.attention.k.weight": ("blk.{i}.attn_k.weight", "keys"),
    "blocks.{i}.attention.v.weight": ("blk.{i}.attn_v.weight", "same"),
}
DEEPSEEK2: Table = {
    "blocks.{i}.attention.q_down.weight": ("blk.{i}.attn_q_a.weight", "same"),
    "blocks.{i}.attention.q_norm.weight": ("blk.{i}.attn_q_a_norm.weight", "same"),
    "blocks.{i}.attention.q_up.weight": ("blk.{i}.attn_q_b.weight", "queries"),
    "blocks.{i}.attention.kv_down.weight": ("blk.{i}.attn_kv_a_mqa.weight", "latent"),
    "blocks.{i}.attention.kv_norm.weight": ("blk.{i}.attn_kv_a_norm.weight", "same"),
    "blocks.{i}.attention.kv_up.weight": ("blk.{i}.attn_{half}_b.weight", "absorbed"),
    "blocks.{i}.feed.router.weight": ("blk.{i}.ffn_gate_inp.weight", "same"),
    "blocks.{i}.feed.gate": ("blk.{i}.ffn_gate_exps.weight", "experts"),
    "blocks.{i}.feed.up": ("blk.{i}.ffn_up_exps.weight", "experts"),
    "blocks.{i}.feed.down": ("blk.{i}.ffn_down_exps.weight", "experts"),
    "blocks.{i}.feed.shared.gate.weight": ("blk.{i}.ffn_gate_shexp.weight", "same"),
    "blocks.{i}.feed.shared.up.weight": ("blk.{i}.ffn_up_shexp.weight", "same"),
    "blocks.{i}.feed.shared.down.weight": ("blk.{i}.ffn_down_shexp.weight", "same"),
}
ONE_STEP: Table = {
    "blocks.{i}.attention.q_up.weight": ("blk.{i}.attn_q.weight", "queries")
}  # without a query rank


def gguf_name(shape: Shape, ours: str) -> tuple[str, Turn]:
    """Their name of a weight (of the absorbed one: a pattern with `{half}`) and its turn.

    Raises:
        ExportError: llama.cpp has no place for it.
    """
    attention = shape.attention
    table = BOTH | (LLAMA if isinstance(attention, Gqa) else DEEPSEEK2)
    if isinstance(attention, Mla) and not attention.q_lora_rank:
        table |= ONE_STEP
    layer = LAYER.search(ours)
    found = table.get(LAYER.sub("{i}", ours))
    if found is None:
        raise ExportError(
            f"GGUF: {ours} has no place in llama.cpp's {'llama' if isinstance(attention, Gqa) else 'deepseek2'}"
        )
    return (found[0].replace("{i}", layer[0]) if layer else found[0]), found[1]


def to_gguf(shape: Shape, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our weights under llama.cpp's names, one after the other."""
    for ours in sizes_of(shape):
        name, turn = gguf_name(shape, ours)
        tensor = weights[ours]
        if turn == "absorbed":
            yield from zip(
                (name.format(half="k"), name.format(half="v")),
                _absorbed(shape, tensor),
                strict=True,
            )
        else:
            yield name, turned(shape, turn, tensor, interleave)
        if (
            ours == "embed.weight"
            and shape.tie_word_embeddings
            and isinstance(shape.attention, Mla)
        ):
            yield "output.weight", tensor  # llama.cpp's deepseek2 wants a head of its own


def from_gguf(shape: Shape, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our weights from llama.cpp's, in the order of ours; `read` gives a tensor by their name."""
    for ours in sizes_of(shape):
        name, turn = gguf_name(shape, ours)
        if turn == "absorbed":
            k_up = read(name.format(half="k")).transpose(1, 2)
            v_up = read(name.format(half="v"))
            yield ours, torch.cat((k_up, v_up), dim=1).flatten(0, 1)
        else:
            yield ours, turned(shape, turn, read(name), halve)


def gguf_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor that llama.cpp has of a shape, and its size, without holding one."""
    ours = {name: torch.empty(size, device="meta") for name, size in sizes_of(shape).items()}
    return {name: tuple(tensor.shape) for name, tensor in to_gguf(shape, ours)}


def turned(
    shape: Shape, turn: Turn, tensor: Tensor, reorder: Callable[[Tensor, int, int], Tensor]
) -> Tensor:
    """A tensor with its rows reordered, or its stack transposed."""
    attention = shape.attention
    if turn == "experts":
        return tensor.transpose(1, 2).contiguous()
    if turn in ("same", "absorbed"):
        return tensor
    if isinstance(attention, Mla):
        rope = attention.qk_rope_head_dim
    else:
        rope = attention.head_dim
    kv_heads = attention.num_key_value_heads if isinstance(attention, Gqa) else 1
    return reorder(
        tensor,
        {"queries": attention.num_attention_heads, "keys": kv_heads, "latent": 1}[turn],
        rope,
    )


def _absorbed(shape: Shape, up: Tensor) -> tuple[Tensor, Tensor]:
    """(H, r, nope) and (H, v, r) of the up-projection (H (nope + v), r)."""
    attention = shape.attention
    if not isinstance(attention, Mla):
        raise ExportError("a grouped-query model is no deepseek2")
    stacked = up.view(
        attention.num_attention_heads,
        attention.qk_nope_head_dim + attention.v_head_dim,
        attention.kv_lora_rank,
    )
    k_up, v_up = stacked.split((attention.qk_nope_head_dim, attention.v_head_dim), dim=1)
    return k_up.transpose(1, 2).contiguous(), v_up.contiguous()
