"""What a model is to a device: bytes on disk, weights read a token by kind, cache, graph nodes.

A recipe's shape and the header of a GGUF become the same list of tensors, so a tier that does not exist yet is counted as
one that does. Kinds are ggml's own types; the names and the order are those `tumen.shrink` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tumen.core.errors import PlanError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.formats.ggml_types import BY_NAME

QUANTISED = {"int8": "Q8_0", "int4": "Q4_0", "bf16": "BF16"}  # as in shrink/gguf_writer.py
ALIGNMENT = 32
PAIR_BYTES = 1000  # keys and numbers of a header, without the vocabulary
PIECE_BYTES = 8 + 6 + 4 + 4  # one token: length, text (mean of our tokenisers), score, type
LINE_BYTES = 40  # dimensions, type and offset of one tensor, beside its name
CACHE_CELLS = 256  # llama.cpp rounds a context up to a multiple of this
# Nodes of llama.cpp's graph, as its log counts them on models that differ by one layer.
NODES = {"gqa": 31, "mla": 45, "moe": 16, "ends": 9}


@dataclass(frozen=True)
class TensorSize:
    """One tensor as a file has it: `dims` the fastest first, `kind` a name of ggml_types.BY_NAME."""

    name: str
    dims: tuple[int, ...]
    kind: str

    @property
    def values(self) -> int:
        """Elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes of the data."""
        block = BY_NAME[self.kind]
        return self.values // block.values * block.bytes


@dataclass(frozen=True)
class Footprint:
    """What a device sees of a model.

    Attributes:
        name: for people.
        tensors: as the file has them.
        share: of the routed experts that one token is sent to.
        mla: whether attention keeps one latent a token.
        cache_elements: of keys and values, a token and layer.
        score_elements: multiply-adds of attention, a token, layer and token of context.
        file_bytes: of the GGUF.
    """

    name: str
    tensors: tuple[TensorSize, ...]
    share: float
    mla: bool
    cache_elements: int
    score_elements: int
    file_bytes: int

    @cached_property
    def layers(self) -> int:
        """Blocks."""
        return 1 + max(
            int(one.name.split(".")[1]) for one in self.tensors if one.name.startswith("blk.")
        )

    @cached_property
    def width(self) -> int:
        """Of the residual stream."""
        return self.named("token_embd.weight").dims[0]

    @cached_property
    def inner(self) -> int:
        """Of one token's feed-forward: all the matrices it is sent to."""
        found = {one.name.split(".", 2)[2]: one for one in self.tensors if ".ffn_up" in one.name}
        width = {
            name: one.dims[1] * (round(self.share * one.dims[2]) if len(one.dims) > 2 else 1)
            for name, one in found.items()
        }
        mixture = sum(inner for name, inner in width.items() if name != "ffn_up.weight")
        return max(width.get("ffn_up.weight", 0), mixture)

    @cached_property
    def vocab(self) -> int:
        """Tokens that exist."""
        return self.named("token_embd.weight").dims[1]

    @cached_property
    def parameters(self) -> int:
        """Weights of all tensors."""
        return sum(tensor.values for tensor in self.tensors)

    @cached_property
    def head(self) -> TensorSize:
        """The matrix that makes logits; tied models use the embedding."""
        return next(
            (one for one in self.tensors if one.name == "output.weight"),
            self.named("token_embd.weight"),
        )

    @cached_property
    def weight_bytes(self) -> Mapping[str, int]:
        """Bytes of the tensors, by kind."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.kind] = found.get(tensor.kind, 0) + tensor.bytes
        return found

    @cached_property
    def read(self) -> Mapping[str, float]:
        """Weights that one token multiplies with, by kind: no embedding table, no expert it was not sent to."""
        found: dict[str, float] = {}
        for tensor in self.tensors:
            if len(tensor.dims) > 1 and (tensor.name != "token_embd.weight" or tensor is self.head):
                part = self.share if "_exps." in tensor.name else 1.0
                found[tensor.kind] = found.get(tensor.kind, 0.0) + part * tensor.values
        return found

    @cached_property
    def read_bytes(self) -> float:
        """Bytes of weights that one token reads."""
        return sum(weights * BY_NAME[kind].bits / 8 for kind, weights in self.read.items())

    @cached_property
    def kept_bytes(self) -> int:
        """Bytes of all weights that some token reads: what a cache must hold to serve them, every expert included."""
        table = self.named("token_embd.weight")
        return sum(one.bytes for one in self.tensors if one is not table or one is self.head)

    @cached_property
    def choices(self) -> int:
        """Experts that one token is sent to, in all layers."""
        return sum(
            round(self.share * one.dims[2]) for one in self.tensors if "ffn_up_exps" in one.name
        )

    @cached_property
    def nodes(self) -> int:
        """Nodes of the runner's graph."""
        mixtures = sum("ffn_gate_inp" in tensor.name for tensor in self.tensors)
        return (
            NODES["ends"]
            + self.layers * NODES["mla" if self.mla else "gqa"]
            + mixtures * NODES["moe"]
        )

    @cached_property
    def quantise(self) -> str:
        """The kind most matrix weights have, by our word for it where there is one."""
        total: dict[str, int] = {}
        for tensor in self.tensors:
            if len(tensor.dims) > 1:
                total[tensor.kind] = total.get(tensor.kind, 0) + tensor.values
        kind = max(total, key=total.__getitem__)
        return {kind: word for word, kind in QUANTISED.items()}.get(kind, kind)

    def cache_bytes(self, context: int) -> int:
        """Bytes of keys and values for a context, two an element."""
        return 2 * self.layers * self.cache_elements * -(-context // CACHE_CELLS) * CACHE_CELLS

    def named(self, name: str) -> TensorSize:
        """The tensor called so.

        Raises:
            PlanError: there is none.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise PlanError(f"{self.name}: no tensor {name}, so it is no language model")

    def but(self, layers: int | None = None, quantise: str | None = None) -> Footprint:
        """The same model with fewer layers, or in other kinds."""
        kept = [one for one in self.tensors if layers is None or not _beyond(one.name, layers)]
        if quantise:
            kept = [replace(one, kind=kind_of(one.name, one.dims, quantise)) for one in kept]
        return replace(self, tensors=tuple(kept), file_bytes=_file_bytes(kept, self.vocab))


def shape_tensors(shape: Shape, quantise: str) -> list[TensorSize]:
    """The tensors a tier's GGUF will have (tests hold them against what `tumen.shrink` writes).

    Args:
        quantise: int8, int4 or bf16, or a name of ggml_types.BY_NAME.

    Raises:
        PlanError: GGUF has no architecture for the shape.
    """
    if isinstance(shape.attention, Gqa) and shape.experts:
        raise PlanError(
            "experts with grouped queries have no GGUF architecture; give the tier kind = 'mla', or no experts"
        )
    rows = [
        ("token_embd.weight", (shape.hidden_size, shape.vocab_size)),
        ("output_norm.weight", (shape.hidden_size,)),
    ]
    if isinstance(shape.attention, Mla) or not shape.tie_word_embeddings:
        rows.append(("output.weight", (shape.hidden_size, shape.vocab_size)))
    for layer in range(shape.num_hidden_layers):
        rows += [(f"blk.{layer}.{name}.weight", dims) for name, dims in _layer(shape, layer)]
    return [TensorSize(name, dims, kind_of(name, dims, quantise)) for name, dims in rows]


def kind_of(name: str, dims: Sequence[int], quantise: str) -> str:
    """The type `tumen.shrink` gives a tensor: vectors and routers fp32, embedding and head never below eight bits."""
    if len(dims) < 2 or "ffn_gate_inp" in name:
        return "F32"
    kind = QUANTISED.get(quantise, quantise)
    if name in ("token_embd.weight", "output.weight") and kind == "Q4_0":
        kind = "Q8_0"
    return kind if dims[0] % BY_NAME[kind].values == 0 else "BF16"


def _layer(shape: Shape, layer: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and dims of one layer's tensors."""
    rows = [
        ("attn_norm", (shape.hidden_size,)),
        ("ffn_norm", (shape.hidden_size,)),
        *_attention(shape),
    ]
    experts = shape.experts
    if not experts or layer < experts.first_k_dense_replace:
        return rows + _feed("", shape.hidden_size, shape.intermediate_size)
    rows += [
        ("ffn_gate_inp", (shape.hidden_size, experts.n_routed_experts)),
        *_feed("_exps", shape.hidden_size, experts.moe_intermediate_size, experts.n_routed_experts),
    ]
    return rows + (
        _feed("_shexp", shape.hidden_size, experts.n_shared_experts * experts.moe_intermediate_size)
        if experts.n_shared_experts
        else []
    )


def _feed(kind: str, width: int, inner: int, *many: int) -> list[tuple[str, tuple[int, ...]]]:
    gates = [(f"ffn_{part}{kind}", (width, inner, *many)) for part in ("gate", "up")]
    return [*gates, (f"ffn_down{kind}", (inner, width, *many))]


def _attention(shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
    width, attention = shape.hidden_size, shape.attention
    if isinstance(attention, Gqa):
        query, key = (
            attention.num_attention_heads * attention.head_dim,
            attention.num_key_value_heads * attention.head_dim,
        )
        return [
            ("attn_q", (width, query)), ("attn_k", (width, key)), ("attn_v", (width, key)), ("attn_output", (query, width)),
        ]  # fmt: skip
    heads, rank, query = (
        attention.num_attention_heads,
        attention.kv_lora_rank,
        attention.num_attention_heads * attention.query_dim,
    )
    down = (
        [("attn_q_a", (width, attention.q_lora_rank)), ("attn_q_a_norm", (attention.q_lora_rank,))]
        if attention.q_lora_rank
        else []
    )
    up = (
        ("attn_q_b", (attention.q_lora_rank, query))
        if attention.q_lora_rank
        else ("attn_q", (width, query))
    )
    return [
        *down, up,
        ("attn_kv_a_mqa", (width, rank + attention.qk_rope_head_dim)), ("attn_kv_a_norm", (rank,)),
        ("attn_k_b", (attention.qk_nope_head_dim, rank, heads)), ("attn_v_b", (rank, attention.v_head_dim, heads)),
        ("attn_output", (heads * attention.v_head_dim, width)),
    ]  # fmt: skip


def of_shape(shape: Shape, quantise: str, name: str) -> Footprint:
    """The footprint of a tier before it is trained; `shape.vocab_size` is set.

    Raises:
        PlanError: GGUF has no architecture for the shape.
    """
    tensors, attention, experts = shape_tensors(shape, quantise), shape.attention, shape.experts
    value_dim = attention.v_head_dim if isinstance(attention, Mla) else attention.head_dim
    return Footprint(
        name=name,
        tensors=tuple(tensors),
        share=experts.num_experts_per_tok / experts.n_routed_experts if experts else 1.0,
        mla=isinstance(attention, Mla),
        cache_elements=attention.cache_elements(),
        score_elements=attention.num_attention_heads * (attention.query_dim + value_dim),
        file_bytes=_file_bytes(tensors, shape.vocab_size),
    )


def of_header(
    pairs: Mapping[str, Any], tensors: Iterable[TensorSize], file_bytes: int, name: str
) -> Footprint:
    """The footprint of a GGUF: its header's pairs and tensors, as `tumen.serve` reads them."""
    arch = pairs["general.architecture"]
    number = {
        key.removeprefix(f"{arch}."): value
        for key, value in pairs.items()
        if key.startswith(f"{arch}.")
    }
    heads, mla = number["attention.head_count"], "attention.kv_lora_rank" in number
    key_dim = number.get("attention.key_length", number["embedding_length"] // heads)
    value_dim = number.get("attention.value_length", key_dim)
    routed, used = number.get("expert_count", 0), number.get("expert_used_count", 0)
    return Footprint(
        name=name,
        tensors=tuple(tensors),
        share=used / routed if routed else 1.0,
        mla=mla,
        cache_elements=key_dim
        if mla
        else number.get("attention.head_count_kv", heads) * (key_dim + value_dim),
        score_elements=heads * (key_dim + value_dim),
        file_bytes=file_bytes,
    )


def _beyond(name: str, layers: int) -> bool:
    return name.startswith("blk.") and int(name.split(".")[1]) >= layers


def _file_bytes(tensors: Sequence[TensorSize], vocab: int) -> int:
    """What the writer will make of them: padded data, a line a tensor, pairs and the vocabulary."""
    data = sum(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)
    return (
        data
        + sum(LINE_BYTES + len(tensor.name) for tensor in tensors)
        + PAIR_BYTES
        + vocab * PIECE_BYTES
    )
