"""A GGUF of any shape with random weights: measures a machine before there is a model.

Speed and memory depend on shapes and kinds, and on one thing about values: the scales of blocks
must differ from one another, probably because llama.cpp looks them up in a table of 256 kB (one
and the same scale made Q4_1 40 % too fast). The end token's row is zero, so greedy decoding never
ends early. Needs the package `gguf` (it comes with `tumen[train]`).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tumen.core.extras import need
from tumen.core.shape import Mla, Shape
from tumen.fit import TensorSize, shape_tensors
from tumen.formats.ggml_types import BY_NAME

Array = np.ndarray[Any, Any]

CONTEXT = 4096
BEGIN = 1  # token ids
END = 2
RMS_EPSILON = 1e-5
# Scales of blocks, as in trained models.
SCALE = 0.01  # median
SPREAD = 0.25  # deviation of the logarithm, within a tensor and between tensors
# High bytes of 16-bit floats of about 0.01, without the sign.
HIGH_BYTES = {"BF16": 0x3C, "F16": 0x24}
SIGN_BIT = 0x80
# Kinds of tokens in GGUF (gguf.TokenType).
NORMAL = 1
UNKNOWN = 2
CONTROL = 3
BYTE = 6
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]
# Where a block of a kind has its fp16 scales (ggml-common.h); all other bytes may be anything.
SCALES = {
    "Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def write_synthetic_gguf(path: Path, shape: Shape, quantize: str, seed: int = 0) -> Path:
    """Write one model file.

    Args:
        path: of the file.
        shape: of the model.
        quantize: int8, int4 or bf16, or one of ggml's simple kinds such as Q4_1.
        seed: of the weights.

    Raises:
        MissingExtra: the package `gguf` is missing.
        PlanError: GGUF has no architecture for the shape.
    """
    gguf = _gguf()
    writer = gguf.GGUFWriter(str(path), _architecture(shape))
    _add_shape(writer, shape)
    _add_tokens(writer, shape.vocab_size)
    rng = np.random.default_rng(seed)
    for tensor in shape_tensors(shape, quantize):
        kind = gguf.GGMLQuantizationType[tensor.kind]
        writer.add_tensor(tensor.name, _data(rng, tensor), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf() -> ModuleType:
    """Return the package `gguf`, which is an extra."""
    module: ModuleType = need("gguf", "measuring this machine")
    return module


def _architecture(shape: Shape) -> str:
    """Return GGUF's name of a shape's architecture."""
    return "deepseek2" if isinstance(shape.attention, Mla) else "llama"


def _data(rng: np.random.Generator, tensor: TensorSize) -> Array:
    """Return the random content of a tensor.

    Returns:
        F32: (..., rows, columns). Other kinds: bytes, (..., rows, bytes of a row).
    """
    rows = tensor.dims[:0:-1]
    if tensor.kind == "F32":
        return _float_data(rng, tensor, rows)
    # Any bytes are valid weights, but for the scales that follow.
    width = tensor.bytes // int(np.prod(rows))
    packed = rng.integers(0, 256, (*rows, width), dtype=np.uint8)
    if tensor.kind in HIGH_BYTES:
        signs = packed[..., 1::2] & SIGN_BIT
        packed[..., 1::2] = signs | HIGH_BYTES[tensor.kind]
    if tensor.kind in SCALES:
        blocks = packed.reshape(*rows, -1, BY_NAME[tensor.kind].bytes)
        _set_scales(rng, blocks, SCALES[tensor.kind])
    if tensor.name in ("token_embd.weight", "output.weight"):
        packed[END] = 0
    return packed


def _float_data(rng: np.random.Generator, tensor: TensorSize, rows: tuple[int, ...]) -> Array:
    """Return the content of an F32 tensor: ones of a norm, else a normal distribution."""
    is_norm = len(tensor.dims) == 1
    if is_norm:
        return np.ones(tensor.dims, "f4")
    values = rng.standard_normal((*rows, tensor.dims[0]))
    return values.astype("f4")


def _set_scales(rng: np.random.Generator, blocks: Array, places: tuple[int, ...]) -> None:
    """Write the fp16 scales of blocks.

    Args:
        rng: draws them.
        blocks: bytes, (..., blocks of a row, bytes of a block); changed in place.
        places: of the scales in a block. The second one is the offset of Q4_1 and its like, eight
            times as large and of the other sign.
    """
    for number, place in enumerate(places):
        median = (-8) ** number * SCALE * np.exp(SPREAD * rng.standard_normal())
        deviations = rng.standard_normal(blocks.shape[:-1], dtype="f4")
        scales = median * np.exp(SPREAD * deviations)
        blocks[..., place : place + 2] = scales.astype("f2")[..., None].view(np.uint8)


def _add_shape(writer: Any, shape: Shape) -> None:
    """Add the pairs of `tumen.shrink.gguf_writer`, as llama.cpp wants them."""
    architecture = _architecture(shape)
    attention = shape.attention
    numbers = _sizes(shape)
    if isinstance(attention, Mla):
        numbers |= _latent_sizes(attention)
        numbers |= _expert_sizes(shape)
    for key, value in numbers.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", RMS_EPSILON)
    writer.add_float32(f"{architecture}.rope.freq_base", attention.rope_theta)
    if isinstance(attention, Mla):
        writer.add_float32(f"{architecture}.expert_weights_scale", 1.0)
        writer.add_bool(f"{architecture}.expert_weights_norm", False)


def _sizes(shape: Shape) -> dict[str, int]:
    """Return the pairs that both architectures have."""
    attention = shape.attention
    # llama.cpp sees one head of keys in MLA: the latent vector.
    key_heads = 1 if isinstance(attention, Mla) else attention.num_key_value_heads
    return {
        "context_length": CONTEXT,
        "embedding_length": shape.hidden_size,
        "block_count": shape.num_hidden_layers,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": attention.num_attention_heads,
        "attention.head_count_kv": key_heads,
        "attention.key_length": attention.query_dim,
        "attention.value_length": attention.query_dim,
        "rope.dimension_count": attention.query_dim,
        "vocab_size": shape.vocab_size,
    }


def _latent_sizes(attention: Mla) -> dict[str, int]:
    """Return the pairs of multi-head latent attention."""
    sizes = {
        "attention.kv_lora_rank": attention.kv_lora_rank,
        "attention.key_length": attention.kv_lora_rank + attention.qk_rope_head_dim,
        "attention.value_length": attention.kv_lora_rank,
        "attention.key_length_mla": attention.query_dim,
        "attention.value_length_mla": attention.v_head_dim,
        "rope.dimension_count": attention.qk_rope_head_dim,
    }
    if attention.q_lora_rank:
        sizes["attention.q_lora_rank"] = attention.q_lora_rank
    return sizes


def _expert_sizes(shape: Shape) -> dict[str, int]:
    """Return the pairs of a mixture of experts; deepseek2 needs them without experts, too."""
    experts = shape.experts
    if experts is None:
        return {
            "leading_dense_block_count": shape.num_hidden_layers,
            "expert_count": 0,
            "expert_used_count": 0,
            "expert_shared_count": 0,
            "expert_feed_forward_length": shape.intermediate_size,
            "expert_gating_func": 1,
        }
    return {
        "leading_dense_block_count": experts.first_k_dense_replace,
        "expert_count": experts.n_routed_experts,
        "expert_used_count": experts.num_experts_per_tok,
        "expert_shared_count": experts.n_shared_experts,
        "expert_feed_forward_length": experts.moe_intermediate_size,
        "expert_gating_func": 1,
    }


def _add_tokens(writer: Any, vocab: int) -> None:
    """Add a vocabulary as `gguf_header.check` expects it.

    Three special tokens, all bytes, then words that no sentence has.
    """
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    known = len(SPECIAL_TOKENS) + len(byte_tokens)
    words = [f"w{number}" for number in range(vocab - known)]
    pieces = [*SPECIAL_TOKENS, *byte_tokens, *words]
    # One kind for each piece.
    kinds = [UNKNOWN, CONTROL, CONTROL]
    kinds += [BYTE] * len(byte_tokens)
    kinds += [NORMAL] * len(words)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(rank) for rank in range(vocab)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)
