"""Write GGUF: our weights under llama.cpp's names, with the tokenizer and a chat template.

The format: github.com/ggml-org/ggml/docs/gguf.md. Dense GQA becomes architecture `llama`; MLA,
dense or with experts, becomes `deepseek2` (names in model/names/gguf_names.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import gguf
import numpy as np
import torch
from torch import Tensor

from tumen.core.errors import ExportError
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.data import Codec
from tumen.data.tokenizer import BYTES, CONTROL, UNKNOWN, UnigramVocabulary, Vocabulary
from tumen.language import BEGIN, DO
from tumen.model.names import gguf_name, interleave, to_gguf, turned
from tumen.recipe.field_types import QuantType
from tumen.shrink.quant_types import QUANTIZERS, Scales, fitting

WORDS: Mapping[str, QuantType] = {"int8": "q8_0", "int4": "q4_0"}
ENDS = ("token_embd.weight", "output.weight")
CONTEXT = 512


def template(begin: str, do: str) -> str:
    """A chat template that makes a prompt of the last message."""
    message = "{{ messages[-1]['content'] }}"
    return f"{{{{ '{begin}' }}}}{message}{{{{ '{do}' }}}}"


def write_gguf(
    path: Path,
    shape: Shape,
    weights: Mapping[str, Tensor],
    codec: Codec,
    quantize: str | Mapping[str, QuantType],
    name: str,
    *,
    scales: Mapping[str, Scales] | None = None,
) -> None:
    """Write one model file.

    Args:
        path: the new file.
        weights: fp32, by our names (model/transformer.py).
        codec: its vocabulary must be the shape's.
        quantize: int8 (Q8_0), int4 (Q4_0; the embedding stays Q8_0) or a quantization type; or the
            type of every matrix by the file's names. A row that is no multiple of the block falls
            back (`Quantizer.otherwise`).
        name: of the model, written into the header.
        scales: of every matrix by the file's names; default: the best for these weights.

    Raises:
        ExportError: vocabulary and shape differ, or llama.cpp has no architecture for the shape.
    """
    if codec.vocab != shape.vocab_size:
        raise ExportError(
            f"the tokenizer has {codec.vocab} tokens, the model {shape.vocab_size}; "
            "train the tier again"
        )
    tensors = tensors_of(shape, weights)
    types = quant_types_of(tensors, quantize) if isinstance(quantize, str) else quantize
    known_scales = scales or {}
    architecture = "deepseek2" if isinstance(shape.attention, Mla) else "llama"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    _add_shape(writer, shape)
    add_tokenizer(writer, codec)
    for tensor_name, tensor in tensors.items():
        add_tensor(
            writer, tensor_name, tensor, types.get(tensor_name), known_scales.get(tensor_name)
        )
    finish(writer)


def write_adapter(
    path: Path, shape: Shape, tensors: Mapping[str, Tensor], alpha: float, name: str
) -> None:
    """Write a LoRA adapter as llama.cpp's convert_lora_to_gguf.py does.

    Rows of B are permuted as the rows of the matrix itself are.

    Args:
        path: the new file.
        shape: of the base.
        tensors: `<matrix>.lora_a` (rank, inner) and `<matrix>.lora_b` (outer, rank), by our names.
        alpha: the adapter is scaled by alpha / rank.
        name: written into the header.

    Raises:
        ExportError: latent attention; llama.cpp does not apply adapters there.
    """
    if not isinstance(shape.attention, Gqa):
        raise ExportError(
            "GGUF: llama.cpp applies no adapter in latent attention; "
            "set start.merge = true, or tune = 'full'"
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
        part = tensor
        if half == "b":
            part = turned(shape, turn, tensor, interleave)
        array = part.float().numpy().astype(np.float16)
        writer.add_tensor(f"{theirs}.lora_{half}", np.ascontiguousarray(array))
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors_of(shape: Shape, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by its names, made of ours by slicing and reordering alone.

    Raises:
        ExportError: llama.cpp has no architecture for the shape.
    """
    attention = shape.attention
    experts = shape.experts
    if isinstance(attention, Gqa) and experts:
        raise ExportError(
            "GGUF: llama.cpp has no architecture for experts with GQA that we write; "
            "use MLA, or bf16 safetensors"
        )
    if isinstance(attention, Mla) and attention.rope_scaling:
        raise ExportError(
            "GGUF: attention.rope_scaling is not written; "
            "export to hf and convert with llama.cpp's own script"
        )
    if experts and _routes_otherwise(experts):
        raise ExportError(
            "GGUF: topk_group, sigmoid gates and balancing biases are not written; "
            "export to hf where it has them"
        )
    return dict(to_gguf(shape, weights))


def _routes_otherwise(experts: Experts) -> bool:
    """Whether the router does more than a softmax and its largest entries."""
    sigmoid = experts.scoring_func == "sigmoid"
    return bool(experts.topk_group or sigmoid or experts.bias_rate)


def matrices_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file that are quantized; vectors and the router stay fp32."""
    found = {}
    for name, tensor in tensors.items():
        router = "ffn_gate_inp" in name
        if tensor.dim() > 1 and not router:
            found[name] = tensor
    return found


def quant_types_of(tensors: Mapping[str, Tensor], word: str) -> dict[str, QuantType]:
    """The type that one word means for every matrix, or the fallback for its rows."""
    quant_type = cast(QuantType, WORDS.get(word, word))
    found: dict[str, QuantType] = {}
    for name, tensor in matrices_of(tensors).items():
        # Embedding and head are one matrix here, and four bits hurt it most.
        at_end = word == "int4" and name in ENDS
        chosen: QuantType = "q8_0" if at_end else quant_type
        found[name] = fitting(chosen, tensor.shape[-1])
    return found


def add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    tensor: Tensor,
    quant_type: QuantType | None,
    scales: Scales | None,
) -> None:
    """Add a matrix quantized, everything else in fp32."""
    tensor = tensor.detach().float().contiguous()
    if quant_type is None:
        writer.add_tensor(name, tensor.numpy())
        return
    chosen = QUANTIZERS[quant_type]
    encoded = chosen.encode(tensor, scales or chosen.fit(tensor))
    writer.add_tensor(name, encoded.numpy(), raw_dtype=chosen.kind)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The values of a file's tensors, fp32, by its names and in its shapes."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        array = np.array(values, np.float32)
        # GGUF lists the fastest dimension first.
        sizes = map(int, reversed(tensor.shape))
        found[tensor.name] = torch.from_numpy(array).view(*sizes)
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
    _add_latent(writer, attention)
    _add_experts(writer, shape)


def _add_latent(writer: gguf.GGUFWriter, attention: Mla) -> None:
    writer.add_head_count_kv(1)  # the latent is one key for all heads
    writer.add_kv_lora_rank(attention.kv_lora_rank)
    if attention.q_lora_rank:
        writer.add_q_lora_rank(attention.q_lora_rank)
    writer.add_key_length(attention.kv_lora_rank + attention.qk_rope_head_dim)
    writer.add_value_length(attention.kv_lora_rank)
    writer.add_key_length_mla(attention.query_dim)
    writer.add_value_length_mla(attention.v_head_dim)
    writer.add_rope_dimension_count(attention.qk_rope_head_dim)


def _add_experts(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """The fields of a mixture; `deepseek2` wants them of a dense model, too."""
    experts = shape.experts
    if experts:
        writer.add_leading_dense_block_count(experts.first_k_dense_replace)
        writer.add_expert_count(experts.n_routed_experts)
        writer.add_expert_used_count(experts.num_experts_per_tok)
        writer.add_expert_shared_count(experts.n_shared_experts)
        writer.add_expert_feed_forward_length(experts.moe_intermediate_size)
        writer.add_expert_weights_scale(experts.routed_scaling_factor)
        writer.add_expert_weights_norm(bool(experts.norm_topk_prob))
    else:
        writer.add_leading_dense_block_count(shape.num_hidden_layers)
        writer.add_expert_count(0)
        writer.add_expert_used_count(0)
        writer.add_expert_shared_count(0)
        writer.add_expert_feed_forward_length(shape.intermediate_size)
        writer.add_expert_weights_scale(1.0)
        writer.add_expert_weights_norm(False)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def add_tokenizer(writer: gguf.GGUFWriter, codec: Codec) -> None:
    """Add the vocabulary of a codec."""
    if isinstance(codec.vocabulary, UnigramVocabulary):
        _add_unigram(writer, codec.vocabulary)
    elif codec.vocabulary:
        _add_outside(writer, codec)
    else:
        _add_learned(writer, codec)
    writer.add_bos_token_id(codec.begin)
    writer.add_eos_token_id(codec.end)
    # A prompt begins with the begin token, and an answer ends itself.
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _add_outside(writer: gguf.GGUFWriter, codec: Codec) -> None:
    """Add a pretrained model's byte-level BPE.

    Of its control tokens only those in use stay control tokens: typed text never becomes one.
    """
    vocabulary = codec.vocabulary
    assert isinstance(vocabulary, Vocabulary)
    first = codec.vocab - vocabulary.added
    control = set(vocabulary.control)
    used = (codec.begin, codec.do, codec.end)

    def kind(number: int) -> gguf.TokenType:
        if number in used:
            return gguf.TokenType.CONTROL
        if number in control:
            return gguf.TokenType.UNUSED
        if number >= first:
            return gguf.TokenType.USER_DEFINED
        return gguf.TokenType.NORMAL

    begin = codec.decode([codec.begin])
    do = codec.decode([codec.do])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_merges(vocabulary.merges)
    writer.add_token_types([kind(number) for number in range(codec.vocab)])
    writer.add_chat_template(template(begin, do))


def _add_unigram(writer: gguf.GGUFWriter, vocabulary: UnigramVocabulary) -> None:
    """Add the pieces of a pretrained encoder; those of actions are never found in a text."""
    first = len(vocabulary.tokens) - vocabulary.added

    def kind(number: int) -> gguf.TokenType:
        if number == vocabulary.unknown:
            return gguf.TokenType.UNKNOWN
        if number in vocabulary.control or number >= first:
            return gguf.TokenType.CONTROL
        return gguf.TokenType.NORMAL

    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types([kind(number) for number in range(len(vocabulary.tokens))])
    writer.add_unk_token_id(vocabulary.unknown)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)


def _add_learned(writer: gguf.GGUFWriter, codec: Codec) -> None:
    """Add our own BPE as a SentencePiece model.

    llama.cpp merges the piece with the highest score first, so the score is minus the id.
    """
    numbers = codec.tokenizer.get_vocab()
    tokens = sorted(numbers, key=numbers.__getitem__)
    structure = set(codec.structure)

    def kind(token: str) -> gguf.TokenType:
        if token == UNKNOWN:
            return gguf.TokenType.UNKNOWN
        if token in CONTROL:
            return gguf.TokenType.CONTROL
        if token in BYTES:
            return gguf.TokenType.BYTE
        if token in structure:
            return gguf.TokenType.USER_DEFINED
        return gguf.TokenType.NORMAL

    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types([kind(token) for token in tokens])
    writer.add_unk_token_id(tokens.index(UNKNOWN))
    writer.add_add_space_prefix(True)
    writer.add_chat_template(template(BEGIN, DO))
