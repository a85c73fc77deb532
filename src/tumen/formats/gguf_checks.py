"""Check that a GGUF's header makes sense: numbers, tensors and vocabulary must agree.

llama.cpp aborts its process on some headers (a block_count of 2^31-1) and accepts others that
cannot be meant (an end token that does not exist). Such files are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tumen.formats.byte_level import BYTE_TOKENS, COMMON, byte_letters
from tumen.formats.gguf_layout import GgufFault, GgufTensor, Header, short

ARCHITECTURES = ("llama", "deepseek2", "bert")
MOST_LAYERS = 512
MOST_CONTEXT = 1 << 24
MOST_RANK = 4096  # of an adapter
TOKENISERS = ("llama", "gpt2", "t5")  # SentencePiece's kind, byte-level BPE with merges, Unigram
TOKEN_TYPES = range(1, 7)  # normal, unknown, control, user's, unused, byte

Pairs = Mapping[str, Any]
Tensors = Mapping[str, GgufTensor]


def check_model(header: Header) -> None:
    """Check that a header describes a language model that can be loaded.

    Raises:
        GgufFault: numbers, tensors or vocabulary contradict each other.
    """
    architecture = header.pairs.get("general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise GgufFault(f"architecture {short(architecture)}; known: {known}")
    _check_layers(header.pairs, architecture, header.tensors)
    _check_widths(header.pairs, architecture)
    tokens = _checked_tokens(header.pairs)
    _check_token_values(header.pairs, len(tokens))
    _check_special_tokens(header.pairs, len(tokens))
    width = header.pairs[f"{architecture}.embedding_length"]
    _check_embedding(header.tensors, [width, len(tokens)])
    if architecture == "bert":
        _check_positions(header.tensors, [width, header.pairs["bert.context_length"]])


def _number(pairs: Pairs, key: str, low: int, high: int, default: int | None = None) -> int:
    """Return a whole number from `low` to `high`, or the default where the key is missing."""
    value = pairs.get(key, default)
    if not _is_whole(value) or not low <= value <= high:
        raise GgufFault(f"{key} is {short(value)} ({low} to {high})")
    return int(value)


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number; True is an int to Python, but not one in the file."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_layers(pairs: Pairs, arch: str, tensors: Tensors) -> None:
    """Check that there are tensors for each layer and for no other."""
    layers = _number(pairs, f"{arch}.block_count", 1, MOST_LAYERS)
    # Names such as blk.0.attn_q.weight.
    blocks = [name for name in tensors if name.startswith("blk.")]
    found = {name.split(".")[1] for name in blocks}
    expected = {str(layer) for layer in range(layers)}
    if found != expected:
        raise GgufFault(f"{arch}.block_count is {layers}, the tensors have {len(found)} blocks")


def _check_widths(pairs: Pairs, arch: str) -> None:
    """Check the sizes of the network, alone and against each other."""
    width = _number(pairs, f"{arch}.embedding_length", 8, 1 << 16)
    _number(pairs, f"{arch}.feed_forward_length", 1, 1 << 20)
    _number(pairs, f"{arch}.context_length", 1, MOST_CONTEXT)
    _check_heads(pairs, arch, width)
    # Optional, but never 0.
    for part in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        _number(pairs, f"{arch}.{part}", 1, 1 << 16, default=1)
    # Optional, and 0 means that there is none.
    for part in ("attention.q_lora_rank", "attention.kv_lora_rank", "leading_dense_block_count"):
        _number(pairs, f"{arch}.{part}", 0, 1 << 16, default=0)
    # A mixture uses at least one of its experts.
    experts = _number(pairs, f"{arch}.expert_count", 0, 512, default=0)
    least = min(1, experts)
    _number(pairs, f"{arch}.expert_used_count", least, experts, default=0)


def _check_heads(pairs: Pairs, arch: str, width: int) -> None:
    """Check that heads come in whole groups, and divide the width where nothing sets their size."""
    heads = _number(pairs, f"{arch}.attention.head_count", 1, 1024)
    kv_heads = _number(pairs, f"{arch}.attention.head_count_kv", 1, heads, default=heads)
    if heads % kv_heads:
        raise GgufFault(
            f"{arch}.attention.head_count_kv is {kv_heads}, which does not divide {heads} heads"
        )
    if f"{arch}.attention.key_length" not in pairs and width % heads:
        raise GgufFault(f"{arch}.embedding_length is {width}, which {heads} heads do not divide")


def _checked_tokens(pairs: Pairs) -> list[str]:
    """Return the tokens: no token twice, a token for every byte, merges that make tokens."""
    model = pairs.get("tokenizer.ggml.model")
    if model not in TOKENISERS:
        known = ", ".join(TOKENISERS)
        raise GgufFault(f"tokenizer.ggml.model is {short(model)}; known: {known}")
    tokens = _texts(pairs, "tokens", "token")
    known_tokens = set(tokens)
    letters = _byte_tokens(model)
    # Without them some texts have no tokens.
    if not letters <= known_tokens:
        raise GgufFault(f"tokenizer.ggml.tokens has not all {len(letters)} byte tokens")
    if model == "gpt2":
        _check_merges(_texts(pairs, "merges", "merge"), known_tokens)
    return tokens


def _texts(pairs: Pairs, name: str, one: str) -> list[str]:
    """Return a list of texts of the tokenizer, of which none may stand twice."""
    key = f"tokenizer.ggml.{name}"
    texts = pairs.get(key)
    # Items of an array have one type, so the first tells.
    if not isinstance(texts, list) or not texts or not isinstance(texts[0], str):
        raise GgufFault(f"{key} is no list of {name}")
    if len(set(texts)) != len(texts):
        raise GgufFault(f"{key} has a {one} twice")
    return texts


def _byte_tokens(model: str) -> set[str]:
    """Tokens without which some text could not be written."""
    # Unigram has a token for what it does not know, see `_check_special_tokens`.
    if model == "t5":
        return set()
    # SentencePiece's kind falls back to bytes as texts of their own.
    if model == "llama":
        return {f"<0x{byte:02X}>" for byte in range(BYTE_TOKENS)}
    letters = byte_letters()
    return {letters[byte] for byte in COMMON}


def _check_merges(merges: list[str], tokens: set[str]) -> None:
    """Check that every merge joins two tokens to a third."""
    for merge in merges:
        left, space, right = merge.partition(" ")
        needed = {left, right, left + right}
        if not space or not needed <= tokens:
            raise GgufFault(
                f"tokenizer.ggml.merges has {short(merge)}, "
                "which does not join two tokens to a third"
            )


def _check_token_values(pairs: Pairs, tokens: int) -> None:
    """Check that every token has a type, and in SentencePiece's kind a score."""
    parts = ["token_type"]
    if pairs["tokenizer.ggml.model"] in ("llama", "t5"):
        parts.insert(0, "scores")
    for part in parts:
        values = pairs.get(f"tokenizer.ggml.{part}")
        if not isinstance(values, list) or len(values) != tokens:
            raise GgufFault(f"tokenizer.ggml.{part} has not one value for each of {tokens} tokens")
    # `type`, as True and 1.0 equal 1 to Python.
    for kind in pairs["tokenizer.ggml.token_type"]:
        if type(kind) is not int or kind not in TOKEN_TYPES:
            raise GgufFault(
                "tokenizer.ggml.token_type has a value that is none "
                f"({TOKEN_TYPES[0]} to {TOKEN_TYPES[-1]})"
            )


def _check_special_tokens(pairs: Pairs, tokens: int) -> None:
    """Check that begin, end and all other special tokens exist."""
    # Any special token, also one that llama.cpp adds later.
    named = [
        key for key in pairs if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
    ]
    needed = ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"]
    if pairs["tokenizer.ggml.model"] == "t5":
        needed.append("tokenizer.ggml.unknown_token_id")
    for key in named + needed:
        _number(pairs, key, 0, tokens - 1)


def _check_embedding(tensors: Tensors, expected: list[int]) -> None:
    """Check that every token has an embedding of the model's width."""
    embedding = tensors.get("token_embd.weight")
    dims = None if embedding is None else list(embedding.dims)
    if dims != expected:
        raise GgufFault(f"token_embd.weight is {short(dims)}, {expected} is needed")


def _check_positions(tensors: Tensors, expected: list[int]) -> None:
    """Check that an encoder has a vector for each place of its context."""
    positions = tensors.get("position_embd.weight")
    dims = None if positions is None else list(positions.dims)
    if dims != expected:
        raise GgufFault(f"position_embd.weight is {short(dims)}, {expected} is needed")


def check_lora(adapter: Header, base: Header) -> None:
    """Check that a header describes a LoRA adapter for `base`.

    Matrices come in pairs for tensors that the base has, of fitting sizes and one rank each.

    Raises:
        GgufFault: not a LoRA adapter, or one for another model.
    """
    pairs = adapter.pairs
    needed = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.architecture,
    }
    for key, value in needed.items():
        if pairs.get(key) != value:
            raise GgufFault(f"{key} is {short(pairs.get(key))}, {value!r} is needed")
    _check_alpha(pairs.get("adapter.lora.alpha"))
    # An "activated" adapter (arXiv 2504.12397): llama.cpp would switch it on by itself.
    if any("alora" in key for key in pairs):
        raise GgufFault("the adapter wakes up at words of its own (aLoRA), which is not known here")
    for name in adapter.tensors:
        _check_half(name, adapter.tensors, base.tensors)


def _check_alpha(alpha: Any) -> None:
    """Check the factor of the adapter; the upper bound keeps products finite."""
    is_number = _is_whole(alpha) or isinstance(alpha, float)
    if not is_number or not 0 < alpha < 1e6:
        raise GgufFault(f"adapter.lora.alpha is {short(alpha)}; a number above 0 is needed")


def _check_half(name: str, adapter: Tensors, base: Tensors) -> None:
    """Check one of a matrix's two halves: `a` (rank, inner) and `b` (outer, rank)."""
    target = name.rpartition(".lora_")[0]
    a = adapter.get(f"{target}.lora_a")
    b = adapter.get(f"{target}.lora_b")
    is_half = name in (f"{target}.lora_a", f"{target}.lora_b")
    if not is_half or a is None or b is None or target not in base:
        raise GgufFault(f"tensor {name!r} is no half of an adapter's matrix for this model")
    matrix = base[target].dims
    if not _fits(a.dims, b.dims, matrix):
        raise GgufFault(f"tensor {name!r} does not fit {target!r}, which is {list(matrix)}")


def _fits(a: tuple[int, ...], b: tuple[int, ...], matrix: tuple[int, ...]) -> bool:
    """Whether two halves make a matrix; dims have the fastest first: inner, outer."""
    if len(a) != 2 or len(matrix) < 2:
        return False
    inner, outer = matrix[:2]
    rank = a[1]
    return a == (inner, rank) and rank <= MOST_RANK and b == (rank, outer)
