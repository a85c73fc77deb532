"""What a model costs a device: bytes on disk, weights read a token by type, cache, graph nodes.

A recipe's shape and the header of a GGUF become the same list of tensors, so a tier that is not
trained yet is counted like one that is. Kinds are ggml's tensor types; names and order are those
that `tumen.shrink` writes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tumen.core.errors import PlanError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.formats.ggml_types import BY_NAME

# Words of a recipe -> ggml's type.
QUANTIZED = {"int8": "Q8_0", "int4": "Q4_0", "bf16": "BF16"}  # as in shrink/gguf_writer.py
ALIGNMENT = 32
PAIR_BYTES = 1000  # keys and numbers of a header, without the vocabulary
PIECE_BYTES = 8 + 6 + 4 + 4  # one token: length, text (mean of our tokenisers), score, type
LINE_BYTES = 40  # dimensions, type and offset of one tensor, beside its name
CACHE_CELLS = 256  # llama.cpp rounds a context up to a multiple of this
# Nodes of llama.cpp's graph, as its log counts them on models that differ by one layer.
NODES = {"gqa": 31, "mla": 45, "moe": 16, "ends": 9}
NamedDims = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorSize:
    """One tensor of a file: `dims` the fastest first, `kind` a name in ggml_types.BY_NAME."""

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
        # The values of a tensor are whole blocks; see `kind_of`.
        return self.values // block.values * block.bytes


@dataclass(frozen=True)
class Footprint:
    """A model as a device sees it.

    Attributes:
        name: for people.
        tensors: as in the file.
        share: of the routed experts that one token is sent to.
        mla: whether attention keeps one latent a token.
        cache_elements: of keys and values, for each token and layer.
        score_elements: multiply-adds of attention, for each token, layer and token of context.
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
        """Number of blocks."""
        blocks = [tensor.name for tensor in self.tensors if tensor.name.startswith("blk.")]
        return 1 + max(int(name.split(".")[1]) for name in blocks)

    @cached_property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.named("token_embd.weight").dims[0]

    @cached_property
    def inner(self) -> int:
        """Inner width of one token's feed-forward: all the experts it is sent to."""
        width = {}
        for tensor in self.tensors:
            if ".ffn_up" in tensor.name:
                # The same in all layers, so the last one of each name counts.
                name = tensor.name.split(".", 2)[2]
                width[name] = tensor.dims[1] * self._experts_used(tensor)
        dense = width.pop("ffn_up.weight", 0)
        mixture = sum(width.values())
        return max(dense, mixture)

    def _experts_used(self, tensor: TensorSize) -> int:
        """Matrices of a tensor that one token multiplies with: several experts, or the only one."""
        if len(tensor.dims) < 3:
            return 1
        return round(self.share * tensor.dims[2])

    @cached_property
    def vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self.named("token_embd.weight").dims[1]

    @cached_property
    def parameters(self) -> int:
        """Number of weights, of all tensors."""
        return sum(tensor.values for tensor in self.tensors)

    @cached_property
    def head(self) -> TensorSize:
        """The matrix that makes logits; tied models use the embedding."""
        for tensor in self.tensors:
            if tensor.name == "output.weight":
                return tensor
        return self.named("token_embd.weight")

    @cached_property
    def weight_bytes(self) -> Mapping[str, int]:
        """Bytes of the tensors, by kind."""
        found: Counter[str] = Counter()
        for tensor in self.tensors:
            found[tensor.kind] += tensor.bytes
        return dict(found)

    @cached_property
    def read(self) -> Mapping[str, float]:
        """Weights that one token multiplies with, by kind.

        Not the embedding table, and not the experts that the token is not sent to.
        """
        found: dict[str, float] = {}
        for tensor in self.tensors:
            # Vectors are read too, but cost next to nothing.
            if len(tensor.dims) < 2 or self._is_only_table(tensor):
                continue
            part = self.share if "_exps." in tensor.name else 1.0
            found[tensor.kind] = found.get(tensor.kind, 0.0) + part * tensor.values
        return found

    def _is_only_table(self, tensor: TensorSize) -> bool:
        """Whether a tensor is an embedding that is not the head as well: a token reads one row."""
        return tensor.name == "token_embd.weight" and tensor is not self.head

    @cached_property
    def read_bytes(self) -> float:
        """Bytes of weights that one token reads."""
        return sum(weights * BY_NAME[kind].bits / 8 for kind, weights in self.read.items())

    @cached_property
    def kept_bytes(self) -> int:
        """Bytes that a cache must hold for all tokens: every expert, but no embedding table."""
        return sum(tensor.bytes for tensor in self.tensors if not self._is_only_table(tensor))

    @cached_property
    def choices(self) -> int:
        """Experts that one token is sent to, in all layers."""
        experts = [tensor for tensor in self.tensors if "ffn_up_exps" in tensor.name]
        return sum(round(self.share * tensor.dims[2]) for tensor in experts)

    @cached_property
    def nodes(self) -> int:
        """Nodes of the runner's graph."""
        mixtures = sum("ffn_gate_inp" in tensor.name for tensor in self.tensors)
        # A mixture has more nodes than the dense feed-forward that `layer` includes.
        layer = NODES["mla"] if self.mla else NODES["gqa"]
        return NODES["ends"] + self.layers * layer + mixtures * NODES["moe"]

    @cached_property
    def quantize(self) -> str:
        """The kind that most matrix weights have, as a word of the recipe where there is one."""
        total: Counter[str] = Counter()
        for tensor in self.tensors:
            # Vectors are fp32 in every model.
            if len(tensor.dims) > 1:
                total[tensor.kind] += tensor.values
        most = max(total, key=total.__getitem__)
        for word, kind in QUANTIZED.items():
            if kind == most:
                return word
        return most

    def cache_bytes(self, context: int) -> int:
        """Bytes of keys and values for a context, two an element."""
        # Rounded up.
        cells = -(-context // CACHE_CELLS) * CACHE_CELLS
        return 2 * self.layers * self.cache_elements * cells

    def named(self, name: str) -> TensorSize:
        """Return the tensor of this name.

        Raises:
            PlanError: there is none.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise PlanError(f"{self.name}: no tensor {name}, so it is no language model")

    def but(self, layers: int | None = None, quantize: str | None = None) -> Footprint:
        """Return the same model with its first `layers` only, or with other kinds."""
        kept = list(self.tensors)
        if layers is not None:
            kept = [tensor for tensor in kept if not _beyond(tensor.name, layers)]
        if quantize:
            kept = [
                replace(tensor, kind=kind_of(tensor.name, tensor.dims, quantize)) for tensor in kept
            ]
        file_bytes = _file_bytes(kept, self.vocab)
        return replace(self, tensors=tuple(kept), file_bytes=file_bytes)


def shape_tensors(shape: Shape, quantize: str) -> list[TensorSize]:
    """Return the tensors of a tier's GGUF (tests compare them with what `tumen.shrink` writes).

    Args:
        shape: of the tier, with its vocab_size.
        quantize: int8, int4 or bf16, or a name in ggml_types.BY_NAME.

    Raises:
        PlanError: GGUF has no architecture for the shape.
    """
    if isinstance(shape.attention, Gqa) and shape.experts:
        raise PlanError(
            "experts with grouped queries have no GGUF architecture; "
            "give the tier kind = 'mla', or no experts"
        )
    # In the order in which the writer has them.
    table = (shape.hidden_size, shape.vocab_size)
    rows: list[NamedDims] = [
        ("token_embd.weight", table),
        ("output_norm.weight", (shape.hidden_size,)),
    ]
    # llama.cpp's deepseek2 needs a head, so there tied weights are written twice.
    if isinstance(shape.attention, Mla) or not shape.tie_word_embeddings:
        rows.append(("output.weight", table))
    for layer in range(shape.num_hidden_layers):
        rows += [(f"blk.{layer}.{name}.weight", dims) for name, dims in _layer(shape, layer)]
    return [TensorSize(name, dims, kind_of(name, dims, quantize)) for name, dims in rows]


def kind_of(name: str, dims: Sequence[int], quantize: str) -> str:
    """Return the type that `tumen.shrink` gives a tensor.

    Vectors and routers are fp32. Embedding and head have at least eight bits. Rows that are not
    whole blocks are bf16.
    """
    if len(dims) < 2 or "ffn_gate_inp" in name:
        return "F32"
    kind = QUANTIZED.get(quantize, quantize)
    if name in ("token_embd.weight", "output.weight") and kind == "Q4_0":
        kind = "Q8_0"
    return kind if dims[0] % BY_NAME[kind].values == 0 else "BF16"


def _layer(shape: Shape, layer: int) -> list[NamedDims]:
    """Names and dims of one layer's tensors."""
    width = shape.hidden_size
    experts = shape.experts
    rows = [("attn_norm", (width,)), ("ffn_norm", (width,)), *_attention(shape)]
    if not experts or layer < experts.first_k_dense_replace:
        return rows + _feed_forward("", width, shape.intermediate_size)
    inner = experts.moe_intermediate_size
    rows.append(("ffn_gate_inp", (width, experts.n_routed_experts)))
    rows += _feed_forward("_exps", width, inner, experts.n_routed_experts)
    if experts.n_shared_experts:
        # The shared experts are one wide matrix.
        rows += _feed_forward("_shexp", width, experts.n_shared_experts * inner)
    return rows


def _feed_forward(kind: str, width: int, inner: int, *many: int) -> list[NamedDims]:
    """Names and dims of a gated feed-forward, or of `many` stacked ones."""
    return [
        (f"ffn_gate{kind}", (width, inner, *many)),
        (f"ffn_up{kind}", (width, inner, *many)),
        (f"ffn_down{kind}", (inner, width, *many)),
    ]


def _attention(shape: Shape) -> list[NamedDims]:
    if isinstance(shape.attention, Gqa):
        return _grouped_attention(shape.hidden_size, shape.attention)
    return _latent_attention(shape.hidden_size, shape.attention)


def _grouped_attention(width: int, attention: Gqa) -> list[NamedDims]:
    query = attention.num_attention_heads * attention.head_dim
    key = attention.num_key_value_heads * attention.head_dim
    return [
        ("attn_q", (width, query)),
        ("attn_k", (width, key)),
        ("attn_v", (width, key)),
        ("attn_output", (query, width)),
    ]


def _latent_attention(width: int, attention: Mla) -> list[NamedDims]:
    heads = attention.num_attention_heads
    query = heads * attention.query_dim
    rank = attention.kv_lora_rank
    q_rank = attention.q_lora_rank
    if q_rank:
        rows: list[NamedDims] = [
            ("attn_q_a", (width, q_rank)),
            ("attn_q_a_norm", (q_rank,)),
            ("attn_q_b", (q_rank, query)),
        ]
    else:
        rows = [("attn_q", (width, query))]
    # llama.cpp holds the up-projection in two parts, so that decoding can absorb them.
    return [
        *rows,
        ("attn_kv_a_mqa", (width, rank + attention.qk_rope_head_dim)),
        ("attn_kv_a_norm", (rank,)),
        ("attn_k_b", (attention.qk_nope_head_dim, rank, heads)),
        ("attn_v_b", (rank, attention.v_head_dim, heads)),
        ("attn_output", (heads * attention.v_head_dim, width)),
    ]


def of_shape(shape: Shape, quantize: str, name: str) -> Footprint:
    """Return the footprint of a tier that is not trained yet; `shape.vocab_size` is set.

    Raises:
        PlanError: GGUF has no architecture for the shape.
    """
    tensors = shape_tensors(shape, quantize)
    attention = shape.attention
    experts = shape.experts
    value_dim = attention.v_head_dim if isinstance(attention, Mla) else attention.head_dim
    share = experts.num_experts_per_tok / experts.n_routed_experts if experts else 1.0
    return Footprint(
        name=name,
        tensors=tuple(tensors),
        share=share,
        mla=isinstance(attention, Mla),
        cache_elements=attention.cache_elements(),
        score_elements=attention.num_attention_heads * (attention.query_dim + value_dim),
        file_bytes=_file_bytes(tensors, shape.vocab_size),
    )


def of_header(
    pairs: Mapping[str, Any], tensors: Iterable[TensorSize], file_bytes: int, name: str
) -> Footprint:
    """Return the footprint of a GGUF.

    Args:
        pairs: of its header.
        tensors: of its header, in order.
        file_bytes: of the file.
        name: for people.

    Raises:
        PlanError: an encoder, which reads a sentence at once instead of token by token.
    """
    if pairs["general.architecture"] == "bert":
        raise PlanError(
            f"{name}: an encoder reads a sentence in one pass, for which there is no model of "
            "time and memory here; `tumen eval` measures its latency"
        )
    number = _architecture_pairs(pairs)
    heads = number["attention.head_count"]
    mla = "attention.kv_lora_rank" in number
    # Where a file does not say, heads divide the width, as in the first Llama.
    key_dim = number.get("attention.key_length", number["embedding_length"] // heads)
    value_dim = number.get("attention.value_length", key_dim)
    if mla:
        cache_elements = key_dim  # the latent and the rotary key are one
    else:
        groups = number.get("attention.head_count_kv", heads)
        cache_elements = groups * (key_dim + value_dim)
    routed = number.get("expert_count", 0)
    used = number.get("expert_used_count", 0)
    return Footprint(
        name=name,
        tensors=tuple(tensors),
        share=used / routed if routed else 1.0,
        mla=mla,
        cache_elements=cache_elements,
        score_elements=heads * (key_dim + value_dim),
        file_bytes=file_bytes,
    )


def _architecture_pairs(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pairs of the network by their names without the architecture: `block_count`."""
    prefix = f"{pairs['general.architecture']}."
    own = [key for key in pairs if key.startswith(prefix)]
    return {key.removeprefix(prefix): pairs[key] for key in own}


def _beyond(name: str, layers: int) -> bool:
    """Whether a tensor belongs to a block after the first `layers`."""
    return name.startswith("blk.") and int(name.split(".")[1]) >= layers


def _file_bytes(tensors: Sequence[TensorSize], vocab: int) -> int:
    """Size of the file that the writer makes: padded data, a line a tensor, pairs, vocabulary."""
    data = sum(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)
    lines = sum(LINE_BYTES + len(tensor.name) for tensor in tensors)
    return data + lines + PAIR_BYTES + vocab * PIECE_BYTES
