"""A GGUF of any shape with random weights: what a machine is measured with before there is a model.

Speed and memory depend on shapes and kinds, and on one thing about values: the scales of blocks must differ from one another,
probably because llama.cpp looks them up in a table of 256 kB (one and the same scale made Q4_1 40 % too fast). The end token's row
is zero, so greedy decoding never ends early.
Needs the package `gguf` (it comes with `tumen[train]`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tumen.core.extras import need
from tumen.core.shape import Mla, Shape
from tumen.fit import TensorSize, shape_tensors
from tumen.formats.ggml_types import BY_NAME

CONTEXT = 4096
BEGIN, END = 1, 2
SCALE, SPREAD = (
    0.01,
    0.25,
)  # of blocks: median, and deviation of the logarithm within a tensor and between tensors; as trained
# Where a block of a kind has its fp16 scales (ggml-common.h); all other bytes may be anything.
SCALES = {
    "Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def write_synthetic_gguf(path: Path, shape: Shape, quantise: str, seed: int = 0) -> Path:
    """Write one model file.

    Args:
        quantise: int8, int4 or bf16, or one of ggml's simple kinds such as Q4_1.

    Raises:
        MissingExtra: the package `gguf` is missing.
        PlanError: GGUF has no architecture for the shape.
    """
    gguf = _gguf()
    writer = gguf.GGUFWriter(
        str(path), "deepseek2" if isinstance(shape.attention, Mla) else "llama"
    )
    _add_shape(writer, shape)
    _add_tokens(writer, shape.vocab_size)
    rng = np.random.default_rng(seed)
    for tensor in shape_tensors(shape, quantise):
        writer.add_tensor(
            tensor.name, _data(rng, tensor), raw_dtype=gguf.GGMLQuantizationType[tensor.kind]
        )
    for step in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        step()
    return path


def _gguf() -> ModuleType:
    module: ModuleType = need("gguf", "measuring this machine")
    return module


def _data(rng: np.random.Generator, tensor: TensorSize) -> np.ndarray[Any, Any]:
    """Random content of a tensor; quantised kinds as bytes, (..., rows, bytes of a row)."""
    rows = tensor.dims[:0:-1]
    if tensor.kind == "F32":
        norm = len(tensor.dims) == 1
        return (
            np.ones(tensor.dims, "f4")
            if norm
            else rng.standard_normal((*rows, tensor.dims[0])).astype("f4")
        )
    width = tensor.bytes // int(np.prod(rows))
    packed = rng.integers(0, 256, (*rows, width), dtype=np.uint8)
    if tensor.kind in ("BF16", "F16"):
        packed[..., 1::2] = packed[..., 1::2] & 0x80 | (
            0x3C if tensor.kind == "BF16" else 0x24
        )  # about 0.01, either sign
    for number, at in enumerate(SCALES.get(tensor.kind, ())):
        blocks = packed.reshape(*rows, -1, BY_NAME[tensor.kind].bytes)
        middle = (-8) ** number * SCALE * np.exp(SPREAD * rng.standard_normal())
        scales = (
            middle * np.exp(SPREAD * rng.standard_normal(blocks.shape[:-1], dtype="f4"))
        ).astype("f2")
        blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
    if tensor.name in ("token_embd.weight", "output.weight"):
        packed[END] = 0
    return packed


def _add_shape(writer: Any, shape: Shape) -> None:
    """The pairs of `tumen.shrink.gguf_writer`, as llama.cpp wants them."""
    attention, mla, experts = shape.attention, isinstance(shape.attention, Mla), shape.experts
    numbers: dict[str, int] = {
        "context_length": CONTEXT,
        "embedding_length": shape.hidden_size,
        "block_count": shape.num_hidden_layers,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": attention.num_attention_heads,
        "attention.head_count_kv": 1 if mla else attention.num_key_value_heads,  # type: ignore[union-attr]
        "attention.key_length": attention.query_dim,
        "attention.value_length": attention.query_dim,
        "rope.dimension_count": attention.query_dim,
        "vocab_size": shape.vocab_size,
    }
    if isinstance(attention, Mla):
        numbers |= {
            "attention.kv_lora_rank": attention.kv_lora_rank,
            "attention.key_length": attention.kv_lora_rank + attention.qk_rope_head_dim,
            "attention.value_length": attention.kv_lora_rank,
            "attention.key_length_mla": attention.query_dim,
            "attention.value_length_mla": attention.v_head_dim,
            "rope.dimension_count": attention.qk_rope_head_dim,
            "leading_dense_block_count": experts.first_k_dense_replace
            if experts
            else shape.num_hidden_layers,
            "expert_count": experts.n_routed_experts if experts else 0,
            "expert_used_count": experts.num_experts_per_tok if experts else 0,
            "expert_shared_count": experts.n_shared_experts if experts else 0,
            "expert_feed_forward_length": experts.moe_intermediate_size
            if experts
            else shape.intermediate_size,
            "expert_gating_func": 1,
        }
        numbers |= {"attention.q_lora_rank": attention.q_lora_rank} if attention.q_lora_rank else {}
    arch = "deepseek2" if mla else "llama"
    for key, value in numbers.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{arch}.rope.freq_base", attention.rope_theta)
    if mla:
        writer.add_float32(f"{arch}.expert_weights_scale", 1.0)
        writer.add_bool(f"{arch}.expert_weights_norm", False)


def _add_tokens(writer: Any, vocab: int) -> None:
    """A vocabulary as `gguf_check` wants it: three special tokens, all bytes, then words that nothing says."""
    pieces: Sequence[str] = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*pieces, *(f"w{number}" for number in range(vocab - len(pieces)))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (vocab - 259)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(rank) for rank in range(vocab)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)
