"""Names of weights: ours <-> those of llama.cpp's architectures `llama` and `deepseek2`.

Their names are those of ggml-org/llama.cpp, src/llama-arch.cpp. A table has one row for each
weight: our name, theirs, and how the tensor is converted on its way out:

    same       unchanged
    queries    rows permuted: the rotary features of each head become neighbouring pairs (ours are
    halves) keys       the same for the heads of keys
    latent     the same, once, for the rotary key that all heads share
    experts    a stack (E, inner, outer) becomes (E, outer, inner)
    absorbed   the up-projection becomes two stacks, `attn_k_b` and `attn_v_b`, as their attention
    runs
               in the latent
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from tumen.core.errors import ExportError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.model.names.public_names import LAYER, halve, interleave, sizes_of

Turn = Literal["same", "queries", "keys", "latent", "experts", "absorbed"]
Table = dict[str, tuple[str, Turn]]

OURS = "blocks.{i}."
THEIRS = "blk.{i}."


def _layer(rows: Table) -> Table:
    """Rows of a table with the prefixes of a layer."""
    return {OURS + ours: (THEIRS + name, turn) for ours, (name, turn) in rows.items()}


ENDS: Table = {
    "embed.weight": ("token_embd.weight", "same"),
    "norm.weight": ("output_norm.weight", "same"),
    "output.weight": ("output.weight", "same"),
}
BOTH = _layer(
    {
        "norm_in.weight": ("attn_norm.weight", "same"),
        "norm_out.weight": ("ffn_norm.weight", "same"),
        "attention.out.weight": ("attn_output.weight", "same"),
        "feed.gate.weight": ("ffn_gate.weight", "same"),
        "feed.up.weight": ("ffn_up.weight", "same"),
        "feed.down.weight": ("ffn_down.weight", "same"),
    }
)
LLAMA = _layer(
    {
        "attention.q.weight": ("attn_q.weight", "queries"),
        "attention.k.weight": ("attn_k.weight", "keys"),
        "attention.v.weight": ("attn_v.weight", "same"),
    }
)
DEEPSEEK2 = _layer(
    {
        "attention.q_down.weight": ("attn_q_a.weight", "same"),
        "attention.q_norm.weight": ("attn_q_a_norm.weight", "same"),
        "attention.q_up.weight": ("attn_q_b.weight", "queries"),
        "attention.kv_down.weight": ("attn_kv_a_mqa.weight", "latent"),
        "attention.kv_norm.weight": ("attn_kv_a_norm.weight", "same"),
        "attention.kv_up.weight": ("attn_{half}_b.weight", "absorbed"),
        "feed.router.weight": ("ffn_gate_inp.weight", "same"),
        "feed.gate": ("ffn_gate_exps.weight", "experts"),
        "feed.up": ("ffn_up_exps.weight", "experts"),
        "feed.down": ("ffn_down_exps.weight", "experts"),
        "feed.shared.gate.weight": ("ffn_gate_shexp.weight", "same"),
        "feed.shared.up.weight": ("ffn_up_shexp.weight", "same"),
        "feed.shared.down.weight": ("ffn_down_shexp.weight", "same"),
    }
)
# MLA without a query rank
ONE_STEP = _layer({"attention.q_up.weight": ("attn_q.weight", "queries")})


def gguf_name(shape: Shape, ours: str) -> tuple[str, Turn]:
    """Their name of a weight and how it is converted.

    The name of an absorbed weight is a pattern with `{half}`.

    Raises:
        ExportError: llama.cpp has no such weight.
    """
    attention = shape.attention
    architecture = "llama" if isinstance(attention, Gqa) else "deepseek2"
    table = ENDS | BOTH | (LLAMA if architecture == "llama" else DEEPSEEK2)
    if isinstance(attention, Mla) and not attention.q_lora_rank:
        table |= ONE_STEP
    found = table.get(LAYER.sub("{i}", ours))
    if found is None:
        raise ExportError(f"GGUF: {ours} has no place in llama.cpp's {architecture}")
    name, turn = found
    layer = LAYER.search(ours)
    if layer:
        name = name.replace("{i}", layer[0])
    return name, turn


def to_gguf(shape: Shape, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our weights under llama.cpp's names, one after the other."""
    tied_latent = shape.tie_word_embeddings and isinstance(shape.attention, Mla)
    for ours in sizes_of(shape):
        name, turn = gguf_name(shape, ours)
        tensor = weights[ours]
        if turn == "absorbed":
            k_up, v_up = _absorbed(shape, tensor)
            yield name.format(half="k"), k_up
            yield name.format(half="v"), v_up
        else:
            yield name, turned(shape, turn, tensor, interleave)
        if tied_latent and ours == "embed.weight":
            # llama.cpp's deepseek2 needs a head of its own.
            yield "output.weight", tensor


def from_gguf(shape: Shape, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our weights from llama.cpp's, in the order of ours; `read` returns a tensor by their name."""
    for ours in sizes_of(shape):
        name, turn = gguf_name(shape, ours)
        if turn == "absorbed":
            # Theirs is (H, r, nope), ours (H, nope, r).
            k_up = read(name.format(half="k")).transpose(1, 2)
            v_up = read(name.format(half="v"))
            yield ours, torch.cat((k_up, v_up), dim=1).flatten(0, 1)
        else:
            yield ours, turned(shape, turn, read(name), halve)


def gguf_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Sizes of all tensors that llama.cpp has of a shape; no memory is allocated for them."""
    ours = {name: torch.empty(size, device="meta") for name, size in sizes_of(shape).items()}
    return {name: tuple(tensor.shape) for name, tensor in to_gguf(shape, ours)}


def turned(
    shape: Shape, turn: Turn, tensor: Tensor, reorder: Callable[[Tensor, int, int], Tensor]
) -> Tensor:
    """A tensor with its rows permuted, or its stack transposed."""
    attention = shape.attention
    if turn == "experts":
        return tensor.transpose(1, 2).contiguous()
    if turn in ("same", "absorbed"):
        return tensor
    if isinstance(attention, Mla):
        rope = attention.qk_rope_head_dim
        kv_heads = 1
    else:
        rope = attention.head_dim
        kv_heads = attention.num_key_value_heads
    heads = {"queries": attention.num_attention_heads, "keys": kv_heads, "latent": 1}
    return reorder(tensor, heads[turn], rope)


def _absorbed(shape: Shape, up: Tensor) -> tuple[Tensor, Tensor]:
    """Split the up-projection (H (nope + v), r) into (H, r, nope) and (H, v, r)."""
    attention = shape.attention
    if not isinstance(attention, Mla):
        raise ExportError("a grouped-query model is not a deepseek2")
    both = attention.qk_nope_head_dim + attention.v_head_dim
    stacked = up.view(attention.num_attention_heads, both, attention.kv_lora_rank)
    k_up, v_up = stacked.split((attention.qk_nope_head_dim, attention.v_head_dim), dim=1)
    return k_up.transpose(1, 2).contiguous(), v_up.contiguous()
