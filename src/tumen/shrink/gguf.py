"""GGUF out: our weights under llama.cpp's names, with tokeniser and chat template inside (github.com/ggml-org/ggml/docs/gguf.md).

Dense GQA becomes architecture `llama`; MLA, dense or with experts, becomes `deepseek2`, whose attention runs in the latent, so
the up-projection is stored as its two absorbed halves (`attn_k_b`, `attn_v_b`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from tumen.core import ExportError, Gqa, Mla, Shape
from tumen.core.action import BEGIN, DO
from tumen.data import BYTES, CONTROL, UNKNOWN, Codec
from tumen.model import interleave

QUANTISED = {"int8": Kind.Q8_0, "int4": Kind.Q4_0, "bf16": Kind.BF16}
BLOCK = 32  # weights of a row that share a scale in Q8_0 and Q4_0
CONTEXT = 512
TEMPLATE = "{{ '" + BEGIN + "' }}{{ messages[-1]['content'] }}{{ '" + DO + "' }}"


def write_gguf(path: Path, shape: Shape, weights: Mapping[str, Tensor], codec: Codec, quantise: str, name: str) -> None:
    """Write one model file.

    Args:
        weights: fp32, by our names (model/transformer.py).
        codec: its vocabulary must be the shape's.
        quantise: int8 (Q8_0), int4 (Q4_0; the embedding stays Q8_0) or bf16.

    Raises:
        ExportError: vocabulary and shape differ, or llama.cpp has no architecture for the shape.
    """
    if codec.vocab != shape.vocab:
        raise ExportError(f"the tokeniser has {codec.vocab} tokens, the model {shape.vocab}; train the tier again")
    if isinstance(shape.attention, Gqa) and shape.experts:
        raise ExportError("GGUF: experts with GQA have no architecture in llama.cpp that we write; use MLA, or bf16 safetensors")
    mla = isinstance(shape.attention, Mla)
    if isinstance(shape.attention, Mla) and shape.attention.yarn:
        raise ExportError("GGUF: attention.yarn is not written; export to hf and convert with llama.cpp's own script")
    if shape.experts and (shape.experts.device_limit or shape.experts.gate == "sigmoid" or shape.experts.bias_rate):
        raise ExportError("GGUF: device_limit, sigmoid gates and balancing biases are not written; export to hf where it has them")
    writer = gguf.GGUFWriter(path, "deepseek2" if mla else "llama")
    writer.add_name(name)
    _add_shape(writer, shape)
    _add_tokenizer(writer, codec)
    for tensor_name, tensor in (_latent if mla else _grouped)(shape, weights):
        _add_tensor(writer, tensor_name, tensor, QUANTISED[quantise])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensor(writer: gguf.GGUFWriter, name: str, tensor: Tensor, kind: Kind) -> None:
    """Matrices are quantised, vectors and the router stay fp32; a row that no block fits stays in bf16."""
    array = np.ascontiguousarray(tensor.float().numpy())
    if tensor.dim() < 2 or "ffn_gate_inp" in name:
        writer.add_tensor(name, array)
        return
    if name in ("token_embd.weight", "output.weight") and kind == Kind.Q4_0:
        kind = Kind.Q8_0  # embedding and head are one matrix here and feel four bits most
    if tensor.shape[-1] % BLOCK:
        kind = Kind.BF16
    writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    attention = shape.attention
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(attention.heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(attention.rope_theta)
    writer.add_file_type(gguf.LlamaFileType.GUESSED)
    if isinstance(attention, Gqa):
        writer.add_head_count_kv(attention.kv_heads)
        writer.add_key_length(attention.head_dim)
        writer.add_value_length(attention.head_dim)
        writer.add_rope_dimension_count(attention.head_dim)
        return
    writer.add_head_count_kv(1)  # the latent is one key for all heads
    writer.add_kv_lora_rank(attention.kv_rank)
    if attention.q_rank:
        writer.add_q_lora_rank(attention.q_rank)
    writer.add_key_length(attention.kv_rank + attention.rope_dim)
    writer.add_value_length(attention.kv_rank)
    writer.add_key_length_mla(attention.query_dim)
    writer.add_value_length_mla(attention.v_dim)
    writer.add_rope_dimension_count(attention.rope_dim)
    experts = shape.experts
    writer.add_leading_dense_block_count(experts.dense_layers if experts else shape.layers)
    writer.add_expert_count(experts.routed if experts else 0)
    writer.add_expert_used_count(experts.top_k if experts else 0)
    writer.add_expert_shared_count(experts.shared if experts else 0)
    writer.add_expert_feed_forward_length(experts.width if experts else shape.feed_forward)
    writer.add_expert_weights_scale(experts.scale if experts else 1.0)
    writer.add_expert_weights_norm(bool(experts and experts.normalise))
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def _add_tokenizer(writer: gguf.GGUFWriter, codec: Codec) -> None:
    """SentencePiece-type BPE: what llama.cpp merges first is the piece with the highest score, so the score is minus the id."""
    vocabulary = sorted(codec.tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    structure = set(codec.structure)
    kinds = [
        gguf.TokenType.UNKNOWN if token == UNKNOWN
        else gguf.TokenType.CONTROL if token in CONTROL
        else gguf.TokenType.BYTE if token in BYTES
        else gguf.TokenType.USER_DEFINED if token in structure
        else gguf.TokenType.NORMAL
        for token in tokens
    ]  # fmt: skip
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(codec.begin)
    writer.add_eos_token_id(codec.end)
    writer.add_unk_token_id(tokens.index(UNKNOWN))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(TEMPLATE)


def _ends(shape: Shape, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield "token_embd.weight", weights["embed.weight"]
    yield "output_norm.weight", weights["norm.weight"]
    # llama.cpp's deepseek2 wants a head of its own; tied weights are written twice there
    if not shape.tied:
        yield "output.weight", weights["output.weight"]
    elif isinstance(shape.attention, Mla):
        yield "output.weight", weights["embed.weight"]


def _feed(weights: Mapping[str, Tensor], ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
    """Feed-forward of one layer, dense or mixture."""
    if f"{ours}.router.weight" not in weights:
        for part in ("gate", "up", "down"):
            yield f"{theirs}.ffn_{part}.weight", weights[f"{ours}.{part}.weight"]
        return
    yield f"{theirs}.ffn_gate_inp.weight", weights[f"{ours}.router.weight"]
    for part in ("gate", "up", "down"):
        yield f"{theirs}.ffn_{part}_exps.weight", weights[f"{ours}.{part}"].transpose(1, 2).contiguous()
        if f"{ours}.shared.{part}.weight" in weights:
            yield f"{theirs}.ffn_{part}_shexp.weight", weights[f"{ours}.shared.{part}.weight"]


def _grouped(shape: Shape, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    attention = shape.attention
    if not isinstance(attention, Gqa):
        raise ExportError("a latent model is no llama")
    yield from _ends(shape, weights)
    for layer in range(shape.layers):
        ours, theirs = f"blocks.{layer}", f"blk.{layer}"
        yield f"{theirs}.attn_norm.weight", weights[f"{ours}.norm_in.weight"]
        yield f"{theirs}.ffn_norm.weight", weights[f"{ours}.norm_out.weight"]
        q, k = weights[f"{ours}.attention.q.weight"], weights[f"{ours}.attention.k.weight"]
        yield f"{theirs}.attn_q.weight", interleave(q, attention.heads, attention.head_dim)
        yield f"{theirs}.attn_k.weight", interleave(k, attention.kv_heads, attention.head_dim)
        yield f"{theirs}.attn_v.weight", weights[f"{ours}.attention.v.weight"]
        yield f"{theirs}.attn_output.weight", weights[f"{ours}.attention.out.weight"]
        yield from _feed(weights, f"{ours}.feed", theirs)


def _latent(shape: Shape, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    attention = shape.attention
    if not isinstance(attention, Mla):
        raise ExportError("a grouped-query model is no deepseek2")
    yield from _ends(shape, weights)
    for layer in range(shape.layers):
        ours, theirs = f"blocks.{layer}.attention", f"blk.{layer}"
        yield f"{theirs}.attn_norm.weight", weights[f"blocks.{layer}.norm_in.weight"]
        yield f"{theirs}.ffn_norm.weight", weights[f"blocks.{layer}.norm_out.weight"]
        q_up = interleave(weights[f"{ours}.q_up.weight"], attention.heads, attention.rope_dim)
        if attention.q_rank:
            yield f"{theirs}.attn_q_a.weight", weights[f"{ours}.q_down.weight"]
            yield f"{theirs}.attn_q_a_norm.weight", weights[f"{ours}.q_norm.weight"]
            yield f"{theirs}.attn_q_b.weight", q_up
        else:
            yield f"{theirs}.attn_q.weight", q_up
        yield f"{theirs}.attn_kv_a_mqa.weight", interleave(weights[f"{ours}.kv_down.weight"], 1, attention.rope_dim)
        yield f"{theirs}.attn_kv_a_norm.weight", weights[f"{ours}.kv_norm.weight"]
        up = weights[f"{ours}.kv_up.weight"].view(attention.heads, attention.nope_dim + attention.v_dim, attention.kv_rank)
        k_up, v_up = up.split((attention.nope_dim, attention.v_dim), dim=1)
        yield f"{theirs}.attn_k_b.weight", k_up.transpose(1, 2).contiguous()  # (H, r, nope)
        yield f"{theirs}.attn_v_b.weight", v_up.contiguous()  # (H, v, r)
        yield f"{theirs}.attn_output.weight", weights[f"{ours}.out.weight"]
        yield from _feed(weights, f"blocks.{layer}.feed", theirs)
