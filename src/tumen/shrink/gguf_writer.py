"""GGUF out: our weights under llama.cpp's names, with tokeniser and chat template inside (github.com/ggml-org/ggml/docs/gguf.md).

Dense GQA becomes architecture `llama`; MLA, dense or with experts, becomes `deepseek2` (names in model/gguf_names.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

from tumen.core.errors import ExportError
from tumen.core.shape import Gqa, Mla, Shape
from tumen.data import Codec
from tumen.data.tokenizer import BYTES, CONTROL, UNKNOWN
from tumen.language import BEGIN, DO
from tumen.model import gguf_name, interleave, to_gguf, turned
from tumen.recipe.field_types import QuantType
from tumen.shrink.quant_types import GRIDS, Scales, fitting

WORDS: Mapping[str, QuantType] = {"int8": "q8_0", "int4": "q4_0"}
ENDS = ("token_embd.weight", "output.weight")
CONTEXT = 512


def template(begin: str, do: str) -> str:
    """A chat template that makes a prompt of the last message."""
    return "{{ '" + begin + "' }}{{ messages[-1]['content'] }}{{ '" + do + "' }}"


def write_gguf(
    path: Path,
    shape: Shape,
    weights: Mapping[str, Tensor],
    codec: Codec,
    quantise: str | Mapping[str, QuantType],
    name: str,
    scales: Mapping[str, Scales] | None = None,
) -> None:
    """Write one model file.

    Args:
        weights: fp32, by our names (model/transformer.py).
        codec: its vocabulary must be the shape's.
        quantise: int8 (Q8_0), int4 (Q4_0; the embedding stays Q8_0) or a grid's name; or the grid of every matrix by the file's
            names. A row that no block fits falls back (`Grid.otherwise`).
        scales: of every matrix by the file's names; default: the best for these weights.

    Raises:
        ExportError: vocabulary and shape differ, or llama.cpp has no architecture for the shape.
    """
    if codec.vocab != shape.vocab_size:
        raise ExportError(
            f"the tokeniser has {codec.vocab} tokens, the model {shape.vocab_size}; train the tier again"
        )
    tensors = tensors_of(shape, weights)
    grids = grids_of(tensors, quantise) if isinstance(quantise, str) else quantise
    writer = gguf.GGUFWriter(path, "deepseek2" if isinstance(shape.attention, Mla) else "llama")
    writer.add_name(name)
    _add_shape(writer, shape)
    _add_tokenizer(writer, codec)
    for tensor_name, tensor in tensors.items():
        _add_tensor(
            writer, tensor_name, tensor, grids.get(tensor_name), (scales or {}).get(tensor_name)
        )
    _write(writer)


def write_adapter(
    path: Path, shape: Shape, tensors: Mapping[str, Tensor], alpha: float, name: str
) -> None:
    """Write a LoRA adapter for llama.cpp (its convert_lora_to_gguf.py): rows of B are turned as the matrix's own are.

    Args:
        tensors: `<matrix>.lora_a` (rank, inner) and `<matrix>.lora_b` (outer, rank), by our names.
        alpha: the adapter counts alpha / rank.

    Raises:
        ExportError: latent attention, of which llama.cpp does not ask its adapters.
    """
    if not isinstance(shape.attention, Gqa):
        raise ExportError(
            "GGUF: llama.cpp asks no adapter in latent attention; set start.merge = true, or tune = 'full'"
        )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for ours, tensor in tensors.items():
        matrix, half = ours.rsplit(".lora_", 1)
        theirs, turn = gguf_name(shape, f"{matrix}.weight")
        part = turned(shape, turn, tensor, interleave) if half == "b" else tensor
        writer.add_tensor(
            f"{theirs}.lora_{half}", np.ascontiguousarray(part.float().numpy().astype(np.float16))
        )
    _write(writer)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors_of(shape: Shape, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by its names, made of ours by cutting, turning and reordering alone.

    Raises:
        ExportError: llama.cpp has no architecture for the shape.
    """
    if isinstance(shape.attention, Gqa) and shape.experts:
        raise ExportError(
            "GGUF: experts with GQA have no architecture in llama.cpp that we write; use MLA, or bf16 safetensors"
        )
    if isinstance(shape.attention, Mla) and shape.attention.rope_scaling:
        raise ExportError(
            "GGUF: attention.rope_scaling is not written; export to hf and convert with llama.cpp's own script"
        )
    if shape.experts and (
        shape.experts.topk_group
        or shape.experts.scoring_func == "sigmoid"
        or shape.experts.bias_rate
    ):
        raise ExportError(
            "GGUF: topk_group, sigmoid gates and balancing biases are not written; export to hf where it has them"
        )
    return dict(to_gguf(shape, weights))


def matrices_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the file's tensors that are put on a grid: vectors and the router stay fp32."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.dim() > 1 and "ffn_gate_inp" not in name
    }


def grids_of(tensors: Mapping[str, Tensor], word: str) -> dict[str, QuantType]:
    """One word's grid for every matrix, or what its rows fall back to."""
    grid = WORDS.get(word, word)
    # embedding and head are one matrix here and feel four bits most
    return {
        name: fitting("q8_0" if word == "int4" and name in ENDS else grid, tensor.shape[-1])  # type: ignore[arg-type]
        for name, tensor in matrices_of(tensors).items()
    }


def _add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    tensor: Tensor,
    grid: QuantType | None,
    scales: Scales | None,
) -> None:
    """A matrix goes in on its grid, everything else in fp32."""
    tensor = tensor.detach().float().contiguous()
    if grid is None:
        writer.add_tensor(name, tensor.numpy())
        return
    chosen = GRIDS[grid]
    writer.add_tensor(
        name, chosen.encode(tensor, scales or chosen.fit(tensor)).numpy(), raw_dtype=chosen.kind
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """What a file's tensors mean, fp32, by its names and in its shapes."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found[tensor.name] = torch.from_numpy(np.array(values, np.float32)).view(
            *map(int, reversed(tensor.shape))
        )
    return found


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    attention = shape.attention
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(attention.num_attention_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(attention.rope_theta)
    writer.add_file_type(gguf.LlamaFileType.GUESSED)
    if isinstance(attention, Gqa):
        writer.add_head_count_kv(attention.num_key_value_heads)
        writer.add_key_length(attention.head_dim)
        writer.add_value_length(attention.head_dim)
        writer.add_rope_dimension_count(attention.head_dim)
        return
    writer.add_head_count_kv(1)  # the latent is one key for all heads
    writer.add_kv_lora_rank(attention.kv_lora_rank)
    if attention.q_lora_rank:
        writer.add_q_lora_rank(attention.q_lora_rank)
    writer.add_key_length(attention.kv_lora_rank + attention.qk_rope_head_dim)
    writer.add_value_length(attention.kv_lora_rank)
    writer.add_key_length_mla(attention.query_dim)
    writer.add_value_length_mla(attention.v_head_dim)
    writer.add_rope_dimension_count(attention.qk_rope_head_dim)
    experts = shape.experts
    writer.add_leading_dense_block_count(
        experts.first_k_dense_replace if experts else shape.num_hidden_layers
    )
    writer.add_expert_count(experts.n_routed_experts if experts else 0)
    writer.add_expert_used_count(experts.num_experts_per_tok if experts else 0)
    writer.add_expert_shared_count(experts.n_shared_experts if experts else 0)
    writer.add_expert_feed_forward_length(
        experts.moe_intermediate_size if experts else shape.intermediate_size
    )
    writer.add_expert_weights_scale(experts.routed_scaling_factor if experts else 1.0)
    writer.add_expert_weights_norm(bool(experts and experts.norm_topk_prob))
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def _add_tokenizer(writer: gguf.GGUFWriter, codec: Codec) -> None:
    (_add_outside if codec.vocabulary else _add_learnt)(writer, codec)
    writer.add_bos_token_id(codec.begin)
    writer.add_eos_token_id(codec.end)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _add_outside(writer: gguf.GGUFWriter, codec: Codec) -> None:
    """Byte-level BPE. Of the model's control tokens only those we use stay such: what somebody types is never one."""
    vocabulary = codec.vocabulary
    assert vocabulary is not None
    first, control = codec.vocab - vocabulary.added, set(vocabulary.control)
    kinds = [
        gguf.TokenType.CONTROL if number in (codec.begin, codec.do, codec.end)
        else gguf.TokenType.UNUSED if number in control
        else gguf.TokenType.USER_DEFINED if number >= first
        else gguf.TokenType.NORMAL
        for number in range(codec.vocab)
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_merges(vocabulary.merges)
    writer.add_token_types(kinds)
    writer.add_chat_template(template(codec.decode([codec.begin]), codec.decode([codec.do])))


def _add_learnt(writer: gguf.GGUFWriter, codec: Codec) -> None:
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
    writer.add_unk_token_id(tokens.index(UNKNOWN))
    writer.add_add_space_prefix(True)
    writer.add_chat_template(template(BEGIN, DO))
