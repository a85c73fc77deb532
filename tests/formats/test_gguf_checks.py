"""A header that the file can carry may still make no sense: vocabularies and adapters."""

from __future__ import annotations

from typing import Any

import pytest

from tumen.formats.byte_level import COMMON, byte_letters
from tumen.formats.gguf_checks import check_lora, check_model
from tumen.formats.gguf_layout import GgufFault, GgufTensor, Header

LETTERS = byte_letters()
TOKENS = ["<s>", "</s>", *(LETTERS[byte] for byte in COMMON), "ab", "abc"]
PAIRS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.embedding_length": 8,
    "llama.feed_forward_length": 16,
    "llama.context_length": 64,
    "llama.attention.head_count": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.merges": ["a b", "ab c"],
    "tokenizer.ggml.token_type": [1] * len(TOKENS),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
}
BASE = {"token_embd.weight": (8, len(TOKENS)), "blk.0.attn_q.weight": (8, 6), "norm": (8,)}
ADAPTER: dict[str, Any] = {
    "general.type": "adapter",
    "adapter.type": "lora",
    "general.architecture": "llama",
    "adapter.lora.alpha": 8.0,
}
HALVES = {"blk.0.attn_q.weight.lora_a": (8, 2), "blk.0.attn_q.weight.lora_b": (2, 6)}


def header(pairs: dict[str, Any], dims: dict[str, tuple[int, ...]]) -> Header:
    """Return a header with these pairs and tensors."""
    tensors = {name: GgufTensor(name, size, 0, 0, 4) for name, size in dims.items()}
    return Header("llama", pairs, tensors, 0)


def test_letters_stand_for_all_bytes() -> None:
    assert len(set(LETTERS)) == 256
    assert (LETTERS[ord("a")], LETTERS[ord(" ")], LETTERS[ord("\n")]) == ("a", "Ġ", "Ċ")


def test_a_byte_level_vocabulary_is_good() -> None:
    check_model(header(PAIRS, BASE))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("general.architecture", "gpt2", "architecture 'gpt2'; known: llama, deepseek2"),
        ("llama.block_count", True, "llama.block_count is True"),
        ("llama.attention.head_count_kv", 3, r"head_count_kv is 3 \(1 to 2\)"),
        ("llama.expert_used_count", 1, r"expert_used_count is 1 \(0 to 0\)"),
        ("tokenizer.ggml.model", "bert", "tokenizer.ggml.model is 'bert'; known: llama, gpt2"),
        ("tokenizer.ggml.tokens", TOKENS[:-3], f"has not all {len(COMMON)} byte tokens"),
        ("tokenizer.ggml.tokens", [*TOKENS, "a"], "tokenizer.ggml.tokens has a token twice"),
        ("tokenizer.ggml.merges", None, "tokenizer.ggml.merges is no list of merges"),
        ("tokenizer.ggml.merges", [1, 2], "tokenizer.ggml.merges is no list of merges"),
        ("tokenizer.ggml.merges", ["a b", "a b"], "tokenizer.ggml.merges has a merge twice"),
        ("tokenizer.ggml.merges", ["a c"], "has 'a c', which does not join two tokens to a th"),
        ("tokenizer.ggml.merges", ["ab"], "has 'ab', which does not join two tokens"),
        ("tokenizer.ggml.token_type", [1], "token_type has not one value for each of"),
        ("tokenizer.ggml.token_type", [7] * len(TOKENS), r"a value that is none \(1 to 6\)"),
        ("tokenizer.ggml.token_type", [1.0] * len(TOKENS), r"a value that is none \(1 to 6\)"),
        ("tokenizer.ggml.eos_token_id", len(TOKENS), "eos_token_id is"),
        ("tokenizer.ggml.seperator_token_id", -1, "seperator_token_id is -1"),
    ],
)
def test_a_model_that_contradicts_itself(key: str, value: Any, says: str) -> None:
    with pytest.raises(GgufFault, match=says):
        check_model(header(PAIRS | {key: value}, BASE))


def test_heads_divide_the_width_where_nothing_sets_their_size() -> None:
    odd = PAIRS | {"llama.attention.head_count": 3}
    with pytest.raises(GgufFault, match="embedding_length is 8, which 3 heads do not divide"):
        check_model(header(odd, BASE))
    check_model(header(odd | {"llama.attention.key_length": 4}, BASE))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "block_count is 1, the tensors have 0 blocks"),
        ({"blk.0.x": (8,), "blk.1.x": (8,)}, "block_count is 1, the tensors have 2 blocks"),
        ({"blk.0.x": (8,)}, "token_embd.weight is missing"),
        ({"blk.0.x": (8,), "token_embd.weight": (8, 9)}, r"token_embd.weight is \[8, 9\], "),
    ],
)
def test_tensors_that_contradict_the_numbers(
    tensors: dict[str, tuple[int, ...]], says: str
) -> None:
    with pytest.raises(GgufFault, match=says):
        check_model(header(PAIRS, tensors))


def test_an_adapter_fits_its_base() -> None:
    check_lora(header(ADAPTER, HALVES), header(PAIRS, BASE))
    check_lora(header(ADAPTER | {"adapter.lora.alpha": 8}, HALVES), header(PAIRS, BASE))


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ({"general.type": "model"}, "general.type is 'model', 'adapter' is needed"),
        ({"adapter.type": None}, "adapter.type is missing, 'lora' is needed"),
        ({"general.architecture": "deepseek2"}, "is 'deepseek2', 'llama' is needed"),
        ({"adapter.lora.alpha": True}, "adapter.lora.alpha is True; a number above 0"),
        ({"adapter.lora.alpha": 0.0}, "adapter.lora.alpha is 0.0; a number above 0"),
        ({"adapter.lora.alpha": 1e6}, "a number above 0 is needed"),
        ({"adapter.alora.invocation_tokens": [1]}, "which is not known here"),
    ],
)
def test_an_adapter_of_another_kind(pairs: dict[str, Any], says: str) -> None:
    with pytest.raises(GgufFault, match=says):
        check_lora(header(ADAPTER | pairs, HALVES), header(PAIRS, BASE))


NO_HALF = "is no half of an adapter's matrix for this model"
NO_FIT = r"does not fit 'blk.0.attn_q.weight', which is \[8, 6\]"
A, B = HALVES


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({A: (8, 2)}, NO_HALF),
        ({A: (8, 2), B.replace("_b", "_c"): (2, 6)}, NO_HALF),
        (HALVES | {B.replace("_b", "_c"): (2, 6)}, NO_HALF),
        ({"blk.9.x.lora_a": (8, 2), "blk.9.x.lora_b": (2, 6)}, NO_HALF),
        ({A: (7, 2), B: (2, 6)}, NO_FIT),
        ({A: (8, 2), B: (3, 6)}, NO_FIT),
        ({A: (8, 2), B: (2, 5)}, NO_FIT),
        ({A: (8,), B: (2, 6)}, NO_FIT),
        ({A: (8, 5000), B: (5000, 6)}, NO_FIT),
        ({"norm.lora_a": (8, 1), "norm.lora_b": (1, 8)}, r"does not fit 'norm', which is \[8\]"),
    ],
)
def test_halves_that_fit_no_matrix(tensors: dict[str, tuple[int, ...]], says: str) -> None:
    with pytest.raises(GgufFault, match=says):
        check_lora(header(ADAPTER, tensors), header(PAIRS, BASE))
