"""Hostile GGUF headers: what a model file may not claim. Each is refused in one line, before llama.cpp sees it."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.core.errors import ArtifactError
from tumen.formats.gguf_header import check

Make = Callable[..., Path]
TENSOR = b"token_embd.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, make_gguf: Make) -> bytes:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "good.gguf").read_bytes()


def test_a_good_file_passes(tmp_path: Path, make_gguf: Make) -> None:
    header = check(make_gguf(tmp_path / "m.gguf", layers=2))
    assert header.architecture == "llama"
    assert header.pairs["llama.block_count"] == 2
    assert header.tensors["token_embd.weight"].dims == (32, header.vocab)
    assert header.data_start % 32 == 0


def put(data: bytes, at: int, form: str, value: int) -> bytes:
    packed = struct.pack("<" + form, value)
    return data[:at] + packed + data[at + len(packed) :]


def field(data: bytes, name: bytes, skip: int, form: str, value: int) -> bytes:
    """Overwrite a field that stands `skip` bytes after a key or tensor name."""
    return put(data, data.index(name) + len(name) + skip, form, value)


# Tensor info after its name: dims u32 @0, dim0 u64 @4, dim1 u64 @12, type u32 @20, offset u64 @24.
# Pair after its key: type u32 @0, then the value: a string's length u64 @4; an array's item type u32 @4, count u64 @8.
BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "too short"),
    "magic only": (lambda d: d[:4], "too short"),
    "another magic": (lambda d: b"GGML" + d[4:], "does not begin with GGUF"),
    "a pickle": (lambda d: b"\x80\x04\x95" + d, "does not begin with GGUF"),
    "cut in the header": (lambda d: d[:23], "too short"),
    "cut in the pairs": (lambda d: d[:200], "left"),
    "cut in the tokens": (lambda d: d[: d.index(b"HassGetState")], "left"),
    "half": (lambda d: d[: len(d) // 2], "the file at"),
    "last byte missing": (lambda d: d[:-1], "the file at"),
    "version 0": (lambda d: put(d, 4, "I", 0), "version 0"),
    "version big-endian": (lambda d: put(d, 4, "I", 3 << 24), "version"),
    "tensors 2^62": (lambda d: put(d, 8, "Q", 1 << 62), "tensors"),
    "tensors -1": (lambda d: put(d, 8, "q", -1), "tensors"),
    "tensors 0": (lambda d: put(d, 8, "Q", 0), "tensors"),
    "tensors one more": (lambda d: put(d, 8, "Q", 13), "left|claims|UTF-8|dimensions"),
    "pairs 2^62": (lambda d: put(d, 16, "Q", 1 << 62), "pairs"),
    "pairs 4096": (lambda d: put(d, 16, "Q", 4096), "type|left|claims"),
    "key length 2^63-1": (lambda d: put(d, 24, "Q", (1 << 63) - 1), "claims"),
    "key length past the end": (lambda d: put(d, 24, "Q", 250), "UTF-8|type|printed|zero byte"),
    "string 2^62": (lambda d: field(d, b"tokenizer.ggml.model", 4, "Q", 1 << 62), "claims"),
    "value type 77": (lambda d: field(d, b"llama.block_count", 0, "I", 77), "value type 77"),
    "array of arrays": (lambda d: field(d, b"tokenizer.ggml.scores", 4, "I", 9), "array of type 9"),
    "array 2^60": (lambda d: field(d, b"tokenizer.ggml.scores", 8, "Q", 1 << 60), "items"),
    "array past the end": (lambda d: field(d, b"tokenizer.ggml.tokens", 8, "Q", 1 << 20), "left"),
    "dim 2^60": (lambda d: field(d, TENSOR, 4, "Q", 1 << 60), "claims"),
    "dim -576": (lambda d: field(d, TENSOR, 4, "q", -576), "claims"),
    "dim 0": (lambda d: field(d, TENSOR, 4, "Q", 0), "shape"),
    "product overflows to little": (
        lambda d: field(field(d, TENSOR, 4, "Q", 1 << 33), TENSOR, 12, "Q", 1 << 31),
        "claims",
    ),
    "9 dims": (lambda d: field(d, TENSOR, 0, "I", 9), "9 dimensions"),
    "0 dims": (lambda d: field(d, TENSOR, 0, "I", 0), "0 dimensions"),
    "type 250": (lambda d: field(d, TENSOR, 20, "I", 250), "type 250"),
    "type of blocks that do not fit": (lambda d: field(d, TENSOR, 20, "I", 14), "shape"),
    "offset past the end": (lambda d: field(d, TENSOR, 24, "Q", 1 << 40), "belong to none"),
    "offset -32": (lambda d: field(d, TENSOR, 24, "q", -32), "belong to none"),
    "offset not aligned": (lambda d: field(d, TENSOR, 24, "Q", 1), "aligned"),
    "offset of another tensor": (lambda d: field(d, b"output_norm.weight", 16, "Q", 0), "overlaps"),
    "the only offset past the end": (
        lambda d: field(d, b"blk.0.ffn_down.weight", 24, "Q", 1 << 40),
        "the file at",
    ),
    "a hole": (lambda d: field(d, TENSOR, 24, "Q", 64), "belong to none|overlaps"),
    "bytes after the last tensor": (
        lambda d: d + bytes(32),
        "32 bytes after its last tensor belong to none",
    ),
    "tokens that C would cut to one": (lambda d: d.replace(b'"intent"', b"\0" * 8), "zero byte"),
    "a token of no type": (
        lambda d: field(d, b"tokenizer.ggml.token_type", 16, "i", 9),
        "token_type has a value",
    ),
    "a key with a new line": (
        lambda d: d.replace(b"llama.block_count", b"llama.block\ncount"),
        "cannot be printed",
    ),
    "tensor twice": (
        lambda d: d.replace(b"blk.0.attn_k.weight", b"blk.0.attn_v.weight", 1),
        "twice",
    ),
    "key twice": (
        lambda d: d.replace(b"ggml.bos_token_id", b"ggml.eos_token_id", 1),
        "stands twice",
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_lie_are_refused(tmp_path: Path, good: bytes, name: str) -> None:
    spoil, says = BYTES[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(spoil(good))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=says) as caught:
        check(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert peak < 4 << 20  # nothing was allocated on the file's word


PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "block_count 2^31-1": ({"llama.block_count": (1 << 31) - 1}, "block_count"),
    "block_count one more than there are": ({"llama.block_count": 2}, "1 blocks"),
    "block_count text": ({"llama.block_count": "one"}, "block_count is 'one'"),
    "block_count true": ({"llama.block_count": True}, "block_count is True"),
    "no block_count": ({"llama.block_count": None}, "missing"),
    "context_length 2^32-1": ({"llama.context_length": (1 << 32) - 1}, "context_length"),
    "head_count 0": ({"llama.attention.head_count": 0}, "head_count"),
    "head_count 5": ({"llama.attention.head_count": 5}, "divide"),
    "head_count_kv 0": ({"llama.attention.head_count_kv": 0}, "head_count_kv"),
    "head_count_kv above head_count": ({"llama.attention.head_count_kv": 4}, "head_count_kv"),
    "embedding 1": ({"llama.embedding_length": 1}, "embedding_length"),
    "embedding of another model": ({"llama.embedding_length": 64}, "token_embd"),
    "epsilon not a number": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "finite"),
    "rope 0": ({"llama.rope.dimension_count": 0}, "rope"),
    "alignment 0": ({"general.alignment": 0}, "alignment"),
    "alignment 24": ({"general.alignment": 24}, "alignment"),
    "experts used above experts": (
        {"llama.expert_count": 4, "llama.expert_used_count": 5},
        "expert_used_count",
    ),
    "eos id 10^9": ({"tokenizer.ggml.eos_token_id": 10**9}, "eos_token_id"),
    "no eos id": ({"tokenizer.ggml.eos_token_id": None}, "missing"),
    "padding id past the end": ({"tokenizer.ggml.padding_token_id": 10**6}, "padding_token_id"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "no list"),
    "token twice": ({"tokenizer.ggml.tokens": ["a", "a"]}, "twice"),
    "no byte tokens": ({"tokenizer.ggml.tokens": ["a", "b"]}, "256 byte tokens"),
    "scores of another length": ({"tokenizer.ggml.scores": [0.0]}, "scores"),
    "scores not finite": ({"tokenizer.ggml.scores": [float("inf")]}, "finite"),
    "types of another length": ({"tokenizer.ggml.token_type": [1]}, "token_type"),
    "another tokeniser": ({"tokenizer.ggml.model": "wordpiece"}, "'wordpiece'"),
    "bytes of another tokeniser": ({"tokenizer.ggml.model": "gpt2"}, "205 byte tokens"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_that_cannot_be_meant_are_refused(tmp_path: Path, make_gguf: Make, name: str) -> None:
    changes, says = PAIRS[name]
    path = make_gguf(tmp_path / "bad.gguf", changes=changes)
    with pytest.raises(ArtifactError, match=says) as caught:
        check(path)
    assert "\n" not in str(caught.value)


def test_a_header_that_never_ends_costs_a_moment(tmp_path: Path, good: bytes) -> None:
    """Sparse files take no room on disk; lists of a million items each would take all of the memory."""
    import time

    key, start = b"llama.block_count", time.monotonic()
    for form, item_type, count, says in (
        ("B", 0, 1 << 20, "items together"),
        ("Q", 10, 1 << 20, "the most of a header|items"),
    ):
        path = tmp_path / form
        pair = struct.pack("<I", 9) + struct.pack("<IQ", item_type, count)
        with open(path, "wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 2000))
            for n in range(40):
                name = b"%s%04d" % (key, n)
                file.write(struct.pack("<Q", len(name)) + name + pair)
                file.seek(struct.calcsize(form) * count, 1)
            file.truncate(1 << 40)
        with pytest.raises(ArtifactError, match=says):
            check(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere"])
def test_what_cannot_be_opened_does_not_hang(tmp_path: Path, kind: str) -> None:
    import os

    path = tmp_path / "model.gguf"
    {"pipe": os.mkfifo, "folder": os.mkdir, "link to nowhere": lambda at: at.symlink_to("nowhere")}[
        kind
    ](path)
    with pytest.raises(ArtifactError, match="is a pipe|is a folder|link to nowhere"):
        check(path)


def test_an_unknown_architecture_is_refused(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(good.replace(b"llama", b"mamba", 1))
    with pytest.raises(ArtifactError, match="architecture 'mamba'"):
        check(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        check(tmp_path / "model.gguf")


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_to_the_header_is_refused_or_harmless(
    tmp_path_factory: Any, good: bytes, data: st.DataObject
) -> None:
    """Never another exception, whatever bytes stand in the header."""
    at = data.draw(st.integers(0, good.index(b"ffn_down.weight") + 40))
    noise = data.draw(st.binary(min_size=1, max_size=9))
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    path.write_bytes(good[:at] + noise + good[at + len(noise) :])
    try:
        check(path)
    except ArtifactError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- either outcome is right, a crash is not
